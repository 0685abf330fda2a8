/** Lines of JSON straight from bytes to columns. */
import { isUtf8 } from "node:buffer";
import { rowBytesOf } from "../columns.ts";
import type { PackColumn, PackField } from "../rows.ts";
import type { ColumnBuilder, Spare } from "./builder.ts";
import { type KeyPath, type Plan, type PlanNode, type PlanObject, planOf } from "./json-plan.ts";
import {
  CLOSE_BRACE,
  CLOSE_BRACKET,
  COLON,
  COMMA,
  JsonScanner,
  LINE_END,
  type LineProblem,
  OPEN_BRACE,
  OPEN_BRACKET,
  problem,
  QUOTE,
  skipSpace,
} from "./json-scanner.ts";
import { fieldTypeText, fieldTypeWords } from "./types.ts";

const I64_RANGE = [-(2n ** 63n), 2n ** 63n - 1n] as const;
const U64_RANGE = [0n, 2n ** 64n - 1n] as const;

/** Bytes of fixed columns, of offsets and of presence that rows take at once, about: more than lines take that lack
 * nothing. */
const MOST_BYTES = 8 * 2 ** 20;

/** What came of some lines. */
export interface ParsedLines {
  readonly columns: readonly PackColumn[];
  readonly numRows: number;
  /** Lines, those without a row included. */
  readonly numLines: number;
  /** Bytes that the lines took: less than there were where the rows would take too much memory together. */
  readonly numBytes: number;
  readonly skipped: number;
  /** What was wrong with the first line that could not be read; `line` counts from 0. */
  readonly failure?: { readonly line: number; readonly message: string } | undefined;
}

export interface LinesOptions {
  /** By column: whether its type was given, not found out. Then floats round integers that they cannot hold, and texts
   * take numbers and booleans as they are written; else both are refused. */
  readonly given: readonly boolean[];
  /** Leaves lines out that cannot be read. */
  readonly skipBad: boolean;
  /** Leaves keys out that are no column; else they are refused. */
  readonly skipUnknown: boolean;
}

/** Parses lines to rows of some fields. Its memory is used again for each call. */
export class JsonLines {
  readonly #plan: Plan;
  readonly #options: LinesOptions;
  readonly #scanner = new JsonScanner();
  /** Columns whose types were given. */
  readonly #given: ReadonlySet<ColumnBuilder>;
  /** By node: the row that it was last seen in. */
  readonly #seen: Float64Array;
  readonly #mostRows: number;
  #row = 0;

  constructor(fields: readonly PackField[], paths: readonly KeyPath[], options: LinesOptions) {
    this.#plan = planOf(fields, paths);
    this.#mostRows = mostRowsOf(fields);
    this.#options = options;
    this.#given = new Set(this.#plan.columns.filter((_, i) => options.given[i]));
    this.#seen = new Float64Array(this.#plan.numNodes).fill(-1);
  }

  /** Takes the memory of earlier rows, column by column, to use it again. */
  reuse(spares: readonly Spare[]): void {
    spares.forEach((spare, i) => {
      this.#plan.columns[i]!.reuse(spare);
    });
  }

  /** The lines in the first `length` bytes, the last of which ends a line, or as many of them as may be parsed at once. */
  parse(bytes: Buffer, length: number): ParsedLines {
    this.#seen.fill(-1);
    this.#row = 0;
    let numLines = 0;
    let skipped = 0;
    let failure: ParsedLines["failure"];
    let at = 0;
    const suspect = !isUtf8(bytes.subarray(0, length));
    for (; at < length && this.#row < this.#mostRows; numLines++) {
      const start = at;
      const first = skipSpace(bytes, at);
      if (bytes[first] === LINE_END) {
        at = first + 1;
        continue;
      }
      try {
        if (suspect) checkUtf8(bytes, start);
        at = this.#parseLine(bytes, first);
      } catch (error) {
        if (typeof (error as LineProblem).at !== "number") throw error;
        for (const column of this.#plan.columns) column.cutTo(this.#row);
        this.#seen.fill(-1);
        failure ??= { line: numLines, message: (error as LineProblem).message };
        if (!this.#options.skipBad) break;
        skipped++;
        at = bytes.indexOf(LINE_END, start) + 1;
      }
    }
    const numRows = this.#row;
    for (const column of this.#plan.columns) column.padTo(numRows);
    return {
      columns: this.#plan.columns.map((column) => column.take()),
      numRows,
      numLines,
      numBytes: at,
      skipped,
      failure,
    };
  }

  #parseLine(bytes: Buffer, start: number): number {
    if (bytes[start] !== OPEN_BRACE)
      throw problem(start, "holds no object; each line must be one JSON object");
    const end = skipSpace(bytes, this.#parseObject(bytes, start + 1, this.#plan.root));
    if (bytes[end] !== LINE_END) throw problem(end, "goes on behind its object");
    this.#row++;
    return end + 1;
  }

  /** Returns where the object ends. */
  #parseObject(bytes: Buffer, start: number, object: PlanObject): number {
    const { nodes } = object;
    let at = skipSpace(bytes, start);
    if (bytes[at] === CLOSE_BRACE) return at + 1;
    for (let expected = 0; ; expected++) {
      if (bytes[at] !== QUOTE) throw problem(at, "is no JSON: a key in quotes should follow");
      const likely = nodes[expected];
      let node: PlanNode | undefined;
      if (likely !== undefined && hasKey(bytes, at + 1, likely.bytes)) {
        node = likely;
        at += likely.bytes.length + 2;
      } else {
        const key = this.#scanner.text(bytes, at);
        at = this.#scanner.end;
        node = object.byKey.get(key);
        if (node === undefined && !this.#options.skipUnknown) throw problem(at, unknownKey(key));
        // Keys that are left out may stand between those of the usual order.
        expected = node === undefined ? expected - 1 : node.index;
      }
      at = skipSpace(bytes, at);
      if (bytes[at] !== COLON) throw problem(at, "is no JSON: a colon should follow its key");
      at = skipSpace(bytes, at + 1);
      at = skipSpace(
        bytes,
        node === undefined ? this.#scanner.skip(bytes, at) : this.#parseValue(bytes, at, node),
      );
      const next = bytes[at];
      if (next === CLOSE_BRACE) return at + 1;
      if (next !== COMMA)
        throw problem(at, next === LINE_END ? "ends within its object" : "is no JSON: a comma should follow");
      at = skipSpace(bytes, at + 1);
    }
  }

  #parseValue(bytes: Buffer, at: number, node: PlanNode): number {
    if (this.#seen[node.id] === this.#row) throw problem(at, `has key ${JSON.stringify(node.key)} twice`);
    this.#seen[node.id] = this.#row;
    const { column } = node;
    const isNull = bytes[at] === 0x6e && this.#scanner.isNull(bytes, at);
    if (column === undefined) {
      if (isNull) return at + 4;
      if (bytes[at] !== OPEN_BRACE) throw this.#mismatch(bytes, at, node.key, "an object");
      return this.#parseObject(bytes, at + 1, node.object!);
    }
    column.padTo(this.#row);
    if (isNull) {
      column.addNull();
      return at + 4;
    }
    const end = this.#parseInto(bytes, at, column);
    column.endRow();
    return end;
  }

  #parseInto(bytes: Buffer, at: number, column: ColumnBuilder): number {
    const { kind, shape } = column.field;
    if (kind === "utf8") {
      if (bytes[at] === QUOTE) return this.#scanner.addText(bytes, at, column);
      const end = this.#given.has(column) ? this.#scanner.scalarEnd(bytes, at) : -1;
      if (end < 0) throw this.#wrongType(bytes, at, column);
      column.addBytes(bytes, at, end);
      return end;
    }
    if (kind === "list") {
      if (bytes[at] !== OPEN_BRACKET) throw this.#wrongType(bytes, at, column);
      return this.#parseElements(bytes, at, column, -1);
    }
    return shape.length === 0
      ? this.#parseElement(bytes, at, column)
      : this.#parseShape(bytes, at, column, 0);
  }

  /** A list of which each element is a list of the next dimension, or of numbers. */
  #parseShape(bytes: Buffer, start: number, column: ColumnBuilder, axis: number): number {
    const { shape } = column.field;
    if (bytes[start] !== OPEN_BRACKET) throw this.#wrongType(bytes, start, column);
    if (axis === shape.length - 1) return this.#parseElements(bytes, start, column, shape[axis]!);
    let at = start;
    for (let i = 0; i < shape[axis]!; i++) {
      if (i > 0 && bytes[at] !== COMMA) throw this.#wrongSize(at, column);
      at = skipSpace(bytes, this.#parseShape(bytes, skipSpace(bytes, at + 1), column, axis + 1));
    }
    if (bytes[at] !== CLOSE_BRACKET) throw this.#wrongSize(at, column);
    return at + 1;
  }

  /** A list of `size` elements, or where that is -1, of any number. */
  #parseElements(bytes: Buffer, start: number, column: ColumnBuilder, size: number): number {
    const before = column.count;
    let at = skipSpace(bytes, start + 1);
    if (bytes[at] !== CLOSE_BRACKET) {
      for (;;) {
        at = this.#parseElement(bytes, at, column);
        let next = bytes[at];
        if (next !== COMMA) {
          at = skipSpace(bytes, at);
          next = bytes[at];
          if (next === CLOSE_BRACKET) break;
          if (next !== COMMA)
            throw problem(
              at,
              next === LINE_END ? "ends within a list" : "is no JSON: a comma should follow in a list",
            );
        }
        at++;
        if (bytes[at]! <= 0x20) at = skipSpace(bytes, at);
      }
    }
    if (size >= 0 && column.count - before !== size) throw this.#wrongSize(at, column);
    return at + 1;
  }

  #parseElement(bytes: Buffer, at: number, column: ColumnBuilder): number {
    if (column.isWide) {
      // Most integers are short: nothing is kept of them but their digits.
      let digit = bytes[at]! - 0x30;
      if (digit > 0 && digit <= 9) {
        let value = digit;
        let end = at + 1;
        const most = at + 9;
        for (digit = bytes[end]! - 0x30; digit >= 0 && digit <= 9 && end < most; digit = bytes[++end]! - 0x30)
          value = (value * 10 + digit) | 0;
        const next = bytes[end];
        if (next === COMMA || next === CLOSE_BRACKET || next === CLOSE_BRACE) {
          if (column.count === column.capacity) column.reserve(1);
          const place = 2 * column.count++;
          column.elements[place] = value;
          column.elements[place + 1] = 0;
          return end;
        }
      }
    } else if (column.field.dtype === "BOOL") {
      const truth = this.#scanner.truth(bytes, at);
      if (truth < 0) throw this.#wrongType(bytes, at, column);
      column.add(truth);
      return at + (truth === 1 ? 4 : 5);
    }
    return this.#parseNumber(bytes, at, column);
  }

  #parseNumber(bytes: Buffer, at: number, column: ColumnBuilder): number {
    const { numbers } = this.#scanner;
    const end = numbers.read(bytes, at);
    if (column.isFloat) {
      if (end >= 0) {
        if (numbers.isInteger && !this.#given.has(column) && numbers.isRounded(bytes, at, end))
          throw this.#outside(bytes, at, end, column);
        column.add(numbers.value);
        return end;
      }
      const special = this.#scanner.special(bytes, at);
      if (special < 0) throw this.#wrongType(bytes, at, column);
      column.add(this.#scanner.value);
      return special;
    }
    if (end < 0) throw this.#wrongType(bytes, at, column);
    if (!numbers.isInteger) throw this.#wrongType(bytes, at, column);
    if (column.isWide) this.#addWide(bytes, at, end, column);
    else {
      const { value } = numbers;
      if (value < column.least || value > column.most) throw this.#outside(bytes, at, end, column);
      column.add(value);
    }
    return end;
  }

  #addWide(bytes: Buffer, at: number, end: number, column: ColumnBuilder): void {
    const { value, isBig } = this.#scanner.numbers;
    const unsigned = column.field.dtype === "U64";
    if (!isBig && (value >= 0 || !unsigned)) {
      column.addWide(value);
      return;
    }
    // Text this long is no integer of 64 bits, whatever it is.
    const big = end - at > 21 ? 2n ** 65n : BigInt(bytes.toString("latin1", at, end));
    const [least, most] = unsigned ? U64_RANGE : I64_RANGE;
    if (big < least || big > most) throw this.#outside(bytes, at, end, column);
    column.addBig(big);
  }

  #outside(bytes: Buffer, at: number, end: number, { field }: ColumnBuilder): LineProblem {
    const number = bytes.toString("latin1", at, Math.min(end, at + 40));
    const remedy = `--schema '${field.name}=${fieldTypeText({ ...field, dtype: "F64" })}' rounds it`;
    return problem(
      at,
      `has ${number} in column ${JSON.stringify(field.name)}, which ${field.dtype} cannot hold; ${remedy}`,
    );
  }

  #wrongType(bytes: Buffer, at: number, column: ColumnBuilder): LineProblem {
    const { field } = column;
    const isGiven = this.#given.has(column);
    const type = `give its ${isGiven ? "right " : ""}type by --schema, or `;
    // There is no type that takes more.
    const remedy = isGiven && field.kind === "utf8" ? "" : type;
    return this.#mismatch(
      bytes,
      at,
      field.name,
      `${fieldTypeWords(field)} (${fieldTypeText(field)})`,
      remedy,
    );
  }

  #mismatch(bytes: Buffer, at: number, name: string, expected: string, remedy = ""): LineProblem {
    const found = this.#scanner.describe(bytes, at);
    const column = JSON.stringify(name);
    return problem(
      at,
      `has ${found} in column ${column}, which holds ${expected}; ${remedy}leave it out by --columns`,
    );
  }

  #wrongSize(at: number, { field }: ColumnBuilder): LineProblem {
    const list = `${field.dtype.toLowerCase()}[]`;
    const wanted = `column ${JSON.stringify(field.name)} holds [${field.shape.join(",")}] in every row so far`;
    const remedy =
      field.shape.length === 1
        ? `--schema '${field.name}=${list}' allows any length`
        : "leave it out by --columns";
    return problem(at, `has a list of another size, and ${wanted}; ${remedy}`);
  }
}

/** Rows that are parsed at once: what a row lacks takes memory all the same, however short its line. */
function mostRowsOf(fields: readonly PackField[]): number {
  const bytes = fields.reduce(
    (total, field) => total + 1 + (field.kind === "fixed" ? rowBytesOf(field) : Int32Array.BYTES_PER_ELEMENT),
    0,
  );
  return Math.max(1, Math.floor(MOST_BYTES / bytes));
}

function checkUtf8(bytes: Buffer, start: number): void {
  if (!isUtf8(bytes.subarray(start, bytes.indexOf(LINE_END, start))))
    throw problem(start, "holds bytes that are no UTF-8; convert the file");
}

function hasKey(bytes: Buffer, at: number, key: Uint8Array): boolean {
  const { length } = key;
  for (let i = 0; i < length; i++) if (bytes[at + i] !== key[i]) return false;
  return bytes[at + length] === QUOTE;
}

function unknownKey(key: string): string {
  const name = JSON.stringify(key.length > 60 ? `${key.slice(0, 60)}…` : key);
  return `has key ${name}, which the first lines do not have; give its type by --schema, or name the columns to pack by --columns`;
}
