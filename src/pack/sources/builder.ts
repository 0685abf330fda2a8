/** Columns that grow value by value while text is parsed. */
import type { DType } from "../../types.ts";
import { elementBytesOf } from "../columns.ts";
import type { PackColumn, PackField } from "../rows.ts";

type Elements =
  | Uint8Array
  | Int8Array
  | Uint16Array
  | Int16Array
  | Uint32Array
  | Int32Array
  | Float16Array
  | Float32Array
  | Float64Array;

const VIEWS: Partial<Record<DType, new (buffer: ArrayBuffer) => Elements>> = {
  I8: Int8Array,
  I16: Int16Array,
  U16: Uint16Array,
  I32: Int32Array,
  U32: Uint32Array,
  // Of 64-bit integers the two words: BigInts would take ten times as long.
  I64: Int32Array,
  U64: Int32Array,
  F16: Float16Array,
  F32: Float32Array,
  F64: Float64Array,
};

/** What an integer type holds, of those whose values are safe integers. */
const BOUNDS: Partial<Record<DType, readonly [number, number]>> = {
  I8: [-128, 127],
  U8: [0, 255],
  I16: [-32_768, 32_767],
  U16: [0, 65_535],
  I32: [-(2 ** 31), 2 ** 31 - 1],
  U32: [0, 2 ** 32 - 1],
};

/** Memory of a column that is done with. */
export interface Spare {
  readonly values: ArrayBuffer;
  readonly offsets: ArrayBuffer | undefined;
}

/** Columns whose memory waits to be used again. */
const MOST_SPARE = 4;
/** Of one column, and of all columns of a parser: where there are many, each begins with less. */
const FIRST_BYTES = 2 ** 16;
const FIRST_BYTES_OF_ALL = 2 ** 22;
const FIRST_ROWS = 2 ** 10;
/** The least that a column begins with. */
const LEAST_ROWS = 16;

/** One column. Its memory is used again for the next rows. */
export class ColumnBuilder {
  readonly field: PackField;
  readonly isFloat: boolean;
  /** Whether elements are two words of a 64-bit integer. */
  readonly isWide: boolean;
  /** Of integers but those of 64 bits. */
  readonly least: number;
  readonly most: number;
  /** Elements that are here; bytes, of text. Of 64-bit integers they take two places each of `elements`. */
  count = 0;
  elements: Elements;
  capacity: number;
  rows = 0;
  nullCount = 0;
  #bytes: Uint8Array;
  #offsets: Int32Array;
  #validity: Uint8Array;
  readonly #spare: Spare[] = [];
  readonly #elementBytes: number;
  readonly #perRow: number;

  /** One of `numColumns`, which share the memory that they begin with. */
  constructor(field: PackField, numColumns = 1) {
    this.field = field;
    const { dtype, shape, kind } = field;
    this.isFloat = dtype.startsWith("F");
    this.isWide = dtype === "I64" || dtype === "U64";
    [this.least, this.most] = BOUNDS[dtype] ?? [0, 0];
    this.#elementBytes = elementBytesOf(dtype);
    this.#perRow = kind === "fixed" ? shape.reduce((a, b) => a * b, 1) : 0;
    const share = 2 ** Math.floor(Math.log2(FIRST_BYTES_OF_ALL / numColumns));
    const rows = Math.min(Math.max(share / 8, LEAST_ROWS), FIRST_ROWS);
    this.#validity = new Uint8Array(rows);
    this.#offsets = new Int32Array(kind === "fixed" ? 0 : rows + 1);
    this.#bytes = new Uint8Array(Math.min(Math.max(share, 8 * LEAST_ROWS), FIRST_BYTES));
    this.elements = this.#view();
    this.capacity = this.#bytes.length / this.#elementBytes;
  }

  /** Makes room for `more` elements. */
  reserve(more: number): void {
    if (this.count + more <= this.capacity) return;
    const needed = (this.count + more) * this.#elementBytes;
    const grown = new Uint8Array(Math.ceil(Math.max(needed, 2 * this.#bytes.length) / 8) * 8);
    grown.set(this.#bytes.subarray(0, this.count * this.#elementBytes));
    this.#bytes = grown;
    this.elements = this.#view();
    this.capacity = grown.length / this.#elementBytes;
  }

  /** Adds an integer between -2^53 and 2^53 that is within the type's bounds. */
  addWide(value: number): void {
    if (this.count === this.capacity) this.reserve(1);
    const at = 2 * this.count++;
    this.elements[at] = value | 0;
    this.elements[at + 1] = Math.floor(value / 2 ** 32);
  }

  /** Adds an integer of any size that is within the type's bounds. */
  addBig(value: bigint): void {
    if (this.count === this.capacity) this.reserve(1);
    const at = 2 * this.count++;
    this.elements[at] = Number(BigInt.asIntN(32, value));
    this.elements[at + 1] = Number(BigInt.asIntN(32, value >> 32n));
  }

  /** Adds a number that is within the type's bounds, but of 64-bit integers. */
  add(value: number): void {
    if (this.count === this.capacity) this.reserve(1);
    this.elements[this.count++] = value;
  }

  /** Adds bytes `[start, end)` of `bytes`. */
  addBytes(bytes: Buffer, start: number, end: number): void {
    const length = end - start;
    if (this.count + length > this.capacity) this.reserve(length);
    const { elements, count } = this;
    if (length < 16) for (let i = 0; i < length; i++) elements[count + i] = bytes[start + i]!;
    else bytes.copy(this.#bytes, count, start, end);
    this.count = count + length;
  }

  /** Ends a row that has a value. */
  endRow(): void {
    const row = this.rows;
    if (row === this.#validity.length) this.#growRows();
    this.#validity[row] = 1;
    this.rows = row + 1;
    if (this.#perRow === 0) this.#offsets[row + 1] = this.count;
  }

  /** Adds a row without a value. */
  addNull(): void {
    this.padTo(this.rows + 1);
  }

  /** Adds rows without a value until there are `rows`. */
  padTo(rows: number): void {
    const from = this.rows;
    if (rows <= from) return;
    while (rows > this.#validity.length) this.#growRows();
    this.#validity.fill(0, from, rows);
    this.rows = rows;
    this.nullCount += rows - from;
    if (this.#perRow === 0) {
      this.#offsets.fill(this.count, from + 1, rows + 1);
      return;
    }
    const more = (rows - from) * this.#perRow;
    this.reserve(more);
    const start = this.count * this.#elementBytes;
    this.count += more;
    this.#bytes.fill(0, start, this.count * this.#elementBytes);
  }

  /** Takes back all behind the first `most` rows, values of a row that has not ended included. */
  cutTo(most: number): void {
    const rows = Math.min(most, this.rows);
    for (let row = rows; row < this.rows; row++) if (this.#validity[row] === 0) this.nullCount--;
    this.rows = rows;
    this.count = this.#perRow > 0 ? rows * this.#perRow : this.#offsets[rows]!;
  }

  /** All rows, in memory that is the caller's from now on, and starts anew. Memory that came back by
   * {@link ColumnBuilder.reuse} is taken first: fresh memory costs more than the parsing. */
  take(): PackColumn {
    const { rows, nullCount } = this;
    const column = {
      values: this.#bytes.subarray(0, this.count * this.#elementBytes),
      offsets: this.#perRow > 0 ? undefined : this.#offsets.subarray(0, rows + 1),
      validity: nullCount > 0 ? this.#validity.slice(0, rows) : undefined,
      nullCount,
    };
    const spare = this.#spare.pop();
    this.#bytes = spare === undefined ? new Uint8Array(this.#bytes.length) : new Uint8Array(spare.values);
    if (this.#perRow === 0) {
      const memory = spare?.offsets;
      this.#offsets = memory === undefined ? new Int32Array(this.#offsets.length) : new Int32Array(memory);
      this.#offsets[0] = 0;
      if (this.#offsets.length <= this.#validity.length)
        this.#validity = new Uint8Array(this.#offsets.length - 1);
    }
    this.elements = this.#view();
    this.capacity = this.#bytes.length / this.#elementBytes;
    this.rows = 0;
    this.count = 0;
    this.nullCount = 0;
    return column;
  }

  /** Takes the memory of a column that {@link ColumnBuilder.take} gave. */
  reuse({ values, offsets }: Spare): void {
    if (this.#spare.length < MOST_SPARE) this.#spare.push({ values, offsets });
  }

  #view(): Elements {
    const View = VIEWS[this.field.dtype] ?? Uint8Array;
    return new View(this.#bytes.buffer as ArrayBuffer);
  }

  #growRows(): void {
    const validity = new Uint8Array(2 * this.#validity.length);
    validity.set(this.#validity);
    this.#validity = validity;
    if (this.#perRow > 0) return;
    if (this.#offsets.length > validity.length) return;
    const offsets = new Int32Array(validity.length + 1);
    offsets.set(this.#offsets);
    this.#offsets = offsets;
  }
}
