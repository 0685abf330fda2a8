/** What runs in each slot: how far its sequence is, and the checks of what an engine is asked to do next. */
import { HeadraceError } from "../../errors.ts";
import type { InferRequest, PrefillChunk, SlotResult } from "../engine.ts";
import type { Stepper } from "./step.ts";

/** What is done with a pass that can take no more. */
export interface Feeding {
  /** A row begins in `slot`. A HeadraceError that it throws is the row's. */
  begin(slot: number, request: InferRequest): void;
  /** The row that was added last ends what is known of the slot's sequence: it is to have a result. */
  want(slot: number): void;
  /** Runs the pass. */
  flush(): Promise<void>;
}

/** The sequences of one engine. Feeds their tokens to passes of a {@link Stepper}, which it borrows. */
export class Sequences {
  readonly #stepper: Stepper;
  readonly #vocabSize: number;
  /** Tokens that each slot's cache holds. */
  readonly #lengths: Uint32Array;
  /** The token that each slot goes on with; -1 where there is none. */
  readonly #next: Int32Array;
  /** Tokens that each slot's row has made. */
  readonly #generated: Uint32Array;
  readonly #requests: (InferRequest | undefined)[];

  constructor(stepper: Stepper, vocabSize: number) {
    const { slots } = stepper.geometry;
    this.#stepper = stepper;
    this.#vocabSize = vocabSize;
    this.#lengths = new Uint32Array(slots);
    this.#next = new Int32Array(slots).fill(-1);
    this.#generated = new Uint32Array(slots);
    this.#requests = new Array(slots).fill(undefined);
  }

  /** The request that runs in `slot`. */
  requestOf(slot: number): InferRequest {
    return this.#requests[slot]!;
  }

  /** Tokens that the row in `slot` has made. */
  generatedOf(slot: number): number {
    return this.#generated[slot]!;
  }

  /** The slot's row has made `token`, with which the next step goes on. */
  made(slot: number, token: number): void {
    this.#next[slot] = token;
    this.#generated[slot]!++;
  }

  /** The slot's sequence is over. */
  release(slot: number): void {
    this.checkSlot(slot);
    this.#stepper.blocks.release(slot);
    this.#forget(slot);
  }

  /**
   * Adds the next token of each of `slots`, then all of `chunks`, running passes as they fill up, and the last one. What
   * cannot go on ends with an error among `results`. Throws `BAD_OPTION` for what no scheduler may ask, before anything
   * has run; `OUT_OF_MEMORY`, and what the device fails with.
   */
  async feed(
    chunks: readonly PrefillChunk[],
    slots: readonly number[],
    results: SlotResult[],
    feeding: Feeding,
  ): Promise<void> {
    this.#check(chunks, slots);
    const stepper = this.#stepper;
    try {
      for (const slot of slots) {
        if (stepper.isFull) await feeding.flush();
        this.#decode(slot, results, feeding);
      }
      for (const chunk of chunks) {
        const message = this.#refusal(chunk, feeding);
        if (message === undefined) await this.#prefill(chunk, feeding);
        else {
          this.#forget(chunk.slot);
          results.push({ slot: chunk.slot, error: { message, retry: false } });
        }
      }
      if (stepper.rows > 0) await feeding.flush();
    } catch (error) {
      stepper.clear();
      throw error;
    }
  }

  /** Throws `BAD_OPTION` unless `slot` is one. */
  checkSlot(slot: number): void {
    if (Number.isInteger(slot) && slot >= 0 && slot < this.#lengths.length) return;
    throw bad(`slot ${slot} is none of the engine's ${this.#lengths.length}`);
  }

  #decode(slot: number, results: SlotResult[], feeding: Feeding): void {
    const position = this.#lengths[slot]!;
    const { contextLength } = this.#stepper.geometry;
    if (position >= contextLength) {
      const message = `the sequence has reached the context's ${contextLength} tokens`;
      results.push({ slot, error: { message, retry: false } });
      return;
    }
    this.#stepper.add(slot, position, this.#next[slot]!);
    this.#lengths[slot] = position + 1;
    feeding.want(slot);
  }

  async #prefill(chunk: PrefillChunk, feeding: Feeding): Promise<void> {
    const { slot, position, tokens, last, generated, request } = chunk;
    const stepper = this.#stepper;
    if (position === 0) {
      this.#requests[slot] = request;
      this.#next[slot] = -1;
    }
    for (let at = 0; at < tokens.length; ) {
      // A whole pass may be full of rows, or of results, of which the last row needs one.
      if (stepper.isFull) await feeding.flush();
      const end = Math.min(tokens.length, at + stepper.room);
      for (; at < end; at++) stepper.add(slot, position + at, tokens[at]!);
    }
    this.#lengths[slot] = position + tokens.length;
    if (!last) return;
    this.#generated[slot] = generated;
    feeding.want(slot);
  }

  #forget(slot: number): void {
    this.#lengths[slot] = 0;
    this.#next[slot] = -1;
    this.#generated[slot] = 0;
    this.#requests[slot] = undefined;
  }

  /** Why a row cannot run, in words for it. */
  #refusal({ slot, position, tokens, request }: PrefillChunk, feeding: Feeding): string | undefined {
    const { contextLength } = this.#stepper.geometry;
    const length = position + tokens.length;
    if (length > contextLength) {
      return `${length} tokens are more than the context's ${contextLength}`;
    }
    for (let i = 0; i < tokens.length; i++) {
      const token = tokens[i]!;
      if (token >= 0 && token < this.#vocabSize) continue;
      return `token ${token} at position ${position + i} is outside the vocabulary of ${this.#vocabSize}`;
    }
    if (position !== 0) return undefined;
    try {
      feeding.begin(slot, request);
    } catch (error) {
      if (error instanceof HeadraceError) return error.message;
      throw error;
    }
    return undefined;
  }

  #check(chunks: readonly PrefillChunk[], slots: readonly number[]): void {
    const seen = new Set<number>();
    const once = (slot: number) => {
      this.checkSlot(slot);
      if (seen.has(slot)) throw bad(`slot ${slot} comes twice in one step`);
      seen.add(slot);
    };
    for (const slot of slots) {
      once(slot);
      if (this.#next[slot]! < 0)
        throw bad(`slot ${slot} has no token to go on from: its prefill has not ended`);
    }
    for (const { slot, position, tokens, generated, last } of chunks) {
      once(slot);
      const length = this.#lengths[slot]!;
      if (tokens.length === 0) throw bad(`slot ${slot}: a chunk at position ${position} has no tokens`);
      if (position !== 0 && position !== length) {
        throw bad(
          `slot ${slot}: a chunk starts at position ${position}, and the slot holds ${length} tokens`,
        );
      }
      const most = last ? position + tokens.length : Number.MAX_SAFE_INTEGER;
      if (Number.isSafeInteger(generated) && generated >= 0 && generated <= most) continue;
      throw bad(
        `slot ${slot}: generated is ${generated}; it must be a whole number of the sequence's tokens`,
      );
    }
  }
}

function bad(text: string): HeadraceError {
  return new HeadraceError("BAD_OPTION", text);
}
