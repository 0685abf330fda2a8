/** Keeps batches coming: plans ahead, bounds memory, hands out in order, and knows where it stands. */
import type { Device, DeviceQueue } from "../device/device.ts";
import { HeadraceError } from "../errors.ts";
import { type SamplerOptions, stepsPerEpoch } from "../plan/sampler.ts";
import { Selection } from "../plan/select.ts";
import { Ahead, type Arrived } from "./ahead.ts";
import { Arena } from "./arena.ts";
import { Assembler } from "./assemble.ts";
import { Batch } from "./batch.ts";
import { costLimitOf, lengthColumnOf } from "./costs.ts";
import type { Dataset } from "./dataset.ts";
import { assertSameDevice } from "./devices.ts";
import { BatchIterator } from "./iterate.ts";
import { type LoaderOptions, type ResolvedOptions, resolveOptions } from "./options.ts";
import { Residency } from "./residency.ts";
import { checkState, type LoaderState, orderOf } from "./state.ts";
import { type CostsOf, type Cursor, Walk } from "./walk.ts";

/** How long batches may follow one another without a wait, ms, before timers, signals and other connections of
 * the process get their turn. */
const TURN_EVERY_MS = 10;

/** What a loader has done so far. */
export interface LoaderStats {
  readonly batches: number;
  readonly samples: number;
  readonly bytes: number;
  /** The consumer waited this long for batches, ms. */
  readonly waitMs: number;
  /** Bytes that compressed shards were decoded to for the batches that were delivered: more than these hold where chunks
   * were wanted in part, less where they were kept from a batch before. */
  readonly decodedBytes: number;
  /** Bytes of the arena now. */
  readonly arenaBytes: number;
}

/**
 * Batches of a dataset, in order, as an async iterable. One iteration at a time. Leaving a loop early loses
 * nothing: the next loop goes on with the batch after the last one delivered.
 */
export class Loader implements AsyncIterable<Batch>, AsyncDisposable {
  readonly dataset: Dataset;
  readonly device: Device;
  readonly #options: ResolvedOptions;
  readonly #queue: DeviceQueue;
  readonly #arena: Arena;
  readonly #sampler: SamplerOptions;
  readonly #ahead: Ahead;
  readonly #held = new Set<Batch>();
  readonly #owned: readonly (() => void | Promise<void>)[];
  #delivered: Cursor;
  #iterating = false;
  #busy = false;
  #closed = false;
  #closing: Promise<void> | undefined;
  readonly #residency: Residency;
  #turnedMs = performance.now();
  #stats = { batches: 0, samples: 0, bytes: 0, waitMs: 0, decodedBytes: 0 };

  /**
   * Borrows `dataset` and `device`, which is the dataset's own; `owned` are closed with the loader. `state` is one that
   * {@link Loader.state} gave, also by a loader with another rank or world size. Throws `BAD_OPTION`,
   * `STATE_MISMATCH`, `UNKNOWN_COLUMN`.
   */
  constructor(
    dataset: Dataset,
    device: Device,
    options: LoaderOptions = {},
    state?: unknown,
    owned: readonly (() => void | Promise<void>)[] = [],
  ) {
    assertSameDevice(`dataset ${dataset.title}`, dataset.device, "this loader", device);
    this.dataset = dataset;
    this.device = device;
    this.#owned = owned;
    this.#options = resolveOptions(options, dataset.view);
    const { maxSamples, rank, worldSize, lastBatch, pad } = this.#options;
    const maxCost = costLimitOf(dataset, this.#options);
    const { ranges } = this.#options;
    const samples = ranges === undefined ? dataset.numSamples : new Selection(ranges, dataset.numSamples);
    const numSamples = typeof samples === "number" ? samples : samples.numSamples;
    this.#sampler = {
      numSamples: Math.min(numSamples, this.#options.limit),
      rank,
      worldSize,
      lastBatch,
      ...(maxSamples === undefined ? {} : { maxSamples }),
      ...(maxCost === undefined ? {} : { maxCost, combine: pad === undefined ? "sum" : "padded" }),
    };
    const start =
      state === undefined
        ? { epoch: 0, position: 0 }
        : checkState(state, dataset.fingerprint, numSamples, this.#options);
    this.#delivered = { epoch: start.epoch, position: start.position };
    this.#residency = new Residency(this.#options.memoryBytes);
    this.#arena = new Arena(device, this.#options.prefetch + 1, this.#options.memoryBytes);
    const assembler = new Assembler(dataset, device, this.#arena, this.#options);
    const elementsOf = lengthColumnOf(dataset, this.#options);
    const costs: CostsOf = (order, at, count) => assembler.costs(order, at, count, elementsOf);
    const used = maxCost === undefined ? undefined : costs;
    const walk = new Walk(this.#delivered, this.#sampler, samples, this.#options, used);
    this.#queue = device.createQueue();
    this.#ahead = new Ahead({
      dataset,
      queue: this.#queue,
      decoders: () => device.decoders!(),
      arena: this.#arena,
      assembler,
      walk,
      options: this.#options,
      checkOpen: () => this.#checkOpen(),
    });
    const { seed, memoryBytes } = this.#options;
    if (seed !== undefined && dataset.byteLength > memoryBytes) {
      dataset.preferRead(
        "shuffled, and larger than memoryBytes: its pages would be mapped anew for every row",
      );
    }
  }

  /** Samples that an epoch delivers to all ranks together, `lastBatch` aside. */
  get samplesPerEpoch(): number {
    return this.#sampler.numSamples;
  }

  /** Batches of this rank an epoch; undefined where their sizes depend on the samples. */
  get batchesPerEpoch(): number | undefined {
    return stepsPerEpoch(this.#sampler);
  }

  get stats(): LoaderStats {
    return { ...this.#stats, arenaBytes: this.#arena.byteLength };
  }

  /** Where the loader stands after the last batch that was delivered. */
  state(): LoaderState {
    const { epoch, position } = this.#delivered;
    return { version: 1, fingerprint: this.dataset.fingerprint, epoch, position, ...orderOf(this.#options) };
  }

  /** Batches until `epochs` epochs are over. */
  [Symbol.asyncIterator](): AsyncIterator<Batch, undefined> {
    return this.#iterate(this.#options.epochs);
  }

  /** Batches until the epoch in which the loader stands is over. */
  epoch(): AsyncIterable<Batch> {
    return { [Symbol.asyncIterator]: () => this.#iterate(this.#delivered.epoch + 1) };
  }

  /** Stops what is under way and frees all memory; batches still held become empty. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    this.#closed = true;
    await this.#ahead.cancel(() => this.#delivered);
    for (const batch of [...this.#held]) batch.release();
    await this.#queue.close();
    await this.#ahead.quiet();
    this.#arena.close();
    for (const close of this.#owned) await close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #iterate(endEpoch: number): AsyncIterator<Batch, undefined> {
    if (this.#closed) throw new HeadraceError("CLOSED", `the loader of ${this.dataset.title} is closed`);
    if (this.#iterating) {
      throw new HeadraceError("BAD_OPTION", "the loader is being iterated already; one loop at a time");
    }
    this.#iterating = true;
    this.#ahead.begin(endEpoch);
    return new BatchIterator({
      next: () => this.#next(),
      stop: async () => {
        await this.#ahead.cancel(() => this.#delivered);
        this.#iterating = false;
      },
    });
  }

  async #next(): Promise<Batch | undefined> {
    this.#busy = true;
    const asked = performance.now();
    try {
      if (asked - this.#turnedMs > TURN_EVERY_MS) {
        await new Promise(setImmediate);
        this.#turnedMs = performance.now();
      }
      if (!this.#planAhead()) await this.#waitForMemory();
      const taken = await this.#ahead.take((arrived) => ({
        batch: this.#deliver(arrived),
        title: arrived.pending.title,
      }));
      if (taken === undefined) return this.#noBatch();
      const now = performance.now();
      this.#stats.waitMs += now - asked;
      this.#options.tracer?.span("consumer", `wait ${taken.title}`, asked, now);
      return taken.batch;
    } finally {
      this.#busy = false;
    }
  }

  /** Plans what can be planned; false where nothing could be before memory has come back. */
  #planAhead(): boolean {
    this.#checkOpen();
    this.#ahead.plan(1);
    // The first batch does not wait for those behind it to be planned, unless there is time for that.
    if (this.#stats.batches > 0 || this.#ahead.fetching) this.#ahead.plan();
    return this.#ahead.length > 0 || this.#ahead.exhausted || this.#arena.numReturning === 0;
  }

  async #waitForMemory(): Promise<void> {
    const { timeoutMs, signal } = this.#options;
    do await this.#arena.returned(timeoutMs, signal);
    while (!this.#planAhead());
  }

  #noBatch(): undefined {
    if (this.#ahead.exhausted) {
      this.#delivered = this.#ahead.at;
      return undefined;
    }
    throw new HeadraceError(
      "BATCHES_HELD",
      `${this.#held.size} batches are held, as many as the arena has segments; release() each when done with it (or 'for await (using batch of loader)'), or raise prefetch`,
    );
  }

  #deliver({ pending, assembled, step, decodedBytes }: Arrived): Batch {
    const delivered = performance.now();
    const batch: Batch = new Batch({
      epoch: pending.epoch,
      step: this.#stats.batches,
      size: step.size,
      numSamples: step.count,
      sampleIds: assembled.sampleIds,
      columns: assembled.columns,
      rowMask: assembled.rowMask,
      scope: assembled.scope,
      onRelease: () => {
        this.#held.delete(batch);
        assembled.pins.release();
        this.#arena.release(pending.segment);
        this.#options.tracer?.span("segments", pending.title, delivered, performance.now());
        this.#residency.touch(
          assembled.touchedBytes,
          () => this.#arena.byteLength,
          () => this.dataset.openShards(),
        );
        if (this.#iterating && !this.#closed && !this.#busy) this.#ahead.plan();
      },
    });
    this.#held.add(batch);
    this.#delivered = pending.after;
    this.#stats.batches++;
    this.#stats.samples += step.count;
    this.#stats.bytes += batch.byteLength;
    this.#stats.decodedBytes += decodedBytes;
    return batch;
  }

  /** Throws `CLOSED` or `CANCELLED` where no batch may be handed out any more. */
  #checkOpen(): void {
    if (this.#closed) throw new HeadraceError("CLOSED", `the loader of ${this.dataset.title} is closed`);
    const { signal } = this.#options;
    if (signal?.aborted) {
      throw new HeadraceError("CANCELLED", "loading was cancelled", { cause: signal.reason });
    }
  }
}
