import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { deriveKey, type Key } from "../../../src/plan/mix.ts";
import { Permutation } from "../../../src/plan/permutation.ts";
import { expectCode } from "./expect-code.ts";

const MOST = Number.MAX_SAFE_INTEGER;
const uint32 = fc.integer({ min: 0, max: 2 ** 32 - 1 });
const key: fc.Arbitrary<Key> = fc.tuple(uint32, uint32);

function all(permutation: Permutation): Float64Array {
  const out = new Float64Array(permutation.length);
  permutation.fill(out, 0, permutation.length);
  return out;
}

describe("bijection", () => {
  test("every length up to 700 hits every index once, and inverse undoes it", () => {
    for (let length = 0; length <= 700; length++) {
      const permutation = new Permutation(length, [length, 5]);
      const order = all(permutation);
      expect(order.slice().sort()).toEqual(Float64Array.from({ length }, (_, i) => i));
      for (let i = 0; i < length; i += 7) expect(permutation.inverse(order[i]!)).toBe(i);
    }
  });

  test("larger lengths, squares and their neighbours among them", () => {
    const root = fc.integer({ min: 17, max: 300 });
    const length = fc.tuple(root, fc.integer({ min: -2, max: 2 })).map(([r, d]) => r * r + d);
    fc.assert(
      fc.property(length, key, (length, key) => {
        const seen = new Uint8Array(length);
        for (const index of all(new Permutation(length, key))) seen[index]!++;
        expect(seen.every((times) => times === 1)).toBe(true);
      }),
      { numRuns: 40 },
    );
  });

  test("at and inverse undo each other for any length up to 2^53 - 1", () => {
    const length = fc.oneof(fc.maxSafeNat(), fc.constantFrom(MOST, MOST - 1, 2 ** 32, 2 ** 52 + 1, 10 ** 9));
    fc.assert(
      fc.property(length, fc.double({ min: 0, max: 1, noNaN: true }), key, (length, part, key) => {
        fc.pre(length > 0);
        const position = Math.min(length - 1, Math.floor(part * length));
        const permutation = new Permutation(length, key);
        const index = permutation.at(position);
        expect(Number.isSafeInteger(index) && index >= 0 && index < length).toBe(true);
        expect(permutation.inverse(index)).toBe(position);
        expect(permutation.at(permutation.inverse(position))).toBe(position);
      }),
      { numRuns: 2000 },
    );
  });

  test("fill agrees with at", () => {
    for (const length of [1, 9, 256, 257, 10_000, MOST]) {
      const permutation = new Permutation(length, [8, 9]);
      const start = Math.max(0, length - 100);
      const out = new Float64Array(length - start);
      permutation.fill(out, start, out.length);
      for (let i = 0; i < out.length; i++) expect(out[i]).toBe(permutation.at(start + i));
    }
  });
});

describe("mixing", () => {
  /** How many standard deviations chi-square lies from its mean, for equally likely bins. */
  function deviation(bins: ArrayLike<number>, freedom = bins.length - 1): number {
    let total = 0;
    for (let i = 0; i < bins.length; i++) total += bins[i]!;
    const expected = total / bins.length;
    let chiSquare = 0;
    for (let i = 0; i < bins.length; i++) chiSquare += (bins[i]! - expected) ** 2 / expected;
    return (chiSquare - freedom) / Math.sqrt(2 * freedom);
  }

  test("all orders of 2 to 5 are equally likely", () => {
    for (const length of [2, 3, 4, 5]) {
      const times = new Map<string, number>();
      for (let seed = 0; seed < 24_000; seed++) {
        const order = all(new Permutation(length, deriveKey(seed, 0, 0, 0))).join();
        times.set(order, (times.get(order) ?? 0) + 1);
      }
      expect(times.size).toBe([0, 1, 2, 6, 24, 120][length]!);
      expect(Math.abs(deviation([...times.values()]))).toBeLessThan(5);
    }
  });

  test("lengths 6 to 50 give another order for each seed", () => {
    for (let length = 6; length <= 50; length++) {
      const orders = new Set<string>();
      for (let seed = 0; seed < 200; seed++)
        orders.add(all(new Permutation(length, deriveKey(seed, 0, 0, 0))).join());
      // 200 draws of 720 orders leave about 174 apart; of 5,040 about 196.
      expect(orders.size).toBeGreaterThan(length === 6 ? 155 : 188);
    }
  });

  test.each([20, 257, 289, 1000])(
    "of %d, the first indices and their distance are uniform over seeds",
    (length) => {
      const first = new Float64Array(length);
      const second = new Float64Array(length);
      const below = new Float64Array(length);
      const distance = new Float64Array(length);
      const row = Math.ceil(length / (2 * Math.ceil(Math.sqrt(length) / 2)));
      for (let seed = 0; seed < 60_000; seed++) {
        const permutation = new Permutation(length, deriveKey(seed, 1, 0, 0));
        const a = permutation.at(0);
        const b = permutation.at(1);
        first[a]!++;
        second[b]!++;
        below[permutation.at(row)]!++;
        distance[(b - a + length) % length]!++;
      }
      expect(distance[0]).toBe(0);
      for (const bins of [first, second, below, distance.subarray(1)])
        expect(Math.abs(deviation(bins))).toBeLessThan(5);
    },
  );

  test("a billion: indices of a stretch spread over the range, and neighbours stay apart", () => {
    const out = new Float64Array(65_536);
    new Permutation(10 ** 9, [1, 2]).fill(out, 5 * 10 ** 8, out.length);
    const bins = new Float64Array(256);
    const steps = new Float64Array(256);
    let fixed = 0;
    for (let i = 0; i < out.length; i++) {
      bins[Math.floor((out[i]! * 256) / 10 ** 9)]!++;
      if (out[i] === 5 * 10 ** 8 + i) fixed++;
      const step = i > 0 ? (out[i]! - out[i - 1]! + 10 ** 9) % 10 ** 9 : 0;
      if (i > 0) steps[Math.floor((step * 256) / 10 ** 9)]!++;
    }
    expect(fixed).toBeLessThan(3);
    expect(Math.abs(deviation(bins))).toBeLessThan(5);
    expect(Math.abs(deviation(steps))).toBeLessThan(5);
  });

  test("odd squares reach odd permutations too", () => {
    let odd = 0;
    for (let seed = 0; seed < 200; seed++) {
      const order = all(new Permutation(289, deriveKey(seed, 0, 0, 0)));
      const seen = new Uint8Array(289);
      let swaps = 0;
      for (let i = 0; i < 289; i++)
        for (let at = order[i]!; seen[i] === 0 && at !== i && seen[at] === 0; at = order[at]!) {
          seen[at] = 1;
          swaps++;
        }
      odd += swaps % 2;
    }
    expect(odd).toBeGreaterThan(60);
    expect(odd).toBeLessThan(140);
  });
});

describe("golden vectors: these orders never change", () => {
  test("keys", () => {
    expect(deriveKey(0, 0, 0, 0)).toEqual([1712445908, 1086505822]);
    expect(deriveKey(1, 2, 3, 4)).toEqual([1291028740, 1652446539]);
    expect(deriveKey(MOST, 2 ** 40 + 7, 2, 2 ** 33 + 1)).toEqual([1747672938, 1828945861]);
  });

  test.each<[number, Key, number, number[]]>([
    [10, [1, 2], 0, [6, 0, 9, 1, 4, 2, 3, 5, 7, 8]],
    [257, [1, 2], 0, [186, 197, 188, 239, 125, 71, 232, 156]],
    [10 ** 9, [0xffffffff, 7], 123456789, [881626580, 44066258, 391341679, 355814639, 242449888]],
    [MOST, [3, 4], MOST - 5, [458500924110300, 4462990141450777, 8403225295166074]],
  ])("permutation of %d with key %p from %d", (length, key, start, expected) => {
    const out = new Float64Array(expected.length);
    new Permutation(length, key).fill(out, start, out.length);
    expect([...out]).toEqual(expected);
  });
});

test("keys differ in every argument and every half of it", () => {
  const keys = new Set<string>();
  for (const base of [0, 1, 2 ** 31, 2 ** 32, 2 ** 52]) {
    for (let place = 0; place < 4; place++) {
      const parts: [number, number, number, number] = [9, 9, 9, 9];
      parts[place] = base;
      keys.add(deriveKey(...parts).join());
    }
  }
  expect(keys.size).toBe(20);
});

test("bad arguments are refused with their numbers", () => {
  for (const length of [-1, 1.5, Number.NaN, 2 ** 53, Number.POSITIVE_INFINITY])
    expectCode("BAD_OPTION", [length], () => new Permutation(length, [1, 2]));
  for (const length of [0, 10, 1000]) {
    const permutation = new Permutation(length, [1, 2]);
    for (const position of [-1, 0.5, Number.NaN, length]) {
      expectCode("OUT_OF_RANGE", [position, length], () => permutation.at(position));
      expectCode("OUT_OF_RANGE", [position, length], () => permutation.inverse(position));
    }
    expectCode("OUT_OF_RANGE", [length], () => permutation.fill(new Float64Array(2000), 0, length + 1));
    expectCode("OUT_OF_RANGE", [-1], () => permutation.fill(new Float64Array(2000), -1, 1));
  }
  expectCode("OUT_OF_RANGE", [5, 4], () => new Permutation(10, [1, 2]).fill(new Float64Array(4), 0, 5));
});
