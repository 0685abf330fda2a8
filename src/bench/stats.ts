/** What repeated figures say: quantiles, and intervals by resampling. */
import { Random } from "./random.ts";
import type { Quantiles } from "./record.ts";

/** Resamples of an interval. */
const RESAMPLES = 2000;
const LOW = 0.025;
const HIGH = 0.975;

/** The value below which `share` of `values` lies, by linear interpolation between the nearest two; NaN of none. */
export function quantile(values: readonly number[], share: number): number {
  return ofSorted(
    values.toSorted((a, b) => a - b),
    share,
  );
}

export function median(values: readonly number[]): number {
  return quantile(values, 0.5);
}

/** Median, 5th and 95th percentile, and the percentile bootstrap's 95 % interval of the median. The same values and
 * seed give the same interval. */
export function quantilesOf(values: readonly number[], seed = 1): Quantiles {
  const random = new Random(seed);
  const sorted = values.toSorted((a, b) => a - b);
  const [low, high] = interval(() => medianOfResample(sorted, random));
  return {
    median: ofSorted(sorted, 0.5),
    p5: ofSorted(sorted, 0.05),
    p95: ofSorted(sorted, 0.95),
    low,
    high,
  };
}

/**
 * How many times `ours` is `theirs`: the ratio of the medians with its bootstrap 95 % interval, each side resampled by
 * itself; p5 and p95 are those of the ratios round by round, as far as both have rounds.
 */
export function ratioOf(ours: readonly number[], theirs: readonly number[], seed = 1): Quantiles {
  const random = new Random(seed);
  const a = ours.toSorted((x, y) => x - y);
  const b = theirs.toSorted((x, y) => x - y);
  const [low, high] = interval(() => medianOfResample(a, random) / medianOfResample(b, random));
  const paired = ours.slice(0, theirs.length).map((value, i) => value / theirs[i]!);
  return {
    median: ofSorted(a, 0.5) / ofSorted(b, 0.5),
    p5: quantile(paired, 0.05),
    p95: quantile(paired, 0.95),
    low,
    high,
  };
}

function interval(draw: () => number): [low: number, high: number] {
  const draws = Array.from({ length: RESAMPLES }, draw).sort((a, b) => a - b);
  return [ofSorted(draws, LOW), ofSorted(draws, HIGH)];
}

function medianOfResample(sorted: readonly number[], random: Random): number {
  const picks = Float64Array.from(
    { length: sorted.length },
    () => sorted[random.below(sorted.length)]!,
  ).sort();
  return ofSorted(picks, 0.5);
}

function ofSorted(sorted: ArrayLike<number>, share: number): number {
  if (sorted.length === 0) return Number.NaN;
  const at = (sorted.length - 1) * share;
  const low = Math.floor(at);
  const high = Math.min(low + 1, sorted.length - 1);
  return sorted[low]! + (sorted[high]! - sorted[low]!) * (at - low);
}
