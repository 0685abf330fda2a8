/** Reads the costs of samples in chunks, so that memory stays bounded whatever the epoch's length. */
import { HeadraceError } from "../errors.ts";

/** The costs of positions `[start, start + count)`, in order. The caller of it reads them at once. */
export type Costs = (start: number, count: number) => ArrayLike<number>;

/** A first chunk is small, as a batch may be; each further one is twice as long, up to the bound. */
const FIRST_CHUNK = 64;
const LAST_CHUNK = 4096;

/** The costs around a position that only moves forward. */
export class CostWindow {
  readonly #costs: Costs;
  readonly #numSamples: number;
  #chunk: ArrayLike<number> = [];
  #start = 0;
  #end = 0;
  #nextLength = FIRST_CHUNK;

  constructor(costs: Costs, numSamples: number) {
    this.#costs = costs;
    this.#numSamples = numSamples;
  }

  /** The cost at `position`, at least 1. Throws `BAD_OPTION` where it is no non-negative safe integer. */
  at(position: number): number {
    if (position < this.#start || position >= this.#end) this.#read(position);
    const cost = this.#chunk[position - this.#start];
    if (!Number.isSafeInteger(cost) || cost! < 0) {
      throw new HeadraceError(
        "BAD_OPTION",
        `the cost at position ${position} is ${String(cost)}; it must be an integer of at least 0`,
      );
    }
    return cost! > 0 ? cost! : 1;
  }

  #read(position: number): void {
    const length = Math.min(this.#nextLength, this.#numSamples - position);
    this.#chunk = this.#costs(position, length);
    this.#start = position;
    this.#end = position + length;
    this.#nextLength = Math.min(LAST_CHUNK, this.#nextLength * 2);
  }
}
