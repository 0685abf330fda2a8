/** What a whole attempt holds, and how its rows are cut into groups: all that a layout needs, and no value. */
import { HeadraceError } from "../../errors.ts";
import {
  elementBytesOf,
  type GroupSize,
  isVariable,
  type OutputField,
  type OutputFormat,
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

/** States of a fixed field's cell. */
export const MISSING = 0;
export const INLINE = 1;
export const PLACED = 2;

/** What the first reading of an attempt tells, by place in the shard. */
export interface Survey {
  /** Of each place. */
  readonly rows: Float64Array;
  /** Where each place's record is in the attempt. */
  readonly records: Float64Array;
  /** Of variable fields: elements, or -1 for null. */
  readonly elements: readonly (Int32Array | undefined)[];
  /** Of the caller's fixed fields: MISSING, INLINE or PLACED. */
  readonly states: readonly (Uint8Array | undefined)[];
  /** In the order in which they came. */
  readonly failed: readonly FailedRow[];
}

/** Reads the whole attempt. Throws `FILE_CHANGED` where it no longer holds every row. */
export async function surveyAttempt(
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
  const failed: FailedRow[] = [];
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
        const { attempts } = record;
        for (let i = 0; i < count; i++) failed.push({ row: record.row + i, error, attempts });
      }
      if (isBytes) cellAt += length;
    }
    return true;
  };
  if (attempt === undefined) return { ...survey, failed: [] };
  const end = await scanRecords(attempt, HEADER_BYTES, output.attemptBytes, fields.length - OWN_FIELDS, see);
  if (end !== output.attemptBytes || seen !== numRows) throw changed(attempt, end, output, seen);
  return { ...survey, failed };
}

function changed(attempt: OpenedFile, at: number, output: OpenOutput, seen: number): HeadraceError {
  return new HeadraceError(
    "FILE_CHANGED",
    `${attempt.path}: holds ${seen} of ${output.numRows} rows up to byte ${at} of ${output.attemptBytes}, and held all of them before; run the job again, which makes the others anew`,
  );
}

/** Rows that are gone through before others get their turn. */
const TURN_ROWS = 16_384;

/** Cuts the rows into groups: as few as the format allows, whatever order they came in. */
export async function groupsOf(
  numRows: number,
  survey: Survey,
  { fields, maxGroupBytes }: AssembleOptions,
): Promise<GroupSize[]> {
  const cutter = new GroupCutter(fields, survey, maxGroupBytes);
  for (let start = 0; start < numRows; start += TURN_ROWS) {
    if (start > 0) await new Promise(setImmediate);
    cutter.take(start, Math.min(start + TURN_ROWS, numRows));
  }
  return cutter.finish(numRows);
}

class GroupCutter {
  readonly #groups: GroupSize[] = [];
  readonly #survey: Survey;
  readonly #variable: readonly number[];
  /** Nullable ones. */
  readonly #fixed: readonly number[];
  readonly #maxElements: readonly number[];
  readonly #elements: number[];
  readonly #nulls: number[];
  #start = 0;

  constructor(fields: readonly OutputField[], survey: Survey, maxGroupBytes: number) {
    const own = fields.flatMap((_, f) => (f >= OWN_FIELDS ? [f] : []));
    this.#survey = survey;
    this.#variable = own.filter((f) => isVariable(fields[f]!));
    this.#fixed = own.filter((f) => !isVariable(fields[f]!) && fields[f]!.nullable);
    this.#maxElements = fields.map((field) => maxGroupBytes / elementBytesOf(field));
    this.#elements = fields.map(() => 0);
    this.#nulls = fields.map(() => 0);
  }

  take(start: number, end: number): void {
    for (let at = start; at < end; at++) {
      if (at > this.#start && this.#isFull(at)) this.#cut(at);
      for (const f of this.#variable) {
        const count = this.#survey.elements[f]![at]!;
        if (count < 0) this.#nulls[f]!++;
        else this.#elements[f]! += count;
      }
      for (const f of this.#fixed) if (this.#survey.states[f]![at] === MISSING) this.#nulls[f]!++;
    }
  }

  finish(numRows: number): GroupSize[] {
    this.#cut(numRows);
    return this.#groups;
  }

  /** Whether a field of the row at `at` has no room left. */
  #isFull(at: number): boolean {
    for (const f of this.#variable) {
      if (this.#elements[f]! + this.#survey.elements[f]![at]! > this.#maxElements[f]!) return true;
    }
    return false;
  }

  #cut(end: number): void {
    const fields = this.#elements.map((elements, f) => ({ elements, nullCount: this.#nulls[f]! }));
    this.#groups.push({ numRows: end - this.#start, fields });
    this.#elements.fill(0);
    this.#nulls.fill(0);
    this.#start = end;
  }
}
