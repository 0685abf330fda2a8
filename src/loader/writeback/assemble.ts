/**
 * Makes an output shard of its attempt file, in a file under a temporary name.
 *
 * The attempt is read in order, as often as `memoryBytes` makes it necessary: once to learn how long each value is, from
 * which the whole layout follows, and then once for each stretch of rows, of which only the part of the attempt that
 * holds them is read. Rows that come about in order make that two times in all.
 */
import { HeadraceError } from "../../errors.ts";
import {
  elementBytesOf,
  type FileLayout,
  fixedPlaces,
  type GroupPlace,
  type GroupSize,
  isVariable,
  type OutputField,
  type OutputFormat,
  rowBytesOf,
} from "../../format/output-layout.ts";
import { type AttemptRecord, HEADER_BYTES, PLACED_CELL, scanRecords } from "./attempt.ts";
import { OWN_FIELDS } from "./columns.ts";
import type { OpenedFile } from "./files.ts";
import type { OpenOutput } from "./output.ts";

/** A row that failed. */
export interface FailedRow {
  readonly row: number;
  readonly error: string;
  readonly attempts: number;
}

export interface AssembleOptions {
  readonly format: OutputFormat;
  readonly fields: readonly OutputField[];
  /** Index of the field that holds errors; -1 where none does. */
  readonly errorField: number;
  /** Bytes that a group holds of one field, at most. */
  readonly maxGroupBytes: number;
  /** Bytes of rows that are held at once. */
  readonly memoryBytes: number;
}

/** What was made. */
export interface Assembled {
  readonly byteLength: number;
  /** In the order of the file. */
  readonly failed: readonly FailedRow[];
}

/** States of a fixed field's cell. */
const MISSING = 0;
const INLINE = 1;
const PLACED = 2;

/** What the first reading of an attempt tells, by place in the shard. */
interface Survey {
  /** Of each place. */
  readonly rows: Float64Array;
  /** Where each place's record is in the attempt. */
  readonly records: Float64Array;
  /** Of variable fields: elements, or -1 for null. */
  readonly elements: readonly (Int32Array | undefined)[];
  /** Of the caller's fixed fields: MISSING, INLINE or PLACED. */
  readonly states: readonly (Uint8Array | undefined)[];
  readonly failed: FailedRow[];
}

/** Writes the whole shard to `part`, which holds what a device has placed in it already; makes it durable. `attempt` is
 * absent for a shard without rows. `copy` opens a second file where placed values must move. Returns which of the two is
 * the shard. Throws what writing throws, and `FILE_CHANGED` where the attempt no longer holds all rows. */
export async function assembleOutput(
  output: OpenOutput,
  attempt: OpenedFile | undefined,
  part: OpenedFile,
  copy: () => Promise<OpenedFile>,
  options: AssembleOptions,
): Promise<Assembled & { readonly file: OpenedFile }> {
  const { format, fields } = options;
  const shared = output.name.shard.name;
  const survey = await surveyAttempt(output, attempt, options);
  const groups = groupsOf(output, survey, options);
  const layout = format.layout(fields, shared, groups);
  const fixed = fixedPlaces(format, fields, shared, output.numRows);
  let file = part;
  if (output.hasPlaced && groups.length > 1) {
    file = await copy();
    await file.truncate(0);
    await movePlaced(part, file, fixed.fields, layout, survey, options);
  } else await part.truncate(output.hasPlaced ? fixed.end : 0);
  for (const { at, bytes } of layout.pieces) await file.write(bytes, at);
  const stretches = new StretchWriter(output, attempt, file, survey, options);
  for (const [i, group] of layout.groups.entries()) await stretches.writeGroup(group, groups[i]!);
  await file.truncate(layout.byteLength);
  await file.sync();
  return { byteLength: layout.byteLength, failed: survey.failed, file };
}

async function surveyAttempt(
  output: OpenOutput,
  attempt: OpenedFile | undefined,
  { fields, errorField }: AssembleOptions,
): Promise<Survey> {
  const { numRows } = output;
  const own = (wanted: boolean) => fields.map((field, i) => i >= OWN_FIELDS && isVariable(field) === wanted);
  const elements = own(true).map((is) => (is ? new Int32Array(numRows) : undefined));
  const states = own(false).map((is) => (is ? new Uint8Array(numRows) : undefined));
  const survey = { rows: new Float64Array(numRows), records: new Float64Array(numRows), elements, states };
  const itemBytes = fields.map(elementBytesOf);
  const failures: (FailedRow & { readonly position: number })[] = [];
  let seen = 0;
  const see = (record: AttemptRecord): boolean => {
    const { position, count } = record;
    if (position + count > numRows) return false;
    seen += count;
    let cellAt = 0;
    for (let i = 0; i < count; i++) {
      survey.rows[position + i] = record.row + i;
      survey.records[position + i] = record.at;
    }
    for (let f = OWN_FIELDS; f < fields.length; f++) {
      const length = record.lengthOf(f - OWN_FIELDS);
      const isBytes = length < PLACED_CELL;
      elements[f]?.fill(isBytes ? length / itemBytes[f]! : -1, position, position + count);
      states[f]?.fill(
        isBytes ? INLINE : length === PLACED_CELL ? PLACED : MISSING,
        position,
        position + count,
      );
      if (f === errorField && isBytes) {
        const error = new TextDecoder().decode(record.cells.subarray(cellAt, cellAt + length));
        for (let i = 0; i < count; i++) {
          const row = record.row + i;
          failures.push({ row, error, attempts: record.attempts, position: position + i });
        }
      }
      if (isBytes) cellAt += length;
    }
    return true;
  };
  if (attempt === undefined) return { ...survey, failed: [] };
  const end = await scanRecords(attempt, HEADER_BYTES, output.attemptBytes, fields.length - OWN_FIELDS, see);
  if (end !== output.attemptBytes || seen !== numRows) throw changed(attempt, end, output, seen);
  failures.sort((a, b) => a.position - b.position);
  return { ...survey, failed: failures.map(({ row, error, attempts }) => ({ row, error, attempts })) };
}

function changed(attempt: OpenedFile, at: number, output: OpenOutput, seen: number): HeadraceError {
  return new HeadraceError(
    "FILE_CHANGED",
    `${attempt.path}: holds ${seen} of ${output.numRows} rows up to byte ${at} of ${output.attemptBytes}, and held all of them before; run the job again, which makes the others anew`,
  );
}

/** Cuts the rows into groups: as few as the format allows, whatever order they came in. */
function groupsOf(output: OpenOutput, survey: Survey, options: AssembleOptions): GroupSize[] {
  const { fields, maxGroupBytes } = options;
  const groups: GroupSize[] = [];
  const itemBytes = fields.map(elementBytesOf);
  const elements = fields.map(() => 0);
  const nulls = fields.map(() => 0);
  let start = 0;
  const cut = (end: number) => {
    groups.push({
      numRows: end - start,
      fields: fields.map((_, f) => ({ elements: elements[f]!, nullCount: nulls[f]! })),
    });
    elements.fill(0);
    nulls.fill(0);
    start = end;
  };
  const variable = fields.flatMap((field, f) => (f >= OWN_FIELDS && isVariable(field) ? [f] : []));
  const fixed = fields.flatMap((field, f) =>
    f >= OWN_FIELDS && !isVariable(field) && field.nullable ? [f] : [],
  );
  for (let at = 0; at < output.numRows; at++) {
    const full = variable.some((f) => {
      const more = Math.max(0, survey.elements[f]![at]!);
      return (elements[f]! + more) * itemBytes[f]! > maxGroupBytes;
    });
    if (full && at > start) cut(at);
    for (const f of variable) {
      const count = survey.elements[f]![at]!;
      if (count < 0) nulls[f]!++;
      else elements[f]! += count;
    }
    for (const f of fixed) if (survey.states[f]![at] === MISSING) nulls[f]!++;
  }
  cut(output.numRows);
  return groups;
}

/** Copies placed values from where one group would have had them to where several have. */
async function movePlaced(
  from: OpenedFile,
  to: OpenedFile,
  places: readonly { readonly values: number }[],
  layout: FileLayout,
  survey: Survey,
  { fields, memoryBytes }: AssembleOptions,
): Promise<void> {
  for (const [f, field] of fields.entries()) {
    if (survey.states[f]?.includes(PLACED) !== true) continue;
    const rowBytes = rowBytesOf(field);
    const step = Math.max(1, Math.floor(Math.min(memoryBytes, 2 ** 24) / rowBytes));
    const bytes = new Uint8Array(new ArrayBuffer(step * rowBytes));
    for (const group of layout.groups) {
      for (let row = 0; row < group.numRows; row += step) {
        const count = Math.min(step, group.numRows - row);
        const some = bytes.subarray(0, count * rowBytes);
        some.fill(0);
        await from.read(some, places[f]!.values + (group.rowStart + row) * rowBytes);
        await to.write(some, group.fields[f]!.values + row * rowBytes);
      }
    }
  }
}

/** Writes groups stretch by stretch, each of so many rows as fit the memory. */
class StretchWriter {
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
    const rows = new BigInt64Array(values[0]!.buffer as ArrayBuffer);
    for (let at = start; at < end; at++) rows[at - start] = BigInt(this.#survey.rows[at]!);
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
