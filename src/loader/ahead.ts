/** Batches on their way: planned, asked for and waited for, in the order in which they are handed out. */
import type { ChunkDecoders } from "../device/decode.ts";
import type { DeviceQueue } from "../device/device.ts";
import type { Step } from "../plan/sampler.ts";
import type { Arena, Segment } from "./arena.ts";
import type { Assembled, Assembler } from "./assemble.ts";
import type { Dataset } from "./dataset.ts";
import { Fetch, type FetchEnd } from "./fetch.ts";
import type { ResolvedOptions } from "./options.ts";
import { lateBatch, type Pending } from "./pending.ts";
import { traceDecoding, traceRead } from "./stages.ts";
import type { Cursor, Walk } from "./walk.ts";

export interface AheadParts {
  readonly dataset: Dataset;
  readonly queue: DeviceQueue;
  /** Throws `UNSUPPORTED` where the device has none. */
  readonly decoders: () => ChunkDecoders;
  readonly arena: Arena;
  readonly assembler: Assembler;
  readonly walk: Walk;
  readonly options: ResolvedOptions;
  /** Throws `CLOSED` or `CANCELLED` where no batch may be handed out any more. */
  readonly checkOpen: () => void;
}

/** A batch whose bytes are there. */
export interface Arrived {
  readonly pending: Pending;
  readonly assembled: Assembled;
  readonly step: Step;
  /** Logical bytes that were decoded for it. */
  readonly decodedBytes: number;
}

/** Borrows all of its parts. */
export class Ahead {
  readonly #parts: AheadParts;
  readonly #pending: Pending[] = [];
  /** Of batches that were given up while lanes were still at their chunks or reads. */
  readonly #quieting = new Set<Promise<void>>();
  #endEpoch = 0;
  /** Epoch of the batch that was planned last. */
  #plannedEpoch: number;
  #exhausted = false;

  constructor(parts: AheadParts) {
    this.#parts = parts;
    this.#plannedEpoch = parts.walk.at.epoch;
  }

  /** Where the walk stands that plans. */
  get at(): Cursor {
    return this.#parts.walk.at;
  }

  /** Whether no batch is left to plan. */
  get exhausted(): boolean {
    return this.#exhausted;
  }

  /** Batches that were planned and not taken. */
  get length(): number {
    return this.#pending.length;
  }

  /** Whether a batch that was planned has bytes on their way. */
  get fetching(): boolean {
    return this.#pending.some(({ fetch }) => fetch !== undefined);
  }

  /** Plans from here on, up to the end of the epoch before `endEpoch`. */
  begin(endEpoch: number): void {
    this.#endEpoch = endEpoch;
    this.#exhausted = false;
  }

  /** Plans and asks for batches while segments are free, until `depth` are on their way. */
  plan(depth = this.#parts.options.prefetch + 1): void {
    const { arena } = this.#parts;
    while (!this.#exhausted && this.#pending.length < depth) {
      const last = this.#pending.at(-1);
      if (last !== undefined && last.assembled === undefined) return;
      const segment = arena.acquire();
      if (segment === undefined) return;
      const planned = this.#plan(segment);
      if (planned === undefined) {
        arena.release(segment);
        this.#exhausted = true;
      } else this.#pending.push(planned);
    }
  }

  /** Hands the next batch to `deliver` in the moment in which its bytes are known to be there, and gives what that
   * gives; undefined where none was planned. The batch's segment and pins are then the caller's to release. Throws what
   * kept the batch from coming; then nothing is left of it. */
  async take<T>(deliver: (arrived: Arrived) => T): Promise<T | undefined> {
    const pending = this.#pending.shift();
    if (pending === undefined) return undefined;
    const { assembled, step, segment, fetch } = pending;
    let decodedBytes = 0;
    if (assembled === undefined || step === undefined) {
      this.#parts.arena.release(segment);
      throw pending.error;
    }
    const { checkOpen } = this.#parts;
    try {
      if (fetch !== undefined) decodedBytes = await this.#wait(pending, assembled, fetch);
      checkOpen();
      if (assembled.mapped) assembled.pins.checkLengths();
    } catch (error) {
      this.#discard(pending);
      throw error;
    }
    return deliver({ pending, assembled, step, decodedBytes });
  }

  /** Ends what was asked for and not taken; planning goes on from what `back` gives once that is done. */
  async cancel(back: () => Cursor): Promise<void> {
    const { walk } = this.#parts;
    // A batch that is released meanwhile must not start new ones.
    this.#exhausted = true;
    const pending = this.#pending.splice(0);
    for (const { fetch } of pending) fetch?.cancel();
    await Promise.all(
      pending.map(async (one) => {
        await one.fetch?.ended;
        this.#discard(one);
      }),
    );
    walk.at = back();
  }

  /** Resolves once no memory is in use of batches that were given up. */
  async quiet(): Promise<void> {
    await Promise.all(this.#quieting);
  }

  /** Gives the bytes that were decoded. Throws where the bytes did not come. */
  async #wait(pending: Pending, assembled: Assembled, fetch: Fetch): Promise<number> {
    const { options, checkOpen } = this.#parts;
    const { error, completion, decoded } = await this.#ended(fetch);
    if (completion !== undefined) traceRead(options.tracer, pending.title, completion);
    if (decoded !== undefined) traceDecoding(options.tracer, pending.title, decoded);
    if (error === undefined) return decoded?.decodedBytes ?? 0;
    checkOpen();
    if (error.code === "SHORT_READ") assembled.pins.checkLengths();
    throw error.code === "TIMED_OUT" ? lateBatch(pending, options.timeoutMs, error) : error;
  }

  /** The end of `fetch`, an early one when the caller's signal fires. */
  #ended(fetch: Fetch): Promise<FetchEnd> {
    const { signal } = this.#parts.options;
    return signal === undefined ? fetch.ended : this.#cancellable(fetch, signal);
  }

  async #cancellable(fetch: Fetch, signal: AbortSignal): Promise<FetchEnd> {
    const cancel = () => fetch.cancel();
    signal.addEventListener("abort", cancel);
    try {
      return await fetch.ended;
    } finally {
      signal.removeEventListener("abort", cancel);
    }
  }

  /** The next batch of this rank, asked for; undefined when all epochs are over. A failure comes as a
   * pending batch, so that those before it are delivered first. */
  #plan(segment: Segment): Pending | undefined {
    const { walk, dataset, assembler, options } = this.#parts;
    const started = performance.now();
    try {
      const next = walk.next(this.#endEpoch);
      if (next === undefined) return undefined;
      const { epoch, order, step, after } = next;
      if (epoch !== this.#plannedEpoch) dataset.chooseAgain();
      this.#plannedEpoch = epoch;
      const title = this.#title();
      const assembled = assembler.assemble(
        { order, start: step.start, count: step.count, size: step.size, title },
        segment,
      );
      const fetch = this.#start(assembled);
      walk.at = after;
      options.tracer?.span("planning", title, started, performance.now(), { samples: step.count });
      return { title, epoch, step, segment, assembled, fetch, after, error: undefined };
    } catch (error) {
      const after = walk.at;
      const nothing = { step: undefined, assembled: undefined, fetch: undefined };
      return { ...nothing, title: this.#title(), epoch: after.epoch, segment, after, error };
    }
  }

  #title(): string {
    const { epoch, position } = this.#parts.walk.at;
    return `batch ${epoch}:${position}`;
  }

  #start(assembled: Assembled): Fetch | undefined {
    const { queue, decoders, options, arena } = this.#parts;
    const { timeoutMs, keepBytes: both, seed } = options;
    const keepBytes = both === undefined ? undefined : Math.max(0, both - arena.byteLength);
    const decodeOptions = { timeoutMs, keepBytes, comeAgain: seed !== undefined };
    try {
      return Fetch.start(assembled, { queue, decoders, decodeOptions });
    } catch (error) {
      assembled.scope.close();
      assembled.pins.release();
      throw error;
    }
  }

  /** Gives back what a batch had; its segment only when no lane writes to it any more. */
  #discard(pending: Pending): void {
    const { arena } = this.#parts;
    pending.assembled?.scope.close();
    const quiet = pending.fetch?.quiet();
    if (quiet === undefined) {
      pending.assembled?.pins.release();
      arena.release(pending.segment);
    } else {
      void arena.releaseAfter(pending.segment, quiet);
      this.#quieting.add(quiet);
      void quiet.then(() => {
        this.#quieting.delete(quiet);
        pending.assembled?.pins.release();
      });
    }
  }
}
