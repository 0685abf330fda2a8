/**
 * Runs passes: rows of tokens of any slots, flattened, go through the layers in one submission. Launches are encoded once
 * for each bucket (1, 2, 4, … rows, up to the largest step) and replayed.
 */
import type { Device, DeviceQueue, Sequence } from "../../device/device.ts";
import { type DispatchCall, RequestList } from "../../device/requests.ts";
import { HeadraceError } from "../../errors.ts";
import { BlockPool } from "./blocks.ts";
import { LlamaBody, RESULTS_AT, ROWS_AT } from "./body.ts";
import type { LlamaConfig } from "./config.ts";
import { type BodyMemory, BufferSet, createBodyMemory, INFO_WORDS, SectionedBlock } from "./memory.ts";
import type { Geometry } from "./options.ts";
import type { LlamaWeights } from "./weights.ts";

export interface StepperParts {
  readonly device: Device;
  readonly config: LlamaConfig;
  readonly weights: LlamaWeights;
  readonly geometry: Geometry;
  /** Rows of the block table: slots, and those of the engine's own. */
  readonly numSlots: number;
  /** Rows of one pass that can have a result. */
  readonly resultRows: number;
  /** Bytes that the host writes for each of them, beside its row's number; a multiple of 4. */
  readonly resultBytes: number;
}

type Section = "info" | "tokens" | "positions" | "slots" | "resultRows" | "results";

/** What comes behind the layers of a pass. */
export interface Tail {
  /** Names the launches: the same name, the same launches. */
  readonly name: string;
  /** For passes of up to so many rows. */
  calls(maxRows: number): DispatchCall[];
  /** Asks for what the host reads afterwards. */
  download(list: RequestList): void;
}

/**
 * One pass at a time: add rows, ask for results, run. Owns its memory, queue and launches; borrows device and weights.
 */
export class Stepper {
  readonly geometry: Geometry;
  readonly buffers: BufferSet;
  readonly memory: BodyMemory;
  readonly body: LlamaBody;
  readonly blocks: BlockPool;
  readonly inputs: SectionedBlock<Section>;
  readonly resultRows: number;
  /** Passes so far. */
  passes = 0;
  readonly #device: Device;
  readonly #queue: DeviceQueue;
  readonly #list = new RequestList();
  readonly #sequences = new Map<string, Sequence>();
  readonly #info: Uint32Array;
  readonly #tokens: Int32Array;
  readonly #positions: Uint32Array;
  readonly #slots: Uint32Array;
  readonly #resultRow: Uint32Array;
  #rows = 0;
  #results = 0;

  /** Throws `OUT_OF_MEMORY`, and what compiling kernels throws. */
  constructor({ device, config, weights, geometry, numSlots, resultRows, resultBytes }: StepperParts) {
    this.#device = device;
    this.geometry = geometry;
    this.resultRows = resultRows;
    this.buffers = new BufferSet(device);
    this.#queue = device.createQueue();
    try {
      const rows = geometry.tokensPerStep;
      this.memory = createBodyMemory(this.buffers, config, geometry, numSlots);
      this.inputs = new SectionedBlock(this.buffers, {
        info: INFO_WORDS * 4,
        tokens: rows * 4,
        positions: rows * 4,
        slots: rows * 4,
        resultRows: resultRows * 4,
        results: resultRows * resultBytes,
      });
      const { memory, offsets } = this.inputs;
      this.#info = new Uint32Array(memory, offsets.info, INFO_WORDS);
      this.#tokens = new Int32Array(memory, offsets.tokens, rows);
      this.#positions = new Uint32Array(memory, offsets.positions, rows);
      this.#slots = new Uint32Array(memory, offsets.slots, rows);
      this.#resultRow = new Uint32Array(memory, offsets.resultRows, resultRows);
      const { numBlocks, blockTokens, maxBlocksPerSlot } = geometry;
      const table = new Uint32Array(this.memory.blockTable.memory, 0, numSlots * maxBlocksPerSlot);
      this.blocks = new BlockPool({ numBlocks, blockTokens, slots: numSlots, maxBlocksPerSlot, table });
      const places = {
        info: this.inputs.place("info"),
        tokens: this.inputs.place("tokens"),
        positions: this.inputs.place("positions"),
        slots: this.inputs.place("slots"),
      };
      this.body = new LlamaBody({ device, config, weights, geometry, memory: this.memory, places, numSlots });
    } catch (error) {
      this.buffers.close();
      void this.#queue.close();
      throw roomier(error, geometry);
    }
  }

  /** Brings to the device what was written once, and compiles what passes of one row need, so that a device that cannot
   * fails here. */
  async start(tail: Tail): Promise<void> {
    this.#sequence(1, tail);
    this.#list.clear();
    this.memory.cosSin.upload(this.#list);
    if (this.#list.length > 0) await this.submit(this.#list);
  }

  /** Rows of the pass so far. */
  get rows(): number {
    return this.#rows;
  }

  /** Results that the pass was asked for. */
  get results(): number {
    return this.#results;
  }

  /** Rows that can still be added. */
  get room(): number {
    return this.geometry.tokensPerStep - this.#rows;
  }

  /** Whether no further result can be asked for. */
  get isFull(): boolean {
    return this.#rows === this.geometry.tokensPerStep || this.#results === this.resultRows;
  }

  /** Adds a row, for which there must be room. A slot's rows come by position, one behind the other; memory for the
   * position is taken where it was not reserved. Throws `OUT_OF_MEMORY` where there is none. */
  add(slot: number, position: number, token: number): void {
    const row = this.#rows;
    if (!this.blocks.reserve(slot, position + 1)) {
      const { numBlocks, blockTokens } = this.geometry;
      const text = `slot ${slot}: none of the cache's ${numBlocks} blocks of ${blockTokens} tokens is free for token ${position}`;
      throw new HeadraceError(
        "OUT_OF_MEMORY",
        `${text}; reserve() before a step, and release slots or raise kvBytes`,
      );
    }
    this.#tokens[row] = token;
    this.#positions[row] = position;
    this.#slots[row] = slot;
    this.#rows = row + 1;
  }

  /** Asks for a result of the row that was added last. Returns its number among the pass's results. */
  want(): number {
    const result = this.#results;
    this.#resultRow[result] = this.#rows - 1;
    this.#results = result + 1;
    return result;
  }

  /** Runs the pass, and is ready for the next one then. Throws what the device fails with. */
  async run(tail: Tail): Promise<void> {
    const list = this.#list;
    list.clear();
    this.#info[ROWS_AT] = this.#rows;
    this.#info[RESULTS_AT] = this.#results;
    this.inputs.upload(list);
    this.blocks.takeChanges((start, end) => this.memory.blockTable.upload(list, start * 4, end * 4));
    list.replay(this.#sequence(this.#rows, tail));
    tail.download(list);
    this.#rows = 0;
    this.#results = 0;
    this.passes++;
    await this.submit(list);
  }

  /** Submits and waits. Throws what the device fails with. */
  async submit(list: RequestList): Promise<void> {
    const { error } = await this.#queue.completion(this.#queue.submit(list));
    if (error !== undefined) throw error;
  }

  /** Forgets a pass that was not run. */
  clear(): void {
    this.#rows = 0;
    this.#results = 0;
  }

  #sequence(rows: number, tail: Tail): Sequence {
    const maxRows = bucketOf(rows, this.geometry.tokensPerStep);
    const key = `${maxRows} ${tail.name}`;
    let sequence = this.#sequences.get(key);
    if (sequence === undefined) {
      sequence = this.#device.createSequence([...this.body.layers(maxRows), ...tail.calls(maxRows)]);
      this.#sequences.set(key, sequence);
    }
    return sequence;
  }

  /** Ends what is under way, and frees all memory. */
  async close(): Promise<void> {
    await this.#queue.close();
    for (const sequence of this.#sequences.values()) sequence.close();
    this.#sequences.clear();
    this.body.close();
    this.buffers.close();
  }
}

/** A failure to take memory, with what takes it. */
function roomier(error: unknown, { slots, tokensPerStep, numBlocks, blockTokens }: Geometry): unknown {
  if (!(error instanceof HeadraceError) || error.code !== "OUT_OF_MEMORY") return error;
  const text = `the engine's cache of ${numBlocks * blockTokens} tokens, ${slots} slots and ${tokensPerStep} tokens a step do not fit`;
  return error.within(`${text}; lower kvBytes, slots or tokensPerStep`);
}

/** Rows that the launches are encoded for: the next power of two, or `most`. */
export function bucketOf(rows: number, most: number): number {
  return Math.min(most, 2 ** Math.ceil(Math.log2(Math.max(1, rows))));
}
