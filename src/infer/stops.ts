/** Finds stop texts in what a row makes, token by token. */

/** The text of tokens. Bytes that are no UTF-8, also a character that is not whole yet, become U+FFFD. */
export type Decode = (tokens: Int32Array) => string;

/** Where a text ends before a stop. */
export interface Stop {
  /** UTF-16 units before the stop text. */
  readonly start: number;
  /** UTF-16 units up to its end. */
  readonly end: number;
}

/** What is left of a row's output before a stop text. */
export interface StoppedText {
  readonly text: string;
  /** The first tokens, all of whose text lies in `text`; a character that several make up belongs to the last of them. */
  readonly numTokens: number;
}

/** Tokens that are decoded again and again while they wait for the end of a character, or have no text. One that is part
 * of a character has at least one of its four bytes. */
const MOST_HELD = 16;
const REPLACEMENT = "\uFFFD";

/** The stop text that would be complete first if `text` came unit by unit, the longest of those; none before `from`
 * counts. */
export function findStop(text: string, stops: readonly string[], from = 0): Stop | undefined {
  let found: Stop | undefined;
  for (const stop of stops) {
    const start = text.indexOf(stop, from);
    if (start < 0) continue;
    const end = start + stop.length;
    if (found === undefined || end < found.end || (end === found.end && start < found.start)) {
      found = { start, end };
    }
  }
  return found;
}

/**
 * Watches one row's tokens for stop texts. What it finds depends on the tokens alone, not on how they are cut: the
 * text is that of all tokens together, and the stop the one that ends first in it.
 *
 * Only the newest tokens are decoded, with those of the piece before, whose text is known: many decoders drop a space
 * at the beginning of what they are given.
 */
export class StopWatch {
  readonly #stops: readonly string[];
  readonly #decode: Decode;
  readonly #longest: number;
  /** Text of all tokens before `#read`. */
  #text: string[] = [];
  #length = 0;
  /** The last units of it, one fewer than the longest stop. */
  #tail = "";
  /** Of each token, where the text ends that it is part of. */
  readonly #ends: number[] = [];
  #prefix = 0;
  #read = 0;
  #stopped: StoppedText | undefined;

  /** `stops` are not empty, and neither is any of them. */
  constructor(stops: readonly string[], decode: Decode) {
    this.#stops = stops;
    this.#decode = decode;
    this.#longest = Math.max(...stops.map((stop) => stop.length));
  }

  /** Looks at the last of `tokens`, which are all that the row has made. True where a stop text is complete. */
  push(tokens: Int32Array): boolean {
    return this.#look(tokens, tokens.length - this.#read >= MOST_HELD);
  }

  /** Looks once more at what waits for the end of a character that will not come. */
  flush(tokens: Int32Array): boolean {
    return this.#look(tokens, true);
  }

  /** Set once a stop text was found. */
  get stopped(): StoppedText | undefined {
    return this.#stopped;
  }

  #look(tokens: Int32Array, force: boolean): boolean {
    if (this.#stopped !== undefined) return true;
    if (tokens.length === this.#read) return false;
    const before = this.#decode(tokens.subarray(this.#prefix, this.#read));
    const text = this.#decode(tokens.subarray(this.#prefix));
    if (text.endsWith(REPLACEMENT) && !force) return false;
    const piece = text.slice(before.length);
    // Without text, tokens do not keep a decoder from dropping a space behind them.
    if (piece !== "" || tokens.length - this.#prefix >= MOST_HELD) this.#prefix = this.#read;
    this.#read = tokens.length;
    const end = this.#length + piece.length;
    while (this.#ends.length < tokens.length) this.#ends.push(end);
    this.#text.push(piece);
    const window = this.#tail + piece;
    const stop = findStop(window, this.#stops);
    const windowStart = end - window.length;
    this.#length = end;
    this.#tail = this.#longest > 1 ? window.slice(-(this.#longest - 1)) : "";
    if (stop !== undefined) this.#stop(windowStart + stop.start);
    return stop !== undefined;
  }

  #stop(length: number): void {
    let numTokens = 0;
    while (numTokens < this.#ends.length && this.#ends[numTokens]! <= length) numTokens++;
    this.#stopped = { text: this.#text.join("").slice(0, length), numTokens };
  }
}
