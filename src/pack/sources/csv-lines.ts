/** Records of CSV (RFC 4180) straight from bytes to columns. */
import { isUtf8 } from "node:buffer";
import type { PackField } from "../rows.ts";
import { ColumnBuilder, type Spare } from "./builder.ts";
import type { ParsedLines } from "./json-lines.ts";
import { LINE_END, type LineProblem, problem, QUOTE } from "./json-scanner.ts";
import { NumberReader } from "./numbers.ts";
import { fieldTypeText, fieldTypeWords } from "./types.ts";

const CARRIAGE_RETURN = 0x0d;

export interface CsvOptions {
  /** The byte between fields. */
  readonly delimiter: number;
  /** By a record's field: which column it is, or -1 where it is left out. */
  readonly columnOf: readonly number[];
  /** By column: whether its type was given, not found out. Then floats round integers that they cannot hold. */
  readonly given: readonly boolean[];
  readonly skipBad: boolean;
}

/** Where the fields of a record lie. */
export class CsvRecord {
  /** By field: its first byte, and the one behind its last; quotes are outside. */
  readonly starts: number[] = [];
  readonly ends: number[] = [];
  /** Whether quotes stood around it, and whether it has two for one. */
  readonly quoted: boolean[] = [];
  readonly doubled: boolean[] = [];
  count = 0;
  /** Lines that the record ends. */
  lines = 0;

  /** Finds the fields of the record at `start`. Returns where the next one starts. Throws a {@link LineProblem}. */
  read(bytes: Buffer, start: number, delimiter: number): number {
    this.count = 0;
    this.lines = 1;
    let at = start;
    for (;;) {
      at = bytes[at] === QUOTE ? this.#readQuoted(bytes, at + 1) : this.#readPlain(bytes, at, delimiter);
      const byte = bytes[at];
      if (byte === delimiter) {
        at++;
        continue;
      }
      if (byte === LINE_END) return at + 1;
      if (byte === CARRIAGE_RETURN && bytes[at + 1] === LINE_END) return at + 2;
      throw problem(at, "has something behind a closing quote; quotes within a field are doubled");
    }
  }

  #readPlain(bytes: Buffer, start: number, delimiter: number): number {
    let at = start;
    for (let byte = bytes[at]!; byte !== delimiter && byte !== LINE_END; byte = bytes[++at]!) {
      if (byte === QUOTE)
        throw problem(
          at,
          "has a quote within a field that has none around it; put the field in quotes and double those in it",
        );
    }
    const end = bytes[at] === LINE_END && at > start && bytes[at - 1] === CARRIAGE_RETURN ? at - 1 : at;
    this.#add(start, end, false, false);
    return end;
  }

  #readQuoted(bytes: Buffer, start: number): number {
    let doubled = false;
    for (let at = start; ; at++) {
      const byte = bytes[at];
      if (byte === undefined) throw problem(start, "has a quote that is never closed");
      if (byte === LINE_END) this.lines++;
      if (byte !== QUOTE) continue;
      if (bytes[at + 1] !== QUOTE) {
        this.#add(start, at, true, doubled);
        return at + 1;
      }
      doubled = true;
      at++;
    }
  }

  #add(start: number, end: number, quoted: boolean, doubled: boolean): void {
    const field = this.count++;
    this.starts[field] = start;
    this.ends[field] = end;
    this.quoted[field] = quoted;
    this.doubled[field] = doubled;
  }
}

/**
 * Where records end by their quotes and line ends alone, whatever else is wrong with them: quotes open at the front of
 * fields. The end of the first record in `bytes[start, length)`, or with `last` of the last; `none` where no record ends.
 */
function recordEnd(
  bytes: Buffer,
  start: number,
  length: number,
  delimiter: number,
  last: boolean,
  none: number,
): number {
  let inside = false;
  let atFront = true;
  let end = none;
  for (let at = start; at < length; at++) {
    const byte = bytes[at]!;
    if (inside) {
      if (byte !== QUOTE) continue;
      if (bytes[at + 1] === QUOTE) at++;
      else inside = false;
    } else if (byte === LINE_END) {
      end = at + 1;
      if (!last) return end;
      atFront = true;
    } else if (byte === QUOTE && atFront) {
      inside = true;
      atFront = false;
    } else atFront = byte === delimiter;
  }
  return end;
}

/** Finds the end of the last whole record: line ends within quotes end none. */
export function recordCutter(delimiter: number): (bytes: Buffer, length: number) => number {
  return (bytes, length) => {
    const quote = bytes.indexOf(QUOTE);
    if (quote >= 0 && quote < length) return recordEnd(bytes, markLength(bytes), length, delimiter, true, 0);
    return length === 0 ? 0 : bytes.lastIndexOf(LINE_END, length - 1) + 1;
  };
}

/** Bytes of the mark that says that a text is UTF-8: quotes may follow it. */
function markLength(bytes: Buffer): number {
  return bytes[0] === 0xef && bytes[1] === 0xbb && bytes[2] === 0xbf ? 3 : 0;
}

/** The bytes of a field as they are meant. */
export function fieldText(bytes: Buffer, record: CsvRecord, field: number): string {
  const text = bytes.toString("utf8", record.starts[field]!, record.ends[field]!);
  return record.doubled[field] ? text.replaceAll('""', '"') : text;
}

/** Whether there is nothing in the record's line: no row, but where there is one column, whose field is empty then. */
export function isBlank({ count, starts, ends, quoted }: CsvRecord): boolean {
  return count === 1 && starts[0] === ends[0] && !quoted[0];
}

/** 1 for true, 0 for false, -1 for anything else, in any case of letters. */
export function truthOf(bytes: Buffer, start: number, end: number): number {
  if (end - start !== 4 && end - start !== 5) return -1;
  const text = bytes.toString("latin1", start, end).toLowerCase();
  return text === "true" ? 1 : text === "false" ? 0 : -1;
}

/** What writers have for numbers that no digits stand for; undefined for anything else. */
export function specialOf(bytes: Buffer, start: number, end: number): number | undefined {
  if (end - start < 3 || end - start > 9) return undefined;
  const match = /^(-?)(nan|inf|infinity)$/i.exec(bytes.toString("latin1", start, end));
  if (match === null) return undefined;
  if (match[2]!.toLowerCase() === "nan") return Number.NaN;
  return match[1] === "-" ? Number.NEGATIVE_INFINITY : Number.POSITIVE_INFINITY;
}

/** Parses records to rows of some fields. Its memory is used again for each call. */
export class CsvLines {
  readonly #columns: readonly ColumnBuilder[];
  readonly #options: CsvOptions;
  /** Columns whose types were given. */
  readonly #given: ReadonlySet<ColumnBuilder>;
  readonly #record = new CsvRecord();
  readonly #numbers = new NumberReader();
  #plain = Buffer.alloc(2 ** 10);

  constructor(fields: readonly PackField[], options: CsvOptions) {
    this.#columns = fields.map((field) => new ColumnBuilder(field, fields.length));
    this.#options = options;
    this.#given = new Set(this.#columns.filter((_, i) => options.given[i]));
  }

  /** Takes the memory of earlier rows, column by column, to use it again. */
  reuse(spares: readonly Spare[]): void {
    spares.forEach((spare, i) => {
      this.#columns[i]!.reuse(spare);
    });
  }

  /** The records in the first `length` bytes, the last of which ends one. */
  parse(bytes: Buffer, length: number): ParsedLines {
    const { delimiter, skipBad } = this.#options;
    const suspect = !isUtf8(bytes.subarray(0, length));
    let numRows = 0;
    let numLines = 0;
    let skipped = 0;
    let failure: ParsedLines["failure"];
    let at = 0;
    while (at < length) {
      const start = at;
      try {
        at = this.#record.read(bytes, start, delimiter);
        if (suspect && !isUtf8(bytes.subarray(start, at)))
          throw problem(start, "holds bytes that are no UTF-8; convert the file");
        if (this.#options.columnOf.length === 1 || !isBlank(this.#record)) {
          this.#addRow(bytes, start);
          numRows++;
        }
        numLines += this.#record.lines;
      } catch (error) {
        if (typeof (error as LineProblem).at !== "number") throw error;
        for (const column of this.#columns) column.cutTo(numRows);
        failure ??= { line: numLines, message: (error as LineProblem).message };
        if (!skipBad) break;
        skipped++;
        at = recordEnd(bytes, start, length, delimiter, false, length);
        for (let i = start; i < at; i++) if (bytes[i] === LINE_END) numLines++;
      }
    }
    const columns = this.#columns.map((column) => column.take());
    return { columns, numRows, numLines, numBytes: at, skipped, failure };
  }

  #addRow(bytes: Buffer, start: number): void {
    const { columnOf } = this.#options;
    const { count, starts, ends, quoted } = this.#record;
    if (count !== columnOf.length)
      throw problem(start, `has ${count} fields, and the header has ${columnOf.length}`);
    for (let field = 0; field < count; field++) {
      const index = columnOf[field]!;
      if (index < 0) continue;
      const column = this.#columns[index]!;
      if (starts[field] === ends[field] && !(quoted[field] && column.field.kind === "utf8")) column.addNull();
      else {
        this.#addField(bytes, field, column);
        column.endRow();
      }
    }
  }

  #addField(bytes: Buffer, field: number, column: ColumnBuilder): void {
    const start = this.#record.starts[field]!;
    const end = this.#record.ends[field]!;
    if (column.field.kind === "utf8") {
      if (this.#record.doubled[field]) this.#addDoubled(bytes, start, end, column);
      else column.addBytes(bytes, start, end);
      return;
    }
    if (column.field.dtype === "BOOL") {
      const truth = truthOf(bytes, start, end);
      if (truth < 0) throw this.#wrongType(bytes, start, end, column);
      column.add(truth);
      return;
    }
    if (this.#numbers.read(bytes, start) !== end) {
      const special = column.isFloat ? specialOf(bytes, start, end) : undefined;
      if (special === undefined) throw this.#wrongType(bytes, start, end, column);
      column.add(special);
      return;
    }
    const { value, isInteger, isBig } = this.#numbers;
    if (column.isFloat) {
      if (isInteger && isBig && !this.#given.has(column) && this.#numbers.isRounded(bytes, start, end))
        throw this.#wouldRound(bytes, start, end, column);
      column.add(value);
    } else if (!isInteger) throw this.#wrongType(bytes, start, end, column);
    else if (!column.isWide) {
      if (value < column.least || value > column.most) throw this.#wrongType(bytes, start, end, column);
      column.add(value);
    } else if (!isBig && (value >= 0 || column.field.dtype === "I64")) column.addWide(value);
    else this.#addBig(bytes, start, end, column);
  }

  #addBig(bytes: Buffer, start: number, end: number, column: ColumnBuilder): void {
    const big = end - start > 21 ? 2n ** 65n : BigInt(bytes.toString("latin1", start, end));
    const fits =
      column.field.dtype === "U64" ? BigInt.asUintN(64, big) === big : BigInt.asIntN(64, big) === big;
    if (!fits) throw this.#wrongType(bytes, start, end, column);
    column.addBig(big);
  }

  #addDoubled(bytes: Buffer, start: number, end: number, column: ColumnBuilder): void {
    if (this.#plain.length < end - start) this.#plain = Buffer.alloc(2 * (end - start));
    let length = 0;
    for (let at = start; at < end; at++) {
      this.#plain[length++] = bytes[at]!;
      if (bytes[at] === QUOTE) at++;
    }
    column.addBytes(this.#plain, 0, length);
  }

  #wouldRound(bytes: Buffer, start: number, end: number, { field }: ColumnBuilder): LineProblem {
    const found = bytes.toString("latin1", start, Math.min(end, start + 40));
    return problem(
      start,
      `has ${found} in column ${JSON.stringify(field.name)}, which ${field.dtype} cannot hold; ` +
        `--schema '${field.name}=f64' rounds it, and '${field.name}=utf8' takes anything`,
    );
  }

  #wrongType(bytes: Buffer, start: number, end: number, { field }: ColumnBuilder): LineProblem {
    const found = JSON.stringify(bytes.toString("utf8", start, Math.min(end, start + 40)));
    const held = `${fieldTypeWords(field)} (${fieldTypeText(field)})`;
    const remedy = `--schema ${field.name}=utf8 takes anything`;
    return problem(
      start,
      `has ${found} in column ${JSON.stringify(field.name)}, which holds ${held}; ${remedy}`,
    );
  }
}
