/** Who has which slot. */
import type { Sequence } from "./sequence.ts";

/** The slots of an engine, `[0, count)`. */
export class Slots {
  readonly count: number;
  readonly #running: Sequence[] = [];
  readonly #bySlot: (Sequence | undefined)[];

  constructor(count: number) {
    this.count = count;
    this.#bySlot = new Array<Sequence | undefined>(count).fill(undefined);
  }

  /** Sequences that have a slot, the oldest first. */
  get running(): readonly Sequence[] {
    return this.#running;
  }

  get numFree(): number {
    return this.count - this.#running.length;
  }

  /** Who has `slot`. */
  at(slot: number): Sequence | undefined {
    return this.#bySlot[slot];
  }

  /** The lowest free slot; -1: none. */
  get nextFree(): number {
    return this.#bySlot.indexOf(undefined);
  }

  /** Gives `sequence` the lowest free slot. It is younger than all that run. */
  take(sequence: Sequence): void {
    sequence.slot = this.nextFree;
    this.#bySlot[sequence.slot] = sequence;
    this.#running.push(sequence);
  }

  /** Frees the slot of `sequence`, and says which it was. */
  free(sequence: Sequence): number {
    const { slot } = sequence;
    this.#bySlot[slot] = undefined;
    this.#running.splice(this.#running.lastIndexOf(sequence), 1);
    sequence.slot = -1;
    return slot;
  }
}
