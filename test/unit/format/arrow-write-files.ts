/** Columns at will, files of them, and what must be found in those. */
import fc from "fast-check";
import {
  type BatchPlace,
  type BodyCodec,
  encodeBatch,
  encodeFooter,
  encodeSchema,
  type WriteColumn,
  type WriteField,
} from "../../../src/format/arrow-write.ts";
import { dtypeBits } from "../../../src/format/dtype.ts";

export interface WriteBatch {
  readonly numRows: number;
  readonly columns: readonly WriteColumn[];
}

/** The file, and where its batches are. */
export function fileOf(
  fields: readonly WriteField[],
  batches: readonly WriteBatch[],
  compression?: (batch: number) => BodyCodec | undefined,
): { readonly bytes: Uint8Array<ArrayBuffer>; readonly places: readonly BatchPlace[] } {
  const pieces = [encodeSchema(fields)];
  let offset = pieces[0]!.length;
  const places = batches.map(({ numRows, columns }, i) => {
    const batch = encodeBatch(fields, numRows, columns, compression?.(i));
    pieces.push(...batch.pieces);
    const place = { offset, metadataLength: batch.metadataLength, bodyLength: batch.bodyLength };
    offset += batch.metadataLength + batch.bodyLength;
    return place;
  });
  pieces.push(encodeFooter(fields, places));
  return { bytes: new Uint8Array(Buffer.concat(pieces)), places };
}

export const elementBytes = ({ dtype }: WriteField) => (dtype === "BOOL" ? 1 : dtypeBits(dtype) / 8);
const perRow = ({ shape }: WriteField) => (shape ?? []).reduce((a, b) => a * b, 1);

/** Every row of a column as the hex text of its bytes, null where missing. */
export function hexRows(field: WriteField, { numRows }: WriteBatch, column: WriteColumn): (string | null)[] {
  const size = elementBytes(field);
  return Array.from({ length: numRows }, (_, row) => {
    if (column.validity?.[row] === 0) return null;
    const [first, last] =
      field.kind === "fixed"
        ? [row * perRow(field), (row + 1) * perRow(field)]
        : [column.offsets![row]!, column.offsets![row + 1]!];
    return Buffer.from(column.values.subarray(first * size, last * size)).toString("hex");
  });
}

const DTYPES = ["I8", "U8", "I16", "U16", "I32", "U32", "I64", "U64", "F16", "F32", "F64"] as const;

const anyField: fc.Arbitrary<Omit<WriteField, "name">> = fc.oneof(
  fc.record({
    kind: fc.constant("fixed" as const),
    dtype: fc.constantFrom(...DTYPES, "BOOL" as const),
    shape: fc.array(fc.integer({ min: 1, max: 3 }), { maxLength: 3 }),
    nullable: fc.boolean(),
  }),
  fc.record({
    kind: fc.constant("list" as const),
    dtype: fc.constantFrom(...DTYPES),
    nullable: fc.boolean(),
  }),
  fc.record({
    kind: fc.constantFrom("utf8" as const, "binary" as const),
    dtype: fc.constant("U8" as const),
    nullable: fc.boolean(),
  }),
);

/** Rows of a column: half of the time bytes that compress, else ones that do not. */
function anyColumn(field: WriteField, numRows: number): fc.Arbitrary<WriteColumn> {
  const counts = fc.array(fc.integer({ min: 0, max: 40 }), { minLength: numRows, maxLength: numRows });
  const bits = fc.array(fc.nat(3), { minLength: numRows, maxLength: numRows });
  return fc.tuple(counts, bits, fc.boolean(), fc.nat()).map(([lengths, present, noisy, seed]) => {
    const isVariable = field.kind !== "fixed";
    const validity = field.nullable ? Uint8Array.from(present, (bit) => (bit === 0 ? 0 : 1)) : undefined;
    const nullCount = validity?.filter((bit) => bit === 0).length ?? 0;
    const offsets = new Int32Array(numRows + 1);
    lengths.forEach((length, row) => {
      offsets[row + 1] = offsets[row]! + (validity?.[row] === 0 ? 0 : length);
    });
    const count = isVariable ? offsets[numRows]! : numRows * perRow(field);
    const values = new Uint8Array(count * elementBytes(field));
    const isBool = field.dtype === "BOOL";
    values.forEach((_, i) => {
      const noise = (Math.imul(i + seed, 2654435761) >>> 13) & (isBool ? 1 : 0xff);
      // Text stays below 128.
      values[i] = noisy ? (field.kind === "utf8" ? noise & 0x7f : noise) : i & 1;
    });
    // Of null rows: zeros.
    if (!isVariable)
      validity?.forEach((bit, row) => {
        const size = perRow(field) * elementBytes(field);
        if (bit === 0) values.fill(0, row * size, (row + 1) * size);
      });
    return {
      values,
      nullCount,
      ...(isVariable ? { offsets } : {}),
      ...(nullCount > 0 ? { validity } : {}),
    };
  });
}

export const anyRows = fc
  .tuple(
    fc.array(anyField, { minLength: 1, maxLength: 4 }),
    fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 1, maxLength: 3 }),
  )
  .chain(([kinds, sizes]) => {
    const fields = kinds.map((kind, i): WriteField => ({ ...kind, name: `c${i}` }));
    const batches = fc.tuple(
      ...sizes.map((numRows) =>
        fc
          .tuple(...fields.map((field) => anyColumn(field, numRows)))
          .map((columns) => ({ numRows, columns })),
      ),
    );
    return batches.map((all) => ({ fields, batches: all as readonly WriteBatch[] }));
  });
