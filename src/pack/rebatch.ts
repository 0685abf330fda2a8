/** Rows of any batches as batches of one size, however the source had cut them. */
import { elementBytesOf, rowBytesOf, valueBytes } from "./columns.ts";
import type { PackBatch, PackColumn, PackField } from "./rows.ts";
import type { ShardSizes } from "./sizes.ts";

/** A batch ends before it holds more, whatever the number of its rows; one row alone may hold more. */
const MAX_BATCH_BYTES = 64 * 2 ** 20;

/** One column that grows. */
class Gathered {
  readonly field: PackField;
  readonly #rowBytes: number;
  readonly #elementBytes: number;
  /** Grows with its rows: there may be thousands of columns. */
  #values = new Uint8Array(0);
  #valuesLength = 0;
  #offsets: Int32Array;
  #validity: Uint8Array;
  #nullCount = 0;

  constructor(field: PackField, numRows: number) {
    this.field = field;
    this.#rowBytes = field.kind === "fixed" ? rowBytesOf(field) : 0;
    this.#elementBytes = elementBytesOf(field.dtype);
    this.#offsets = new Int32Array(field.kind === "fixed" ? 0 : numRows + 1);
    this.#validity = new Uint8Array(numRows);
  }

  /** Adds rows `[from, to)` of `column` behind the `have` rows that are here. */
  add(column: PackColumn, from: number, to: number, have: number): void {
    const start = valueBytes(this.field, column, from);
    const end = valueBytes(this.field, column, to);
    this.#reserve(this.#valuesLength + end - start);
    this.#values.set(column.values.subarray(start, end), this.#valuesLength);
    if (column.offsets !== undefined) {
      const shift = this.#valuesLength / this.#elementBytes - column.offsets[from]!;
      for (let row = from; row < to; row++)
        this.#offsets[have + row - from + 1] = column.offsets[row + 1]! + shift;
    }
    this.#valuesLength += end - start;
    this.#addValidity(column, from, to, have);
  }

  /** All rows; valid until the next are added. */
  take(numRows: number): PackColumn {
    const column: PackColumn = {
      values: this.#values.subarray(0, this.#valuesLength),
      offsets:
        this.#rowBytes > 0 || this.field.kind === "fixed"
          ? undefined
          : this.#offsets.subarray(0, numRows + 1),
      validity: this.#nullCount > 0 ? this.#validity.subarray(0, numRows) : undefined,
      nullCount: this.#nullCount,
    };
    this.#valuesLength = 0;
    this.#nullCount = 0;
    return column;
  }

  #addValidity({ validity, nullCount }: PackColumn, from: number, to: number, have: number): void {
    const end = have + to - from;
    if (validity === undefined || nullCount === 0) {
      this.#validity.fill(1, have, end);
      return;
    }
    this.#validity.set(validity.subarray(from, to), have);
    for (let row = have; row < end; row++) if (this.#validity[row] === 0) this.#nullCount++;
  }

  #reserve(byteLength: number): void {
    if (byteLength <= this.#values.length) return;
    const grown = new Uint8Array(
      Math.max(byteLength, Math.min(2 * this.#values.length, byteLength + 2 ** 26)),
    );
    grown.set(this.#values.subarray(0, this.#valuesLength));
    this.#values = grown;
  }
}

/** Gathers rows until there are `rowsPerBatch` of them, 64 MiB, or as many as go into a shard of `shardBytes`. */
export class Rebatcher {
  readonly #rowsPerBatch: number;
  readonly #sizes: ShardSizes;
  readonly #mostBytes: number;
  readonly #columns: readonly Gathered[];
  #have = 0;
  #bytes = 0;

  constructor(
    fields: readonly PackField[],
    rowsPerBatch: number,
    { sizes, shardBytes }: { readonly sizes: ShardSizes; readonly shardBytes: number },
  ) {
    this.#rowsPerBatch = rowsPerBatch;
    this.#sizes = sizes;
    this.#mostBytes = Math.min(MAX_BATCH_BYTES, shardBytes - sizes.empty - sizes.batch);
    this.#columns = fields.map((field) => new Gathered(field, rowsPerBatch));
  }

  /** Batches that became full, each valid until the next is asked for. */
  *add(batch: PackBatch): Generator<PackBatch> {
    for (let from = 0; from < batch.numRows; ) {
      const to = this.#roomFrom(batch, from);
      if (to === from) {
        yield this.#take(batch.sourceBytes);
        continue;
      }
      this.#columns.forEach((column, i) => {
        column.add(batch.columns[i]!, from, to, this.#have);
      });
      this.#bytes += this.#sizes.rows(batch, from, to);
      this.#have += to - from;
      from = to;
      if (this.#have === this.#rowsPerBatch) yield this.#take(batch.sourceBytes);
    }
  }

  /** What is left, where there is any. */
  end(sourceBytes: number): PackBatch | undefined {
    return this.#have === 0 ? undefined : this.#take(sourceBytes);
  }

  #take(sourceBytes: number): PackBatch {
    const numRows = this.#have;
    this.#have = 0;
    this.#bytes = 0;
    return { numRows, columns: this.#columns.map((column) => column.take(numRows)), sourceBytes };
  }

  /** Up to which row of `batch` there is room: the most that fits, at least one where nothing is here. */
  #roomFrom(batch: PackBatch, from: number): number {
    let high = Math.min(batch.numRows, from + this.#rowsPerBatch - this.#have);
    if (this.#bytes + this.#sizes.rows(batch, from, high) <= this.#mostBytes) return high;
    let low = from;
    while (low < high) {
      const middle = (low + high + 1) >>> 1;
      if (this.#bytes + this.#sizes.rows(batch, from, middle) <= this.#mostBytes) low = middle;
      else high = middle - 1;
    }
    return low === from && this.#have === 0 ? from + 1 : low;
  }
}
