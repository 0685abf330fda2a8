/**
 * What steps a running batch. Whoever schedules (`Scheduler`) decides which sequences run; an engine does their
 * arithmetic, and nothing else: it knows slots, tokens and memory, no dataset and no output file.
 *
 * An engine of your own needs {@link Engine.capacity}, {@link Engine.prefill}, {@link Engine.decode} and
 * {@link Engine.release}.
 *
 * Threads: calls come one at a time; each waits for the one before.
 */
import type { DeviceBuffer } from "../device/device.ts";

/** How a row's tokens are chosen. All are in force at once, in this order: penalty, temperature, topK, topP, minP. */
export interface SamplingOptions {
  /** 0, the default, takes the likeliest token (the lowest id among equals) and ignores topK, topP, minP and seed. */
  readonly temperature?: number | undefined;
  /** Keeps this many of the likeliest tokens, and those equal to the last of them; 0, the default, keeps all. */
  readonly topK?: number | undefined;
  /** Keeps the fewest of the likeliest tokens whose probabilities reach this sum; 1, the default, keeps all. */
  readonly topP?: number | undefined;
  /** Keeps tokens of at least this times the likeliest one's probability; 0, the default, keeps all. */
  readonly minP?: number | undefined;
  /** Divides positive logits of tokens that prompt or output hold already, and multiplies negative ones; default 1. */
  readonly repetitionPenalty?: number | undefined;
  /** With the row's number, all that its randomness comes from; an integer from 0, below 2^53; default 0. */
  readonly seed?: number | undefined;
}

/** One row's job. Not changed while it runs. */
export interface InferRequest {
  /** The row's index in its dataset, from 0: names it in outputs, and seeds it. */
  readonly row: number;
  /** Token ids, at least one; empty for engines that take {@link InferRequest.text}. */
  readonly prompt: Int32Array;
  /** The prompt as text, where the job has it. */
  readonly text?: string | undefined;
  /** Tokens after which the row ends with `length`; at least 1. */
  readonly maxNewTokens: number;
  /** Token ids that end the row with `stop`; they are not part of the output. */
  readonly stopIds?: readonly number[] | undefined;
  /** Texts that end the row with `stop`; neither they nor what follows is part of the output. */
  readonly stopStrings?: readonly string[] | undefined;
  readonly sampling?: SamplingOptions | undefined;
  /** Whether the natural logarithm of each token's probability is wanted: that of the model, before sampling's changes. */
  readonly logprobs?: boolean | undefined;
  /** From admission; the row then ends with an error. */
  readonly timeoutMs?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** What an engine can hold. */
export interface EngineCapacity {
  /** Sequences that run at once; slots are `[0, slots)`. */
  readonly slots: number;
  /** Most tokens of one sequence, prompt and output together. */
  readonly contextLength: number;
  /** Most tokens of one step, those of prefill and decode together; at least `slots`. */
  readonly tokensPerStep: number;
  /** Whether prompts may come as text alone; default false. Such an engine is given stop strings too, and cuts its text
   * itself. */
  readonly takesText?: boolean | undefined;
  /** Whether sequences end with their prompt, which may then fill the whole context, as where states are pooled; default
   * false: a prompt has to leave room for a token. */
  readonly promptsOnly?: boolean | undefined;
  /** Whether steps may end without any result, again and again, since answers come from elsewhere; default what
   * `takesText` is. Any other engine that gives nothing in 1,000 steps in a row fails with `BAD_ENGINE`. */
  readonly waits?: boolean | undefined;
}

/** Tokens `[position, position + tokens.length)` of the sequence in `slot`. */
export interface PrefillChunk {
  readonly slot: number;
  /** Of the sequence's first token of this chunk; 0 starts the slot anew. */
  readonly position: number;
  readonly tokens: Int32Array;
  /** Whether these are the last ones known: the step then gives the next. */
  readonly last: boolean;
  /** Tokens at the end of all that is prefilled which the row itself made before it was put back: its randomness goes on
   * behind them. */
  readonly generated: number;
  readonly request: InferRequest;
}

/** A row's vector in device memory: float32, C order. Borrowed from the engine until `release`. */
export interface DeviceVector {
  readonly buffer: DeviceBuffer;
  readonly byteOffset: number;
  /** Elements. */
  readonly length: number;
  release(): void;
}

/** What a step did for one slot. A slot without a result has got no further yet. */
export interface SlotResult {
  readonly slot: number;
  /** The next token. */
  readonly token?: number | undefined;
  /** Of `token`, where it was asked for. */
  readonly logprob?: number | undefined;
  /** Set by engines that end sequences themselves: nothing more comes for this slot. */
  readonly finish?: "stop" | "length" | undefined;
  /** The whole output as text, with `finish`, by engines that know no tokens. */
  readonly text?: string | undefined;
  /** The logarithms of that text's tokens, where they were asked for and such an engine has them. */
  readonly logprobs?: Float32Array | undefined;
  /** Tokens that such an engine counted. */
  readonly usage?: { readonly promptTokens: number; readonly outputTokens: number } | undefined;
  /** The row's pooled hidden states, with `finish`, by engines that embed. */
  readonly embedding?: DeviceVector | undefined;
  /** The row failed; the others go on. `retry` says whether another try may help, `retryAfterMs` when. `attempts`: tries
   * that the engine has made by itself; default 1. */
  readonly error?:
    | {
        readonly message: string;
        readonly retry: boolean;
        readonly retryAfterMs?: number | undefined;
        readonly attempts?: number | undefined;
      }
    | undefined;
}

/** Steps a batch. A call that throws ends the whole job; what is wrong with one row is that row's result. */
export interface Engine {
  readonly capacity: EngineCapacity;
  /** Takes in chunks of prompts, at most one a slot. Gives a result for each `last` one. */
  prefill(chunks: readonly PrefillChunk[]): Promise<readonly SlotResult[]>;
  /** One more token for each of these slots: the engine has the last one itself. */
  decode(slots: readonly number[]): Promise<readonly SlotResult[]>;
  /** Both at once, where the engine can do that in one pass; without, the one is called, then the other. */
  step?(chunks: readonly PrefillChunk[], slots: readonly number[]): Promise<readonly SlotResult[]>;
  /** Makes room for `tokens` tokens in all in `slot`; false, and nothing changed, where there is none now. Absent where
   * there always is. Called before a step for every slot that it lengthens, and for a whole prompt before its first. */
  reserve?(slot: number, tokens: number): boolean;
  /** The slot's sequence has ended, or was put back. */
  release(slot: number): void;
  close?(): Promise<void>;
}
