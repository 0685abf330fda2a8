/**
 * The rows view of a safetensors file: its tensors as columns of one table.
 *
 * Row `i` of a tensor is its `i`-th entry along the first dimension. A tensor `x` beside a one-dimensional
 * integer tensor `x.offsets` is ragged: its row `i` is the elements from `offsets[i]` to `offsets[i + 1]`
 * along the first dimension. The offsets' own values are not read here.
 */
import type { ColumnLayout, ColumnSchema, DType, RowsLayout, TensorLayout } from "../types.ts";
import { byteLengthOf, dtypeBits, numElements, shapeText } from "./dtype.ts";
import { quoted } from "./json.ts";

/** The end of the name of the tensor that cuts another into rows. */
export const OFFSETS_SUFFIX = ".offsets";

const OFFSET_DTYPES: readonly DType[] = ["I32", "I64", "U32", "U64"];

/** The rows view, or a sentence that says why there is none. */
export type RowsAnswer = { readonly rows: RowsLayout } | { readonly notRows: string };

interface Column {
  readonly schema: ColumnSchema;
  readonly layout: ColumnLayout;
  readonly numRows: number;
  /** Whether each row takes bytes of the file, so that their number is bounded by its length. */
  readonly holdsBytes: boolean;
}

/**
 * Sees `tensors`, whose ranges and shapes agree, as rows.
 *
 * Columns come in code-unit order of their names, so that files of one dataset agree whoever wrote them; all
 * rows are one group. Refused are tensors without a first dimension, tensors that disagree on the number of
 * rows, rows that are not whole bytes, and rows that hold no byte at all.
 */
export function rowsOf(tensors: readonly TensorLayout[]): RowsAnswer {
  if (tensors.length === 0) return { notRows: "the file holds no tensor" };
  const byName = new Map(tensors.map((tensor) => [tensor.name, tensor]));
  const offsets = offsetTensors(byName);
  const names = [...byName.keys()].filter((name) => !offsets.has(name)).sort();
  const columns: Column[] = [];
  for (const name of names) {
    const companion = byName.get(name + OFFSETS_SUFFIX);
    const isRagged = companion !== undefined && offsets.has(companion.name);
    const column = columnOf(byName.get(name)!, isRagged ? companion : undefined);
    if (typeof column === "string") return { notRows: column };
    const first = columns[0] ?? column;
    if (column.numRows !== first.numRows) {
      return { notRows: `tensor ${rowsText(first)} but tensor ${rowsText(column)}` };
    }
    columns.push(column);
  }
  return tableOf(columns);
}

function tableOf(columns: readonly Column[]): RowsAnswer {
  const numRows = columns[0]!.numRows;
  if (numRows > 0 && !columns.some((column) => column.holdsBytes)) {
    return { notRows: `its ${numRows} rows hold no bytes` };
  }
  const layouts = columns.map((column) => column.layout);
  const schema = { columns: columns.map((column) => column.schema) };
  const groups = numRows === 0 ? [] : [{ rowStart: 0, numRows, columns: layouts }];
  return { rows: { schema, numRows, groups } };
}

/** Names of the tensors that cut another one. One that is cut itself (`x.offsets.offsets`) cuts nothing. */
function offsetTensors(byName: ReadonlyMap<string, TensorLayout>): ReadonlySet<string> {
  const offsets = new Set<string>();
  const candidates = [...byName.values()].filter(
    ({ name, dtype, shape }) =>
      name.endsWith(OFFSETS_SUFFIX) && OFFSET_DTYPES.includes(dtype) && shape.length === 1,
  );
  // Shorter names first: whether `x.offsets` is an offsets tensor is known before `x.offsets.offsets` asks.
  candidates.sort((a, b) => a.name.length - b.name.length);
  for (const { name } of candidates) {
    const base = name.slice(0, -OFFSETS_SUFFIX.length);
    if (byName.has(base) && !offsets.has(base)) offsets.add(name);
  }
  return offsets;
}

function columnOf(tensor: TensorLayout, companion: TensorLayout | undefined): Column | string {
  const { name, dtype, shape } = tensor;
  const leading = shape[0];
  if (leading === undefined) return `tensor ${quoted(name)} is a scalar and has no rows`;
  const inner = shape.slice(1);
  // An empty tensor may have inner dimensions whose product is beyond any number.
  const bits = leading === 0 ? 0 : dtypeBits(dtype) * numElements(inner);
  if (bits % 8 !== 0) {
    return `rows of tensor ${quoted(name)} are ${bits} bits (${dtype} ${shapeText(inner)}), not whole bytes`;
  }
  const ragged = companion !== undefined;
  const schema: ColumnSchema = { name, dtype, shape: inner, ragged, logical: "number", nullable: false };
  const layout: ColumnLayout = { dtype, values: tensor.range, bitPacked: false };
  if (!ragged) return { schema, layout, numRows: leading, holdsBytes: bits > 0 };
  const numOffsets = companion.shape[0]!;
  if (numOffsets === 0) {
    return `tensor ${quoted(companion.name)} is empty; it needs one offset more than there are rows`;
  }
  const width = byteLengthOf(companion.dtype, []) === 4 ? 4 : 8;
  const offsets = { range: companion.range, width } as const;
  return { schema, layout: { ...layout, offsets }, numRows: numOffsets - 1, holdsBytes: true };
}

function rowsText(column: Column): string {
  return `${quoted(column.schema.name)} has ${column.numRows} rows`;
}
