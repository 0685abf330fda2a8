/** One loop over batches: one call at a time, and an orderly end from any point. */
import { HeadraceError } from "../errors.ts";
import type { Batch } from "./batch.ts";

/** Whose batches are handed out. */
export interface BatchProducer {
  /** The next batch, or undefined when there is none. Not called again before it has ended. */
  next(): Promise<Batch | undefined>;
  /** Called once, after the last `next` has ended. */
  stop(): Promise<void>;
}

/** What a `for await` loop talks to. */
export class BatchIterator implements AsyncIterator<Batch, undefined> {
  readonly #producer: BatchProducer;
  #running: Promise<IteratorResult<Batch, undefined>> | undefined;
  #done = false;

  constructor(producer: BatchProducer) {
    this.#producer = producer;
  }

  async next(): Promise<IteratorResult<Batch, undefined>> {
    if (this.#running !== undefined) {
      throw new HeadraceError("BAD_OPTION", "next() was called before the last call had ended");
    }
    if (this.#done) return { done: true, value: undefined };
    this.#running = this.#step();
    try {
      return await this.#running;
    } finally {
      this.#running = undefined;
    }
  }

  /** Waits for a `next` that is under way, whose batch is its caller's. */
  async return(): Promise<IteratorResult<Batch, undefined>> {
    await this.#running?.catch(() => {});
    await this.#stop();
    return { done: true, value: undefined };
  }

  async #step(): Promise<IteratorResult<Batch, undefined>> {
    try {
      const batch = await this.#producer.next();
      if (batch !== undefined) return { done: false, value: batch };
    } catch (error) {
      await this.#stop();
      throw error;
    }
    await this.#stop();
    return { done: true, value: undefined };
  }

  async #stop(): Promise<void> {
    if (this.#done) return;
    this.#done = true;
    await this.#producer.stop();
  }
}
