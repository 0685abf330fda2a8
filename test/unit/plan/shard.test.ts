import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { RunList, runsOf, runsOfRange, ShardIndex } from "../../../src/plan/shard.ts";
import { expectCode } from "./expect-code.ts";

const counts = fc.array(fc.oneof(fc.constant(0), fc.nat(9), fc.nat(300)), { maxLength: 40 });

/** Shard and row of every sample, the slow way. */
function table(counts: readonly number[]): [number, number][] {
  return counts.flatMap((count, shard) =>
    Array.from({ length: count }, (_, row): [number, number] => [shard, row]),
  );
}

function rows(runs: RunList): [number, number][] {
  const out: [number, number][] = [];
  for (let i = 0; i < runs.length; i++)
    for (let k = 0; k < runs.count[i]!; k++) out.push([runs.shard[i]!, runs.row[i]! + k]);
  return out;
}

describe("ShardIndex", () => {
  test("finds shard and row of every sample, in any order of asking", () => {
    fc.assert(
      fc.property(counts, fc.integer({ min: 1, max: 1000 }), (counts, stride) => {
        const index = new ShardIndex(counts);
        const expected = table(counts);
        expect(index.numSamples).toBe(expected.length);
        expect(index.numShards).toBe(counts.length);
        for (let i = 0; i < expected.length; i++) {
          const sample = (i * stride) % expected.length;
          expect([index.shardOf(sample), index.rowOf(sample)]).toEqual(expected[sample]!);
        }
        counts.forEach((count, shard) => {
          expect(index.countOf(shard)).toBe(count);
          expect(index.start(shard)).toBe(counts.slice(0, shard).reduce((sum, n) => sum + n, 0));
        });
      }),
      { numRuns: 200 },
    );
  });

  test("keeps its own copy of the counts", () => {
    const counts = [3, 4];
    const index = new ShardIndex(counts);
    counts[0] = 100;
    expect(index.numSamples).toBe(7);
    expect(index.shardOf(3)).toBe(1);
  });

  test("works up to 2^53 - 1 samples, very unequal shards", () => {
    const most = Number.MAX_SAFE_INTEGER;
    const index = new ShardIndex([1, 0, most - 3, 0, 2, 0]);
    expect(index.numSamples).toBe(most);
    expect([0, 1, most - 3, most - 2, most - 1].map((sample) => index.shardOf(sample))).toEqual([
      0, 2, 2, 4, 4,
    ]);
    expect(index.rowOf(most - 1)).toBe(1);
  });

  test("refuses counts that are none, and sums beyond 2^53 - 1, naming the shard", () => {
    for (const bad of [-1, 0.5, Number.NaN, 2 ** 53])
      expectCode("BAD_OPTION", ["shard 1", bad], () => new ShardIndex([5, bad, 5]));
    expectCode("BAD_OPTION", ["shards 0 to 2"], () => new ShardIndex([2 ** 52, 2 ** 52 - 1, 1]));
  });

  test("refuses samples and shards that do not exist", () => {
    const index = new ShardIndex([2, 3]);
    for (const sample of [-1, 5, 0.5, Number.NaN]) {
      expectCode("OUT_OF_RANGE", [sample, 5], () => index.shardOf(sample));
      expectCode("OUT_OF_RANGE", [sample, 5], () => index.rowOf(sample));
    }
    for (const shard of [-1, 2, 0.5]) {
      expectCode("OUT_OF_RANGE", [shard], () => index.start(shard));
      expectCode("OUT_OF_RANGE", [shard], () => index.countOf(shard));
    }
    expectCode("OUT_OF_RANGE", [0], () => new ShardIndex([]).shardOf(0));
    expectCode("OUT_OF_RANGE", [0], () => new ShardIndex([0, 0]).shardOf(0));
  });
});

describe("runs", () => {
  test("merge neighbours of the same shard and nothing else", () => {
    const index = new ShardIndex([4, 0, 4, 2]);
    const runs = new RunList();
    const ids = Float64Array.from([2, 3, 4, 5, 5, 6, 1, 0, 7, 8, 9, 0]);
    runsOf(ids, 11, index, runs);
    const got = Array.from({ length: runs.length }, (_, i) => [runs.shard[i], runs.row[i], runs.count[i]]);
    expect(got).toEqual([
      [0, 2, 2],
      [2, 0, 2],
      [2, 1, 2],
      [0, 1, 1],
      [0, 0, 1],
      [2, 3, 1],
      [3, 0, 2],
    ]);
  });

  test("give back every id in its order, in the fewest runs", () => {
    fc.assert(
      fc.property(counts, fc.array(fc.tuple(fc.nat(), fc.integer({ min: 1, max: 20 }))), (counts, starts) => {
        const index = new ShardIndex(counts);
        const total = index.numSamples;
        fc.pre(total > 0);
        const ids = starts.flatMap(([start, length]) =>
          Array.from({ length }, (_, i) => ((start % total) + i) % total),
        );
        const runs = new RunList();
        runs.push(7, 7, 7);
        runsOf(Float64Array.from(ids), ids.length, index, runs);
        const expected = table(counts);
        expect(rows(runs)).toEqual(ids.map((id) => expected[id]!));
        const borders = ids.filter((id, i) => {
          const before = ids[i - 1];
          return i === 0 || id !== before! + 1 || expected[id]![0] !== expected[before!]![0];
        });
        expect(runs.length).toBe(borders.length);
      }),
      { numRuns: 200 },
    );
  });

  test("of a range are those of its ids", () => {
    fc.assert(
      fc.property(counts, fc.nat(), fc.nat(), (counts, from, length) => {
        const index = new ShardIndex(counts);
        const start = from % (index.numSamples + 1);
        const count = length % (index.numSamples - start + 1);
        const byRange = new RunList();
        runsOfRange(start, count, index, byRange);
        const byIds = new RunList();
        runsOf(
          Float64Array.from({ length: count }, (_, i) => start + i),
          count,
          index,
          byIds,
        );
        expect(rows(byRange)).toEqual(rows(byIds));
        expect(byRange.length).toBe(byIds.length);
      }),
      { numRuns: 200 },
    );
  });

  test("of a huge range need no ids", () => {
    const runs = new RunList();
    runsOfRange(5, 10 ** 12, new ShardIndex([10, 10 ** 12, 10]), runs);
    expect(rows({ ...runs, count: Float64Array.of(1, 1) } as RunList)).toEqual([
      [0, 5],
      [1, 0],
    ]);
    expect([...runs.count.subarray(0, 2)]).toEqual([5, 10 ** 12 - 5]);
  });

  test("refuse what is not in the dataset", () => {
    const index = new ShardIndex([4]);
    const runs = new RunList();
    expectCode("OUT_OF_RANGE", [4], () => runsOf(Float64Array.of(3, 4, 4), 3, index, runs));
    expectCode("OUT_OF_RANGE", [3], () => runsOf(Float64Array.of(0, 1), 3, index, runs));
    expectCode("OUT_OF_RANGE", [4], () => runsOfRange(2, 3, index, runs));
    expectCode("OUT_OF_RANGE", [-1], () => runsOfRange(-1, 1, index, runs));
  });

  test("survive the growth of the list", () => {
    const ids = Float64Array.from({ length: 1000 }, (_, i) => (i * 7) % 1000);
    const runs = new RunList();
    runsOf(ids, 1000, new ShardIndex([1000]), runs);
    expect(rows(runs).map(([, row]) => row)).toEqual([...ids]);
  });
});
