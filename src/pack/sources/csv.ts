/** CSV (RFC 4180, UTF-8) with a header as rows. */
import { HeadraceError } from "../../errors.ts";
import { chooseNames } from "../../loader/schema.ts";
import type { TextOptions } from "../options.ts";
import type { PackField, RowSource } from "../rows.ts";
import { threadsOf } from "../threads.ts";
import {
  type CsvOptions,
  CsvRecord,
  fieldText,
  isBlank,
  recordCutter,
  specialOf,
  truthOf,
} from "./csv-lines.ts";
import { LINE_END, type LineProblem } from "./json-scanner.ts";
import { NumberReader } from "./numbers.ts";
import { badInput } from "./source.ts";
import { type Piece, PieceReader } from "./text-pieces.ts";
import { noRows, TextRows } from "./text-rows.ts";
import { fieldTypeText, parseFieldType } from "./types.ts";

/** Bytes that types are found out from, about. */
const SAMPLE_BYTES = 4 * 2 ** 20;

/** A file's header, and its first piece without it. */
interface Opened {
  readonly names: readonly string[];
  readonly lines: number;
  readonly piece: Piece;
}

/** What the fields of one column were so far. */
interface Seen {
  some: boolean;
  integers: boolean;
  floats: boolean;
  booleans: boolean;
  /** An integer past 2^63, and a negative one. */
  big: boolean;
  negative: boolean;
  /** An integer that a double would round. */
  rounded: boolean;
}

/**
 * Opens files of CSV with a header (also `.gz` and `.zst`) as rows, in order; all must have the same header. Columns are
 * I64, U64, F64, BOOL or `utf8`, found out from the first 4 MiB of the first file; an empty field is null, but for an
 * empty text in quotes; a line with nothing in it is no row, but in files of one column, where it is an empty field. Throws `BAD_INPUT` naming file and line, `SOURCE_EMPTY`, `SOURCE_NOT_FOUND`, `UNKNOWN_COLUMN`,
 * `BAD_OPTION`.
 */
export async function openCsv(paths: readonly string[], options: TextOptions = {}): Promise<RowSource> {
  const readers: PieceReader[] = [];
  try {
    const text = options.delimiter ?? (/\.tsv(\.gz|\.zst)?$/.test(paths[0]!) ? "\t" : ",");
    const delimiter = text.charCodeAt(0);
    for (const path of paths) readers.push(await PieceReader.open(path, recordCutter(delimiter)));
    const [first] = readers;
    const skipBad = options.badRows === "skip";
    const opened = await openHeader(first!, delimiter);
    const linesBefore = new Map([[first!, opened.lines]]);
    const sample = [opened.piece];
    for (let bytes = opened.piece.end; bytes < SAMPLE_BYTES; ) {
      const piece = await first!.next();
      if (piece === undefined) break;
      sample.push(piece);
      bytes += piece.end - piece.start;
    }
    const { fields, columnOf, given } = fieldsOf(first!.path, opened.names, sample, delimiter, options);
    return new TextRows({
      readers,
      sample,
      setup: { format: "csv", fields, options: { delimiter, columnOf, given, skipBad } },
      threads: threadsOf(options),
      skipBad,
      openNext: async (reader) => {
        const { names, lines, piece } = await openHeader(reader, delimiter);
        linesBefore.set(reader, lines);
        if (names.join("\0") === opened.names.join("\0")) return piece;
        throw badInput(
          reader.path,
          `has the header ${headerText(names)}, and ${first!.path} has ${headerText(opened.names)}`,
        );
      },
      linesBefore: (reader) => linesBefore.get(reader) ?? 0,
    });
  } catch (error) {
    for (const reader of readers) await reader.close();
    throw error;
  }
}

async function openHeader(reader: PieceReader, delimiter: number): Promise<Opened> {
  const piece = await reader.next();
  if (piece === undefined)
    throw new HeadraceError("SOURCE_EMPTY", `${reader.path}: is empty; a CSV starts with a header`);
  const bytes = Buffer.from(piece.buffer).subarray(0, piece.end);
  const record = new CsvRecord();
  let lines = 0;
  let start = piece.start;
  try {
    do {
      start = record.read(bytes, start, delimiter);
      lines += record.lines;
    } while (isBlank(record) && start < piece.end);
  } catch (error) {
    if (typeof (error as LineProblem).at !== "number") throw error;
    throw badInput(reader.path, `line ${lines + 1} ${(error as LineProblem).message}`);
  }
  const names = Array.from({ length: record.count }, (_, field) => fieldText(bytes, record, field));
  if (isBlank(record))
    throw new HeadraceError("SOURCE_EMPTY", `${reader.path}: is empty; a CSV starts with a header`);
  checkHeader(reader.path, names);
  return { names, lines, piece: { ...piece, start } };
}

function checkHeader(path: string, names: readonly string[]): void {
  const seen = new Set<string>();
  names.forEach((name, i) => {
    if (name === "") throw badInput(path, `field ${i + 1} of the header is empty; each column has a name`);
    if (/\r/.test(name))
      throw badInput(path, "its lines end with carriage returns alone; convert them to line feeds");
    if (seen.size === seen.add(name).size)
      throw badInput(path, `the header has column ${JSON.stringify(name)} twice`);
  });
}

function headerText(names: readonly string[]): string {
  const text = names.join(",");
  return JSON.stringify(text.length > 80 ? `${text.slice(0, 79)}…` : text);
}

function fieldsOf(
  path: string,
  names: readonly string[],
  sample: readonly Piece[],
  delimiter: number,
  { columns, schema = {} }: TextOptions,
): Pick<CsvOptions, "columnOf" | "given"> & { fields: readonly PackField[] } {
  for (const name of Object.keys(schema)) chooseNames(names, [name]);
  const wanted = new Set(columns === undefined ? names : chooseNames(names, columns));
  const seen = names.map(
    (): Seen => ({
      some: false,
      integers: true,
      floats: true,
      booleans: true,
      big: false,
      negative: false,
      rounded: false,
    }),
  );
  let rows = 0;
  for (const piece of sample) rows += look(piece, delimiter, seen);
  if (rows === 0 && names.some((name) => wanted.has(name) && !Object.hasOwn(schema, name)))
    throw noRows(path);
  const fields: PackField[] = [];
  const columnOf = names.map((name, i) => {
    if (!wanted.has(name)) return -1;
    const type = Object.hasOwn(schema, name) ? schema[name]! : typeOf(seen[i]!);
    const field = parseFieldType(name, type);
    if (field.kind === "list" || field.shape.length > 0)
      throw new HeadraceError(
        "BAD_OPTION",
        `schema: column ${JSON.stringify(name)} is to be ${fieldTypeText(field)}, and CSV has no lists`,
      );
    return fields.push(field) - 1;
  });
  return { fields, columnOf, given: fields.map(({ name }) => Object.hasOwn(schema, name)) };
}

/** A column without any value is text, and so is one that loses digits as numbers. */
function typeOf({ some, integers, floats, booleans, big, negative, rounded }: Seen): string {
  if (!some) return "utf8";
  if (booleans) return "bool";
  if (integers && !(big && negative)) return big ? "u64" : "i64";
  return floats && !rounded ? "f64" : "utf8";
}

/** Returns the number of records; those that are malformed are met again when they are parsed. */
function look(piece: Piece, delimiter: number, seen: readonly Seen[]): number {
  const bytes = Buffer.from(piece.buffer).subarray(0, piece.end);
  const record = new CsvRecord();
  const numbers = new NumberReader();
  let rows = 0;
  for (let at = piece.start; at < piece.end; ) {
    try {
      at = record.read(bytes, at, delimiter);
    } catch (error) {
      if (typeof (error as LineProblem).at !== "number") throw error;
      at = bytes.indexOf(LINE_END, at) + 1;
      rows++;
      continue;
    }
    if (seen.length > 1 && isBlank(record)) continue;
    rows++;
    const count = Math.min(record.count, seen.length);
    for (let field = 0; field < count; field++) {
      const start = record.starts[field]!;
      const end = record.ends[field]!;
      if (start < end) lookAt(bytes, start, end, seen[field]!, numbers);
    }
  }
  return rows;
}

function lookAt(bytes: Buffer, start: number, end: number, seen: Seen, numbers: NumberReader): void {
  seen.some = true;
  if (seen.booleans) seen.booleans = truthOf(bytes, start, end) >= 0;
  if (!seen.integers && !seen.floats) return;
  if (numbers.read(bytes, start) !== end) {
    seen.integers = false;
    seen.floats &&= specialOf(bytes, start, end) !== undefined;
    return;
  }
  if (!numbers.isInteger) seen.integers = false;
  else {
    seen.negative ||= numbers.value < 0;
    if (!numbers.isBig) return;
    seen.rounded ||= numbers.isRounded(bytes, start, end);
    const big = end - start > 21 ? 2n ** 65n : BigInt(bytes.toString("latin1", start, end));
    seen.big ||= big >= 2n ** 63n;
    // Digits would be lost: such a number is a name.
    if (big >= 2n ** 64n || big < -(2n ** 63n)) {
      seen.integers = false;
      seen.floats = false;
    }
  }
}
