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

  next(): Promise<IteratorResult<Batch, undefined>> {
    if (this.#running !== undefined) {
      const text = "next() was called before the last call had ended";
      return Promise.reject(new HeadraceError("BAD_OPTION", text));
    }
    if (this.#done) return Promise.resolve({ done: true, value: undefined });
    this.#running = this.#step();
    return this.#running;
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
      await this.#stop();
      return { done: true, value: undefined };
    } catch (error) {
      await this.#stop();
      throw error;
    } finally {
      this.#running = undefined;
    }
  }

  async #stop(): Promise<void> {
    if (this.#done) return;
    this.#done = true;
    await this.#producer.stop();
  }
}
