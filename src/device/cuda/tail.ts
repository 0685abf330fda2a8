/** The order of work among the streams of one queue: what runs next starts after the tail, the work put in last. */
import type { Reached, Stream, Streams } from "./streams.ts";

export class Tail {
  readonly #streams: Streams;
  #last: Stream[] = [];

  constructor(streams: Streams) {
    this.#streams = streams;
  }

  get empty(): boolean {
    return this.#last.length === 0;
  }

  /** Puts work into `stream` behind the tail. Work that may run beside it is put in before {@link Tail.become}. */
  behind(stream: Stream): void {
    for (const last of this.#last) if (last !== stream) stream.after(last);
  }

  /** What runs next starts after what is in `streams` now. */
  become(streams: Iterable<Stream>): void {
    this.#last = [...streams];
  }

  /** Calls `reached` when all of the tail has ended, and forgets it. `eager` is as in {@link Stream.whenDone}. */
  whenDone(reached: Reached, eager = false): void {
    const [stream = this.#streams.compute, ...others] = this.#last;
    for (const other of others) stream.after(other);
    stream.whenDone(reached, eager);
    this.#last = [];
  }
}
