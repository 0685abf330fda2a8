import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { BlockPool } from "../../../src/infer/llama/blocks.ts";
import { failureOf } from "../failure.ts";

const SLOTS = 5;

/** What a pool says of itself: every block is somewhere, and once. */
function assertWhole(pool: BlockPool): void {
  const used = Array.from({ length: SLOTS }, (_, slot) => pool.blocksOf(slot)).flat();
  expect(new Set(used).size).toBe(used.length);
  expect(used.every((block) => block < pool.numBlocks)).toBe(true);
  expect(used.length + pool.numFree).toBe(pool.numBlocks);
}

describe("blocks", () => {
  test("are never in two places, never lost, and enough for what was reserved", () => {
    const step = fc.record({
      slot: fc.nat(SLOTS - 1),
      tokens: fc.nat(40),
      release: fc.boolean(),
    });
    const shape = fc.record({
      numBlocks: fc.integer({ min: 1, max: 24 }),
      blockTokens: fc.integer({ min: 1, max: 7 }),
    });
    fc.assert(
      fc.property(shape, fc.array(step, { maxLength: 60 }), ({ numBlocks, blockTokens }, steps) => {
        const pool = new BlockPool({ numBlocks, blockTokens, slots: SLOTS, maxBlocksPerSlot: 40 });
        for (const { slot, tokens, release } of steps) {
          if (release) {
            pool.release(slot);
            expect(pool.blocksOf(slot)).toEqual([]);
          } else {
            const before = pool.blocksOf(slot);
            const free = pool.numFree;
            const fits = Math.ceil(tokens / blockTokens) - before.length <= free;
            expect(pool.reserve(slot, tokens)).toBe(fits);
            // What was there stays where it is; what does not fit takes nothing.
            expect(pool.blocksOf(slot).slice(0, before.length)).toEqual(before);
            if (fits) expect(pool.tokensOf(slot)).toBeGreaterThanOrEqual(tokens);
            else expect(pool.numFree).toBe(free);
          }
          assertWhole(pool);
        }
        for (let slot = 0; slot < SLOTS; slot++) pool.release(slot);
        expect(pool.numFree).toBe(numBlocks);
      }),
    );
  });

  test("are told of where they changed in the table, once", () => {
    const pool = new BlockPool({ numBlocks: 8, blockTokens: 4, slots: 2, maxBlocksPerSlot: 5 });
    const changes = () => {
      const seen: number[][] = [];
      pool.takeChanges((start, end) => seen.push([start, end]));
      return seen;
    };
    expect(changes()).toEqual([]);
    pool.reserve(1, 9);
    expect(changes()).toEqual([[5, 8]]);
    expect(changes()).toEqual([]);
    pool.reserve(1, 12);
    expect(changes()).toEqual([]);
    pool.reserve(1, 13);
    pool.reserve(0, 1);
    expect(changes()).toEqual([[0, 9]]);
    expect(Array.from(pool.table.subarray(5, 9))).toEqual(pool.blocksOf(1));
  });

  test("more than a slot can ever hold is an error", () => {
    const pool = new BlockPool({ numBlocks: 8, blockTokens: 4, slots: 1, maxBlocksPerSlot: 2 });
    const failure = failureOf(() => pool.reserve(0, 9));
    expect(failure.code).toBe("OUT_OF_RANGE");
    expect(failure.message).toBe("slot 0: 9 tokens are more than its 8");
    expect(pool.reserve(0, 8)).toBe(true);
  });
});
