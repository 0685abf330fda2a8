/** Batches on their way: planned, asked for and waited for, in the order in which they are handed out. */
import type { Completion, DeviceQueue, Ticket } from "../device/device.ts";
import type { Step } from "../plan/sampler.ts";
import type { Arena, Segment } from "./arena.ts";
import type { Assembled, Assembler } from "./assemble.ts";
import type { Dataset } from "./dataset.ts";
import type { ResolvedOptions } from "./options.ts";
import { lateBatch, type Pending } from "./pending.ts";
import { traceRead } from "./stages.ts";
import type { Cursor, Walk } from "./walk.ts";

export interface AheadParts {
  readonly dataset: Dataset;
  readonly queue: DeviceQueue;
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
}

/** Borrows all of its parts. */
export class Ahead {
  readonly #parts: AheadParts;
  readonly #pending: Pending[] = [];
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
    const { assembled, step, segment, ticket } = pending;
    if (assembled === undefined || step === undefined) {
      this.#parts.arena.release(segment);
      throw pending.error;
    }
    const { checkOpen } = this.#parts;
    try {
      if (ticket !== undefined) await this.#wait(pending, assembled, ticket);
      checkOpen();
      if (assembled.mapped) assembled.pins.checkLengths();
    } catch (error) {
      this.#discard(pending);
      throw error;
    }
    return deliver({ pending, assembled, step });
  }

  /** Ends what was asked for and not taken; planning goes on from what `back` gives once that is done. */
  async cancel(back: () => Cursor): Promise<void> {
    const { queue, walk } = this.#parts;
    // A batch that is released meanwhile must not start new ones.
    this.#exhausted = true;
    const pending = this.#pending.splice(0);
    for (const { ticket } of pending) if (ticket !== undefined) queue.cancel(ticket);
    await Promise.all(
      pending.map(async (one) => {
        if (one.ticket !== undefined) await queue.completion(one.ticket);
        this.#discard(one);
      }),
    );
    walk.at = back();
  }

  /** Throws where the bytes did not come. */
  async #wait(pending: Pending, assembled: Assembled, ticket: Ticket): Promise<void> {
    const { options, checkOpen } = this.#parts;
    const completion = await this.#completion(ticket);
    traceRead(options.tracer, pending.title, completion);
    const { error } = completion;
    if (error === undefined) return;
    checkOpen();
    if (error.code === "SHORT_READ") assembled.pins.checkLengths();
    throw error.code === "TIMED_OUT" ? lateBatch(pending, options.timeoutMs, error) : error;
  }

  /** The completion of `ticket`, or an early one when the caller's signal fires. */
  #completion(ticket: Ticket): Promise<Completion> {
    const { queue, options } = this.#parts;
    const { signal } = options;
    return signal === undefined ? queue.completion(ticket) : this.#cancellable(ticket, signal);
  }

  async #cancellable(ticket: Ticket, signal: AbortSignal): Promise<Completion> {
    const { queue } = this.#parts;
    const cancel = () => queue.cancel(ticket);
    signal.addEventListener("abort", cancel);
    try {
      return await queue.completion(ticket);
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
      const numRequests = assembled.requests.length;
      const ticket = this.#submit(assembled);
      walk.at = after;
      options.tracer?.span("planning", title, started, performance.now(), { samples: step.count });
      return { title, epoch, step, segment, assembled, ticket, numRequests, after, error: undefined };
    } catch (error) {
      const after = walk.at;
      const nothing = { step: undefined, assembled: undefined, ticket: undefined, numRequests: 0 };
      return { ...nothing, title: this.#title(), epoch: after.epoch, segment, after, error };
    }
  }

  #title(): string {
    const { epoch, position } = this.#parts.walk.at;
    return `batch ${epoch}:${position}`;
  }

  #submit(assembled: Assembled): Ticket | undefined {
    if (assembled.requests.length === 0) return undefined;
    const { queue, options } = this.#parts;
    const { timeoutMs } = options;
    try {
      return queue.submit(assembled.requests, timeoutMs === undefined ? {} : { timeoutMs });
    } catch (error) {
      assembled.scope.close();
      assembled.pins.release();
      throw error;
    }
  }

  /** Gives back what a batch had; its segment only when no lane writes to it any more. */
  #discard(pending: Pending): void {
    const { queue, arena } = this.#parts;
    pending.assembled?.scope.close();
    const quiet = pending.ticket === undefined ? undefined : queue.quiesced(pending.ticket);
    if (quiet === undefined) {
      pending.assembled?.pins.release();
      arena.release(pending.segment);
    } else {
      void arena.releaseAfter(pending.segment, quiet);
      void quiet.then(() => pending.assembled?.pins.release());
    }
  }
}
