/** CUDA streams, and their events that someone waits for. */
import { HeadraceError } from "../../errors.ts";
import type { CudaContext } from "./context.ts";
import { EVENT_BLOCKING, STREAM_NON_BLOCKING } from "./flags.ts";
import type { Poll } from "./poll.ts";
import type { Waiter, Waiters } from "./waiters.ts";

/** Work that is awaited eagerly is asked after for so long, unless the work before it took longer. */
const EAGER_MS = 2;

/** Called once; `error` where the work did not end well. */
export type Reached = (error: HeadraceError | undefined) => void;

/** Reusable events of one device. */
export class Events {
  readonly #context: CudaContext;
  readonly #free: number[] = [];

  constructor(context: CudaContext) {
    this.#context = context;
  }

  take(): number {
    const { driver } = this.#context;
    return (
      this.#free.pop() ??
      this.#context.make("cuEventCreate", (out) => driver.symbols.cuEventCreate(out, EVENT_BLOCKING))
    );
  }

  give(event: number): void {
    this.#free.push(event);
  }
}

export interface StreamParts {
  readonly context: CudaContext;
  readonly events: Events;
  readonly waiters: Waiters;
  readonly poll: Poll;
}

/** One CUDA stream: what is put into it runs in order. */
export class Stream {
  readonly #context: CudaContext;
  readonly #events: Events;
  readonly #waiters: Waiters;
  readonly #poll: Poll;
  readonly #waiting: { readonly event: number; readonly reached: Reached }[] = [];
  #handle = 0;
  #waiter: Waiter | undefined;
  /** How long the last work took that was awaited eagerly. */
  #eagerMs = 0;

  constructor({ context, events, waiters, poll }: StreamParts) {
    this.#context = context;
    this.#events = events;
    this.#waiters = waiters;
    this.#poll = poll;
  }

  /** The CUstream, made when first needed. Owned by this object. */
  get handle(): number {
    const { driver } = this.#context;
    this.#handle ||= this.#context.make("cuStreamCreate", (out) =>
      driver.symbols.cuStreamCreate(out, STREAM_NON_BLOCKING),
    );
    return this.#handle;
  }

  /** What is put in later starts after what is in `other` now. */
  after(other: Stream): void {
    const { symbols } = this.#context.driver;
    const [earlier, later] = [other.handle, this.handle];
    const event = this.#events.take();
    try {
      this.#context.check("cuEventRecord", symbols.cuEventRecord(event, earlier));
      this.#context.check("cuStreamWaitEvent", symbols.cuStreamWaitEvent(later, event, 0));
    } finally {
      // The wait refers to this record, whatever is recorded with the event next.
      this.#events.give(event);
    }
  }

  /** Calls `reached` when all that is in the stream now has ended; `eager` takes a core for a sooner answer, where that
   * is soon. Throws where the driver takes no event; then {@link Stream.drain} is what is left. */
  whenDone(reached: Reached, eager = false): void {
    const { driver } = this.#context;
    const stream = this.handle;
    const event = this.#events.take();
    const result = driver.symbols.cuEventRecord(event, stream);
    if (result !== 0) {
      this.#events.give(event);
      throw this.#context.failure("cuEventRecord", result);
    }
    if (eager) this.#await(event, reached);
    else this.#wait(event, reached);
  }

  #await(event: number, reached: Reached): void {
    const startedMs = performance.now();
    const timed: Reached = (error) => {
      this.#eagerMs = performance.now() - startedMs;
      reached(error);
    };
    if (this.#eagerMs > EAGER_MS) {
      this.#wait(event, timed);
      return;
    }
    this.#poll.add(event, startedMs + EAGER_MS, (result) => {
      if (result === undefined) this.#wait(event, timed);
      else this.#ended(event, timed, result);
    });
  }

  #wait(event: number, reached: Reached): void {
    this.#waiting.push({ event, reached });
    this.#waiter ??= this.#waiters.take({
      reached: (answer) => this.#reached(answer),
      died: (message) => this.#died(message),
    });
    this.#waiter.add(event);
  }

  /** Waits on the calling thread until all that is in the stream has ended. For failures alone, behind which memory
   * would be given back that is in use. */
  drain(): void {
    const { symbols } = this.#context.driver;
    if (this.#handle === 0 || this.#context.destroyed || this.#context.lost !== undefined) return;
    symbols.cuCtxSetCurrent(this.#context.handle);
    symbols.cuStreamSynchronize(this.#handle);
  }

  /** After all that was put in has ended. */
  close(): void {
    if (this.#waiter !== undefined) this.#waiters.give(this.#waiter);
    this.#waiter = undefined;
    if (this.#handle !== 0 && !this.#context.destroyed) {
      const { symbols } = this.#context.driver;
      symbols.cuCtxSetCurrent(this.#context.handle);
      symbols.cuStreamDestroy_v2(this.#handle);
    }
    this.#handle = 0;
  }

  #reached(result: number): void {
    const next = this.#waiting.shift();
    if (next !== undefined) this.#ended(next.event, next.reached, result);
  }

  #ended(event: number, reached: Reached, result: number): void {
    this.#events.give(event);
    const error = result === 0 ? undefined : this.#context.failure("waiting for a stream", result);
    if (error !== undefined) this.drain();
    reached(error);
  }

  #died(message: string): void {
    const error = new HeadraceError(
      "DEVICE_FAILED",
      `the Worker that waits for a stream has died: ${message}`,
    );
    this.#waiter = undefined;
    this.drain();
    for (const { reached, event } of this.#waiting.splice(0)) {
      this.#events.give(event);
      reached(error);
    }
  }
}

/** The streams of one queue, each made when first used: copies run beside kernels. */
export class Streams {
  readonly upload: Stream;
  readonly download: Stream;
  readonly compute: Stream;

  constructor(parts: StreamParts) {
    this.upload = new Stream(parts);
    this.download = new Stream(parts);
    this.compute = new Stream(parts);
  }

  /** As {@link Stream.drain}, for all of them. */
  drain(): void {
    for (const stream of [this.upload, this.download, this.compute]) stream.drain();
  }

  /** After all that was put in has ended. */
  close(): void {
    for (const stream of [this.upload, this.download, this.compute]) stream.close();
  }
}
