/** Rows of text as rows of token ids, in this thread. */
import { basename, dirname, join } from "node:path";
import { HeadraceError } from "../errors.ts";
import { byteTokenizer, openTokenizer, type Tokenizer } from "../infer/tokenizer.ts";

/** All that decides which ids a text gets. */
export interface TokenizeSettings {
  /** A `tokenizer.json`, a folder that holds one, or `bytes`. */
  readonly tokenizer: string;
  readonly maxLength: number | undefined;
  readonly addSpecial: boolean;
}

/** Texts `[offsets[i], offsets[i + 1])` of `bytes`, UTF-8; offsets need not start at 0. */
export interface Texts {
  readonly bytes: Uint8Array;
  readonly offsets: Int32Array;
  /** One byte a text, 0 where it is missing and gets no ids. */
  readonly validity: Uint8Array | undefined;
}

/** Ids of all texts, back to back, and how many each has. */
export interface Tokens {
  readonly ids: Int32Array;
  readonly counts: Int32Array;
}

/** Throws `SOURCE_NOT_FOUND`, `BAD_MODEL`, `IO_ERROR`, and `BAD_OPTION` for a file of another name. */
export function tokenizerOf(name: string): Tokenizer {
  if (name === "bytes") return byteTokenizer(undefined);
  const isFile = /\.json$/i.test(name);
  if (isFile && basename(name) !== "tokenizer.json") {
    const wanted = "give a tokenizer.json, the folder that holds it, or bytes";
    throw new HeadraceError("BAD_OPTION", `tokenizer ${name} is not named tokenizer.json; ${wanted}`);
  }
  const folder = isFile ? dirname(name) : name;
  const tokenizer = openTokenizer(folder);
  if (tokenizer !== undefined) return tokenizer;
  throw new HeadraceError("SOURCE_NOT_FOUND", `${join(folder, "tokenizer.json")}: there is no such file`);
}

/** Turns texts into ids; keeps its memory from call to call. */
export class RowTokenizer {
  readonly #tokenizer: Tokenizer;
  readonly #settings: TokenizeSettings;
  readonly #decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  #ids = new Int32Array(1 << 16);

  constructor(settings: TokenizeSettings, tokenizer = tokenizerOf(settings.tokenizer)) {
    this.#settings = settings;
    this.#tokenizer = tokenizer;
  }

  /** The ids are valid until the next call. */
  run({ bytes, offsets, validity }: Texts): Tokens {
    const { maxLength = Number.POSITIVE_INFINITY, addSpecial } = this.#settings;
    const numRows = offsets.length - 1;
    const counts = new Int32Array(numRows);
    let at = 0;
    for (let row = 0; row < numRows; row++) {
      if (validity?.[row] === 0) continue;
      const text = this.#decoder.decode(bytes.subarray(offsets[row]!, offsets[row + 1]!));
      let ids = this.#tokenizer.encode(text, addSpecial);
      if (ids.length > maxLength) ids = ids.subarray(0, maxLength);
      this.#reserve(at, ids.length);
      this.#ids.set(ids, at);
      at += ids.length;
      counts[row] = ids.length;
    }
    return { ids: this.#ids.subarray(0, at), counts };
  }

  #reserve(used: number, more: number): void {
    if (used + more <= this.#ids.length) return;
    const grown = new Int32Array(2 * (used + more));
    grown.set(this.#ids.subarray(0, used));
    this.#ids = grown;
  }
}
