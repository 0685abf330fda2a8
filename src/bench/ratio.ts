/** How sure a ratio of two medians is. */

/** Resamples: the ends of an interval move by about 1 % of its width from one seed to another. */
const RESAMPLES = 4000;

/** A ratio of medians and its bootstrap 95 % interval. */
export interface Ratio {
  readonly value: number;
  readonly low: number;
  readonly high: number;
}

/**
 * The ratio of the median of `these` to that of `those`, all above 0, which were measured apart from each other: both are
 * drawn anew with replacement, and the interval holds the middle 95 % of the ratios so found (the percentile bootstrap;
 * Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13). The same figures give the same interval.
 */
export function ratioOf(these: readonly number[], those: readonly number[]): Ratio {
  const next = randoms(0x9e3779b9);
  const found = new Float64Array(RESAMPLES);
  for (let i = 0; i < RESAMPLES; i++) found[i] = median(draw(these, next)) / median(draw(those, next));
  found.sort();
  const at = (part: number) => found[Math.round(part * (RESAMPLES - 1))]!;
  return { value: median(these) / median(those), low: at(0.025), high: at(0.975) };
}

/** The middle value; of an even number of values, the mean of the two in the middle. */
export function median(values: ArrayLike<number>): number {
  const sorted = Float64Array.from(values).sort();
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

function draw(values: readonly number[], next: () => number): Float64Array {
  return Float64Array.from(values, () => values[Math.floor(next() * values.length)]!);
}

/** Numbers in [0, 1) by xorshift32 (Marsaglia, Xorshift RNGs, 2003). */
function randoms(seed: number): () => number {
  let state = seed;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) / 2 ** 32;
  };
}
