/** Keeps batches coming: plans ahead, bounds memory, hands out in order, and knows where it stands. */
import type { Completion, Device, DeviceQueue, Ticket } from "../device/device.ts";
import { HeadraceError } from "../errors.ts";
import { type SamplerOptions, type Step, stepsPerEpoch } from "../plan/sampler.ts";
import { Arena, type Segment } from "./arena.ts";
import { type Assembled, Assembler } from "./assemble.ts";
import { Batch } from "./batch.ts";
import { costLimitOf, lengthColumnOf } from "./costs.ts";
import type { Dataset } from "./dataset.ts";
import { BatchIterator } from "./iterate.ts";
import { type LoaderOptions, type ResolvedOptions, resolveOptions } from "./options.ts";
import type { Pending } from "./pending.ts";
import { Residency } from "./residency.ts";
import { traceRead } from "./stages.ts";
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
  readonly #assembler: Assembler;
  readonly #sampler: SamplerOptions;
  readonly #walk: Walk;
  readonly #pending: Pending[] = [];
  readonly #held = new Set<Batch>();
  readonly #owned: readonly (() => void | Promise<void>)[];
  #delivered: Cursor;
  #endEpoch = 0;
  /** Epoch of the batch that was planned last. */
  #plannedEpoch: number;
  #exhausted = false;
  #iterating = false;
  #busy = false;
  #closed = false;
  #closing: Promise<void> | undefined;
  readonly #residency: Residency;
  #turnedMs = performance.now();
  #stats = { batches: 0, samples: 0, bytes: 0, waitMs: 0 };

  /**
   * Borrows `dataset` and `device`; `owned` are closed with the loader. `state` is one that
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
    this.dataset = dataset;
    this.device = device;
    this.#owned = owned;
    this.#options = resolveOptions(options, dataset.view);
    const { maxSamples, rank, worldSize, lastBatch, pad } = this.#options;
    const maxCost = costLimitOf(dataset, this.#options);
    this.#sampler = {
      numSamples: Math.min(dataset.numSamples, this.#options.limit),
      rank,
      worldSize,
      lastBatch,
      ...(maxSamples === undefined ? {} : { maxSamples }),
      ...(maxCost === undefined ? {} : { maxCost, combine: pad === undefined ? "sum" : "padded" }),
    };
    const start =
      state === undefined
        ? { epoch: 0, position: 0 }
        : checkState(state, dataset.fingerprint, dataset.numSamples, this.#options);
    this.#delivered = { epoch: start.epoch, position: start.position };
    this.#plannedEpoch = start.epoch;
    this.#residency = new Residency(this.#options.memoryBytes);
    this.#arena = new Arena(device, this.#options.prefetch + 1, this.#options.memoryBytes);
    this.#assembler = new Assembler(dataset, device, this.#arena, this.#options);
    const elementsOf = lengthColumnOf(dataset, this.#options);
    const costs: CostsOf = (order, at, count) => this.#assembler.costs(order, at, count, elementsOf);
    const used = maxCost === undefined ? undefined : costs;
    this.#walk = new Walk(this.#delivered, this.#sampler, dataset.numSamples, this.#options, used);
    this.#queue = device.createQueue();
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
    await this.#cancelPending();
    for (const batch of [...this.#held]) batch.release();
    await this.#queue.close();
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
    this.#endEpoch = endEpoch;
    this.#exhausted = false;
    return new BatchIterator({
      next: () => this.#next(),
      stop: async () => {
        await this.#cancelPending();
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
      const pending = this.#pending.shift();
      if (pending === undefined) return this.#noBatch();
      const batch = await this.#finishBatch(pending);
      const now = performance.now();
      this.#stats.waitMs += now - asked;
      this.#options.tracer?.span("consumer", `wait ${pending.title}`, asked, now);
      return batch;
    } finally {
      this.#busy = false;
    }
  }

  /** Plans what can be planned; false where nothing could be before memory has come back. */
  #planAhead(): boolean {
    this.#checkOpen();
    this.#pump(1);
    // The first batch does not wait for those behind it to be planned, unless there is time for that.
    if (this.#stats.batches > 0 || this.#queue.inFlight > 0) this.#pump();
    return this.#pending.length > 0 || this.#exhausted || this.#arena.numReturning === 0;
  }

  async #waitForMemory(): Promise<void> {
    const { timeoutMs, signal } = this.#options;
    do await this.#arena.returned(timeoutMs, signal);
    while (!this.#planAhead());
  }

  #noBatch(): undefined {
    if (this.#exhausted) {
      this.#delivered = this.#walk.at;
      return undefined;
    }
    throw new HeadraceError(
      "BATCHES_HELD",
      `${this.#held.size} batches are held, as many as the arena has segments; release() each when done with it (or 'for await (using batch of loader)'), or raise prefetch`,
    );
  }

  /** Waits for a batch's bytes and hands it out. */
  async #finishBatch(pending: Pending): Promise<Batch> {
    const { assembled, step, segment, ticket } = pending;
    if (assembled === undefined || step === undefined) {
      this.#arena.release(segment);
      throw pending.error;
    }
    if (ticket !== undefined) {
      const completion = await this.#completion(ticket);
      traceRead(this.#options.tracer, pending.title, completion);
      if (completion.error !== undefined) {
        this.#discard(pending);
        this.#checkOpen();
        if (completion.error.code === "SHORT_READ") assembled.pins.checkLengths();
        throw completion.error;
      }
    }
    try {
      this.#checkOpen();
      if (assembled.mapped) assembled.pins.checkLengths();
    } catch (error) {
      this.#discard(pending);
      throw error;
    }
    return this.#deliver(pending, assembled, step);
  }

  #deliver(pending: Pending, assembled: Assembled, step: Step): Batch {
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
        if (this.#iterating && !this.#closed && !this.#busy) this.#pump();
      },
    });
    this.#held.add(batch);
    this.#delivered = pending.after;
    this.#stats.batches++;
    this.#stats.samples += step.count;
    this.#stats.bytes += batch.byteLength;
    return batch;
  }

  /** The completion of `ticket`, or an early one when the caller's signal fires. */
  #completion(ticket: Ticket): Promise<Completion> {
    const { signal } = this.#options;
    return signal === undefined ? this.#queue.completion(ticket) : this.#cancellable(ticket, signal);
  }

  async #cancellable(ticket: Ticket, signal: AbortSignal): Promise<Completion> {
    const cancel = () => this.#queue.cancel(ticket);
    signal.addEventListener("abort", cancel);
    try {
      return await this.#queue.completion(ticket);
    } finally {
      signal.removeEventListener("abort", cancel);
    }
  }

  /** Throws `CLOSED` or `CANCELLED` where no batch may be handed out any more. */
  #checkOpen(): void {
    if (this.#closed) throw new HeadraceError("CLOSED", `the loader of ${this.dataset.title} is closed`);
    const { signal } = this.#options;
    if (signal?.aborted) {
      throw new HeadraceError("CANCELLED", "loading was cancelled", { cause: signal.reason });
    }
  }

  /** Plans and asks for batches while segments are free, until `depth` are on their way. */
  #pump(depth = this.#options.prefetch + 1): void {
    while (!this.#exhausted && this.#pending.length < depth) {
      const last = this.#pending.at(-1);
      if (last !== undefined && last.assembled === undefined) return;
      const segment = this.#arena.acquire();
      if (segment === undefined) return;
      const planned = this.#plan(segment);
      if (planned === undefined) {
        this.#arena.release(segment);
        this.#exhausted = true;
      } else this.#pending.push(planned);
    }
  }

  /** The next batch of this rank, asked for; undefined when all epochs are over. A failure comes as a
   * pending batch, so that those before it are delivered first. */
  #plan(segment: Segment): Pending | undefined {
    const started = performance.now();
    try {
      const next = this.#walk.next(this.#endEpoch);
      if (next === undefined) return undefined;
      const { epoch, order, step, after } = next;
      if (epoch !== this.#plannedEpoch) this.dataset.chooseAgain();
      this.#plannedEpoch = epoch;
      const title = this.#title();
      const assembled = this.#assembler.assemble(
        { order, start: step.start, count: step.count, size: step.size, title },
        segment,
      );
      const ticket = this.#submit(assembled);
      this.#walk.at = after;
      this.#options.tracer?.span("planning", title, started, performance.now(), { samples: step.count });
      return { title, epoch, step, segment, assembled, ticket, after, error: undefined };
    } catch (error) {
      const after = this.#walk.at;
      const nothing = { step: undefined, assembled: undefined, ticket: undefined };
      return { ...nothing, title: this.#title(), epoch: after.epoch, segment, after, error };
    }
  }

  #title(): string {
    return `batch ${this.#walk.at.epoch}:${this.#walk.at.position}`;
  }

  #submit(assembled: Assembled): Ticket | undefined {
    if (assembled.requests.length === 0) return undefined;
    const { timeoutMs } = this.#options;
    try {
      return this.#queue.submit(assembled.requests, timeoutMs === undefined ? {} : { timeoutMs });
    } catch (error) {
      assembled.scope.close();
      assembled.pins.release();
      throw error;
    }
  }

  /** Ends what was asked for and not delivered; planning goes on from the last batch delivered. */
  async #cancelPending(): Promise<void> {
    // A batch that is released meanwhile must not start new ones.
    this.#exhausted = true;
    const pending = this.#pending.splice(0);
    for (const { ticket } of pending) if (ticket !== undefined) this.#queue.cancel(ticket);
    await Promise.all(
      pending.map(async (one) => {
        if (one.ticket !== undefined) await this.#queue.completion(one.ticket);
        this.#discard(one);
      }),
    );
    this.#walk.at = this.#delivered;
  }

  /** Gives back what an undelivered batch had; its segment only when no lane writes to it any more. */
  #discard(pending: Pending): void {
    pending.assembled?.scope.close();
    const quiet = pending.ticket === undefined ? undefined : this.#queue.quiesced(pending.ticket);
    if (quiet === undefined) {
      pending.assembled?.pins.release();
      this.#arena.release(pending.segment);
    } else {
      void this.#arena.releaseAfter(pending.segment, quiet);
      void quiet.then(() => pending.assembled?.pins.release());
    }
  }
}
