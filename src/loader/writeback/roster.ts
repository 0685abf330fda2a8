/** Which rows of a job have their output: whole shards, shards that are open, and all others. */
import { HeadraceError } from "../../errors.ts";
import type { SampleRange } from "../../plan/select.ts";
import { OpenOutput, type OutputName } from "./output.ts";

/** Memory: a byte a shard, and what open ones take. */
export class Roster {
  readonly #names: readonly OutputName[];
  readonly #inInputOrder: boolean;
  readonly #isWhole: Uint8Array;
  readonly #open = new Map<number, OpenOutput>();
  #lastIndex = 0;

  /** `names` are in the order of their rows. */
  constructor(names: readonly OutputName[], inInputOrder: boolean) {
    this.#names = names;
    this.#inInputOrder = inInputOrder;
    this.#isWhole = new Uint8Array(names.length);
  }

  /** The shard is whole. */
  commit({ index }: OutputName): void {
    this.#open.delete(index);
    this.#isWhole[index] = 1;
  }

  /** An earlier run has begun the shard, or it is made anew though it was whole. */
  resume(output: OpenOutput): void {
    this.#isWhole[output.name.index] = 0;
    this.#open.set(output.name.index, output);
  }

  /** Rows of whole shards, and those in attempts of the others. */
  get numRows(): number {
    let rows = 0;
    for (const { index, shard } of this.#names) {
      rows +=
        this.#isWhole[index] === 1 ? shard.end - shard.start : (this.#open.get(index)?.numJournaled ?? 0);
    }
    return rows;
  }

  /** Shards that are whole. */
  get numWhole(): number {
    return this.#isWhole.reduce((total, is) => total + is, 0);
  }

  /** Shards that are not whole although nothing is missing: those without rows, and those that a crash has kept from it. */
  *complete(): Generator<OpenOutput> {
    for (const name of this.#names) {
      if (this.#isWhole[name.index] === 1) continue;
      if (name.shard.start === name.shard.end) this.resume(new OpenOutput(name, this.#inInputOrder));
      const output = this.#open.get(name.index);
      if (output?.complete) yield output;
    }
  }

  /** The open output that rows `[row, row + count)` belong to, which are without one. Throws `OUT_OF_RANGE` where they do
   * not lie in one shard, `BAD_OPTION` where one of them has its output. */
  outputOf(row: number, count: number): OpenOutput {
    const name = this.#nameOf(row);
    if (name === undefined || !Number.isSafeInteger(count) || count < 1 || row + count > name.shard.end) {
      const rows = count === 1 ? `row ${row} does` : `rows [${row}, ${row + count}) do`;
      throw new HeadraceError("OUT_OF_RANGE", `${rows} not lie in one shard of this job`);
    }
    if (this.#isWhole[name.index] === 1) {
      throw new HeadraceError("BAD_OPTION", `row ${row} of ${name.shard.name} has its output already`);
    }
    let open = this.#open.get(name.index);
    if (open === undefined) {
      open = new OpenOutput(name, this.#inInputOrder);
      this.#open.set(name.index, open);
    }
    open.assertNew(row, count);
    return open;
  }

  /** Rows that have their output or were taken, as ranges of the dataset, in order. */
  finished(): SampleRange[] {
    return mergedRanges(this.#finished());
  }

  /** All others of the job. */
  remaining(): SampleRange[] {
    return mergedRanges(this.#remaining());
  }

  *#finished(): Generator<SampleRange> {
    for (const { index, shard } of this.#names) {
      if (this.#isWhole[index] === 1) yield [shard.start, shard.end];
      else yield* this.#open.get(index)?.takenRanges() ?? [];
    }
  }

  *#remaining(): Generator<SampleRange> {
    for (const { index, shard } of this.#names) {
      if (this.#isWhole[index] === 1) continue;
      let at = shard.start;
      for (const [start, end] of this.#open.get(index)?.takenRanges() ?? []) {
        yield [at, start];
        at = end;
      }
      yield [at, shard.end];
    }
  }

  #nameOf(row: number): OutputName | undefined {
    const last = this.#names[this.#lastIndex];
    if (last !== undefined && holds(last, row)) return last;
    const found = shardOf(this.#names, row);
    if (found !== undefined) this.#lastIndex = found.index;
    return found;
  }
}

function holds({ shard }: OutputName, row: number): boolean {
  return Number.isSafeInteger(row) && row >= shard.start && row < shard.end;
}

/** The one of `names`, which are in the order of their rows, that holds `row`. */
export function shardOf(names: readonly OutputName[], row: number): OutputName | undefined {
  let low = 0;
  let high = names.length;
  while (high - low > 1) {
    const middle = (low + high) >>> 1;
    if (row < names[middle]!.shard.start) high = middle;
    else low = middle;
  }
  const found = names[low];
  return found !== undefined && holds(found, row) ? found : undefined;
}

/** Joins ranges, sorted by their starts, that touch. */
export function mergedRanges(ranges: Iterable<SampleRange>): SampleRange[] {
  const merged: [number, number][] = [];
  for (const [start, end] of ranges) {
    if (start === end) continue;
    const last = merged.at(-1);
    if (last !== undefined && last[1] === start) last[1] = end;
    else merged.push([start, end]);
  }
  return merged;
}
