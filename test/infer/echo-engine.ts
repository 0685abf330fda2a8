/** An engine whose tokens follow from a row's prompt and the token's number alone. */
import type { Engine, InferRequest, PrefillChunk, SlotResult } from "../../src/index.ts";

export interface EchoOptions {
  readonly slots?: number;
  readonly contextLength?: number;
  /** Throws instead of the step that would make the first token of this row. */
  readonly throwAt?: number;
  /** Rows that fail, and whether another try may help. */
  readonly fails?: ReadonlyMap<
    number,
    { readonly message: string; readonly retry: boolean; readonly attempts?: number }
  >;
  /** Called when a row has made its first token. */
  readonly onStart?: (request: InferRequest) => void;
  /** Of each step. */
  readonly stepMs?: number;
}

interface Row {
  readonly request: InferRequest;
  readonly sum: number;
  made: number;
}

/** Token `index` of the output of a row whose prompt adds up to `sum`: a letter. */
export function echoToken(row: number, sum: number, index: number): number {
  return 97 + ((row * 7 + sum + index * index * 31) % 26);
}

export function echoLogprob(index: number): number {
  return -(index + 1) / 4;
}

/** What the engine makes of a prompt. */
export function echoOf(row: number, prompt: ArrayLike<number>, count: number): number[] {
  const sum = Array.from(prompt).reduce((total, token) => total + token, 0);
  return Array.from({ length: count }, (_, i) => echoToken(row, sum, i));
}

export function echoEngine(options: EchoOptions = {}): Engine {
  const { slots = 4, contextLength = 512, stepMs = 0 } = options;
  const sums = new Map<number, number>();
  const rows = new Map<number, Row>();
  const next = (slot: number): SlotResult => {
    const row = rows.get(slot)!;
    const logprob = row.request.logprobs ? echoLogprob(row.made) : undefined;
    return { slot, token: echoToken(row.request.row, row.sum, row.made++), logprob };
  };
  const begin = ({ slot, generated, request }: PrefillChunk): SlotResult => {
    if (request.row === options.throwAt) throw new Error(`the engine broke at row ${request.row}`);
    const error = options.fails?.get(request.row);
    if (error !== undefined) return { slot, error };
    options.onStart?.(request);
    rows.set(slot, { request, sum: sums.get(slot)!, made: generated });
    return next(slot);
  };
  return {
    capacity: { slots, contextLength, tokensPerStep: Math.max(slots, 64) },
    async prefill(chunks) {
      if (stepMs > 0) await Bun.sleep(stepMs);
      return chunks.flatMap((chunk) => {
        const before = chunk.position === 0 ? 0 : sums.get(chunk.slot)!;
        // What the row made itself is no part of its prompt.
        const { prompt } = chunk.request;
        const own = chunk.tokens.subarray(0, Math.max(0, prompt.length - chunk.position));
        sums.set(
          chunk.slot,
          own.reduce((total, token) => total + token, before),
        );
        return chunk.last ? [begin(chunk)] : [];
      });
    },
    async decode(running) {
      if (stepMs > 0) await Bun.sleep(stepMs);
      return running.map(next);
    },
    release(slot) {
      rows.delete(slot);
    },
  };
}
