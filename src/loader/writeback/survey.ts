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
  readonly failed: FailedRow[];
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
export function groupsOf(output: OpenOutput, survey: Survey, options: AssembleOptions): GroupSize[] {
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
