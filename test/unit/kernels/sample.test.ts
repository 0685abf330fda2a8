/** The sampler: what is chosen, exactly, and the same in both forms. */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import type { SamplingOptions } from "../../../src/infer/engine.ts";
import { massOf, WHOLE_MASS } from "../../../src/kernels/masses.ts";
import { type SampleOptions, sampleCall, sampleKernel } from "../../../src/kernels/sample.ts";
import { expectCode } from "../../conformance/harness.ts";
import { floats, infoOf, poison, useForms } from "./forms.ts";
import { Guarded, noise, PIPELINE } from "./memory.ts";
import { bitsOf, hasChance, packRows, type SampleRow, sampleRows } from "./sampling.ts";

const kernel = sampleKernel();
const run = useForms([kernel]);
const sample = (rows: readonly SampleRow[], seen?: Uint32Array<ArrayBuffer>, count?: number) =>
  sampleRows(run, kernel, rows, seen, count);
const one = (logits: ArrayLike<number>, options?: SamplingOptions) =>
  sample([{ logits, options: options ?? {} }]);
const LOWEST = Number.NEGATIVE_INFINITY;
const HIGHEST = Number.POSITIVE_INFINITY;

describe("greedy", () => {
  test("takes the largest logit, of equal ones the first token", () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: -4, max: 4 }), { minLength: 1, maxLength: 3000 }), (logits) => {
        expect(one(logits).tokens).toEqual([logits.indexOf(Math.max(...logits))]);
      }),
      { numRuns: 100 },
    );
  });

  test.each([1, 2, 3, 4, 5, 255, 1023, 1024, 1025, 4096, 4099, 8192, 20_001])(
    "finds it at every place of a vocabulary of %i",
    (vocab) => {
      const places = [0, 1, 2, 3, vocab >> 1, vocab - 2, vocab - 1].filter((i) => i >= 0 && i < vocab);
      const rows = places.map((place) => {
        const logits = floats(vocab, vocab);
        logits[place] = 1.5;
        return { logits };
      });
      expect(sample(rows).tokens).toEqual(places);
    },
  );

  test("never takes NaN or an infinite logit, and gives -1 where there is no other", () => {
    const bad = [Number.NaN, LOWEST, HIGHEST];
    expect(one([...bad, -5, ...bad, -4, ...bad]).tokens).toEqual([7]);
    expect(one([...bad, -3.4028234663852886e38]).tokens).toEqual([3]);
    for (const options of [{}, { temperature: 1 }, { temperature: 1, topK: 2, topP: 0.5, minP: 0.1 }]) {
      expect(one(bad, options)).toEqual({ tokens: [-1], logprobs: [Number.NaN] });
    }
  });

  test("knows no difference between 0 and -0", () => {
    expect(one([-1, -0, 0]).tokens).toEqual([1]);
    expect(one([-1, 0, -0]).tokens).toEqual([1]);
    const drawn = sample(
      Array.from({ length: 200 }, (_, row) => ({
        logits: [-0, 0, -5],
        options: { temperature: 1, topK: 1 },
        row,
      })),
    );
    expect(new Set(drawn.tokens)).toEqual(new Set([0, 1]));
  });

  test("ignores topK, topP, minP and the seed", () => {
    const options = { topK: 3, topP: 0.1, minP: 0.9, seed: 5 };
    expect(one([1, 3, 2, 3], options).tokens).toEqual([1]);
  });
});

describe("what is drawn is what is kept", () => {
  /** All tokens that come up in so many rows. */
  const support = (logits: readonly number[], options: SamplingOptions) => {
    const rows = Array.from({ length: 1500 }, (_, row) => ({
      logits,
      options: { temperature: 1, ...options },
      row,
    }));
    return [...new Set(sample(rows).tokens)].sort((a, b) => a - b);
  };
  const log = (...parts: number[]) => parts.map(Math.log);

  test("by topK, with those equal to the last", () => {
    const logits = log(4, 1, 3, 2, 2, 0.5);
    expect(support(logits, { topK: 1 })).toEqual([0]);
    expect(support(logits, { topK: 2 })).toEqual([0, 2]);
    expect(support(logits, { topK: 3 })).toEqual([0, 2, 3, 4]);
    expect(support(logits, { topK: 4 })).toEqual([0, 2, 3, 4]);
    expect(support(logits, { topK: 6 })).toEqual([0, 1, 2, 3, 4, 5]);
    expect(support(logits, { topK: 2 ** 40 })).toEqual([0, 1, 2, 3, 4, 5]);
    expect(support([...logits, Number.NaN, LOWEST, HIGHEST], { topK: 7 })).toEqual([0, 1, 2, 3, 4, 5]);
  });

  test("by topP, as few as reach the sum", () => {
    const logits = log(0.1, 0.4, 0.2, 0.3);
    expect(support(logits, { topP: 1e-12 })).toEqual([1]);
    expect(support(logits, { topP: 0.39 })).toEqual([1]);
    expect(support(logits, { topP: 0.41 })).toEqual([1, 3]);
    expect(support(logits, { topP: 0.69 })).toEqual([1, 3]);
    expect(support(logits, { topP: 0.71 })).toEqual([1, 2, 3]);
    expect(support(logits, { topP: 0.91 })).toEqual([0, 1, 2, 3]);
    const equal = log(1, 1, 2, 1, 1);
    expect(support(equal, { topP: 0.34 })).toEqual([0, 2]);
    expect(support(equal, { topP: 0.51 })).toEqual([0, 1, 2]);
    expect(support(equal, { topP: 0.8 })).toEqual([0, 1, 2, 3]);
  });

  test("by topP to the last unit of mass: a sum that is less than that part of all is too little", () => {
    // The likeliest has 2^34 of 2^34 + mass, and that part of all which has to be reached is at most one more.
    const parts = Array.from({ length: 400 }, (_, i) => -(i + 1) / 512).flatMap((logit) => {
      const total = BigInt(WHOLE_MASS + massOf(logit));
      const word = ((BigInt(WHOLE_MASS) << 32n) + total - 1n) / total;
      const reached = (total * word) >> 32n === BigInt(WHOLE_MASS) && (total * word) % 2n ** 32n > 0n;
      return reached ? [{ logit, topP: Number(word) / 2 ** 32 }] : [];
    });
    expect(parts.length).toBeGreaterThan(5);
    for (const { logit, topP } of parts.slice(0, 3)) {
      expect(support([0, logit], { topP })).toEqual([0, 1]);
      expect(support([0, logit], { topP: topP - 2 ** -32 })).toEqual([0]);
    }
  });

  test("by topP of what topK left", () => {
    const logits = log(0.4, 0.3, 0.2, 0.1);
    expect(support(logits, { topK: 2, topP: 0.56 })).toEqual([0]);
    expect(support(logits, { topK: 2, topP: 0.58 })).toEqual([0, 1]);
    expect(support(logits, { topP: 0.58 })).toEqual([0, 1]);
    expect(support(logits, { topK: 3, topP: 0.78 })).toEqual([0, 1, 2]);
  });

  test("by minP, of the likeliest one's probability", () => {
    const logits = log(0.4, 0.2, 0.1, 0.3);
    expect(support(logits, { minP: 1 })).toEqual([0]);
    expect(support(logits, { minP: 0.74 })).toEqual([0, 3]);
    expect(support(logits, { minP: 0.76 })).toEqual([0]);
    expect(support(logits, { minP: 0.26 })).toEqual([0, 1, 3]);
    expect(support(logits, { minP: 0.24 })).toEqual([0, 1, 2, 3]);
    expect(support(logits, { minP: 0.6, topP: 0.95 })).toEqual([0, 3]);
  });

  test("after the temperature", () => {
    const logits = log(0.4, 0.2, 0.1, 0.3);
    expect(support(logits, { minP: 0.26, temperature: 0.5 })).toEqual([0, 3]);
    expect(support(logits, { minP: 0.26, temperature: 4 })).toEqual([0, 1, 2, 3]);
    expect(support(logits, { temperature: 1e-6 })).toEqual([0]);
    expect(support([0, -3e38, 3e38], { temperature: 1 })).toEqual([2]);
  });
});

describe("the repetition penalty", () => {
  const logits = [2, 3, -1, -0.5, 2.5];
  const penalized = (held: readonly number[], options: SamplingOptions) =>
    sample([{ logits, options, slot: 1 }], Uint32Array.of(0xffffffff, ...bitsOf(held, 5)));

  test("divides what is positive and multiplies what is not, of tokens that the slot holds", () => {
    expect(penalized([], { repetitionPenalty: 2 }).tokens).toEqual([1]);
    expect(penalized([1], { repetitionPenalty: 2 }).tokens).toEqual([4]);
    expect(penalized([1, 4], { repetitionPenalty: 2 }).tokens).toEqual([0]);
    expect(penalized([1, 4, 0], { repetitionPenalty: 2 }).tokens).toEqual([1]);
    expect(penalized([0], { repetitionPenalty: 0.5 }).tokens).toEqual([0]);
    const negative = [{ logits: [-1, -2], options: { repetitionPenalty: 3 } }];
    expect(sample(negative, bitsOf([0], 2)).tokens).toEqual([1]);
  });

  test("leaves no number that is not finite", () => {
    const huge = { logits: [3e38, 3.1e38, -3e38], options: { repetitionPenalty: 1e-3 } };
    expect(sample([huge], bitsOf([0, 2], 3)).tokens).toEqual([0]);
    const drawn = { ...huge, options: { repetitionPenalty: 1e3, temperature: 1 } };
    expect(sample([drawn], bitsOf([0, 1, 2], 3)).tokens).toEqual([1]);
  });

  test("gives -1 for a slot that has no bits", () => {
    const row = { logits, options: { repetitionPenalty: 2 }, logprob: true };
    const rows = [
      { ...row, slot: 2 ** 32 - 1 },
      { ...row, slot: 1 },
      { ...row, slot: 0 },
      { logits, slot: 9 },
    ];
    expect(sample(rows, new Uint32Array(1)).tokens).toEqual([-1, -1, 1, 1]);
  });
});

describe("a row's token", () => {
  const vocab = 264;
  const options: SamplingOptions = {
    temperature: 0.9,
    topK: 40,
    topP: 0.95,
    repetitionPenalty: 1.1,
    seed: 9,
  };
  const seen = new Uint32Array(new Uint8Array(noise(8 * 9 * 4)).buffer);
  const rows = Array.from({ length: 64 }, (_, row) => ({
    ...{
      logits: floats(vocab, row + 1, 4),
      options,
      slot: row % 8,
      row: row * 1e12,
      step: row % 5,
      logprob: true,
    },
  }));

  test("does not depend on what is beside it", () => {
    const { tokens, logprobs } = sample(rows, seen);
    for (const row of [0, 17, 63]) {
      expect(sample([rows[row]!], seen)).toEqual({ tokens: [tokens[row]!], logprobs: [logprobs[row]!] });
    }
    expect(sample(rows.toReversed(), seen).tokens).toEqual(tokens.toReversed());
  });

  test("depends on the seed, the row and the step, past 32 bits too", () => {
    const flat = { logits: new Float32Array(5000), options: { temperature: 1, seed: 1 }, row: 2, step: 3 };
    const change = (part: object) => ({ ...flat, ...part });
    const { tokens } = sample([
      flat,
      change({ step: 4 }),
      change({ row: 3 }),
      change({ row: 2 + 2 ** 32 }),
      change({ options: { temperature: 1, seed: 2 } }),
      change({ options: { temperature: 1, seed: 1 + 2 ** 32 } }),
      change({ row: 3, step: 2 }),
    ]);
    expect(new Set(tokens).size).toBe(7);
  });

  test("is not written beyond the count", () => {
    const { tokens, logprobs } = sample(rows, seen, 3);
    expect(tokens.slice(0, 3)).toEqual(sample(rows, seen).tokens.slice(0, 3));
    expect(tokens.slice(3).every((token) => token === 0x7fa5a5a5)).toBe(true);
    expect(logprobs.slice(3).every(Number.isNaN)).toBe(true);
  });

  test("is one that has a chance, with any options", () => {
    const part = fc.constantFrom(1e-12, 0.001, 0.05, 0.3, 0.5, 0.77, 0.9, 0.999, 1);
    const all = fc.record({
      temperature: fc.constantFrom(0.01, 0.3, 1, 1.7, 100),
      topK: fc.constantFrom(0, 1, 2, 5, 100, 5000),
      topP: part,
      minP: part,
      repetitionPenalty: fc.constantFrom(1, 1.3, 0.8),
      seed: fc.maxSafeNat(),
    });
    const special = fc.constantFrom(Number.NaN, LOWEST, HIGHEST, 0, -0, 1, 1, 2, 2, 2.5, -3, 1e-40);
    const logit = fc.oneof(special, fc.float({ min: -12, max: 12, noNaN: true }));
    const list = fc.array(logit, { minLength: 1, maxLength: 1200, size: "max" });
    fc.assert(
      fc.property(list, all, fc.array(fc.nat(1199)), (logits, options, held) => {
        const own = held.filter((token) => token < logits.length);
        const rows = [0, 1, 2, 3].map((row) => ({ logits, options, row, logprob: row === 2 }));
        const { tokens } = sample(rows, bitsOf(own, logits.length));
        if (!logits.some(Number.isFinite)) expect(tokens).toEqual([-1, -1, -1, -1]);
        else for (const token of tokens) expect(hasChance(token, logits, options, own)).toBe(true);
      }),
      { numRuns: 150 },
    );
  });

  test("is in range or -1 for parameters without sense", () => {
    for (let seed = 1; seed < 60; seed++) {
      const count = 1 + ((seed * 41) % 1100);
      const logits = new Float32Array(new Uint8Array(noise(8 * count, seed)).buffer);
      const params = new Uint32Array(new Uint8Array(noise(8 * 12, seed + 1000)).buffer);
      if (seed % 2 === 0) params.set([0, 7, 0x3f800000, 3, 2 ** 31, 5], 0);
      const seenBits = new Uint32Array(4 * Math.ceil(count / 32)).fill(0x5a5a5a5a);
      const after = run(kernel, [logits, params, seenBits, infoOf(2), poison(2), poison(2)], (at) =>
        sampleCall(PIPELINE, {
          ...{ logits: at[0]!, params: at[1]!, seen: at[2]!, info: at[3]!, tokens: at[4]!, logprobs: at[5]! },
          ...{ vocab: count, numSlots: 4, countAt: 0, maxRows: 2 },
        }),
      );
      for (const token of new Int32Array(after[4]!.buffer)) expect(token >= -1 && token < count).toBe(true);
    }
  });

  test("is the same in both forms over a large vocabulary", () => {
    for (const vocab of [49_152, 300_000, 128_257]) {
      const logits = floats(vocab, vocab, 9);
      const rows = [
        {},
        { temperature: 1 },
        { temperature: 1.5, topK: 50, topP: 0.9 },
        { temperature: 1, topP: 0.5 },
      ];
      const { tokens } = sample(rows.map((options, row) => ({ logits, options, row, logprob: true })));
      expect(new Set(tokens).size).toBeGreaterThan(2);
    }
  });
});

test("a call checks its options", () => {
  using buffer = new Guarded(8192);
  const place = { buffer };
  const options: SampleOptions = {
    ...{ logits: place, params: place, seen: place, info: place, tokens: place, logprobs: place },
    ...{ vocab: 128, numSlots: 8, countAt: 1, maxRows: 16 },
  };
  const call = (change: Partial<SampleOptions>) => () => sampleCall(PIPELINE, { ...options, ...change });
  expect(call({})().threads).toBe(16 * 256);
  expectCode("BAD_OPTION", call({ vocab: 0 }));
  expectCode("BAD_OPTION", call({ vocab: 2 ** 19 + 1 }));
  expectCode("BAD_OPTION", call({ numSlots: -1 }));
  expectCode("BAD_OPTION", call({ params: { buffer, byteOffset: 2 } }));
  expectCode("OUT_OF_RANGE", call({ vocab: 129 }));
  expectCode("OUT_OF_RANGE", call({ numSlots: 513 }));
  expectCode("OUT_OF_RANGE", call({ vocab: 8, maxRows: 171 }));
  expectCode("OUT_OF_RANGE", call({ tokens: { buffer, byteOffset: 8192 - 60 } }));
  expect(packRows([{ logits: [1, 2] }]).params).toHaveLength(12);
});
