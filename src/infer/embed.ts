/**
 * Embeds whole datasets: a row's vector is pooled from a Llama's final hidden states, behind the last norm.
 *
 * Vectors wait in a ring of memory that host and device see, until whoever got them gives them back. A row's vector
 * depends on its tokens alone, to the last bit.
 */
import type { Device } from "../device/device.ts";
import type { DispatchCall, RequestList } from "../device/requests.ts";
import { HeadraceError } from "../errors.ts";
import {
  type Pooling,
  poolFinishCall,
  poolFinishKernel,
  poolRowsCall,
  poolRowsKernel,
} from "../kernels/pool.ts";
import type { Engine, EngineCapacity, PrefillChunk, SlotResult } from "./engine.ts";
import { RESULTS_AT, ROWS_AT } from "./llama/body.ts";
import type { LlamaConfig } from "./llama/config.ts";
import type { LlamaModel } from "./llama/engine.ts";
import { findModel } from "./llama/model.ts";
import { type LlamaOptions, resolveGeometry } from "./llama/options.ts";
import { VectorRing } from "./llama/ring.ts";
import { Sequences } from "./llama/sequences.ts";
import { bucketOf, Stepper, type Tail } from "./llama/step.ts";
import { Turn } from "./llama/turn.ts";
import { type LlamaWeights, loadLlamaWeights } from "./llama/weights.ts";

/** Options of {@link openEmbedder}. */
export interface EmbedOptions extends LlamaOptions {
  /** What of a row's hidden states its vector is: their mean (the default), the last, or the first. */
  readonly pooling?: Pooling | undefined;
  /** Whether vectors are divided by their length; default false. */
  readonly normalize?: boolean | undefined;
  /** Vectors that can be out at once, at least `slots`; default four times that. Steps wait while too many are. */
  readonly vectors?: number | undefined;
}

/**
 * Opens the model in `source` to embed rows with; also one without an output head. Borrows `device`. Throws what
 * `openLlama` throws.
 */
export async function openEmbedder(
  source: string,
  device: Device,
  options: EmbedOptions = {},
): Promise<EmbedEngine> {
  const { weights: path, config } = findModel(source);
  const { slots } = resolveGeometry(config, device.capabilities, 0, options);
  checkOptions(options, slots);
  const { strategy, signal } = options;
  const weights = await loadLlamaWeights(path, device, config, { head: false, strategy, signal });
  let engine: EmbedEngine | undefined;
  try {
    engine = new EmbedEngine(device, config, weights, options);
    await engine.start();
    return engine;
  } catch (error) {
    await (engine ?? weights).close();
    throw error;
  }
}

function checkOptions({ pooling = "mean", vectors }: EmbedOptions, slots: number): void {
  // Refuses other poolings.
  poolRowsKernel(pooling);
  if (vectors === undefined || (Number.isSafeInteger(vectors) && vectors >= slots)) return;
  throw new HeadraceError(
    "BAD_OPTION",
    `vectors is ${vectors}; it must be a whole number from ${slots}, the slots`,
  );
}

/** Made by {@link openEmbedder}. A row ends with its prompt: its result has `embedding`, and `finish` `stop`. */
export class EmbedEngine implements Engine, AsyncDisposable {
  readonly capacity: EngineCapacity;
  readonly model: LlamaModel;
  readonly #weights: LlamaWeights;
  readonly #stepper: Stepper;
  readonly #sequences: Sequences;
  readonly #tail: PoolTail;
  readonly #turn = new Turn("the engine");
  /** Of each result of the pass: its slot. */
  readonly #wanted: Int32Array;

  /** @internal Owns `weights` once it is made. */
  constructor(device: Device, config: LlamaConfig, weights: LlamaWeights, options: EmbedOptions) {
    const geometry = resolveGeometry(config, device.capabilities, weights.byteLength, options);
    const { slots, contextLength, tokensPerStep } = geometry;
    this.capacity = { slots, contextLength, tokensPerStep, promptsOnly: true };
    this.model = { config, weightBytes: weights.byteLength, fingerprint: weights.fingerprint };
    this.#weights = weights;
    this.#wanted = new Int32Array(slots);
    const results = { resultRows: slots, resultBytes: 4 };
    this.#stepper = new Stepper({ device, config, weights, geometry, numSlots: slots, ...results });
    this.#tail = new PoolTail(this.#stepper, config.hiddenSize, options);
    this.#sequences = new Sequences(this.#stepper, config.vocabSize);
  }

  /** @internal */
  start(): Promise<void> {
    return this.#stepper.start(this.#tail);
  }

  /** Elements of a vector. */
  get dimensions(): number {
    return this.model.config.hiddenSize;
  }

  /** Bytes of the cache, activations, vectors and all else beside the weights. */
  get memoryBytes(): number {
    return this.#stepper.buffers.byteLength;
  }

  /** Waits while too few vectors are free for the rows that end with `chunks`. Throws as `LlamaEngine.step` does. */
  prefill(chunks: readonly PrefillChunk[]): Promise<readonly SlotResult[]> {
    return this.#turn.take(async () => {
      const results: SlotResult[] = [];
      await this.#sequences.feed(chunks, [], results, {
        begin: () => undefined,
        want: (slot) => {
          this.#wanted[this.#stepper.want()] = slot;
        },
        flush: () => this.#flush(results),
      });
      return results;
    });
  }

  /** Throws `BAD_OPTION`: no row goes on behind its prompt. */
  async decode(slots: readonly number[]): Promise<readonly SlotResult[]> {
    if (slots.length === 0) return [];
    throw new HeadraceError("BAD_OPTION", `slot ${slots[0]}: an engine that embeds makes no tokens`);
  }

  /** As `LlamaEngine.reserve`. */
  reserve(slot: number, tokens: number): boolean {
    this.#turn.checkOpen();
    this.#sequences.checkSlot(slot);
    return this.#stepper.blocks.reserve(slot, tokens);
  }

  release(slot: number): void {
    this.#turn.checkOpen();
    this.#sequences.release(slot);
  }

  /** Waits for the step under way, then frees all memory, that of vectors which are out included. A step that waits for
   * vectors fails with `CLOSED`. */
  close(): Promise<void> {
    this.#tail.ring.close();
    return this.#turn.close(async () => {
      await this.#stepper.close();
      await this.#weights.close();
    });
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #flush(results: SlotResult[]): Promise<void> {
    const { ring } = this.#tail;
    const count = this.#stepper.results;
    const targets = await ring.take(count);
    try {
      this.#tail.aim(targets);
      await this.#stepper.run(this.#tail);
    } catch (error) {
      for (const target of targets) ring.give(target);
      throw error;
    }
    for (let index = 0; index < count; index++) {
      const slot = this.#wanted[index]!;
      const target = targets[index]!;
      if (ring.isFinite(target)) {
        results.push({ slot, finish: "stop", embedding: ring.lend(target) });
        continue;
      }
      ring.give(target);
      const message = "the model gave no finite vector: its weights, or the prompt, lead past float32";
      results.push({ slot, error: { message, retry: false } });
    }
  }
}

/** What comes behind the layers when vectors are wanted: the final norm of all rows, and pooling. */
class PoolTail implements Tail {
  readonly name = "pool";
  readonly ring: VectorRing;
  readonly #stepper: Stepper;
  readonly #pooling: Pooling;
  readonly #normalize: boolean;
  readonly #pooled: ReturnType<Stepper["buffers"]["create"]>;
  readonly #targets: Uint32Array;
  #aimed: readonly number[] = [];

  constructor(stepper: Stepper, hidden: number, options: EmbedOptions) {
    const { buffers, inputs, resultRows: slots } = stepper;
    this.#stepper = stepper;
    this.#pooling = options.pooling ?? "mean";
    this.#normalize = options.normalize ?? false;
    this.#pooled = buffers.create(slots * hidden * 4);
    this.#targets = new Uint32Array(inputs.memory, inputs.offsets.results, slots);
    this.ring = new VectorRing(buffers, options.vectors ?? 4 * slots, hidden);
  }

  /** Where the results of the next pass go. */
  aim(targets: readonly number[]): void {
    this.#aimed = targets;
    this.#targets.set(targets);
  }

  calls(maxRows: number): DispatchCall[] {
    const { body, inputs, memory, resultRows } = this.#stepper;
    const pooling = this.#pooling;
    const normalize = this.#normalize;
    const shared = {
      pooled: { buffer: this.#pooled },
      positions: inputs.place("positions"),
      slots: inputs.place("slots"),
      info: inputs.place("info"),
      hidden: this.ring.length,
      numSlots: resultRows,
    };
    return [
      body.finalNorm(maxRows),
      poolRowsCall(
        body.pipelines.get("pool", () => poolRowsKernel(pooling)),
        { ...shared, states: { buffer: memory.normed }, countAt: ROWS_AT, maxRows },
      ),
      poolFinishCall(
        body.pipelines.get("finish", () => poolFinishKernel({ pooling, normalize })),
        {
          ...shared,
          lastRows: inputs.place("resultRows"),
          targets: inputs.place("results"),
          vectors: { buffer: this.ring.device },
          numStates: maxRows,
          numVectors: this.ring.numVectors,
          countAt: RESULTS_AT,
          maxRows: bucketOf(maxRows, resultRows),
        },
      ),
    ];
  }

  download(list: RequestList): void {
    this.ring.download(list, this.#aimed);
  }
}
