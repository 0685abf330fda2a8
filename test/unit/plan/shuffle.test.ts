import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { Order, type OrderOptions } from "../../../src/plan/shuffle.ts";
import { expectCode } from "./expect-code.ts";

function all(options: OrderOptions): Float64Array<ArrayBuffer> {
  const out = new Float64Array(options.numSamples);
  new Order(options).fill(out, 0, options.numSamples);
  return out;
}

function identity(length: number): Float64Array<ArrayBuffer> {
  return Float64Array.from({ length }, (_, i) => i);
}

const seed = fc.oneof(fc.nat(), fc.maxSafeNat());

describe("any order", () => {
  test("without a seed it is the identity, whatever the epoch and blocks", () => {
    const order = new Order({ numSamples: 20, seed: undefined, epoch: 3, blockSize: 4 });
    expect(order.sequential).toBe(true);
    const out = new Float64Array(5);
    order.fill(out, 15, 5);
    expect([...out]).toEqual([15, 16, 17, 18, 19]);
    expect(order.at(7)).toBe(7);
  });

  test("with a seed every sample comes once, at and fill agree, and a fresh object agrees", () => {
    const options = fc.record({
      numSamples: fc.nat(1500),
      seed,
      epoch: fc.nat(5),
      blockSize: fc.option(fc.integer({ min: 1, max: 200 }), { nil: undefined }),
      windowBlocks: fc.option(fc.integer({ min: 1, max: 40 }), { nil: undefined }),
    });
    fc.assert(
      fc.property(options, fc.nat(1499), (options, from) => {
        const order = all(options);
        expect(order.slice().sort()).toEqual(identity(options.numSamples));
        const fresh = new Order(options);
        expect(fresh.sequential).toBe(false);
        for (let i = from; i < options.numSamples; i += 97) expect(fresh.at(i)).toBe(order[i]!);
        for (let i = options.numSamples - 1; i >= 0; i -= 89) expect(fresh.at(i)).toBe(order[i]!);
      }),
      { numRuns: 300 },
    );
  });

  test("another seed, another epoch or other blocks give another order", () => {
    const base = { numSamples: 500, seed: 1, epoch: 0 };
    const orders = [
      base,
      { ...base, seed: 2 },
      { ...base, seed: 1 + 2 ** 32 },
      { ...base, epoch: 1 },
      { ...base, seed: 0, epoch: 1 },
      { ...base, blockSize: 10 },
      { ...base, blockSize: 10, epoch: 1 },
      { ...base, blockSize: 10, windowBlocks: 5 },
    ].map((options) => all(options).join());
    expect(new Set(orders).size).toBe(orders.length);
  });

  test("epochs are unrelated: two agree in about one position of all", () => {
    let agreements = 0;
    const first = all({ numSamples: 2000, seed: 5, epoch: 0 });
    for (let epoch = 1; epoch <= 50; epoch++)
      all({ numSamples: 2000, seed: 5, epoch }).forEach((id, i) => {
        if (id === first[i]) agreements++;
      });
    expect(agreements).toBeGreaterThan(20);
    expect(agreements).toBeLessThan(90);
  });
});

describe("block mode", () => {
  test("a window holds exactly windowBlocks whole blocks, each window other ones", () => {
    const shape = fc.tuple(
      fc.integer({ min: 1, max: 2000 }),
      fc.integer({ min: 1, max: 60 }),
      fc.integer({ min: 1, max: 12 }),
    );
    fc.assert(
      fc.property(shape, seed, ([numSamples, blockSize, windowBlocks], seed) => {
        const order = all({ numSamples, seed, epoch: 0, blockSize, windowBlocks });
        const numBlocks = Math.ceil(numSamples / blockSize);
        let position = 0;
        for (let place = 0; place < numBlocks; place += windowBlocks) {
          const places = Math.min(windowBlocks, numBlocks - place);
          const blocks = new Map<number, number>();
          let expected = places * blockSize;
          for (let i = 0; i < expected && position + i < numSamples; i++) {
            const block = Math.floor(order[position + i]! / blockSize);
            if (blocks.size === places && !blocks.has(block)) {
              // The short block was among them, so the window ends early.
              expected = i;
              break;
            }
            blocks.set(block, (blocks.get(block) ?? 0) + 1);
          }
          expect(blocks.size).toBe(places);
          let inWindow = 0;
          for (const [block, times] of blocks) {
            expect(times).toBe(Math.min(blockSize, numSamples - block * blockSize));
            inWindow += times;
          }
          position += inWindow;
        }
        expect(position).toBe(numSamples);
      }),
      { numRuns: 200 },
    );
  });

  test("the short block takes every place in turn, and the first sample is any", () => {
    const first = new Float64Array(10);
    const numSeeds = 4000;
    for (let seed = 0; seed < numSeeds; seed++)
      first[new Order({ numSamples: 10, seed, epoch: 0, blockSize: 4, windowBlocks: 1 }).at(0)]!++;
    // Blocks of 4, 4 and 2 come first equally often.
    const expected = [12, 12, 12, 12, 12, 12, 12, 12, 6, 6].map((part) => numSeeds / part);
    first.forEach((times, id) => {
      expect(Math.abs(times - expected[id]!)).toBeLessThan(6 * Math.sqrt(expected[id]!));
    });
  });

  test("works at the largest sizes, one window or many", () => {
    const numSamples = Number.MAX_SAFE_INTEGER;
    for (const blockSize of [1, 1000, 2 ** 40, 2 ** 52, numSamples]) {
      const order = new Order({ numSamples, seed: 3, epoch: 0, blockSize, windowBlocks: 1000 });
      const seen = new Set<number>();
      for (const position of [0, 1, 2 ** 52, numSamples - 2, numSamples - 1]) {
        const id = order.at(position);
        expect(Number.isSafeInteger(id) && id >= 0 && id < numSamples).toBe(true);
        seen.add(id);
      }
      expect(seen.size).toBe(5);
    }
  });
});

describe("golden vectors: these orders never change", () => {
  test.each<[OrderOptions, number, number[]]>([
    [{ numSamples: 1000, seed: 42, epoch: 0 }, 0, [947, 635, 50, 622, 509, 632, 813, 758]],
    [{ numSamples: 1000, seed: 42, epoch: 1 }, 0, [731, 202, 336, 405, 97, 464, 39, 370]],
    [
      { numSamples: 10 ** 12, seed: 2 ** 40 + 1, epoch: 3 },
      5 * 10 ** 11,
      [249021976959, 510528338513, 379870393826, 24170257576],
    ],
    [
      { numSamples: 1003, seed: 42, epoch: 0, blockSize: 10, windowBlocks: 4 },
      0,
      [734, 431, 99, 94, 567, 569, 564, 735, 95, 438, 739, 436],
    ],
    [
      { numSamples: 1003, seed: 42, epoch: 0, blockSize: 10, windowBlocks: 4 },
      991,
      [194, 597, 228, 222, 227, 221, 223, 226, 225, 224, 220, 229],
    ],
    [
      { numSamples: 10 ** 9, seed: 7, epoch: 0, blockSize: 1000 },
      5 * 10 ** 8,
      [251630875, 950036829, 821881358, 817861634],
    ],
  ])("%p from %d", (options, start, expected) => {
    const out = new Float64Array(expected.length);
    new Order(options).fill(out, start, out.length);
    expect([...out]).toEqual(expected);
  });

  test.each<[OrderOptions, string]>([
    [
      { numSamples: 3000, seed: 1, epoch: 0 },
      "54ee4523290c9162e20b03b8a2bd9c455a6138897cba36a233753d3c77fad3c1",
    ],
    [
      { numSamples: 3000, seed: 1, epoch: 0, blockSize: 32, windowBlocks: 8 },
      "df539b10fe0423a60acc34a2bd5e39203848ae1ea07ca961f868e743f8598ee1",
    ],
  ])("%p as a whole", (options, expected) => {
    expect(new Bun.CryptoHasher("sha256").update(all(options)).digest("hex")).toBe(expected);
  });
});

test("bad arguments are refused with option and value", () => {
  const good = { numSamples: 10, seed: 1, epoch: 0, blockSize: 2, windowBlocks: 2 };
  const bad: [keyof typeof good, number][] = [
    ["numSamples", -1],
    ["numSamples", 2 ** 53],
    ["seed", 0.5],
    ["seed", -1],
    ["epoch", -1],
    ["epoch", Number.NaN],
    ["blockSize", 0],
    ["windowBlocks", 0],
    ["windowBlocks", 65537],
  ];
  for (const [name, value] of bad)
    expectCode("BAD_OPTION", [name, value], () => new Order({ ...good, [name]: value }));
  for (const options of [good, { ...good, seed: undefined }, { numSamples: 10, seed: 1, epoch: 0 }]) {
    const order = new Order(options);
    for (const position of [-1, 10, 0.5, Number.NaN])
      expectCode("OUT_OF_RANGE", [position, 10], () => order.at(position));
    expectCode("OUT_OF_RANGE", [10], () => order.fill(new Float64Array(20), 5, 6));
    expectCode("OUT_OF_RANGE", [3, 2], () => order.fill(new Float64Array(2), 0, 3));
  }
});
