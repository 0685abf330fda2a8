/** One row on its way through the scheduler. */
import type { EngineCapacity, InferRequest, PrefillChunk, SlotResult } from "./engine.ts";
import type { Finish, InferOutput } from "./output.ts";
import { type Decode, StopWatch } from "./stops.ts";

const NO_TOKENS = new Int32Array(0);
/** Tokens that a row's own array begins with room for. */
const FIRST_ROOM = 64;

/** What a row was asked, what it has made, and where it stands. Owned by one scheduler. */
export class Sequence {
  readonly request: InferRequest;
  /** Most tokens that it can come to, prompt and output together. */
  readonly tokenBound: number;
  /** Its number among all that came. */
  readonly arrival: number;
  /** Its number among all that were admitted, kept where it is put back: the lowest is the oldest. -1: not begun. */
  age = -1;
  /** -1: none. */
  slot = -1;
  /** The last step that it took part in and whose result is still to come; -1: none. */
  step = -1;
  /** Tries that failed. */
  failures = 0;
  /** When it was first admitted; NaN before. */
  admittedMs = Number.NaN;
  /** Before then it is not tried again. */
  notBeforeMs = 0;
  /** Whether it has made a token, or an engine without tokens its whole text, in this try. */
  answered = false;
  /** Tokens that were made and kept in this try. */
  numTokens = 0;
  readonly #decode: Decode | undefined;
  #tokens = NO_TOKENS;
  #logprobs: Float32Array | undefined;
  #stops: StopWatch | undefined;
  /** What is to be prefilled: the prompt, and behind it what was made before it was put back. */
  #known: Int32Array;
  #prefilled = 0;
  #begun = false;

  constructor(
    request: InferRequest,
    arrival: number,
    { contextLength, promptsOnly }: EngineCapacity,
    decode: Decode | undefined,
  ) {
    const { prompt, maxNewTokens } = request;
    this.request = request;
    this.arrival = arrival;
    this.tokenBound = promptsOnly ? prompt.length : Math.min(contextLength, prompt.length + maxNewTokens);
    this.#decode = decode;
    this.#known = request.prompt;
    this.#watch();
  }

  /** Tokens of prompt and output now. */
  get length(): number {
    return this.request.prompt.length + this.numTokens;
  }

  /** Whether a chunk is still to come. */
  get prefilling(): boolean {
    return !this.#begun || this.#prefilled < this.#known.length;
  }

  /** Tokens that are still to be prefilled. */
  get unfilled(): number {
    return this.#known.length - this.#prefilled;
  }

  /** Why it is to end before it is done; undefined where it is not. */
  whyOverdue(nowMs: number): string | undefined {
    const { signal, timeoutMs } = this.request;
    if (signal?.aborted) return "cancelled by its signal";
    if (timeoutMs === undefined || !(nowMs - this.admittedMs >= timeoutMs)) return undefined;
    return `timed out after ${timeoutMs} ms, with ${this.numTokens} tokens made`;
  }

  /** The next chunk, of at most `most` tokens. */
  takeChunk(most: number): PrefillChunk {
    const position = this.#prefilled;
    const end = Math.min(this.#known.length, position + most);
    this.#begun = true;
    this.#prefilled = end;
    return {
      slot: this.slot,
      position,
      tokens: this.#known.subarray(position, end),
      last: end === this.#known.length,
      generated: this.#known.length - this.request.prompt.length,
      request: this.request,
    };
  }

  /** Takes the next token; says why the row ends with it, if it does. */
  take(token: number, logprob: number | undefined): Exclude<Finish, "error"> | undefined {
    const { stopIds, logprobs, maxNewTokens } = this.request;
    if (stopIds?.includes(token)) return "stop";
    this.#makeRoom();
    this.#tokens[this.numTokens] = token;
    if (logprobs === true) {
      this.#logprobs ??= new Float32Array(this.#tokens.length);
      this.#logprobs[this.numTokens] = logprob ?? Number.NaN;
    }
    this.numTokens++;
    if (this.#stops?.push(this.#tokens.subarray(0, this.numTokens))) return "stop";
    return this.numTokens >= maxNewTokens || this.length >= this.tokenBound ? "length" : undefined;
  }

  /** Leaves its slot, and keeps what it made: that is prefilled again later. */
  putBack(): void {
    this.#known = this.request.prompt;
    if (this.numTokens > 0) {
      this.#known = new Int32Array(this.length);
      this.#known.set(this.request.prompt);
      this.#known.set(this.#tokens.subarray(0, this.numTokens), this.request.prompt.length);
    }
    this.#leave();
  }

  /** Leaves its slot, and begins anew later. */
  startOver(): void {
    this.failures++;
    this.numTokens = 0;
    this.answered = false;
    this.age = -1;
    this.#logprobs = undefined;
    this.#known = this.request.prompt;
    this.#watch();
    this.#leave();
  }

  finish(finish: Exclude<Finish, "error">, result: SlotResult): InferOutput {
    // A stop text may end in what has waited for the rest of a character.
    if (this.#stops?.flush(this.#tokens.subarray(0, this.numTokens))) finish = "stop";
    const stopped = this.#stops?.stopped;
    const tokens = this.#tokens.slice(0, stopped?.numTokens ?? this.numTokens);
    const text = result.text ?? stopped?.text ?? (result.embedding ? undefined : this.#decode?.(tokens));
    const logprobs = result.logprobs ?? this.#logprobs?.slice(0, tokens.length);
    return {
      row: this.request.row,
      tokens,
      ...(logprobs && { logprobs }),
      ...(text !== undefined && { text }),
      finish,
      ...(result.embedding && { embedding: result.embedding }),
      promptTokens: result.usage?.promptTokens ?? this.request.prompt.length,
      outputTokens: result.usage?.outputTokens ?? tokens.length,
      attempts: this.failures + 1,
    };
  }

  /** `tries`: those that the engine made by itself at the last attempt, and tells of in `error`. */
  fail(error: string, tries = 1): InferOutput {
    const attempts = Number.isNaN(this.admittedMs) ? 0 : this.failures + (this.age < 0 ? 0 : 1);
    return {
      row: this.request.row,
      tokens: NO_TOKENS,
      finish: "error",
      error: attempts > 1 ? `${error} (after ${attempts} attempts)` : error,
      promptTokens: this.request.prompt.length,
      outputTokens: 0,
      attempts: attempts === 0 ? 0 : attempts + tries - 1,
    };
  }

  #watch(): void {
    const { stopStrings } = this.request;
    this.#stops = undefined;
    if (this.#decode === undefined || stopStrings === undefined || stopStrings.length === 0) return;
    this.#stops = new StopWatch(stopStrings, this.#decode);
  }

  #leave(): void {
    this.slot = -1;
    this.step = -1;
    this.#prefilled = 0;
    this.#begun = false;
  }

  #makeRoom(): void {
    if (this.numTokens < this.#tokens.length) return;
    const room = Math.min(this.request.maxNewTokens, Math.max(FIRST_ROOM, 2 * this.#tokens.length));
    const tokens = new Int32Array(room);
    tokens.set(this.#tokens);
    this.#tokens = tokens;
    if (this.#logprobs === undefined) return;
    const logprobs = new Float32Array(room);
    logprobs.set(this.#logprobs);
    this.#logprobs = logprobs;
  }
}
