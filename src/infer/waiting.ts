/** Rows that wait for a slot. */
import type { Sequence } from "./sequence.ts";

/** Whose turn it is: `fifo`, as they came; `longest-first`, by most tokens that they can come to. */
export type AdmissionOrder = "fifo" | "longest-first";

/** First those that were put back, the oldest first; then those to be tried again; then the others. */
export class WaitingRows {
  readonly #order: AdmissionOrder;
  /** The last one's turn comes first, in each of these. */
  readonly #putBack: Sequence[] = [];
  readonly #again: Sequence[] = [];
  readonly #fresh: Sequence[] = [];
  /** Those to be tried again whose time has not come, in no order. */
  #delayed: Sequence[] = [];

  constructor(order: AdmissionOrder) {
    this.#order = order;
  }

  /** All of them, those that are delayed too. */
  get length(): number {
    return this.numReady + this.#delayed.length;
  }

  /** Those whose turn can come now. */
  get numReady(): number {
    return this.#putBack.length + this.#again.length + this.#fresh.length;
  }

  get numDelayed(): number {
    return this.#delayed.length;
  }

  add(sequence: Sequence): void {
    insert(this.#fresh, sequence, this.#order === "fifo" ? byArrival : byBound);
  }

  putBack(sequence: Sequence): void {
    insert(this.#putBack, sequence, (one, other) => one.age - other.age);
  }

  /** Keeps `sequence` until its `notBeforeMs`. */
  delay(sequence: Sequence): void {
    this.#delayed.push(sequence);
  }

  /** Lets those in whose time has come. */
  wake(nowMs: number): void {
    if (this.#delayed.length === 0) return;
    for (const sequence of this.#delayed) {
      if (sequence.notBeforeMs <= nowMs) insert(this.#again, sequence, byArrival);
    }
    this.#delayed = this.#delayed.filter(({ notBeforeMs }) => notBeforeMs > nowMs);
  }

  /** When the next one's delay is over, ms; Infinity: there is none. */
  get nextWakeMs(): number {
    return this.#delayed.reduce((least, { notBeforeMs }) => Math.min(least, notBeforeMs), Infinity);
  }

  /** Whose turn it is. */
  peek(): Sequence | undefined {
    return this.#putBack.at(-1) ?? this.#again.at(-1) ?? this.#fresh.at(-1);
  }

  /** Takes out what {@link WaitingRows.peek} shows. */
  shift(): Sequence | undefined {
    return this.#putBack.pop() ?? this.#again.pop() ?? this.#fresh.pop();
  }

  /** Takes out all of which `test` is true. */
  takeOut(test: (sequence: Sequence) => boolean): Sequence[] {
    const taken: Sequence[] = [];
    for (const list of [this.#putBack, this.#again, this.#fresh, this.#delayed]) {
      const kept = list.filter((sequence) => {
        const out = test(sequence);
        if (out) taken.push(sequence);
        return !out;
      });
      if (kept.length < list.length) list.splice(0, list.length, ...kept);
    }
    return taken;
  }
}

function byArrival(one: Sequence, other: Sequence): number {
  return one.arrival - other.arrival;
}

function byBound(one: Sequence, other: Sequence): number {
  return other.tokenBound - one.tokenBound || byArrival(one, other);
}

/** Puts `sequence` where it belongs in a list whose first in order is its last. */
function insert(
  list: Sequence[],
  sequence: Sequence,
  order: (one: Sequence, other: Sequence) => number,
): void {
  let low = 0;
  let high = list.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (order(list[middle]!, sequence) > 0) low = middle + 1;
    else high = middle;
  }
  list.splice(low, 0, sequence);
}
