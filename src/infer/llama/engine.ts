/**
 * Generates with a Llama on any device that runs kernels: one ragged pass a step, paged cache, sampling on the device.
 *
 * A row's tokens depend on its prompt, its sampling and its number alone, to the last bit: not on the other rows, on the
 * slot, on how the prompt was cut into chunks, or on where in the cache it lies.
 */
import type { Device } from "../../device/device.ts";
import { RequestList } from "../../device/requests.ts";
import { HeadraceError } from "../../errors.ts";
import { SAMPLE_PARAMS_BYTES } from "../../kernels/sample.ts";
import type { Engine, EngineCapacity, InferRequest, PrefillChunk, SlotResult } from "../engine.ts";
import { needsSeen, resolveSampling, type Sampling } from "../sampling.ts";
import type { LlamaConfig } from "./config.ts";
import { BufferSet } from "./memory.ts";
import { findModel } from "./model.ts";
import { type LlamaOptions, resolveGeometry } from "./options.ts";
import { Sequences } from "./sequences.ts";
import { Stepper } from "./step.ts";
import { SampleTail } from "./tail.ts";
import { Turn } from "./turn.ts";
import { type LlamaWeights, loadLlamaWeights } from "./weights.ts";

/** What an engine says of its model. */
export interface LlamaModel {
  readonly config: LlamaConfig;
  /** Bytes of the weights. */
  readonly weightBytes: number;
  /** sha256 in hex over the names and lengths of the weights' files. */
  readonly fingerprint: string;
}

/**
 * Opens the model in `source`: a folder in the Hugging Face layout, or the weights file or index in one. Borrows `device`,
 * which must outlive the engine.
 *
 * Throws `SOURCE_NOT_FOUND`, `BAD_MODEL` for files that are malformed or do not fit together, `UNSUPPORTED` for another
 * architecture or a device without kernels, `BAD_OPTION`, `OUT_OF_MEMORY`, and what loading throws.
 */
export async function openLlama(
  source: string,
  device: Device,
  options: LlamaOptions = {},
): Promise<LlamaEngine> {
  const { weights: path, config } = findModel(source);
  if (config.headless) {
    const text = `${source}: ${config.architecture} has no output head, so it generates nothing; use openEmbedder`;
    throw new HeadraceError("UNSUPPORTED", text);
  }
  // Refuses options before anything is loaded.
  resolveGeometry(config, device.capabilities, 0, options);
  const { strategy, signal } = options;
  const weights = await loadLlamaWeights(path, device, config, { strategy, signal });
  let engine: LlamaEngine | undefined;
  try {
    engine = new LlamaEngine(device, config, weights, options);
    await engine.start();
    return engine;
  } catch (error) {
    await (engine ?? weights).close();
    throw error;
  }
}

const GREEDY = resolveSampling();

/** Made by {@link openLlama}. Close it before its device. */
export class LlamaEngine implements Engine, AsyncDisposable {
  readonly capacity: EngineCapacity;
  readonly model: LlamaModel;
  readonly #device: Device;
  readonly #weights: LlamaWeights;
  readonly #stepper: Stepper;
  readonly #sequences: Sequences;
  readonly #tail: SampleTail;
  readonly #turn = new Turn("the engine");
  /** Of each result of the pass: its slot. */
  readonly #wanted: Int32Array;
  /** By slot. */
  readonly #sampling: Sampling[];
  /** The row of the block table that {@link LlamaEngine.logits} uses. */
  readonly #ownSlot: number;
  /** Results of the pass that ran last. */
  #numResults = 0;

  /** @internal Owns `weights` once it is made. */
  constructor(device: Device, config: LlamaConfig, weights: LlamaWeights, options: LlamaOptions) {
    const geometry = resolveGeometry(config, device.capabilities, weights.byteLength, options);
    const { slots, contextLength, tokensPerStep, logitRows } = geometry;
    this.capacity = { slots, contextLength, tokensPerStep };
    this.model = { config, weightBytes: weights.byteLength, fingerprint: weights.fingerprint };
    this.#device = device;
    this.#weights = weights;
    this.#ownSlot = slots;
    this.#wanted = new Int32Array(logitRows);
    this.#sampling = new Array<Sampling>(slots).fill(GREEDY);
    const numSlots = slots + 1;
    const results = { resultRows: logitRows, resultBytes: SAMPLE_PARAMS_BYTES };
    this.#stepper = new Stepper({ device, config, weights, geometry, numSlots, ...results });
    this.#tail = new SampleTail({ stepper: this.#stepper, config, head: weights.head!, numSlots });
    this.#sequences = new Sequences(this.#stepper, config.vocabSize);
  }

  /** @internal */
  start(): Promise<void> {
    return this.#stepper.start(this.#tail);
  }

  /** Bytes of the cache, activations and all else beside the weights. */
  get memoryBytes(): number {
    return this.#stepper.buffers.byteLength;
  }

  /** Tokens for which the cache has room now. */
  get freeTokens(): number {
    const { blocks } = this.#stepper;
    return blocks.numFree * blocks.blockTokens;
  }

  prefill(chunks: readonly PrefillChunk[]): Promise<readonly SlotResult[]> {
    return this.step(chunks, []);
  }

  decode(slots: readonly number[]): Promise<readonly SlotResult[]> {
    return this.step([], slots);
  }

  /** Throws `BAD_OPTION` for slots and positions that do not follow from the steps before, `OUT_OF_MEMORY` where
   * {@link LlamaEngine.reserve} would have been false, `CLOSED`, and what the device fails with. */
  step(chunks: readonly PrefillChunk[], slots: readonly number[]): Promise<readonly SlotResult[]> {
    return this.#turn.take(async () => {
      const results: SlotResult[] = [];
      await this.#sequences.feed(chunks, slots, results, {
        begin: (slot, request) => this.#begin(slot, request),
        want: (slot) => this.#want(slot),
        flush: () => this.#flush(results),
      });
      return results;
    });
  }

  /** Throws `BAD_OPTION` for a slot that is none, `OUT_OF_RANGE` for more tokens than the context has. */
  reserve(slot: number, tokens: number): boolean {
    this.#turn.checkOpen();
    this.#sequences.checkSlot(slot);
    return this.#stepper.blocks.reserve(slot, tokens);
  }

  release(slot: number): void {
    this.#turn.checkOpen();
    this.#sequences.release(slot);
  }

  /**
   * The logits behind each of `tokens`, as a text of its own: `[tokens.length, vocabulary]`, C order. Runs between steps,
   * beside the slots' sequences, from the same cache. Throws `BAD_OPTION`, `OUT_OF_MEMORY` where the cache has no room,
   * `CLOSED`, and what the device fails with.
   */
  logits(tokens: Int32Array): Promise<Float32Array> {
    return this.#turn.take(async () => {
      const { vocabSize } = this.model.config;
      this.#checkTokens(tokens);
      const stepper = this.#stepper;
      const all = new Float32Array(tokens.length * vocabSize);
      try {
        for (let at = 0; at < tokens.length; ) {
          const first = at;
          for (; at < tokens.length && !stepper.isFull; at++) {
            stepper.add(this.#ownSlot, at, tokens[at]!);
            const row = { slot: this.#ownSlot, row: 0, step: 0, logprob: false };
            this.#tail.set(stepper.want(), GREEDY, row);
          }
          this.#numResults = stepper.results;
          await stepper.run(this.#tail);
          all.set(await this.#readLogits(), first * vocabSize);
        }
      } finally {
        stepper.clear();
        stepper.blocks.release(this.#ownSlot);
      }
      return all;
    });
  }

  /** @internal The logits of the last pass's results, in their order. */
  lastLogits(): Promise<Float32Array> {
    return this.#turn.take(() => this.#readLogits());
  }

  /** Waits for the step under way, then frees all memory. */
  close(): Promise<void> {
    return this.#turn.close(async () => {
      await this.#stepper.close();
      await this.#weights.close();
    });
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #begin(slot: number, { sampling }: InferRequest): void {
    const resolved = sampling === undefined ? GREEDY : resolveSampling(sampling);
    this.#sampling[slot] = resolved;
    // Marks are kept from then on, for as long as some row may have had its first ones made.
    if (needsSeen(resolved)) this.#tail.marksSeen = true;
  }

  #want(slot: number): void {
    const index = this.#stepper.want();
    const { row, logprobs = false } = this.#sequences.requestOf(slot);
    this.#wanted[index] = slot;
    const step = this.#sequences.generatedOf(slot);
    this.#tail.set(index, this.#sampling[slot]!, { slot, row, step, logprob: logprobs });
  }

  async #flush(results: SlotResult[]): Promise<void> {
    const count = this.#stepper.results;
    this.#numResults = count;
    await this.#stepper.run(this.#tail);
    for (let index = 0; index < count; index++) {
      const slot = this.#wanted[index]!;
      const token = this.#tail.tokenOf(index);
      if (token < 0) {
        const message = "the model gave no finite logit: its weights, or the prompt, lead past float32";
        results.push({ slot, error: { message, retry: false } });
        continue;
      }
      this.#sequences.made(slot, token);
      const { logprobs = false } = this.#sequences.requestOf(slot);
      results.push(logprobs ? { slot, token, logprob: this.#tail.logprobOf(index) } : { slot, token });
    }
  }

  async #readLogits(): Promise<Float32Array> {
    const { logits } = this.#tail;
    const byteLength = this.#numResults * this.model.config.vocabSize * 4;
    if (byteLength === 0) return new Float32Array(0);
    const buffers = new BufferSet(this.#device);
    try {
      const shared = buffers.create(byteLength, "shared");
      await this.#stepper.submit(new RequestList().copy(logits, 0, shared, 0, byteLength));
      return new Float32Array(shared.view(0, byteLength)).slice();
    } finally {
      buffers.close();
    }
  }

  #checkTokens(tokens: Int32Array): void {
    const { contextLength } = this.capacity;
    if (tokens.length > contextLength) {
      const text = `${tokens.length} tokens are more than the context's ${contextLength}`;
      throw new HeadraceError("BAD_OPTION", text);
    }
    const { vocabSize } = this.model.config;
    const at = tokens.findIndex((token) => token < 0 || token >= vocabSize);
    if (at < 0) return;
    const text = `token ${tokens[at]} at position ${at} is outside the vocabulary of ${vocabSize}`;
    throw new HeadraceError("BAD_OPTION", text);
  }
}
