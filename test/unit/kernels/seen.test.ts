/** The bits of the tokens that a slot's sequence holds. */
import { expect, test } from "bun:test";
import fc from "fast-check";
import { type MarkSeenOptions, markSeenCall, markSeenKernel, seenWords } from "../../../src/kernels/seen.ts";
import { expectCode } from "../../conformance/harness.ts";
import { infoOf, useForms, wordsIn } from "./forms.ts";
import { Guarded, PIPELINE } from "./memory.ts";

const run = useForms([markSeenKernel]);

interface Row {
  readonly slot: number;
  readonly position: number;
  readonly token: number;
}

function mark(seen: Uint32Array<ArrayBuffer>, vocab: number, rows: readonly Row[], count = rows.length) {
  const numSlots = seen.length / seenWords(vocab);
  const words = (field: keyof Row) => Uint32Array.from(rows, (row) => row[field]);
  const after = run(
    markSeenKernel,
    [words("token"), words("position"), words("slot"), infoOf(count), seen],
    (at) =>
      markSeenCall(PIPELINE, {
        ...{ tokens: at[0]!, positions: at[1]!, slots: at[2]!, info: at[3]!, seen: at[4]! },
        ...{ vocab, numSlots, countAt: 0, maxRows: rows.length },
      }),
  )[4]!;
  return wordsIn(after);
}

/** The tokens of a slot, of bits past the vocabulary too. */
function tokensOf(seen: Uint32Array, vocab: number, slot: number): number[] {
  const words = seenWords(vocab);
  const own = seen.subarray(slot * words, (slot + 1) * words);
  return Array.from({ length: words * 32 }, (_, i) => i).filter(
    (i) => ((own[i >>> 5]! >>> (i & 31)) & 1) === 1,
  );
}

test("are those of its rows, after what was there unless the sequence begins", () => {
  const vocab = 70;
  const row = fc.record({ slot: fc.nat(4), position: fc.nat(2), token: fc.integer({ min: -1, max: 75 }) });
  const held = fc.array(fc.uniqueArray(fc.nat(69)), { minLength: 4, maxLength: 4 });
  fc.assert(
    fc.property(held, fc.array(row, { maxLength: 30 }), fc.nat(40), (before, rows, count) => {
      const seen = new Uint32Array(4 * 3);
      for (const [slot, tokens] of before.entries()) {
        for (const token of tokens) seen[slot * 3 + (token >>> 5)]! |= 1 << (token & 31);
      }
      const after = mark(seen, vocab, rows, count);
      for (let slot = 0; slot < 4; slot++) {
        const own = rows.slice(0, count).filter((one) => one.slot === slot);
        const kept = own.some(({ position }) => position === 0) ? [] : before[slot]!;
        const expected = new Set([...kept, ...own.map(({ token }) => token)]);
        const possible = [...expected].filter((token) => token >= 0 && token < vocab);
        expect(tokensOf(after, vocab, slot)).toEqual(possible.sort((a, b) => a - b));
      }
    }),
    { numRuns: 200 },
  );
});

test("a slot without a row keeps its bits", () => {
  const seen = new Uint32Array(3 * 2).fill(0xdeadbeef);
  const after = mark(seen, 64, [{ slot: 1, position: 0, token: 63 }]);
  expect([...after]).toEqual([0xdeadbeef, 0xdeadbeef, 0, 0x80000000, 0xdeadbeef, 0xdeadbeef]);
});

test("a call checks its options", () => {
  using buffer = new Guarded(256);
  const place = { buffer };
  const options: MarkSeenOptions = {
    ...{ tokens: place, positions: place, slots: place, info: place, seen: place },
    ...{ vocab: 33, numSlots: 32, countAt: 0, maxRows: 64 },
  };
  const call = (change: Partial<MarkSeenOptions>) => () => markSeenCall(PIPELINE, { ...options, ...change });
  expect(call({})().threads).toBe(32 * 256);
  expectCode("OUT_OF_RANGE", call({ vocab: 65 }));
  expectCode("OUT_OF_RANGE", call({ numSlots: 33 }));
  expectCode("OUT_OF_RANGE", call({ maxRows: 65 }));
  expectCode("BAD_OPTION", call({ vocab: -1 }));
  expectCode("BAD_OPTION", call({ numSlots: 2 ** 24 }));
});
