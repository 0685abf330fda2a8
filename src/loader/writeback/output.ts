/** One output shard while it is not whole: which of its rows are there, and where they are. */
import { HeadraceError } from "../../errors.ts";
import type { FieldPlace } from "../../format/output-layout.ts";
import type { SampleRange } from "../../plan/select.ts";
import { HEADER_BYTES, RecordSink } from "./attempt.ts";

/** One shard of the input, and the rows `[start, end)` that it holds. */
export interface InputShard {
  readonly name: string;
  /** Index in the dataset of the shard's first row. */
  readonly start: number;
  readonly end: number;
}

/** What an output is called, whether or not it is open. */
export interface OutputName {
  /** Of the input shard among those of the job. */
  readonly index: number;
  readonly shard: InputShard;
  /** Of the output in its folder. */
  readonly fileName: string;
  /** How often its failed rows were run again, each time into a new file; absent is 0. */
  readonly generation?: number;
}

/** A set of small integers, one bit each. */
export class BitSet {
  readonly #bits: Uint8Array;
  size = 0;

  constructor(length: number) {
    this.#bits = new Uint8Array(Math.ceil(length / 8));
  }

  has(index: number): boolean {
    return ((this.#bits[index >>> 3]! >>> (index & 7)) & 1) === 1;
  }

  add(index: number): void {
    if (this.has(index)) return;
    this.#bits[index >>> 3]! |= 1 << (index & 7);
    this.size++;
  }
}

/** What a lot of records adds to an attempt file. */
export interface RecordLot {
  readonly bytes: Uint8Array;
  readonly rows: number;
}

/** Memory: two bits a row, and what waits for the disk. */
export class OpenOutput {
  readonly name: OutputName;
  readonly numRows: number;
  readonly sink = new RecordSink();
  /** Rows in the attempt file. */
  numJournaled = 0;
  /** Of the attempt file, as far as it is whole. */
  attemptBytes = 0;
  /** Where the columns of fixed size lie in its file; absent until somebody asked. */
  places: readonly FieldPlace[] | undefined;
  /** Whether some rows' values were placed by a device. */
  hasPlaced = false;
  readonly #rows: BitSet;
  /** Absent where a row's place is its own number. */
  readonly #positions: BitSet | undefined;
  #nextPosition = 0;
  #pendingRows = 0;

  constructor(name: OutputName, inInputOrder: boolean) {
    this.name = name;
    this.numRows = name.shard.end - name.shard.start;
    this.#rows = new BitSet(this.numRows);
    this.#positions = inInputOrder ? undefined : new BitSet(this.numRows);
  }

  /** Whether every row is in the attempt file. */
  get complete(): boolean {
    return this.numJournaled === this.numRows;
  }

  /** Throws `BAD_OPTION` where a row of `[row, row + count)` was taken before. */
  assertNew(row: number, count: number): void {
    const first = row - this.name.shard.start;
    for (let i = first; i < first + count; i++) {
      if (!this.#rows.has(i)) continue;
      throw new HeadraceError(
        "BAD_OPTION",
        `row ${this.name.shard.start + i} of ${this.name.shard.name} has its output already`,
      );
    }
  }

  /** Takes rows, which are new, and gives the place of the first: the others follow it. Undefined where no `count`
   * places are free side by side: then rows are to be taken one by one. */
  take(row: number, count: number): number | undefined {
    const first = row - this.name.shard.start;
    const position = this.#positions === undefined ? first : this.#freePosition(count);
    if (position === undefined) return undefined;
    this.#mark(first, position, count);
    return position;
  }

  /** Marks what an attempt file holds; false where that cannot be so. */
  recall(row: number, position: number, count: number): boolean {
    const first = row - this.name.shard.start;
    const fits = (at: number) => Number.isInteger(at) && at >= 0 && at + count <= this.numRows;
    if (count < 1 || !fits(first) || !fits(position)) return false;
    if (this.#positions === undefined && position !== first) return false;
    for (let i = 0; i < count; i++) {
      if (this.#rows.has(first + i) || this.#positions?.has(position + i)) return false;
    }
    this.#mark(first, position, count);
    this.numJournaled += count;
    return true;
  }

  /** Counts rows whose record was sealed in the sink. */
  sealed(count: number): void {
    this.#pendingRows += count;
  }

  /** What waits to be written. */
  takeLot(): RecordLot {
    const lot = { bytes: this.sink.take(), rows: this.#pendingRows };
    this.#pendingRows = 0;
    return lot;
  }

  /** Rows that were taken, as ranges of the dataset. */
  *takenRanges(): Generator<SampleRange> {
    const { start } = this.name.shard;
    let from = -1;
    for (let i = 0; i <= this.numRows; i++) {
      const taken = i < this.numRows && this.#rows.has(i);
      if (taken && from < 0) from = i;
      if (!taken && from >= 0) {
        yield [start + from, start + i];
        from = -1;
      }
    }
  }

  /** Where the next records go; past the header also where the file is not there yet. */
  get appendAt(): number {
    return Math.max(this.attemptBytes, HEADER_BYTES);
  }

  #mark(first: number, position: number, count: number): void {
    for (let i = 0; i < count; i++) {
      this.#rows.add(first + i);
      this.#positions?.add(position + i);
    }
  }

  #freePosition(count: number): number | undefined {
    const positions = this.#positions!;
    while (this.#nextPosition < this.numRows && positions.has(this.#nextPosition)) this.#nextPosition++;
    const position = this.#nextPosition;
    for (let i = 1; i < count; i++) {
      if (position + i >= this.numRows || positions.has(position + i)) return undefined;
    }
    return position;
  }
}
