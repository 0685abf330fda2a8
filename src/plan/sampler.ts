/**
 * Which positions of the epoch's order form which batch of which rank.
 *
 * The law: the order is cut greedily into batches, one after another, whatever the number of ranks. A step
 * takes `worldSize` of them, and rank r has the one numbered r. So a world of any size that goes on at the
 * end of a step goes on with exactly the samples that are left.
 */
import { HeadraceError } from "../errors.ts";
import { checkInteger, checkSpan } from "./check.ts";
import { type Costs, CostWindow } from "./cost.ts";

export interface SamplerOptions {
  readonly numSamples: number;
  /** Of this process, in `[0, worldSize)`. */
  readonly rank: number;
  readonly worldSize: number;
  /** Most samples of a batch, at least 1; 1 by default where `maxCost` is absent too, else unbounded. */
  readonly maxSamples?: number | undefined;
  /** Most that a batch may cost, at least 1, in the unit of the costs (bytes, tokens). A sample that costs
   * more goes alone. */
  readonly maxCost?: number | undefined;
  /** What a batch costs: the sum of its samples' costs (`sum`, the default), or samples times the highest
   * cost among them (`padded`). A cost of 0 counts as 1, so that `maxCost` bounds the samples as well. */
  readonly combine?: "sum" | "padded" | undefined;
  /**
   * What happens where the samples run out:
   * - `short`: the last batch is short, and ranks may find no batch in the last step.
   * - `drop`: a step is given only if all its batches are full. With `maxCost`, a batch is full when
   *   one more sample, whatever its cost, would break a limit; so is every batch that others follow.
   * - `pad`: every rank has a batch in the last step, if need be without a sample, and batches have rows
   *   that count as padding.
   */
  readonly lastBatch: "short" | "drop" | "pad";
}

/** One rank's batch of one step. */
export interface Step {
  /** Position of the batch's first sample; `numSamples` where it has none. */
  readonly start: number;
  /** Real samples; 0 for a rank that only pads. */
  readonly count: number;
  /** Rows, padding and all. With `pad` and without `maxCost`, `maxSamples`. With `pad` and `maxCost`,
   * `count`, or where that is 0 the most samples in a batch of the step. Else `count`. */
  readonly size: number;
  /** Where the next step starts, the same for every rank. */
  readonly nextPosition: number;
}

/**
 * This rank's batch of the step that starts at `position`, or `undefined` when the epoch is over for it: then
 * its next position is `numSamples`, whatever the other ranks have still to do in this step.
 *
 * `position`: 0, or the `nextPosition` of any step, whatever its world size; any other integer in
 * `[0, numSamples]` is a legal start too. `costs(start, count)` gives the costs of positions
 * `[start, start + count)`, non-negative safe integers; it is needed with `maxCost`, is asked for at most
 * 4,096 at a time, in ascending order, and what it returns is read before it is asked again.
 *
 * Time: O(1) without `maxCost`, else in proportion to the samples of the step. Throws `BAD_OPTION` for
 * options or costs outside their bounds, `OUT_OF_RANGE` for such a position.
 */
export function planStep(options: SamplerOptions, position: number, costs?: Costs): Step | undefined {
  checkSampler(options);
  checkSpan("positions", position, 0, options.numSamples);
  if (position === options.numSamples) return undefined;
  if (options.maxCost === undefined) return countStep(options, position);
  if (costs === undefined) {
    throw new HeadraceError("BAD_OPTION", `maxCost is ${options.maxCost}, but no costs are given`);
  }
  return costStep(options, options.maxCost, position, costs);
}

/**
 * The steps that give this rank a batch in an epoch begun at 0: as often as {@link planStep} gives one.
 * `undefined` with `maxCost`, where only the costs could tell. Throws `BAD_OPTION` as `planStep` does.
 */
export function stepsPerEpoch(options: SamplerOptions): number | undefined {
  checkSampler(options);
  const { numSamples, rank, worldSize, maxSamples = 1, lastBatch } = options;
  if (options.maxCost !== undefined) return undefined;
  const batches = Math.ceil(numSamples / maxSamples);
  if (lastBatch === "drop") return Math.floor(Math.floor(numSamples / maxSamples) / worldSize);
  if (lastBatch === "pad") return Math.ceil(batches / worldSize);
  return batches <= rank ? 0 : Math.floor((batches - 1 - rank) / worldSize) + 1;
}

/** Throws `BAD_OPTION` unless the options are within their bounds; the message names option and value. */
export function checkSampler(options: SamplerOptions): void {
  const { numSamples, rank, worldSize, maxSamples, maxCost, combine, lastBatch } = options;
  checkInteger("numSamples", numSamples, 0);
  checkInteger("worldSize", worldSize, 1);
  checkInteger("rank", rank, 0, worldSize - 1);
  if (maxSamples !== undefined) checkInteger("maxSamples", maxSamples, 1);
  if (maxCost !== undefined) checkInteger("maxCost", maxCost, 1);
  if (combine !== undefined && combine !== "sum" && combine !== "padded") {
    throw new HeadraceError("BAD_OPTION", `combine is ${String(combine)}; it must be sum or padded`);
  }
  if (lastBatch !== "short" && lastBatch !== "drop" && lastBatch !== "pad") {
    throw new HeadraceError("BAD_OPTION", `lastBatch is ${String(lastBatch)}; it must be short, drop or pad`);
  }
}

function countStep(options: SamplerOptions, position: number): Step | undefined {
  const { numSamples, rank, worldSize, maxSamples = 1, lastBatch } = options;
  const left = numSamples - position;
  // Products past 2^53 are no longer exact, but still greater than any number of samples.
  const stepSize = worldSize * maxSamples;
  if (lastBatch === "drop" && left < stepSize) return undefined;
  const nextPosition = stepSize < left ? position + stepSize : numSamples;
  const before = rank * maxSamples;
  if (before >= left) {
    if (lastBatch !== "pad") return undefined;
    return { start: numSamples, count: 0, size: maxSamples, nextPosition };
  }
  const count = Math.min(maxSamples, left - before);
  return {
    start: position + before,
    count,
    size: lastBatch === "pad" ? maxSamples : count,
    nextPosition,
  };
}

function costStep(
  options: SamplerOptions,
  maxCost: number,
  position: number,
  costs: Costs,
): Step | undefined {
  const { numSamples, rank, worldSize, lastBatch } = options;
  const window = new CostWindow(costs, numSamples);
  let next = position;
  let numFull = 0;
  let mostSamples = 0;
  let start = numSamples;
  let count = 0;
  for (let batch = 0; batch < worldSize && next < numSamples; batch++) {
    const { end, full } = cutBatch(options, maxCost, next, window);
    if (full) numFull++;
    mostSamples = Math.max(mostSamples, end - next);
    if (batch === rank) {
      start = next;
      count = end - next;
    }
    next = end;
  }
  if (lastBatch === "drop" && numFull < worldSize) return undefined;
  if (lastBatch !== "pad" && count === 0) return undefined;
  return { start, count, size: count === 0 ? mostSamples : count, nextPosition: next };
}

/** Where the batch that starts at `start` ends, and whether a limit would have ended it there anyway. */
function cutBatch(
  options: SamplerOptions,
  maxCost: number,
  start: number,
  window: CostWindow,
): { end: number; full: boolean } {
  const padded = options.combine === "padded";
  const maxSamples = options.maxSamples ?? Number.MAX_SAFE_INTEGER;
  const mostEnd = start + Math.min(options.numSamples - start, maxSamples);
  let sum = window.at(start);
  let highest = sum;
  let end = start + 1;
  for (; end < mostEnd; end++) {
    const cost = window.at(end);
    const newHighest = Math.max(highest, cost);
    if ((padded ? (end - start + 1) * newHighest : sum + cost) > maxCost) return { end, full: true };
    sum += cost;
    highest = newHighest;
  }
  // Nothing costs less than 1: what has no room for that is full.
  const least = padded ? (end - start + 1) * highest : sum + 1;
  return { end, full: end - start === maxSamples || least > maxCost };
}
