/** What packed sources give, as the plain values that golden files list. */
import { typedView } from "../../src/format/dtype.ts";
import type { PackBatch, PackColumn, PackField, RowSource, TensorSource } from "../../src/pack/rows.ts";

/** Numbers of 64 bits are text, bytes hex, missing rows null; lists and arrays are flat. */
export type Values = Record<string, unknown[]>;

/** All rows of `source`, by column. Checks on the way that batches are well formed. */
export async function valuesOf(source: RowSource): Promise<Values> {
  const found: Values = Object.fromEntries(source.fields.map(({ name }) => [name, []]));
  let numRows = 0;
  let sourceBytes = 0;
  for await (const batch of source.batches()) {
    if (batch.sourceBytes < sourceBytes || batch.sourceBytes > source.byteLength)
      throw new Error("sourceBytes");
    sourceBytes = batch.sourceBytes;
    numRows += batch.numRows;
    addBatch(found, source.fields, batch);
  }
  if (source.numRows !== undefined && source.numRows !== numRows) throw new Error(`${numRows} rows`);
  return found;
}

/** Adds the rows of one batch to `found`. */
export function addBatch(found: Values, fields: readonly PackField[], { columns, numRows }: PackBatch): void {
  if (columns.length !== fields.length) throw new Error(`${columns.length} columns`);
  fields.forEach((field, i) => {
    const column = columns[i]!;
    checkNulls(column, numRows, field);
    for (let row = 0; row < numRows; row++) found[field.name]!.push(valueAt(field, column, row));
  });
}

/** The elements of each tensor. */
export async function elementsOf(source: TensorSource): Promise<Values> {
  const found: Values = {};
  for (const tensor of source.tensors) {
    const pieces: Uint8Array[] = [];
    for await (const piece of tensor.read()) pieces.push(piece.slice());
    const bytes = new Uint8Array(Buffer.concat(pieces));
    if (bytes.length !== tensor.byteLength) throw new Error(`${tensor.name}: ${bytes.length} bytes`);
    found[tensor.name] = plain(typedView(tensor.dtype, bytes.buffer, 0, bytes.length));
  }
  return found;
}

function checkNulls({ validity, nullCount, offsets }: PackColumn, numRows: number, field: PackField): void {
  const nulls = validity?.slice(0, numRows).filter((one) => one === 0).length ?? 0;
  if (nulls !== nullCount || (nulls > 0 && !field.nullable)) throw new Error(`${field.name}: ${nulls} nulls`);
  if (offsets !== undefined && (offsets.length !== numRows + 1 || offsets[0] !== 0))
    throw new Error("offsets");
  if (offsets === undefined && field.kind !== "fixed") throw new Error(`${field.name}: no offsets`);
}

function valueAt(field: PackField, { values, offsets, validity }: PackColumn, row: number): unknown {
  const bytes = new Uint8Array(values);
  const view = typedView(field.dtype, bytes.buffer, 0, bytes.length);
  const width = field.shape.reduce((a, b) => a * b, 1);
  const [start, end] =
    offsets === undefined ? [row * width, (row + 1) * width] : [offsets[row]!, offsets[row + 1]!];
  const part = view.subarray(start, end);
  if (validity?.[row] === 0) {
    // Missing rows are zeros, or hold nothing.
    if (plain(part).some((one) => Number(one) !== 0) || (offsets !== undefined && end > start))
      throw new Error("null");
    return null;
  }
  if (field.kind === "utf8") return new TextDecoder().decode(part as Uint8Array);
  if (field.kind === "binary" || (field.dtype === "U8" && width > 1))
    return Buffer.from(part as Uint8Array).toString("hex");
  return field.kind === "fixed" && field.shape.length === 0 ? plain(part)[0] : plain(part);
}

function plain(view: ArrayLike<number | bigint>): unknown[] {
  return Array.from(view, (one) => (typeof one === "bigint" ? String(one) : one));
}
