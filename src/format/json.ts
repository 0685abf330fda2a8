/**
 * A strict, bounded JSON reader (RFC 8259) for file headers. It pulls values one at a time instead of
 * building a tree, so that hostile text costs no more memory than the caller keeps, and it reports what
 * `JSON.parse` hides: duplicate keys, numbers that lose digits, and where the text goes wrong.
 */
import { type ErrorCode, HeadraceError } from "../errors.ts";

/** How a reader names its text and its failures. */
export interface JsonContext {
  /** For messages: `header`, `index`. */
  readonly what: string;
  /** Code for text that is not JSON, or nests too deep. */
  readonly syntax: ErrorCode;
  /** Code for a key that an object has twice. */
  readonly duplicate: ErrorCode;
}

/** What kind of value comes next. */
export type JsonKind = "object" | "array" | "string" | "number" | "boolean" | "null";

/** Objects and arrays inside each other, at most. */
export const MAX_JSON_DEPTH = 64;

const QUOTE = 0x22;
const COMMA = 0x2c;
const MINUS = 0x2d;
const DOT = 0x2e;
const ZERO = 0x30;
const NINE = 0x39;
const COLON = 0x3a;
const OPEN_BRACKET = 0x5b;
const BACKSLASH = 0x5c;
const CLOSE_BRACKET = 0x5d;
const OPEN_BRACE = 0x7b;
const CLOSE_BRACE = 0x7d;

/** Integers of so many digits are exact however they are summed up. */
const EXACT_DIGITS = 15;

const NUMBER = /-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?/y;
const ESCAPES: Readonly<Record<string, string>> = {
  '"': '"',
  "\\": "\\",
  "/": "/",
  b: "\b",
  f: "\f",
  n: "\n",
  r: "\r",
  t: "\t",
};

/**
 * Text of UTF-8 bytes, a byte order mark kept as a character; undefined where the bytes are not UTF-8.
 *
 * Strict as RFC 3629: no overlong forms, no surrogates, nothing past U+10FFFF.
 */
export function decodeUtf8(bytes: Uint8Array): string | undefined {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return undefined;
  }
}

/** A string for messages: quoted, on one line, cut after `limit` characters. */
export function quoted(text: string, limit = 80): string {
  return text.length <= limit ? JSON.stringify(text) : `${JSON.stringify(text.slice(0, limit))}…`;
}

/**
 * A cursor over JSON text. Each `read` or `skip` takes exactly one value; failures throw the context's codes
 * with the byte where they lie, counted in UTF-8 from the start of the text.
 */
export class JsonReader {
  readonly #text: string;
  readonly #context: JsonContext;
  #at = 0;
  #depth = 0;

  constructor(text: string, context: JsonContext) {
    this.#text = text;
    this.#context = context;
  }

  /** The kind of the next value, judged by its first character; takes nothing. */
  peek(): JsonKind {
    const code = this.#next();
    if (code === QUOTE) return "string";
    if (code === MINUS || isDigit(code)) return "number";
    if (code === OPEN_BRACE) return "object";
    if (code === OPEN_BRACKET) return "array";
    if (code === 0x74 || code === 0x66) return "boolean";
    if (code === 0x6e) return "null";
    throw this.#unexpected("a value");
  }

  /** Takes an object. `readValue` gets each key, unescaped, and must take its value. No key comes twice. */
  readObject(readValue: (key: string) => void): void {
    this.#open(OPEN_BRACE, "'{'");
    const seen = new Set<string>();
    while (!this.#closes(CLOSE_BRACE, "'}'", seen.size === 0)) {
      if (this.#next() !== QUOTE) throw this.#unexpected("a key in quotes");
      const start = this.#at;
      const key = this.readString();
      if (seen.size === seen.add(key).size) throw this.#duplicate(key, start);
      if (!this.#takeIf(COLON)) throw this.#unexpected("':'");
      readValue(key);
    }
  }

  /** Takes an array. `readElement` gets each index and must take its value. */
  readArray(readElement: (index: number) => void): void {
    this.#open(OPEN_BRACKET, "'['");
    for (let index = 0; !this.#closes(CLOSE_BRACKET, "']'", index === 0); index++) readElement(index);
  }

  /** Takes a string and unescapes it. Escapes that leave half a surrogate pair are refused. */
  readString(): string {
    if (this.#next() !== QUOTE) throw this.#unexpected("a string");
    const text = this.#text;
    const start = this.#at + 1;
    for (let at = start; at < text.length; at++) {
      const code = text.charCodeAt(at);
      if (code === QUOTE) {
        this.#at = at + 1;
        return text.slice(start, at);
      }
      if (code === BACKSLASH) return this.#readEscaped(start, at);
      if (code < 0x20) {
        this.#at = at;
        throw this.#unexpected("no control character in a string");
      }
    }
    this.#at = text.length;
    throw this.#unexpected("'\"' at the end of a string");
  }

  /**
   * Takes a number written as digits alone; takes nothing and gives undefined for `-1`, `1.0`, `1e3` and
   * values that are no numbers. Exact up to 2^53-1; above that the nearest double.
   */
  readNatural(): number | undefined {
    if (!isDigit(this.#next())) return undefined;
    const text = this.#text;
    const start = this.#at;
    let at = start;
    let value = 0;
    let code = text.charCodeAt(at);
    while (code >= ZERO && code <= NINE) {
      value = value * 10 + (code - ZERO);
      code = text.charCodeAt(++at);
    }
    if (code === DOT || code === 0x65 || code === 0x45) return undefined;
    const digits = at - start;
    this.#at = at;
    if (digits > 1 && text.charCodeAt(start) === ZERO) {
      this.#at = start;
      throw this.#unexpected("no leading zero");
    }
    return digits <= EXACT_DIGITS ? value : Number(text.slice(start, at));
  }

  /** Takes any number, as the nearest double. */
  readNumber(): number {
    this.#next();
    NUMBER.lastIndex = this.#at;
    const token = NUMBER.exec(this.#text)?.[0];
    if (token === undefined) throw this.#unexpected("a number");
    this.#at += token.length;
    if (isDigit(this.#text.charCodeAt(this.#at))) throw this.#unexpected("no leading zero");
    return Number(token);
  }

  /** Takes any value and keeps nothing of it; it is checked all the same. */
  skipValue(): void {
    switch (this.peek()) {
      case "object":
        this.readObject(() => this.skipValue());
        return;
      case "array":
        this.readArray(() => this.skipValue());
        return;
      case "string":
        this.readString();
        return;
      case "number":
        this.readNumber();
        return;
      default:
        this.#skipWord();
    }
  }

  /** Checks that nothing but white space is left. */
  end(): void {
    if (!Number.isNaN(this.#next())) throw this.#unexpected("the end");
  }

  /** The next value as written, for messages: one line, cut after 40 characters. Takes nothing. */
  excerpt(): string {
    this.#next();
    const shown = this.#text.slice(this.#at, this.#at + 40);
    return /^[\w.+-]+/.exec(shown)?.[0] ?? (shown === "" ? "the end" : quoted(shown));
  }

  /** Where the next value starts, for messages: `byte 12`. */
  position(): string {
    this.#next();
    return `byte ${utf8Length(this.#text, this.#at)}`;
  }

  /** Skips white space; the code of the next character, NaN at the end. */
  #next(): number {
    const text = this.#text;
    let code = text.charCodeAt(this.#at);
    while (code === 0x20 || code === 0x0a || code === 0x0d || code === 0x09) {
      code = text.charCodeAt(++this.#at);
    }
    return code;
  }

  #takeIf(code: number): boolean {
    if (this.#next() !== code) return false;
    this.#at++;
    return true;
  }

  #open(code: number, name: string): void {
    if (this.#next() !== code) throw this.#unexpected(name);
    if (++this.#depth > MAX_JSON_DEPTH) {
      throw this.#syntax(`it nests deeper than ${MAX_JSON_DEPTH} levels`, this.#at);
    }
    this.#at++;
  }

  /** Takes what stands before the next element, a comma unless it is the first, or the closing bracket. */
  #closes(bracket: number, name: string, isFirst: boolean): boolean {
    if (this.#takeIf(bracket)) {
      this.#depth--;
      return true;
    }
    if (!isFirst && !this.#takeIf(COMMA)) throw this.#unexpected(`',' or ${name}`);
    return false;
  }

  #readEscaped(start: number, firstEscape: number): string {
    const text = this.#text;
    const parts: string[] = [];
    let from = start;
    let at = firstEscape;
    for (;;) {
      const code = text.charCodeAt(at);
      if (code === BACKSLASH) {
        parts.push(text.slice(from, at));
        this.#at = at + 1;
        parts.push(this.#readEscape());
        from = this.#at;
        at = from;
        continue;
      }
      if (code >= 0x20 && code !== QUOTE) {
        at++;
        continue;
      }
      this.#at = at;
      if (code !== QUOTE) throw this.#unexpected("'\"' at the end of a string");
      this.#at++;
      const value = parts.join("") + text.slice(from, at);
      if (!value.isWellFormed()) {
        throw this.#syntax("a string's escapes leave half a surrogate pair", start);
      }
      return value;
    }
  }

  #readEscape(): string {
    const letter = this.#text.charAt(this.#at);
    if (letter === "u") {
      const hex = this.#text.slice(this.#at + 1, this.#at + 5);
      if (!/^[0-9a-fA-F]{4}$/.test(hex)) throw this.#unexpected("four hexadecimal digits after \\u");
      this.#at += 5;
      return String.fromCharCode(Number.parseInt(hex, 16));
    }
    const value = Object.hasOwn(ESCAPES, letter) ? ESCAPES[letter] : undefined;
    if (value === undefined) throw this.#unexpected("an escape that JSON knows");
    this.#at++;
    return value;
  }

  #skipWord(): void {
    for (const word of ["true", "false", "null"]) {
      if (this.#text.startsWith(word, this.#at)) {
        this.#at += word.length;
        return;
      }
    }
    throw this.#unexpected("a value");
  }

  #duplicate(key: string, at: number): HeadraceError {
    return new HeadraceError(
      this.#context.duplicate,
      `${this.#context.what} has the key ${quoted(key)} twice, again at byte ${utf8Length(this.#text, at)}`,
    );
  }

  #unexpected(expected: string): HeadraceError {
    const character = this.#text.codePointAt(this.#at);
    const found = character === undefined ? "the end" : quoted(String.fromCodePoint(character));
    return this.#syntax(`expected ${expected}, found ${found}`, this.#at);
  }

  #syntax(problem: string, at: number): HeadraceError {
    const { what, syntax } = this.#context;
    return new HeadraceError(
      syntax,
      `${what} is not JSON: ${problem} at byte ${utf8Length(this.#text, at)} of ${what}`,
    );
  }
}

function isDigit(code: number): boolean {
  return code >= ZERO && code <= NINE;
}

/** Bytes of the first `end` UTF-16 units of `text` in UTF-8. */
function utf8Length(text: string, end: number): number {
  let bytes = 0;
  for (let at = 0; at < end; at++) {
    const code = text.charCodeAt(at);
    // Each half of a surrogate pair counts for two of the pair's four bytes.
    bytes += code < 0x80 ? 1 : code < 0x800 || (code >= 0xd800 && code < 0xe000) ? 2 : 3;
  }
  return bytes;
}
