/** From a row's output to the cells of its record: checked before anything is taken, so that a bad value changes nothing. */
import { HeadraceError } from "../../errors.ts";
import { elementBytesOf, type OutputField, rowBytesOf } from "../../format/output-layout.ts";
import { MAX_RECORD_BYTES, NULL_CELL, PLACED_CELL, type RecordSink } from "./attempt.ts";
import { bytesOfValue, OWN_FIELDS } from "./columns.ts";
import type { DeviceValues } from "./placing.ts";

/** A value that is not in JavaScript's memory, and the field it is of. */
export interface PlacedCell {
  readonly field: number;
  readonly values: DeviceValues;
}

/** Cells of one output at a time. */
export class CellReader {
  readonly #fields: readonly OutputField[];
  readonly #errorField: number;
  readonly #cells: (Uint8Array | string | DeviceValues | null)[] = [];
  readonly placed: PlacedCell[] = [];
  /** Whether the row failed. */
  failed = false;

  constructor(fields: readonly OutputField[], errorField: number) {
    this.#fields = fields;
    this.#errorField = errorField;
  }

  /** Takes `output`'s values by the columns' names, for `count` rows from `row` on. Borrows them until the next call.
   * Throws `BAD_OPTION`, `OUT_OF_RANGE`. */
  read(output: Readonly<Record<string, unknown>>, row: number, count: number): void {
    let bytes = 0;
    this.placed.length = 0;
    this.failed = false;
    for (let f = OWN_FIELDS; f < this.#fields.length; f++) {
      const field = this.#fields[f]!;
      const cell = this.#cellOf(field, output[field.name], row, count);
      this.#cells[f] = cell;
      if (typeof cell === "string") bytes += cell.length > MAX_RECORD_BYTES / 4 ? Buffer.byteLength(cell) : 0;
      else if (cell instanceof Uint8Array) bytes += cell.length;
      else if (cell !== null) this.placed.push({ field: f, values: cell });
      if (f === this.#errorField) this.failed = cell !== null;
    }
    // Leaves room for the head, and for texts that are not worth measuring.
    if (bytes > MAX_RECORD_BYTES * 0.9) {
      throw new HeadraceError(
        "OUT_OF_RANGE",
        `row ${row} holds over ${Math.floor(MAX_RECORD_BYTES * 0.9)} bytes, the most that a row of outputs may hold`,
      );
    }
  }

  /** Adds the record of rows whose first has this place. */
  write(sink: RecordSink, row: number, position: number, count: number, attempts: number): void {
    sink.begin(row, position, count, attempts, this.#fields.length - OWN_FIELDS);
    for (let f = OWN_FIELDS; f < this.#fields.length; f++) {
      const cell = this.#cells[f]!;
      if (cell === null) sink.mark(NULL_CELL);
      else if (typeof cell === "string") sink.text(cell);
      else if (cell instanceof Uint8Array) sink.bytes(cell);
      else sink.mark(PLACED_CELL);
    }
    sink.end();
  }

  #cellOf(
    field: OutputField,
    value: unknown,
    row: number,
    count: number,
  ): Uint8Array | string | DeviceValues | null {
    if (value === undefined || value === null) {
      if (field.nullable) return null;
      throw bad(`row ${row} has no value for column ${field.name}, which is not nullable`);
    }
    if (field.kind === "utf8") {
      if (typeof value === "string") return value;
      if (value instanceof Uint8Array) return value;
      throw bad(`row ${row}, column ${field.name}: a text is a string or UTF-8 bytes, not ${typeof value}`);
    }
    if (!isDeviceValues(value)) return bytesOfValue(field, value, row);
    if (field.kind !== "fixed") {
      throw bad(`row ${row}, column ${field.name}: only values of fixed size may come in device memory`);
    }
    const { length } = value as { length?: unknown };
    const bytes = rowBytesOf(field) * count;
    if (length !== undefined && length !== bytes / elementBytesOf(field)) {
      throw bad(
        `row ${row}, column ${field.name}: ${String(length)} elements in device memory, and ${bytes / elementBytesOf(field)} are wanted`,
      );
    }
    const { byteOffset, buffer } = value;
    if (!Number.isSafeInteger(byteOffset) || byteOffset < 0 || byteOffset > buffer.byteLength - bytes) {
      throw new HeadraceError(
        "OUT_OF_RANGE",
        `row ${row}, column ${field.name}: bytes [${byteOffset}, ${byteOffset + bytes}) do not lie in a buffer of ${buffer.byteLength}`,
      );
    }
    return value;
  }
}

function isDeviceValues(value: unknown): value is DeviceValues {
  if (typeof value !== "object" || value === null || ArrayBuffer.isView(value)) return false;
  const { buffer } = value as { buffer?: { gpuAddress?: unknown } };
  return typeof buffer === "object" && buffer !== null && typeof buffer.gpuAddress === "number";
}

function bad(message: string): HeadraceError {
  return new HeadraceError("BAD_OPTION", message);
}
