import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { planStep, type SamplerOptions, type Step, stepsPerEpoch } from "../../../src/plan/sampler.ts";
import { expectCode } from "./expect-code.ts";

type Law = Omit<SamplerOptions, "rank" | "worldSize">;
type World = { readonly batches: [number, number][]; readonly next: number };

const modes: SamplerOptions["lastBatch"][] = ["short", "drop", "pad"];

/** Laws with their costs: by count, by cost, by both. */
const lawAndCosts = fc
  .record({
    numSamples: fc.nat(120),
    lastBatch: fc.constantFrom(...modes),
    combine: fc.constantFrom<"sum" | "padded">("sum", "padded"),
    maxSamples: fc.option(fc.integer({ min: 1, max: 20 }), { nil: undefined }),
    maxCost: fc.option(fc.integer({ min: 1, max: 60 }), { nil: undefined }),
  })
  .chain((law) =>
    fc.tuple(
      fc.constant<Law>(law),
      fc.array(fc.nat(25), { minLength: law.numSamples, maxLength: law.numSamples }),
    ),
  );

function slice(costs: readonly number[]) {
  return (start: number, count: number): number[] => costs.slice(start, start + count);
}

/** One step of every rank of a world: the batches that hold samples. All ranks must agree where it ends. */
function stepOfAll(law: Law, costs: readonly number[], worldSize: number, position: number): World {
  const steps: (Step | undefined)[] = [];
  for (let rank = 0; rank < worldSize; rank++)
    steps.push(planStep({ ...law, rank, worldSize }, position, slice(costs)));
  const given = steps.filter((step) => step !== undefined);
  if (given.length === 0) return { batches: [], next: law.numSamples };
  for (const step of given) expect(step.nextPosition).toBe(given[0]!.nextPosition);
  // A rank that is told that the epoch is over goes on at its end: the others must be there too.
  if (given.length < worldSize) {
    expect(law.lastBatch).toBe("short");
    expect(given[0]!.nextPosition).toBe(law.numSamples);
    expect(steps.slice(given.length).every((step) => step === undefined)).toBe(true);
  }
  const batches = given
    .filter((step) => step.count > 0)
    .map((step): [number, number] => [step.start, step.count]);
  return { batches, next: given[0]!.nextPosition };
}

/** The global batches by the law's own words: the slow, obvious cut of the whole order. */
function cut(law: Law, costs: readonly number[]): { batches: [number, number][]; lastIsFull: boolean } {
  const maxSamples = law.maxSamples ?? (law.maxCost === undefined ? 1 : Number.POSITIVE_INFINITY);
  const maxCost = law.maxCost ?? Number.POSITIVE_INFINITY;
  const fits = (ids: number[]): boolean => {
    const each = ids.map((cost) => Math.max(1, cost));
    const sum = each.reduce((total, cost) => total + cost, 0);
    const cost = law.combine === "padded" ? ids.length * Math.max(...each) : sum;
    return ids.length <= maxSamples && (ids.length === 1 || cost <= maxCost);
  };
  const batches: [number, number][] = [];
  let batch: number[] = [];
  for (let i = 0; i < law.numSamples; i++) {
    if (batch.length > 0 && !fits([...batch, costs[i]!])) {
      batches.push([i - batch.length, batch.length]);
      batch = [];
    }
    batch.push(costs[i]!);
  }
  if (batch.length > 0) batches.push([law.numSamples - batch.length, batch.length]);
  return { batches, lastIsFull: batch.length > 0 && !fits([...batch, 0]) };
}

describe("the law", () => {
  test("a world of any size gives the batches of the greedy cut, in rank order", () => {
    fc.assert(
      fc.property(lawAndCosts, fc.integer({ min: 1, max: 9 }), ([law, costs], worldSize) => {
        const { batches, lastIsFull } = cut(law, costs);
        const got: [number, number][] = [];
        for (let position = 0; position < law.numSamples; ) {
          const step = stepOfAll(law, costs, worldSize, position);
          got.push(...step.batches);
          expect(step.next).toBeGreaterThan(position);
          position = step.next;
        }
        const full = lastIsFull ? batches.length : batches.length - 1;
        const kept = law.lastBatch === "drop" ? Math.max(0, full - (full % worldSize)) : batches.length;
        expect(got).toEqual(batches.slice(0, kept));
      }),
      { numRuns: 500 },
    );
  });

  test("restored at any step, on any world size, what is left comes exactly once", () => {
    const worlds = fc.array(fc.integer({ min: 1, max: 7 }), { minLength: 1, maxLength: 12 });
    fc.assert(
      fc.property(lawAndCosts, worlds, ([law, costs], worlds) => {
        const got: [number, number][] = [];
        let dropped = 0;
        let position = 0;
        for (let step = 0; position < law.numSamples; step++) {
          const worldSize = worlds[step % worlds.length]!;
          const { batches, next } = stepOfAll(law, costs, worldSize, position);
          if (batches.length === 0) dropped = worldSize;
          got.push(...batches);
          position = next;
        }
        const { batches, lastIsFull } = cut(law, costs);
        expect(got).toEqual(batches.slice(0, got.length));
        // Only `drop` leaves anything, and less than one step of full batches of the world that met the end.
        const left = batches.length - got.length;
        if (law.lastBatch !== "drop") expect(left).toBe(0);
        else expect(lastIsFull ? left : left - 1).toBeLessThan(Math.max(1, dropped));
      }),
      { numRuns: 500 },
    );
  });

  test("restored at every step of one world by every other world", () => {
    const costs = Array.from({ length: 100 }, (_, i) => (i * 37) % 11);
    for (const lastBatch of ["short", "pad"] as const)
      for (const limits of [{ maxSamples: 7 }, { maxCost: 30 }, { maxCost: 30, maxSamples: 4 }])
        for (const first of [1, 2, 3, 5])
          for (const second of [1, 2, 4, 8]) {
            const law: Law = { numSamples: 100, lastBatch, combine: "padded", ...limits };
            for (let at = 0; at < 100; at = stepOfAll(law, costs, first, at).next) {
              const ids: number[] = [];
              for (let position = at; position < 100; ) {
                const { batches, next } = stepOfAll(law, costs, second, position);
                for (const [start, count] of batches) for (let i = 0; i < count; i++) ids.push(start + i);
                position = next;
              }
              expect(ids).toEqual(Array.from({ length: 100 - at }, (_, i) => at + i));
            }
          }
  });

  test("the end of the epoch gives nothing, to any rank in any mode", () => {
    for (const lastBatch of modes)
      for (const numSamples of [0, 10])
        for (const maxCost of [undefined, 5]) {
          const options = { numSamples, rank: 1, worldSize: 3, maxCost, lastBatch };
          expect(planStep(options, numSamples, () => [])).toBeUndefined();
        }
  });
});

describe("by count", () => {
  const base = { numSamples: 10, maxSamples: 3, worldSize: 2 };

  test("short: the last batch is short and the rank after it is done", () => {
    const options = { ...base, lastBatch: "short" } as const;
    expect(planStep({ ...options, rank: 1 }, 0)).toEqual({ start: 3, count: 3, size: 3, nextPosition: 6 });
    expect(planStep({ ...options, rank: 1 }, 6)).toEqual({ start: 9, count: 1, size: 1, nextPosition: 10 });
    expect(planStep({ ...options, rank: 0, numSamples: 8 }, 6)).toEqual({
      start: 6,
      count: 2,
      size: 2,
      nextPosition: 8,
    });
    expect(planStep({ ...options, rank: 1, numSamples: 8 }, 6)).toBeUndefined();
  });

  test("drop: a step that is not full for all is for none", () => {
    const options = { ...base, lastBatch: "drop" } as const;
    expect(planStep({ ...options, rank: 0 }, 0)?.nextPosition).toBe(6);
    expect(planStep({ ...options, rank: 0 }, 6)).toBeUndefined();
    expect(planStep({ ...options, rank: 0, numSamples: 12 }, 6)?.count).toBe(3);
  });

  test("pad: every batch has the same rows", () => {
    const options = { ...base, numSamples: 8, lastBatch: "pad" } as const;
    expect(planStep({ ...options, rank: 0 }, 0)?.size).toBe(3);
    expect(planStep({ ...options, rank: 0 }, 6)).toEqual({ start: 6, count: 2, size: 3, nextPosition: 8 });
    expect(planStep({ ...options, rank: 1 }, 6)).toEqual({ start: 8, count: 0, size: 3, nextPosition: 8 });
  });

  test("one sample a batch where no limit is given", () => {
    const options = { numSamples: 3, rank: 0, worldSize: 1, lastBatch: "short" } as const;
    expect(planStep(options, 1)).toEqual({ start: 1, count: 1, size: 1, nextPosition: 2 });
  });

  test("stepsPerEpoch counts what planStep gives", () => {
    const options = fc.record({
      numSamples: fc.nat(200),
      maxSamples: fc.option(fc.integer({ min: 1, max: 30 }), { nil: undefined }),
      worldSize: fc.integer({ min: 1, max: 9 }),
      lastBatch: fc.constantFrom(...modes),
    });
    fc.assert(
      fc.property(options, fc.nat(8), (options, rank) => {
        const ranked = { ...options, rank: rank % options.worldSize };
        let steps = 0;
        for (let position = 0; ; steps++) {
          const step = planStep(ranked, position);
          if (step === undefined) break;
          position = step.nextPosition;
        }
        expect(stepsPerEpoch(ranked)).toBe(steps);
      }),
      { numRuns: 500 },
    );
    const byCost = { numSamples: 9, rank: 0, worldSize: 1, maxCost: 5, lastBatch: "short" } as const;
    expect(stepsPerEpoch(byCost)).toBeUndefined();
  });

  test("products past 2^53 do no harm", () => {
    const huge = Number.MAX_SAFE_INTEGER;
    const options = { numSamples: huge, rank: huge - 1, worldSize: huge, maxSamples: huge } as const;
    expect(planStep({ ...options, lastBatch: "short" }, 0)).toBeUndefined();
    expect(planStep({ ...options, lastBatch: "drop" }, 0)).toBeUndefined();
    expect(planStep({ ...options, rank: 0, lastBatch: "short" }, 5)).toEqual({
      start: 5,
      count: huge - 5,
      size: huge - 5,
      nextPosition: huge,
    });
    expect(planStep({ ...options, lastBatch: "pad" }, 5)).toEqual({
      start: huge,
      count: 0,
      size: huge,
      nextPosition: huge,
    });
  });
});

describe("by cost", () => {
  test("a sample over the limit goes alone", () => {
    const options = { numSamples: 4, rank: 0, worldSize: 1, maxCost: 10, lastBatch: "short" } as const;
    const costs = slice([4, 99, 4, 6]);
    expect(planStep(options, 0, costs)?.count).toBe(1);
    expect(planStep(options, 1, costs)).toEqual({ start: 1, count: 1, size: 1, nextPosition: 2 });
    expect(planStep(options, 2, costs)?.count).toBe(2);
  });

  test("drop: a last batch that the limit fills is kept", () => {
    const options = { numSamples: 3, rank: 0, worldSize: 1, maxCost: 10, lastBatch: "drop" } as const;
    expect(planStep(options, 1, slice([9, 4, 6]))?.count).toBe(2);
    expect(planStep(options, 1, slice([9, 4, 5]))).toBeUndefined();
    const padded = { ...options, combine: "padded" } as const;
    // Two rows of 4 leave no room for a third, which would make 12.
    expect(planStep(padded, 1, slice([9, 4, 4]))?.count).toBe(2);
    expect(planStep(padded, 1, slice([9, 3, 3]))).toBeUndefined();
  });

  test("pad: a rank without samples has as many rows as the longest batch", () => {
    const options = { numSamples: 6, worldSize: 4, maxCost: 10, lastBatch: "pad" } as const;
    const costs = slice([1, 2, 3, 4, 9, 9]);
    const steps = [0, 1, 2, 3].map((rank) => planStep({ ...options, rank }, 0, costs));
    expect(steps.map((step) => step?.size)).toEqual([4, 1, 1, 4]);
    expect(steps.map((step) => step?.count)).toEqual([4, 1, 1, 0]);
    expect(steps[3]?.start).toBe(6);
  });

  test("costs of 0 count as 1, so that rows stay bounded", () => {
    const options = { numSamples: 10 ** 9, rank: 0, worldSize: 1, maxCost: 50, lastBatch: "short" } as const;
    const zeros = (_: number, count: number): number[] => new Array(count).fill(0);
    expect(planStep(options, 0, zeros)?.count).toBe(50);
    expect(planStep({ ...options, combine: "padded" }, 0, zeros)?.count).toBe(50);
  });

  test("costs are asked for in ascending chunks of at most 4,096, about as far as needed", () => {
    const asked: [number, number][] = [];
    const shared = new Float64Array(4096).fill(1);
    const costs = (start: number, count: number): ArrayLike<number> => {
      asked.push([start, count]);
      return shared.subarray(0, count);
    };
    const options = { numSamples: 10 ** 12, rank: 0, worldSize: 2, lastBatch: "short" } as const;
    planStep({ ...options, maxCost: 10 }, 1000, costs);
    expect(asked).toEqual([[1000, 64]]);
    asked.length = 0;
    expect(planStep({ ...options, maxCost: 20_000 }, 7, costs)?.nextPosition).toBe(40_007);
    let next = 7;
    for (const [start, count] of asked) {
      expect(start).toBe(next);
      expect(count).toBeLessThanOrEqual(4096);
      next = start + count;
    }
    expect(next).toBeLessThan(40_007 + 2 * 4096);
  });

  test("costs that are none are refused with position and value", () => {
    const options = { numSamples: 5, rank: 0, worldSize: 1, maxCost: 10, lastBatch: "short" } as const;
    for (const bad of [-1, 0.5, Number.NaN, Number.POSITIVE_INFINITY])
      expectCode("BAD_OPTION", ["position 2", bad], () => planStep(options, 0, slice([1, 1, bad, 1, 1])));
    expectCode("BAD_OPTION", ["position 3", "undefined"], () => planStep(options, 0, () => [1, 1, 1]));
    expectCode("BAD_OPTION", ["maxCost", 10], () => planStep(options, 0));
  });
});

test("bad options are refused with name and value", () => {
  const good = { numSamples: 10, rank: 0, worldSize: 2, maxSamples: 2, maxCost: 5, lastBatch: "short" };
  const bad: [string, unknown][] = [
    ["numSamples", -1],
    ["numSamples", 0.5],
    ["rank", -1],
    ["rank", 2],
    ["worldSize", 0],
    ["maxSamples", 0],
    ["maxSamples", 1.5],
    ["maxCost", 0],
    ["maxCost", Number.NaN],
    ["combine", "most"],
    ["lastBatch", "keep"],
  ];
  for (const [name, value] of bad) {
    const options = { ...good, [name]: value } as SamplerOptions;
    expectCode("BAD_OPTION", [name, value], () => planStep(options, 0, () => []));
    expectCode("BAD_OPTION", [name, value], () => stepsPerEpoch(options));
  }
  for (const position of [-1, 11, 0.5])
    expectCode("OUT_OF_RANGE", [position, 10], () => planStep(good as SamplerOptions, position, () => []));
});
