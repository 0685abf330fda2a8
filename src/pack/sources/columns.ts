/** Columns that are built from values one after another, and rows cut out of columns. */
import { isUtf8 } from "node:buffer";
import { dtypeBits } from "../../format/dtype.ts";
import { quoted } from "../../format/json.ts";
import type { PackColumn, PackField } from "../rows.ts";
import { badInput } from "./source.ts";

/** Bytes of the batches that sources give, about. */
export const BATCH_BYTES = 4 * 2 ** 20;
/** Bytes that 32-bit offsets can count, of a column of one batch. */
export const MAX_COLUMN_BYTES = 2 ** 31 - 1;

/** Bytes of one row of a `fixed` field, or of one element of the others. */
export function unitBytes({ dtype, shape }: PackField): number {
  return (dtypeBits(dtype) / 8) * shape.reduce((a, b) => a * b, 1);
}

/** Rows `[start, end)` of a column; values are shared, offsets and presence are not. */
export function sliceColumn(field: PackField, column: PackColumn, start: number, end: number): PackColumn {
  const unit = unitBytes(field);
  const { offsets, validity } = column;
  const first = offsets === undefined ? start : offsets[start]!;
  const last = offsets === undefined ? end : offsets[end]!;
  const present = validity?.slice(start, end);
  let nullCount = 0;
  if (present !== undefined) for (const one of present) nullCount += 1 - one;
  return {
    values: column.values.subarray(first * unit, last * unit),
    offsets: offsets?.slice(start, end + 1).map((offset) => offset - first),
    validity: nullCount === 0 ? undefined : present,
    nullCount,
  };
}

/** Which of a column's rows have a value: all that are not noted as missing. */
export class Presence {
  /** One byte a row, 0 where it is missing; undefined where none is. */
  validity: Uint8Array | undefined;
  nullCount = 0;
  readonly #numRows: number;

  constructor(numRows: number) {
    this.#numRows = numRows;
  }

  /** Once for each row that is missing. */
  miss(row: number): void {
    this.validity ??= new Uint8Array(this.#numRows).fill(1);
    this.validity[row] = 0;
    this.nullCount++;
  }
}

/** How many rows make a batch of about {@link BATCH_BYTES}, at least 1. */
export function rowsPerBatch(bytes: number, numRows: number): number {
  return Math.max(1, Math.min(numRows, Math.floor((BATCH_BYTES * numRows) / Math.max(1, bytes))));
}

/** A column of bytes, one value a row; `null` is a missing row. Throws `BAD_INPUT` past 2 GiB. */
export function bytesColumn(rows: readonly (Uint8Array | null)[], place: string): PackColumn {
  const offsets = new Int32Array(rows.length + 1);
  const presence = new Presence(rows.length);
  let length = 0;
  for (let row = 0; row < rows.length; row++) {
    const value = rows[row]!;
    if (value === null) presence.miss(row);
    else length += value.length;
    if (length > MAX_COLUMN_BYTES) {
      throw badInput(place, `rows up to ${row} hold over 2 GiB; write it in smaller groups of rows`);
    }
    offsets[row + 1] = length;
  }
  const values = new Uint8Array(length);
  for (let row = 0; row < rows.length; row++) {
    const value = rows[row]!;
    if (value !== null) values.set(value, offsets[row]);
  }
  const { validity, nullCount } = presence;
  return { values, offsets, validity, nullCount };
}

/** Throws `BAD_INPUT` naming the first row whose bytes are no UTF-8; `firstRow` is what row 0 is called. */
export function checkUtf8({ values, offsets }: PackColumn, name: string, place: string, firstRow = 0): void {
  const cuts = offsets!;
  const end = cuts[cuts.length - 1]!;
  let whole = isUtf8(values.subarray(0, end));
  // Valid together and never cut inside a character: valid one by one.
  for (let row = 1; whole && row < cuts.length - 1; row++) {
    const cut = cuts[row]!;
    if (cut < end && (values[cut]! & 0xc0) === 0x80) whole = false;
  }
  if (whole) return;
  for (let row = 0; row < cuts.length - 1; row++) {
    if (isUtf8(values.subarray(cuts[row]!, cuts[row + 1]!))) continue;
    throw badInput(place, `column ${quoted(name)}, row ${firstRow + row}: the text is not valid UTF-8`);
  }
}
