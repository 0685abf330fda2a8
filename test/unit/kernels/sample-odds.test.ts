/** The sampler: its tokens come as often as they should, and have the logarithms that the model gives them. */
import { describe, expect, test } from "bun:test";
import type { SamplingOptions } from "../../../src/infer/engine.ts";
import { sampleKernel } from "../../../src/kernels/sample.ts";
import { floats, useForms } from "./forms.ts";
import { bitsOf, distribution, type SampleRow, sampleRows, surprise } from "./sampling.ts";

const kernel = sampleKernel();
const run = useForms([kernel]);
const sample = (rows: readonly SampleRow[], seen?: Uint32Array<ArrayBuffer>, count?: number) =>
  sampleRows(run, kernel, rows, seen, count);
const one = (logits: ArrayLike<number>, options?: SamplingOptions) =>
  sample([{ logits, options: options ?? {} }]);
const LOWEST = Number.NEGATIVE_INFINITY;
const HIGHEST = Number.POSITIVE_INFINITY;

describe("the logprob", () => {
  const vocab = 1500;
  const logits = floats(vocab, 3, 8);
  const total = logits.reduce((sum, logit) => sum + Math.exp(logit), 0);

  test("is that of the model, whatever the options", () => {
    const held = Array.from({ length: 700 }, (_, i) => i * 2);
    for (const options of [
      {},
      { temperature: 3 },
      { temperature: 0.2, topK: 5 },
      { temperature: 2, repetitionPenalty: 1.7 },
      { repetitionPenalty: 4 },
    ]) {
      const rows = [0, 1, 2].map((row) => ({ logits, options, row, logprob: true }));
      const { tokens, logprobs } = sample(rows, bitsOf(held, vocab));
      for (const [i, token] of tokens.entries()) {
        expect(logprobs[i]).toBeCloseTo(logits[token]! - Math.log(total), 5);
      }
    }
  });

  test.each([
    ["-0 alone", [-0], 0],
    ["-0 by temperature alone", [-30, -0, -30], 1],
    ["0 alone", [0], 0],
  ])("is 0, not -0, of %s", (_name, certain, token) => {
    for (const options of [
      {},
      { temperature: 0.01 },
      { temperature: 0.01, topP: 1e-12, minP: 1e-12, seed: 0 },
      { temperature: 0.01, repetitionPenalty: 1.3 },
    ]) {
      // Bun's toEqual knows -0 from 0, as the comparison of both forms' bytes does.
      expect(
        sample([{ logits: certain, options, row: 2, logprob: true }], new Uint32Array([2 ** 32 - 1])),
      ).toEqual({
        tokens: [token],
        logprobs: [0],
      });
    }
  });

  test("is the same in both forms of zeros of either sign", () => {
    for (const zeros of [
      [-0, 0],
      [0, -0],
      [-0, -0, 0],
      [-1, -0, 0, -0],
      [-0, 1e-40],
    ]) {
      for (const temperature of [0, 0.01, 1]) {
        const rows = [0, 1, 2, 3].map((row) => ({
          logits: zeros,
          options: { temperature },
          row,
          logprob: true,
        }));
        for (const logprob of sample(rows).logprobs) expect(logprob).toBeLessThan(0);
      }
    }
  });

  test("is 0 where it is not asked for, and of what is certain", () => {
    expect(one([1, 2, 3]).logprobs).toEqual([0]);
    const certain = { logits: [5, Number.NaN, LOWEST, HIGHEST], logprob: true };
    expect(sample([certain])).toEqual({ tokens: [0], logprobs: [0] });
  });
});

describe("tokens come as often as they should", () => {
  const logits = [1.5, 0.3, -0.7, 2.2, 0.3, 1.1, -3, 0.9, 2.2, -0.2, 0.3, 1.9];
  const held = [3, 6, 7];
  const cases: readonly (readonly [string, SamplingOptions])[] = [
    ["temperature", { temperature: 1 }],
    ["a high temperature", { temperature: 2.5, seed: 2 ** 40 + 7 }],
    ["a low temperature", { temperature: 0.6, seed: 3 }],
    ["topK", { temperature: 1, topK: 4 }],
    ["topK with equals", { temperature: 1, topK: 7 }],
    ["topP", { temperature: 1, topP: 0.8, seed: 11 }],
    ["topP within equals", { temperature: 1, topP: 0.9, seed: 12 }],
    ["minP", { temperature: 1.2, minP: 0.2 }],
    ["the penalty", { temperature: 1, repetitionPenalty: 1.8, seed: 5 }],
    ["all at once", { temperature: 1.4, topK: 9, topP: 0.93, minP: 0.1, repetitionPenalty: 1.3, seed: 6 }],
  ];
  test.each(cases)(
    "with %s",
    (_name, options) => {
      const rows = Array.from({ length: 20_000 }, (_, i) => ({ logits, options, row: i, step: i % 7 }));
      const { tokens } = sample(rows, bitsOf(held, logits.length));
      expect(surprise(tokens, distribution(logits, options, held))).toBeLessThan(1);
      // A distribution that is a little off would be seen.
      const off = distribution(logits, { ...options, temperature: options.temperature! * 1.3 }, held);
      expect(surprise(tokens, off)).toBeGreaterThan(1);
    },
    60_000,
  );

  test("over a vocabulary that all lanes share", () => {
    const wide = floats(2600, 4, 1.5);
    const options = { temperature: 1, topP: 0.97 };
    const rows = Array.from({ length: 2000 }, (_, row) => ({ logits: wide, options, row }));
    const { tokens } = sample(rows);
    const exact = distribution(wide, options);
    // By classes of tokens that are as likely as one another: a hundredth of all each.
    const order = exact.map((_, i) => i).sort((a, b) => exact[b]! - exact[a]!);
    const classOf = new Map<number, number>();
    const classes = new Array<number>(101).fill(0);
    let sum = 0;
    for (const token of order) {
      const index = exact[token] === 0 ? 100 : Math.min(99, Math.floor(sum * 100));
      classOf.set(token, index);
      classes[index]! += exact[token]!;
      sum += exact[token]!;
    }
    expect(
      surprise(
        tokens.map((token) => classOf.get(token)!),
        classes,
      ),
    ).toBeLessThan(1);
  }, 60_000);

  test.each(["row", "step", "seed"] as const)("and do not depend on those of the %s before", (field) => {
    const four = [0.5, 0, 0.2, -0.4];
    const options = { temperature: 1 };
    const rows = Array.from({ length: 20_000 }, (_, i) => ({
      logits: four,
      options: field === "seed" ? { ...options, seed: i } : options,
      row: field === "row" ? i : 7,
      step: field === "step" ? i : 3,
    }));
    const { tokens } = sample(rows);
    const single = distribution(four, options);
    const pairs = single.flatMap((first) => single.map((second) => first * second));
    const drawn = Array.from({ length: 10_000 }, (_, i) => tokens[2 * i]! * 4 + tokens[2 * i + 1]!);
    expect(surprise(drawn, pairs)).toBeLessThan(1);
  });
});
