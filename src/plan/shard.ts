/** Which shard holds a sample, and which samples lie in a row. */
import { HeadraceError } from "../errors.ts";
import { checkInteger, checkSpan } from "./check.ts";
import { grownFloat64, grownInt32 } from "./grow.ts";

/**
 * The samples of a dataset, numbered through its shards: shard 0 holds `[0, counts[0])`, and so on.
 *
 * `counts`: samples of each shard, 0 allowed; borrowed for the call. Throws `BAD_OPTION` where a count is no
 * safe integer of 0 or more, or their sum is none. Memory: 8 bytes a shard.
 */
export class ShardIndex {
  readonly numSamples: number;
  readonly numShards: number;
  readonly #starts: Float64Array;
  readonly #shardsPerSample: number;
  #last = 0;

  constructor(counts: ArrayLike<number>) {
    const numShards = counts.length;
    const starts = new Float64Array(numShards + 1);
    let sum = 0;
    for (let shard = 0; shard < numShards; shard++) {
      const count = counts[shard]!;
      checkInteger(`the number of samples of shard ${shard}`, count, 0);
      if (count > Number.MAX_SAFE_INTEGER - sum) {
        throw new HeadraceError(
          "BAD_OPTION",
          `the samples of shards 0 to ${shard} add up to more than ${Number.MAX_SAFE_INTEGER}`,
        );
      }
      sum += count;
      starts[shard + 1] = sum;
    }
    this.numSamples = sum;
    this.numShards = numShards;
    this.#starts = starts;
    this.#shardsPerSample = sum > 0 ? numShards / sum : 0;
  }

  /** The first sample of each shard, and at the end their number. Borrowed; not to be written to. */
  get starts(): Float64Array {
    return this.#starts;
  }

  /** The first sample of a shard. Throws `OUT_OF_RANGE` unless `shard` is in `[0, numShards)`. */
  start(shard: number): number {
    checkSpan("shards", shard, 1, this.numShards);
    return this.#starts[shard]!;
  }

  /** The number of samples of a shard. Throws `OUT_OF_RANGE` unless `shard` is in `[0, numShards)`. */
  countOf(shard: number): number {
    checkSpan("shards", shard, 1, this.numShards);
    return this.#starts[shard + 1]! - this.#starts[shard]!;
  }

  /**
   * The shard that holds `sample`: the one of the last call, else the one it would be in if all shards were
   * alike, else by bisection. Throws `OUT_OF_RANGE` unless `sample` is an integer in `[0, numSamples)`.
   */
  shardOf(sample: number): number {
    const starts = this.#starts;
    const last = this.#last;
    if (!(sample >= 0 && sample < this.numSamples && Number.isInteger(sample))) {
      throw new HeadraceError(
        "OUT_OF_RANGE",
        `sample ${sample} is not an integer in [0, ${this.numSamples})`,
      );
    }
    if (sample >= starts[last]! && sample < starts[last + 1]!) return last;
    let low = 0;
    let high = this.numShards;
    const guess = Math.min(high - 1, Math.floor(sample * this.#shardsPerSample));
    if (sample < starts[guess]!) {
      high = guess;
    } else if (sample < starts[guess + 1]!) {
      low = guess;
      high = guess + 1;
    } else {
      low = guess + 1;
    }
    while (high - low > 1) {
      const middle = (low + high) >>> 1;
      if (sample < starts[middle]!) high = middle;
      else low = middle;
    }
    this.#last = low;
    return low;
  }

  /** The row of `sample` in its shard. Throws as {@link shardOf} does. */
  rowOf(sample: number): number {
    return sample - this.#starts[this.shardOf(sample)]!;
  }
}

/** Runs of consecutive rows, each inside one shard; entries are valid up to `length`. Reused, it stops
 * allocating. */
export class RunList {
  shard = new Int32Array(64);
  /** The first row of the run, in its shard. */
  row = new Float64Array(64);
  /** Rows of the run, at least 1. */
  count = new Float64Array(64);
  length = 0;

  clear(): void {
    this.length = 0;
  }

  push(shard: number, row: number, count: number): void {
    const at = this.length++;
    if (at === this.shard.length) {
      this.shard = grownInt32(this.shard, this.length);
      this.row = grownFloat64(this.row, this.length);
      this.count = grownFloat64(this.count, this.length);
    }
    this.shard[at] = shard;
    this.row[at] = row;
    this.count[at] = count;
  }
}

/**
 * Overwrites `out` with the runs of the first `count` of `ids`, in their order: ids that follow one another
 * by 1 in the same shard become one run. Throws `OUT_OF_RANGE` for an id outside the dataset.
 */
export function runsOf(ids: Float64Array, count: number, index: ShardIndex, out: RunList): void {
  checkSpan("ids", 0, count, ids.length);
  out.clear();
  const { starts } = index;
  for (let i = 0; i < count; ) {
    const first = ids[i]!;
    const shard = index.shardOf(first);
    const start = starts[shard]!;
    const end = starts[shard + 1]!;
    let next = first + 1;
    i++;
    while (i < count && ids[i] === next && next < end) {
      next++;
      i++;
    }
    out.push(shard, first - start, next - first);
  }
}

/** Overwrites `out` with the runs of samples `[start, start + count)`: one for each shard that holds any.
 * Throws `OUT_OF_RANGE` where they leave the dataset. */
export function runsOfRange(start: number, count: number, index: ShardIndex, out: RunList): void {
  checkSpan("samples", start, count, index.numSamples);
  out.clear();
  const end = start + count;
  for (let sample = start; sample < end; ) {
    const shard = index.shardOf(sample);
    const shardStart = index.start(shard);
    const next = Math.min(end, shardStart + index.countOf(shard));
    out.push(shard, sample - shardStart, next - sample);
    sample = next;
  }
}
