/** The parts of JSON that are no numbers, in bytes of which a line's end always follows. */
import type { ColumnBuilder } from "./builder.ts";
import { NumberReader } from "./numbers.ts";

export const LINE_END = 0x0a;
export const QUOTE = 0x22;
export const COMMA = 0x2c;
export const COLON = 0x3a;
export const OPEN_BRACKET = 0x5b;
export const CLOSE_BRACKET = 0x5d;
export const OPEN_BRACE = 0x7b;
export const CLOSE_BRACE = 0x7d;
const BACKSLASH = 0x5c;
/** Objects and lists within each other, of what is left out. */
const MAX_DEPTH = 512;

/** What is wrong with a line. Thrown, and turned into an error where the line's number is known. */
export interface LineProblem {
  /** In the bytes that are parsed. */
  readonly at: number;
  readonly message: string;
}

export function problem(at: number, message: string): LineProblem {
  return { at, message };
}

/** Where the next byte is that is neither a space, a tab nor a carriage return. */
export function skipSpace(bytes: Buffer, start: number): number {
  let at = start;
  for (let byte = bytes[at]; byte === 0x20 || byte === 0x09 || byte === 0x0d; byte = bytes[++at]);
  return at;
}

/** Reads values, one at a time; what else there is to say of one is in its fields. */
export class JsonScanner {
  readonly numbers = new NumberReader();
  /** Where the last text ended. */
  end = 0;
  /** The last of NaN and the infinities. */
  value = 0;
  #decoded = Buffer.alloc(2 ** 12);

  isNull(bytes: Buffer, at: number): boolean {
    return bytes[at] === 0x6e && bytes[at + 1] === 0x75 && bytes[at + 2] === 0x6c && bytes[at + 3] === 0x6c;
  }

  /** 1 for true, 0 for false, -1 for anything else. */
  truth(bytes: Buffer, at: number): number {
    if (bytes[at] === 0x74) return word(bytes, at, "true") ? 1 : -1;
    return word(bytes, at, "false") ? 0 : -1;
  }

  /** `NaN` and `Infinity`, which JSON does not have and many writers do. Returns where it ends, or -1. */
  special(bytes: Buffer, at: number): number {
    const negative = bytes[at] === 0x2d;
    const start = negative ? at + 1 : at;
    if (word(bytes, start, "Infinity")) {
      this.value = negative ? Number.NEGATIVE_INFINITY : Number.POSITIVE_INFINITY;
      return start + 8;
    }
    if (negative || !word(bytes, start, "NaN")) return -1;
    this.value = Number.NaN;
    return start + 3;
  }

  /** Where the number or boolean at `at` ends, or -1 where neither stands there. */
  scalarEnd(bytes: Buffer, at: number): number {
    const truth = this.truth(bytes, at);
    if (truth >= 0) return at + (truth === 1 ? 4 : 5);
    const end = this.numbers.read(bytes, at);
    return end >= 0 ? end : this.special(bytes, at);
  }

  /** The text that starts with the quote at `start`. */
  text(bytes: Buffer, start: number): string {
    const end = plainEnd(bytes, start + 1);
    if (bytes[end] === QUOTE) {
      this.end = end + 1;
      return bytes.toString("utf8", start + 1, end);
    }
    return this.#decoded.toString("utf8", 0, this.#decode(bytes, start + 1, end));
  }

  /** Adds the text that starts with the quote at `start` to a column. Returns where it ends. */
  addText(bytes: Buffer, start: number, column: ColumnBuilder): number {
    const end = plainEnd(bytes, start + 1);
    if (bytes[end] === QUOTE) {
      column.addBytes(bytes, start + 1, end);
      return end + 1;
    }
    const length = this.#decode(bytes, start + 1, end);
    column.addBytes(this.#decoded, 0, length);
    return this.end;
  }

  /** Where the value at `start` ends, which is looked at no closer than that takes. */
  skip(bytes: Buffer, start: number): number {
    let at = start;
    for (let depth = 0; ; ) {
      const byte = bytes[at]!;
      if (byte === QUOTE) at = this.#skipText(bytes, at + 1);
      else if (byte === OPEN_BRACKET || byte === 0x7b) {
        if (++depth > MAX_DEPTH) throw problem(at, `nests deeper than ${MAX_DEPTH}`);
        at++;
      } else if (byte === 0x5d || byte === 0x7d) {
        if (depth === 0) throw problem(at, "is no JSON: a value should follow");
        depth--;
        at++;
      } else if (byte === LINE_END) throw problem(at, "ends within its object");
      else if (byte === 0x2c || byte === 0x3a) {
        if (depth === 0) throw problem(at, "is no JSON: a value should follow");
        at++;
        continue;
      } else at = wordEnd(bytes, at);
      if (depth === 0) return at;
      at = skipSpace(bytes, at);
    }
  }

  /** For messages: what stands at `at`. */
  describe(bytes: Buffer, at: number): string {
    const byte = bytes[at]!;
    if (byte === QUOTE) return "text";
    if (byte === OPEN_BRACKET) return "a list";
    if (byte === 0x7b) return "an object";
    if (byte === LINE_END) return "nothing";
    if (this.isNull(bytes, at)) return "null";
    if (this.truth(bytes, at) >= 0) return "a boolean";
    const end = this.numbers.read(bytes, at);
    if (end >= 0)
      return `the ${this.numbers.isInteger ? "integer" : "number"} ${bytes.toString("latin1", at, Math.min(end, at + 40))}`;
    return JSON.stringify(bytes.toString("latin1", at, Math.min(wordEnd(bytes, at), at + 20)));
  }

  #skipText(bytes: Buffer, start: number): number {
    for (let at = start; ; at++) {
      at = plainEnd(bytes, at);
      if (bytes[at] === QUOTE) return at + 1;
      if (bytes[++at] === LINE_END) throw problem(at, "ends within a text");
    }
  }

  /** Decodes the text from `start` on, whose first escape is at `escaped`. Returns its bytes, which are in `#decoded`. */
  #decode(bytes: Buffer, start: number, escaped: number): number {
    let length = 0;
    let from = start;
    let at = escaped;
    for (;;) {
      this.#reserve(length + at - from + 4);
      bytes.copy(this.#decoded, length, from, at);
      length += at - from;
      if (bytes[at] === QUOTE) break;
      const kind = bytes[at + 1]!;
      if (kind === 0x75) {
        const code = codePoint(bytes, at);
        at += code > 0xffff ? 12 : 6;
        length = writeUtf8(this.#decoded, length, code);
      } else {
        const plain = ESCAPES[kind] ?? 0;
        if (plain === 0)
          throw problem(
            at,
            `has the unknown escape ${JSON.stringify(bytes.toString("latin1", at, at + 2))} in a text`,
          );
        this.#decoded[length++] = plain;
        at += 2;
      }
      from = at;
      at = plainEnd(bytes, at);
    }
    this.end = at + 1;
    return length;
  }

  #reserve(byteLength: number): void {
    if (byteLength <= this.#decoded.length) return;
    const grown = Buffer.alloc(2 * byteLength);
    this.#decoded.copy(grown);
    this.#decoded = grown;
  }
}

/** By their letter. */
const ESCAPES = new Uint8Array(256);
for (const [letter, plain] of Object.entries({
  '"': '"',
  "\\": "\\",
  "/": "/",
  b: "\b",
  f: "\f",
  n: "\n",
  r: "\r",
  t: "\t",
}))
  ESCAPES[letter.charCodeAt(0)] = plain.charCodeAt(0);

/** Where the next quote or backslash is. Throws for what no text may hold. */
function plainEnd(bytes: Buffer, start: number): number {
  for (let at = start; ; at++) {
    const byte = bytes[at]!;
    if (byte === QUOTE || byte === BACKSLASH) return at;
    if (byte < 0x20) throw problem(at, controlText(byte));
  }
}

function controlText(byte: number): string {
  if (byte === LINE_END) return "ends within a text";
  return `has the control character 0x${byte.toString(16).padStart(2, "0")} in a text, which JSON writes as an escape`;
}

function word(bytes: Buffer, at: number, text: string): boolean {
  for (let i = 0; i < text.length; i++) if (bytes[at + i] !== text.charCodeAt(i)) return false;
  return true;
}

/** Where letters and digits end; at least one byte on. */
function wordEnd(bytes: Buffer, start: number): number {
  let at = start + 1;
  for (; ; at++) {
    const byte = bytes[at]!;
    const inside =
      (byte >= 0x30 && byte <= 0x39) ||
      ((byte | 0x20) - 0x61) >>> 0 < 26 ||
      byte === 0x2e ||
      byte === 0x2b ||
      byte === 0x2d;
    if (!inside) return at;
  }
}

/** What the escape `\uXXXX` at `at` means, with the one behind it where the two are a pair. */
function codePoint(bytes: Buffer, at: number): number {
  const first = hex(bytes, at + 2);
  if (first < 0xd800 || first > 0xdfff) return first;
  const paired = first < 0xdc00 && bytes[at + 6] === BACKSLASH && bytes[at + 7] === 0x75;
  const second = paired ? hex(bytes, at + 8) : 0;
  if (second < 0xdc00 || second > 0xdfff)
    throw problem(
      at,
      `has half a surrogate pair, ${bytes.toString("latin1", at, at + 6)}, in a text, which UTF-8 cannot hold`,
    );
  return 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00);
}

function hex(bytes: Buffer, at: number): number {
  let value = 0;
  for (let i = 0; i < 4; i++) {
    const byte = bytes[at + i]!;
    const letter = byte | 0x20;
    const digit =
      byte >= 0x30 && byte <= 0x39 ? byte - 0x30 : letter >= 0x61 && letter <= 0x66 ? letter - 87 : -1;
    if (digit < 0) throw problem(at, "has an escape \\u without four hexadecimal digits in a text");
    value = 16 * value + digit;
  }
  return value;
}

function writeUtf8(target: Buffer, at: number, code: number): number {
  if (code < 0x80) {
    target[at] = code;
    return at + 1;
  }
  if (code < 0x800) {
    target[at] = 0xc0 | (code >> 6);
    target[at + 1] = 0x80 | (code & 63);
    return at + 2;
  }
  if (code < 0x10000) {
    target[at] = 0xe0 | (code >> 12);
    target[at + 1] = 0x80 | ((code >> 6) & 63);
    target[at + 2] = 0x80 | (code & 63);
    return at + 3;
  }
  target[at] = 0xf0 | (code >> 18);
  target[at + 1] = 0x80 | ((code >> 12) & 63);
  target[at + 2] = 0x80 | ((code >> 6) & 63);
  target[at + 3] = 0x80 | (code & 63);
  return at + 4;
}
