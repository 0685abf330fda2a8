/**
 * The least and the largest value of numeric columns.
 *
 * Values that are NaN count for neither, and neither do null rows; where nothing is left there is no `min` and no
 * `max`. Infinities, and 64-bit integers past 2^53, are text, since JSON has no number for them.
 */
import type { ColumnStats } from "../format/manifest.ts";
import type { DType } from "../types.ts";
import { elementBytesOf, rowBytesOf } from "./columns.ts";
import type { PackBatch, PackColumn, PackField } from "./rows.ts";

/** Types whose values are compared. */
const COMPARED: readonly DType[] = [
  "I8",
  "U8",
  "I16",
  "U16",
  "I32",
  "U32",
  "I64",
  "U64",
  "F16",
  "BF16",
  "F32",
  "F64",
];

/** Whether a column has a least and a largest value. */
export function isNumeric({ kind, dtype }: Pick<PackField, "kind" | "dtype">): boolean {
  return (kind === "fixed" || kind === "list") && COMPARED.includes(dtype);
}

/** What is known of a shard's columns so far. */
export class ShardStats {
  readonly #columns: readonly { readonly field: PackField; readonly index: number; readonly range: Range }[];
  readonly #nulls: number[];

  constructor(fields: readonly PackField[]) {
    this.#columns = fields.flatMap((field, index) =>
      isNumeric(field) ? [{ field, index, range: new Range(field.dtype) }] : [],
    );
    this.#nulls = fields.map(() => 0);
  }

  add(batch: PackBatch): void {
    batch.columns.forEach(({ nullCount }, i) => {
      this.#nulls[i]! += nullCount;
    });
    for (const { field, index, range } of this.#columns)
      addColumn(range, field, batch.columns[index]!, batch.numRows);
  }

  /** By column name, numeric ones alone. */
  result(): Record<string, ColumnStats> {
    return Object.fromEntries(
      this.#columns.map(({ field, index, range }) => [
        field.name,
        { ...range.result(), nulls: this.#nulls[index]! },
      ]),
    );
  }
}

function addColumn(range: Range, field: PackField, column: PackColumn, numRows: number): void {
  const elementBytes = elementBytesOf(field.dtype);
  if (column.offsets !== undefined) {
    range.add(column.values, 0, column.offsets[numRows]!);
    return;
  }
  const perRow = rowBytesOf(field) / elementBytes;
  if (column.validity === undefined) {
    range.add(column.values, 0, numRows * perRow);
    return;
  }
  // Null rows are zeros, which nobody wrote.
  for (let row = 0; row < numRows; ) {
    if (column.validity[row] === 0) {
      row++;
      continue;
    }
    const start = row;
    while (row < numRows && column.validity[row] !== 0) row++;
    range.add(column.values, start * perRow, row * perRow);
  }
}

/** The least and the largest of elements of one type. */
export class Range {
  readonly #dtype: DType;
  #min = Number.POSITIVE_INFINITY;
  #max = Number.NEGATIVE_INFINITY;
  /** Of 64-bit integers: high words, then low ones. */
  #minWords: [number, number] | undefined;
  #maxWords: [number, number] | undefined;

  constructor(dtype: DType) {
    this.#dtype = dtype;
  }

  /** Elements `[from, to)` of `values`. */
  add(values: Uint8Array, from: number, to: number): void {
    if (to <= from) return;
    const bytes = elementBytesOf(this.#dtype);
    const start = values.byteOffset + from * bytes;
    // Views want their alignment, which slices of a buffer need not have.
    const own = start % Math.min(bytes, 8) === 0 ? undefined : values.slice(from * bytes, to * bytes);
    const buffer = (own?.buffer ?? values.buffer) as ArrayBuffer;
    const at = own === undefined ? start : own.byteOffset;
    const count = to - from;
    if (this.#dtype === "I64" || this.#dtype === "U64") this.#addWords(buffer, at, count);
    else if (this.#dtype === "F16" || this.#dtype === "BF16")
      this.#addHalves(new Uint16Array(buffer, at, count));
    else this.#addNumbers(viewOf(this.#dtype, buffer, at, count));
  }

  result(): { min?: number | string; max?: number | string } {
    if (this.#minWords !== undefined) {
      const signed = this.#dtype === "I64";
      return { min: wordsValue(this.#minWords, signed), max: wordsValue(this.#maxWords!, signed) };
    }
    if (this.#min > this.#max) return {};
    return { min: numberValue(this.#min), max: numberValue(this.#max) };
  }

  #addNumbers(values: Numbers): void {
    let min = this.#min;
    let max = this.#max;
    // Comparisons with NaN are false.
    for (let i = 0; i < values.length; i++) {
      const value = values[i]!;
      if (value < min) min = value;
      if (value > max) max = value;
    }
    this.#min = min;
    this.#max = max;
  }

  #addHalves(bits: Uint16Array): void {
    const infinity = this.#dtype === "F16" ? 0x7c00 : 0x7f80;
    let min = Number.POSITIVE_INFINITY;
    let max = Number.NEGATIVE_INFINITY;
    // Magnitudes with their sign are in the order of the values.
    for (let i = 0; i < bits.length; i++) {
      const magnitude = bits[i]! & 0x7fff;
      if (magnitude > infinity) continue;
      const key = bits[i]! & 0x8000 ? -magnitude : magnitude;
      if (key < min) min = key;
      if (key > max) max = key;
    }
    if (min > max) return;
    this.#addNumbers([halfValue(this.#dtype, min), halfValue(this.#dtype, max)]);
  }

  #addWords(buffer: ArrayBuffer, at: number, count: number): void {
    const low = new Uint32Array(buffer, at, 2 * count);
    const high = this.#dtype === "I64" ? new Int32Array(buffer, at, 2 * count) : low;
    let [minHigh, minLow] = this.#minWords ?? [high[1]!, low[0]!];
    let [maxHigh, maxLow] = this.#maxWords ?? [high[1]!, low[0]!];
    for (let i = 0; i < 2 * count; i += 2) {
      const h = high[i + 1]!;
      const l = low[i]!;
      if (h < minHigh || (h === minHigh && l < minLow)) {
        minHigh = h;
        minLow = l;
      }
      if (h > maxHigh || (h === maxHigh && l > maxLow)) {
        maxHigh = h;
        maxLow = l;
      }
    }
    this.#minWords = [minHigh, minLow];
    this.#maxWords = [maxHigh, maxLow];
  }
}

type Numbers = ArrayLike<number>;

function viewOf(dtype: DType, buffer: ArrayBuffer, at: number, count: number): Numbers {
  switch (dtype) {
    case "I8":
      return new Int8Array(buffer, at, count);
    case "I16":
      return new Int16Array(buffer, at, count);
    case "U16":
      return new Uint16Array(buffer, at, count);
    case "I32":
      return new Int32Array(buffer, at, count);
    case "U32":
      return new Uint32Array(buffer, at, count);
    case "F32":
      return new Float32Array(buffer, at, count);
    case "F64":
      return new Float64Array(buffer, at, count);
    default:
      return new Uint8Array(buffer, at, count);
  }
}

function halfValue(dtype: DType, key: number): number {
  const bits = key < 0 || Object.is(key, -0) ? 0x8000 | -key : key;
  if (dtype === "F16") return new Float16Array(new Uint16Array([bits]).buffer)[0]!;
  return new Float32Array(new Uint32Array([bits << 16]).buffer)[0]!;
}

function wordsValue([high, low]: [number, number], signed: boolean): number | string {
  const value = signed ? (BigInt(high) << 32n) | BigInt(low) : (BigInt(high >>> 0) << 32n) | BigInt(low);
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : String(value);
}

/** Zero has no sign in JSON. */
function numberValue(value: number): number | string {
  if (!Number.isFinite(value)) return String(value);
  return value === 0 ? 0 : value;
}
