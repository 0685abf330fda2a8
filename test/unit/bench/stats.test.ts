import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { Random, seedFor } from "../../../src/bench/random.ts";
import { median, quantile, quantilesOf, ratioOf } from "../../../src/bench/stats.ts";

const values = fc.array(fc.double({ min: 1e-3, max: 1e6, noNaN: true }), { minLength: 1, maxLength: 30 });

describe("quantiles", () => {
  test("lie between the nearest two values", () => {
    expect(quantile([4, 1, 3, 2], 0)).toBe(1);
    expect(quantile([4, 1, 3, 2], 0.5)).toBe(2.5);
    expect(quantile([4, 1, 3, 2], 1)).toBe(4);
    expect(quantile([10, 20], 0.05)).toBeCloseTo(10.5, 12);
    expect(median([])).toBeNaN();
  });

  test("of any values are in order, and within them", () => {
    fc.assert(
      fc.property(values, fc.nat(), (all, seed) => {
        const { p5, median: middle, p95, low, high } = quantilesOf(all, seed);
        expect([p5, middle, p95]).toEqual([p5, middle, p95].toSorted((a, b) => a - b));
        expect(low).toBeLessThanOrEqual(high);
        for (const one of [p5, middle, p95, low, high]) {
          expect(one).toBeGreaterThanOrEqual(Math.min(...all) * (1 - 1e-12));
          expect(one).toBeLessThanOrEqual(Math.max(...all) * (1 + 1e-12));
        }
      }),
    );
  });
});

describe("intervals", () => {
  test("come again with their seed, whatever the order of the values", () => {
    const all = [3, 1, 4, 1, 5, 9, 2, 6];
    expect(quantilesOf(all, 7)).toEqual(quantilesOf([...all].reverse(), 7));
    expect(quantilesOf(all, 7)).not.toEqual(quantilesOf([...all, 100], 7));
  });

  test("hold the true median about 95 times of 100", () => {
    const random = new Random(5);
    let held = 0;
    const trials = 200;
    for (let i = 0; i < trials; i++) {
      const { low, high } = quantilesOf(
        Array.from({ length: 25 }, () => 10 + random.normal()),
        i,
      );
      if (low <= 10 && 10 <= high) held++;
    }
    expect(held / trials).toBeGreaterThan(0.88);
    expect(held / trials).toBeLessThan(1);
  });

  test("of a ratio hold what was put in, and 1 for the same distribution", () => {
    const random = new Random(9);
    const draw = (scale: number) => Array.from({ length: 40 }, () => scale * (1 + 0.02 * random.normal()));
    const twice = ratioOf(draw(2), draw(1));
    expect(twice.low).toBeLessThan(2);
    expect(twice.high).toBeGreaterThan(1.97);
    expect(twice.high - twice.low).toBeLessThan(0.1);
    const same = ratioOf(draw(1), draw(1));
    expect(same.low).toBeLessThan(1.01);
    expect(same.high).toBeGreaterThan(0.99);
  });
});

describe("random numbers", () => {
  test("come again with their seed, and differ by seed and by name", () => {
    const take = (seed: number) =>
      Array.from(
        { length: 8 },
        (
          (random) => () =>
            random.u32()
        )(new Random(seed)),
      );
    expect(take(3)).toEqual(take(3));
    expect(take(3)).not.toEqual(take(4));
    expect(seedFor(1, "a")).not.toBe(seedFor(1, "b"));
    expect(seedFor(1, "a")).not.toBe(seedFor(2, "a"));
  });

  test("are spread evenly and normally", () => {
    const random = new Random(1);
    const counts = new Array(10).fill(0);
    for (let i = 0; i < 50_000; i++) counts[random.below(10)]++;
    for (const count of counts) expect(Math.abs(count - 5000)).toBeLessThan(350);
    const normals = Array.from({ length: 20_000 }, () => random.normal());
    const mean = normals.reduce((sum, one) => sum + one, 0) / normals.length;
    const square = normals.reduce((sum, one) => sum + one * one, 0) / normals.length;
    expect(Math.abs(mean)).toBeLessThan(0.03);
    expect(Math.abs(square - 1)).toBeLessThan(0.05);
  });

  test("shuffle every item once", () => {
    fc.assert(
      fc.property(fc.array(fc.nat()), fc.nat(), (items, seed) => {
        const shuffled = new Random(seed).shuffle([...items]);
        expect(shuffled.toSorted((a, b) => a - b)).toEqual(items.toSorted((a, b) => a - b));
      }),
    );
  });
});
