/** Quantiles of any number of durations in fixed memory. */

/** Durations from here on are told apart, ms. */
const LEAST_MS = 1e-4;
/** Each bin is this many times as wide as the one before: a quantile is off by half of it at most. */
const GROWTH = 1.01;
/** Bins up to about 11 days. */
const BINS = Math.ceil(Math.log(1e9 / LEAST_MS) / Math.log(GROWTH));

/** A histogram with bins of growing width. */
export class Quantiles {
  readonly #bins = new Float64Array(BINS + 2);
  #count = 0;
  #least = Number.POSITIVE_INFINITY;
  #most = Number.NEGATIVE_INFINITY;

  add(ms: number): void {
    const bin = ms < LEAST_MS ? 0 : 1 + Math.floor(Math.log(ms / LEAST_MS) / Math.log(GROWTH));
    this.#bins[Math.min(bin, BINS + 1)]! += 1;
    this.#count++;
    this.#least = Math.min(this.#least, ms);
    this.#most = Math.max(this.#most, ms);
  }

  /** The duration in ms that a share of all, from 0 to 1, stays below, to within 1 %; 0 where there is none. */
  at(share: number): number {
    let rest = Math.min(this.#count - 1, Math.floor(this.#count * share));
    if (rest < 0) return 0;
    const bin = this.#bins.findIndex((count) => {
      rest -= count;
      return rest < 0;
    });
    const middle = bin === 0 ? 0 : LEAST_MS * GROWTH ** (bin - 0.5);
    return Math.min(Math.max(middle, this.#least), this.#most);
  }
}
