/** The first rows of a dataset, decoded: as cells of a table, or as JSON. */
import { type Column, type Dataset, type Device, HeadraceError, Loader } from "../index.ts";

/** Characters of a table's cell. */
const CELL = 48;
/** Elements of one value in JSON, so that a row of any size stays small. */
const MAX_ELEMENTS = 1024;

/** A value: null, text, a number, or a flat list. Integers past 2^53 come as text. */
type Value = null | string | number | boolean | readonly (string | number | boolean)[];

/** A value cut to its first elements, and how many it has in all. */
interface Decoded {
  readonly value: Value;
  readonly length: number;
}

/** The head and the rows of a table of the first `count` samples. */
export async function tableRows(dataset: Dataset, device: Device, count: number) {
  const rows: string[][] = [];
  await eachRow(dataset, device, count, (id, values) => {
    rows.push([String(id), ...[...values.values()].map(cellText)]);
  });
  return { head: ["#", ...dataset.schema.columns.map((column) => column.name)], rows };
}

/** The first `count` samples as objects; `cut` names the columns in which a value was cut short. */
export async function jsonRows(dataset: Dataset, device: Device, count: number) {
  const rows: { sample: number; values: Record<string, Value> }[] = [];
  const cut = new Set<string>();
  await eachRow(dataset, device, count, (sample, values) => {
    for (const [name, { value, length }] of values) {
      if (Array.isArray(value) && length > value.length) cut.add(name);
    }
    rows.push({ sample, values: Object.fromEntries([...values].map(([name, { value }]) => [name, value])) });
  });
  return { rows, cut: [...cut] };
}

async function eachRow(
  dataset: Dataset,
  device: Device,
  count: number,
  take: (sampleId: number, values: Map<string, Decoded>) => void,
): Promise<void> {
  const limit = Math.min(count, dataset.numSamples);
  if (limit === 0 || dataset.view !== "rows") return;
  await using loader = new Loader(dataset, device, { batchSize: 1, limit, prefetch: 0 });
  for await (using batch of loader) {
    const values = [...batch.columns].map(([name, column]) => [name, decode(column)] as const);
    take(batch.sampleIds[0]!, new Map(values));
  }
}

/** The only row of `column`. */
function decode(column: Column): Decoded {
  if (column.validity !== undefined && column.validity.view[0] === 0) return { value: null, length: 1 };
  if (column.logical === "utf8" || column.dictionary?.entry.logical === "utf8") {
    return { value: column.text(0), length: 1 };
  }
  const elements = elementsOf(column);
  if (elements === undefined) return { value: `${column.byteLength} bytes of ${column.dtype}`, length: 1 };
  const value = Array.from(elements.subarray(0, MAX_ELEMENTS) as ArrayLike<number | bigint>, (element) =>
    decodeElement(column, element),
  );
  const scalar = column.offsets === undefined && column.shape.length === 1 && value.length === 1;
  return { value: scalar ? value[0]! : value, length: elements.length };
}

/** The row's elements; undefined where JavaScript cannot show them: some are smaller than a byte. */
function elementsOf(column: Column) {
  try {
    return column.row(0);
  } catch (error) {
    if (error instanceof HeadraceError && error.code === "UNSUPPORTED") return undefined;
    throw error;
  }
}

function decodeElement({ dtype }: Column, element: number | bigint): string | number | boolean {
  if (typeof element === "bigint") {
    const number = Number(element);
    return Number.isSafeInteger(number) ? number : String(element);
  }
  if (dtype === "BOOL") return element !== 0;
  // BF16 is the upper half of an F32.
  const number = dtype === "BF16" ? new Float32Array(new Uint32Array([element << 16]).buffer)[0]! : element;
  return Number.isFinite(number) ? number : String(number);
}

function cellText({ value, length }: Decoded): string {
  if (typeof value === "string") return shorten(JSON.stringify(value));
  if (!Array.isArray(value)) return String(value);
  const shown = value.slice(0, CELL).map(String).join(", ");
  return shorten(`[${shown}${length > CELL ? ", …" : ""}]`, `(${length})`);
}

function shorten(text: string, note = ""): string {
  if (text.length <= CELL) return text;
  return `${text.slice(0, CELL - 1)}…${note === "" ? "" : ` ${note}`}`;
}
