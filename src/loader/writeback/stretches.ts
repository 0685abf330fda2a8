/** Writes the rows of a shard into its file, stretch by stretch, each of so many rows as fit the memory. */
import {
  elementBytesOf,
  type GroupPlace,
  type GroupSize,
  isVariable,
  rowBytesOf,
} from "../../format/output-layout.ts";
import { type AttemptRecord, PLACED_CELL, scanRecords } from "./attempt.ts";
import { OWN_FIELDS } from "./columns.ts";
import type { OpenedFile } from "./files.ts";
import type { OpenOutput } from "./output.ts";
import { type AssembleOptions, MISSING, PLACED, type Survey } from "./survey.ts";

/** Borrows all that it is given. */
export class StretchWriter {
  readonly #output: OpenOutput;
  readonly #attempt: OpenedFile | undefined;
  readonly #file: OpenedFile;
  readonly #survey: Survey;
  readonly #options: AssembleOptions;
  readonly #itemBytes: readonly number[];
  readonly #rowBytes: readonly number[];

  constructor(
    output: OpenOutput,
    attempt: OpenedFile | undefined,
    file: OpenedFile,
    survey: Survey,
    options: AssembleOptions,
  ) {
    this.#output = output;
    this.#attempt = attempt;
    this.#file = file;
    this.#survey = survey;
    this.#options = options;
    this.#itemBytes = options.fields.map(elementBytesOf);
    this.#rowBytes = options.fields.map((field) => (isVariable(field) ? 0 : rowBytesOf(field)));
  }

  async writeGroup(group: GroupPlace, size: GroupSize): Promise<void> {
    const { fields } = this.#options;
    const end = group.rowStart + group.numRows;
    /** Elements of each variable field before the stretch. */
    const before = fields.map(() => 0);
    for (const field of fields.keys()) await this.#writeValidity(field, group);
    let start = group.rowStart;
    do {
      const stop = this.#stretchEnd(start, end);
      await this.#writeStretch(group, size, start, stop, before);
      start = stop;
    } while (start < end);
  }

  /** As far as the memory goes, and at least one row. */
  #stretchEnd(start: number, end: number): number {
    const { fields, memoryBytes } = this.#options;
    let bytes = 0;
    for (let at = start; at < end; at++) {
      for (const f of fields.keys()) {
        const elements = this.#survey.elements[f];
        if (elements !== undefined) bytes += 8 + Math.max(0, elements[at]!) * this.#itemBytes[f]!;
        else if (this.#survey.states[f]?.[at] !== PLACED) bytes += this.#rowBytes[f]!;
      }
      if (bytes > memoryBytes && at > start) return at;
    }
    return end;
  }

  async #writeStretch(
    group: GroupPlace,
    size: GroupSize,
    start: number,
    end: number,
    before: number[],
  ): Promise<void> {
    const { fields } = this.#options;
    const values = fields.map((_, f) => this.#room(f, start, end));
    const starts = fields.map((_, f) => this.#starts(f, start, end));
    await this.#collect(start, end, values, starts);
    for (const f of fields.keys()) {
      const place = group.fields[f]!;
      const from = start - group.rowStart;
      const cuts = starts[f];
      if (cuts === undefined) {
        if (size.numRows > 0)
          await this.#writeFixed(f, values[f]!, start, end, place.values + from * this.#rowBytes[f]!);
        continue;
      }
      const offsets = place.offsets;
      if (offsets !== undefined) {
        const bytes = offsetBytes(cuts, before[f]!, offsets.width);
        await this.#file.write(bytes, offsets.at + from * offsets.width);
        await this.#file.write(values[f]!, place.values + before[f]! * this.#itemBytes[f]!);
      }
      before[f]! += cuts[end - start]!;
    }
  }

  /** Memory for the stretch's values of a field, zeroed. */
  #room(f: number, start: number, end: number): Uint8Array {
    const elements = this.#survey.elements[f];
    let bytes = (end - start) * this.#rowBytes[f]!;
    if (elements !== undefined) {
      let total = 0;
      for (let at = start; at < end; at++) total += Math.max(0, elements[at]!);
      bytes = total * this.#itemBytes[f]!;
    } else if (
      f >= OWN_FIELDS &&
      !this.#survey.states[f]!.subarray(start, end).some((state) => state !== PLACED)
    ) {
      bytes = 0;
    }
    return new Uint8Array(new ArrayBuffer(bytes));
  }

  /** Of a variable field: where each row's elements start in the stretch, and at the end their number. */
  #starts(f: number, start: number, end: number): Float64Array | undefined {
    const elements = this.#survey.elements[f];
    if (elements === undefined) return undefined;
    const starts = new Float64Array(end - start + 1);
    for (let at = start; at < end; at++) {
      starts[at - start + 1] = starts[at - start]! + Math.max(0, elements[at]!);
    }
    return starts;
  }

  /** Reads the part of the attempt that holds the stretch, and puts each cell where it belongs. */
  async #collect(
    start: number,
    end: number,
    values: readonly Uint8Array[],
    starts: readonly (Float64Array | undefined)[],
  ): Promise<void> {
    const { fields, format } = this.#options;
    this.#fillOwn(start, end, values, format.hasNulls ? 0 : this.#output.name.index);
    const [first, last] = this.#recordsOf(start, end);
    const numFields = fields.length - OWN_FIELDS;
    const see = (record: AttemptRecord): boolean => {
      const from = Math.max(record.position, start) - start;
      const to = Math.min(record.position + record.count, end) - start;
      if (from < to) this.#spread(record, from, to, values, starts);
      return record.at < last;
    };
    if (this.#attempt === undefined || first > last) return;
    await scanRecords(this.#attempt, first, this.#output.attemptBytes, numFields, see);
  }

  #fillOwn(start: number, end: number, values: readonly Uint8Array[], code: number): void {
    // 64-bit integers by their halves, which is much quicker than by BigInt.
    const halves = new Uint32Array(values[0]!.buffer as ArrayBuffer);
    for (let at = start; at < end; at++) {
      const row = this.#survey.rows[at]!;
      halves[2 * (at - start)] = row;
      halves[2 * (at - start) + 1] = row / 2 ** 32;
    }
    new Int32Array(values[1]!.buffer as ArrayBuffer).fill(code);
  }

  /** The first and the last record that the stretch needs. */
  #recordsOf(start: number, end: number): readonly [number, number] {
    let first = Number.POSITIVE_INFINITY;
    let last = -1;
    for (let at = start; at < end; at++) {
      const record = this.#survey.records[at]!;
      if (record < first) first = record;
      if (record > last) last = record;
    }
    return [first, last];
  }

  #spread(
    record: AttemptRecord,
    from: number,
    to: number,
    values: readonly Uint8Array[],
    starts: readonly (Float64Array | undefined)[],
  ): void {
    let cellAt = 0;
    for (let f = OWN_FIELDS; f < values.length; f++) {
      const length = record.lengthOf(f - OWN_FIELDS);
      if (length >= PLACED_CELL) continue;
      const cell = record.cells.subarray(cellAt, cellAt + length);
      cellAt += length;
      const cuts = starts[f];
      for (let at = from; at < to; at++) {
        const offset = cuts === undefined ? at * this.#rowBytes[f]! : cuts[at]! * this.#itemBytes[f]!;
        values[f]!.set(cell, offset);
      }
    }
  }

  /** Writes a fixed field's values, but for those that a device has placed. */
  async #writeFixed(f: number, values: Uint8Array, start: number, end: number, at: number): Promise<void> {
    const states = this.#survey.states[f];
    const rowBytes = this.#rowBytes[f]!;
    if (states === undefined || !states.subarray(start, end).includes(PLACED)) {
      await this.#file.write(values, at);
      return;
    }
    for (let row = start; row < end; ) {
      const from = row;
      if (states[row] === PLACED) {
        row++;
        continue;
      }
      while (row < end && states[row] !== PLACED) row++;
      const bytes = values.subarray((from - start) * rowBytes, (row - start) * rowBytes);
      await this.#file.write(bytes, at + (from - start) * rowBytes);
    }
  }

  async #writeValidity(f: number, group: GroupPlace): Promise<void> {
    const { validity } = group.fields[f]!;
    if (validity === undefined || f < OWN_FIELDS) return;
    const bits = new Uint8Array(Math.ceil(group.numRows / 8));
    const elements = this.#survey.elements[f];
    const states = this.#survey.states[f];
    for (let i = 0; i < group.numRows; i++) {
      const at = group.rowStart + i;
      const present = elements === undefined ? states![at] !== MISSING : elements[at]! >= 0;
      if (present) bits[i >>> 3]! |= 1 << (i & 7);
    }
    await this.#file.write(bits, validity);
  }
}

/** `starts`, moved by `before`, as integers of a file. */
function offsetBytes(starts: Float64Array, before: number, width: 4 | 8): Uint8Array {
  if (width === 4) {
    const offsets = new Int32Array(starts.length);
    for (let i = 0; i < starts.length; i++) offsets[i] = starts[i]! + before;
    return new Uint8Array(offsets.buffer);
  }
  const offsets = new BigInt64Array(starts.length);
  for (let i = 0; i < starts.length; i++) offsets[i] = BigInt(starts[i]! + before);
  return new Uint8Array(offsets.buffer);
}
