/** Runs rows through an engine the way a scheduler would, in whatever order a test wants. */
import { join } from "node:path";
import type { InferRequest, PrefillChunk, SamplingOptions, SlotResult } from "../../../src/infer/engine.ts";
import type { LlamaEngine } from "../../../src/infer/llama/engine.ts";

export const FILES = join(import.meta.dir, "../../golden/files");
export const SMALL_MODELS = ["llama-biased", "llama-qwen2", "llama-mistral"] as const;

/** Numbers from 0 to 1 that a seed alone decides. */
export function randomOf(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    // Mulberry32.
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

export interface RowOptions {
  readonly maxNewTokens?: number;
  readonly sampling?: SamplingOptions;
  readonly logprobs?: boolean;
}

export function requestOf(row: number, prompt: ArrayLike<number>, options: RowOptions = {}): InferRequest {
  const { maxNewTokens = 8, ...rest } = options;
  return { row, prompt: Int32Array.from(prompt), maxNewTokens, ...rest };
}

/** The whole prompt of a request as one chunk. */
export function chunkOf(
  slot: number,
  request: InferRequest,
  changes: Partial<PrefillChunk> = {},
): PrefillChunk {
  return { slot, position: 0, tokens: request.prompt, last: true, generated: 0, request, ...changes };
}

/** What became of one row. */
export interface RowOutcome {
  readonly tokens: number[];
  readonly logprobs: number[];
  /** A hash of the logits behind each token, where they were asked for. */
  readonly logits: bigint[];
}

export interface RunOptions {
  /** Chooses how rows are admitted, cut and put back. */
  readonly seed?: number;
  /** Tokens of a chunk, at most; up to what the step has room for without. */
  readonly chunkTokens?: number;
  /** How often a running row is put back, 0 to 1 a step. */
  readonly putBack?: number;
  /** Whether logits are hashed; each step must then fit into one pass. */
  readonly logits?: boolean;
}

interface Running {
  readonly request: InferRequest;
  readonly outcome: RowOutcome;
  /** Of prompt and output, what the cache holds or is about to. */
  done: number;
  /** Whether the engine has the next token. */
  ready: boolean;
}

/** Runs all rows to their `maxNewTokens`. */
export async function runRows(
  engine: LlamaEngine,
  requests: readonly InferRequest[],
  options: RunOptions = {},
): Promise<Map<number, RowOutcome>> {
  const { seed = 0, chunkTokens = Number.POSITIVE_INFINITY, putBack = 0, logits = false } = options;
  const random = randomOf(seed);
  const { slots, tokensPerStep } = engine.capacity;
  const outcomes = new Map<number, RowOutcome>();
  const waiting = requests.map((request): Running => {
    const outcome = { tokens: [], logprobs: [], logits: [] };
    outcomes.set(request.row, outcome);
    return { request, outcome, done: 0, ready: false };
  });
  if (seed !== 0) waiting.sort(() => random() - 0.5);
  const running: (Running | undefined)[] = new Array(slots).fill(undefined);
  const textOf = ({ request, outcome }: Running) => Int32Array.from([...request.prompt, ...outcome.tokens]);
  while (waiting.length > 0 || running.some((row) => row !== undefined)) {
    let room = tokensPerStep;
    const chunks: PrefillChunk[] = [];
    const decodes: number[] = [];
    const order = [...running.keys()];
    if (seed !== 0) order.sort(() => random() - 0.5);
    for (const slot of order) {
      const row = running[slot];
      if (row !== undefined && random() < putBack) {
        engine.release(slot);
        row.done = 0;
        row.ready = false;
        waiting.push(row);
        running[slot] = undefined;
      } else if (row?.ready) {
        if (!engine.reserve(slot, row.done + 1)) throw new Error("no room for a token");
        row.done++;
        decodes.push(slot);
        room--;
      }
    }
    for (const slot of order) {
      if (running[slot] === undefined && waiting.length > 0 && (seed === 0 || random() < 0.7)) {
        running[slot] = waiting.shift()!;
      }
      const row = running[slot];
      if (row === undefined || decodes.includes(slot) || room === 0) continue;
      const text = textOf(row);
      const most = Math.min(room, chunkTokens, text.length - row.done);
      const count = seed === 0 ? most : Math.max(1, Math.ceil(random() * most));
      const tokens = text.slice(row.done, row.done + count);
      const last = row.done + count === text.length;
      if (!engine.reserve(slot, row.done + count)) throw new Error("no room for a chunk");
      const generated = row.outcome.tokens.length;
      chunks.push({ slot, position: row.done, tokens, last, generated, request: row.request });
      row.done += count;
      room -= count;
    }
    const results = await engine.step(chunks, decodes);
    const hashes = logits ? await hashesOf(engine, results.length) : [];
    results.forEach((result, index) => {
      take(running[result.slot]!, result, hashes[index]);
      if (running[result.slot]!.outcome.tokens.length < running[result.slot]!.request.maxNewTokens) return;
      engine.release(result.slot);
      running[result.slot] = undefined;
    });
  }
  return outcomes;
}

function take(row: Running, result: SlotResult, hash: bigint | undefined): void {
  if (result.error !== undefined) throw new Error(result.error.message);
  const { outcome } = row;
  row.ready = true;
  outcome.tokens.push(result.token!);
  if (result.logprob !== undefined) outcome.logprobs.push(result.logprob);
  if (hash !== undefined) outcome.logits.push(hash);
}

async function hashesOf(engine: LlamaEngine, count: number): Promise<bigint[]> {
  const all = await engine.lastLogits();
  const { vocabSize } = engine.model.config;
  if (all.length !== count * vocabSize) throw new Error("the step took more than one pass");
  return Array.from({ length: count }, (_, index) =>
    Bun.hash.xxHash64(new Uint8Array(all.buffer, index * vocabSize * 4, vocabSize * 4)),
  );
}
