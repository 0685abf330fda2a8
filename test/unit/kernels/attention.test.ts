/** Attention: the host's, and the kernel text's, against double precision. */
import { expect, test } from "bun:test";
import type { ErrorCode } from "../../../src/errors.ts";
import { type AttentionOptions, attentionCall, attentionKernel } from "../../../src/kernels/attention.ts";
import { expectCode } from "../../conformance/harness.ts";
import { describeOverMock } from "../device/cuda-rig.ts";
import { type AttentionCase, attentionOf, wrongness } from "./attention-cases.ts";
import { Guarded, PIPELINE } from "./memory.ts";
import { onHost, type Run, withCudaRun } from "./runners.ts";

const CASES: readonly AttentionCase[] = [
  {
    ...{ cacheType: "F32", numHeads: 6, numKvHeads: 3, headSize: 32, blockTokens: 16, maxRows: 4 },
    rows: [
      [0, 0],
      [1, 40],
      [0, 1],
    ],
  },
  {
    ...{ cacheType: "BF16", numHeads: 9, numKvHeads: 3, headSize: 64, blockTokens: 7, maxRows: 8 },
    rows: [
      [2, 70],
      [2, 31],
      [2, 32],
      [0, 300],
      [1, 5],
    ],
  },
  {
    ...{
      cacheType: "F16",
      numHeads: 7,
      numKvHeads: 1,
      headSize: 72,
      blockTokens: 32,
      maxRows: 2,
      claimed: 99,
    },
    rows: [
      [0, 33],
      [0, 34],
    ],
  },
  {
    ...{ cacheType: "F32", numHeads: 4, numKvHeads: 4, headSize: 256, blockTokens: 1, maxRows: 1 },
    rows: [[1, 9]],
  },
  {
    ...{ cacheType: "F32", numHeads: 4, numKvHeads: 2, headSize: 16, blockTokens: 64, maxRows: 2, scale: 9 },
    rows: [
      [0, 600],
      [0, 601],
    ],
  },
  // The largest scores of chunks lie so far apart that no exponential of a difference upwards is finite.
  {
    ...{
      cacheType: "F32",
      numHeads: 4,
      numKvHeads: 2,
      headSize: 16,
      blockTokens: 64,
      maxRows: 2,
      scale: 2000,
    },
    rows: [
      [0, 600],
      [1, 70],
    ],
  },
  {
    ...{ cacheType: "BF16", numHeads: 4, numKvHeads: 1, headSize: 128, blockTokens: 16, maxRows: 2 },
    rows: [
      [3, 64],
      [0, 17],
    ],
  },
  {
    ...{ cacheType: "F16", numHeads: 4, numKvHeads: 2, headSize: 40, blockTokens: 150, maxRows: 4 },
    rows: [
      [0, 149],
      [0, 150],
      [0, 290],
      [0, 470],
    ],
  },
  {
    ...{ cacheType: "F32", numHeads: 1, numKvHeads: 1, headSize: 16, blockTokens: 64, maxRows: 1 },
    rows: [[0, 131_071]],
  },
];
const nameOf = (one: AttentionCase) => JSON.stringify(one).replaceAll(/[{}"]/g, "");

test.each(CASES.map((one) => [nameOf(one), one] as const))("on the host: %s", async (_, one) => {
  expect(wrongness(one, await attentionOf(onHost, one))).toBeUndefined();
});

/** Rows of several slots together, each of them alone, and all with the blocks elsewhere: the same bits. */
async function expectSameBits(run: Run, one: AttentionCase): Promise<void> {
  const together = bitsOf(await attentionOf(run, one));
  const elsewhere = bitsOf(await attentionOf(run, { ...one, isReversed: true, maxRows: one.maxRows + 3 }));
  expect(elsewhere.slice(0, together.length)).toEqual(together);
  for (const [i, row] of one.rows.entries()) {
    const alone = bitsOf(await attentionOf(run, { ...one, rows: [row], maxRows: 1 }));
    expect(alone).toEqual(together.slice(i * width(one), (i + 1) * width(one)));
  }
}

function bitsOf(floats: Float32Array): Uint32Array<ArrayBuffer> {
  return new Uint32Array(floats.slice().buffer as ArrayBuffer);
}

function width({ numHeads, headSize }: AttentionCase): number {
  return numHeads * headSize;
}

const MIXED: AttentionCase = {
  ...{ cacheType: "BF16", numHeads: 5, numKvHeads: 1, headSize: 24, blockTokens: 5, maxRows: 7 },
  rows: [
    [1, 130],
    [1, 131],
    [1, 132],
    [0, 40],
    [2, 260],
    [1, 5],
    [0, 41],
  ],
};

test("a row has the same bits in any company, on the host", () => expectSameBits(onHost, MIXED));

test("what is of no use is refused", () => {
  const buffer = new Guarded(64);
  const place = { buffer };
  const options = {
    ...{
      cacheType: "F32" as const,
      qkv: place,
      kCache: place,
      vCache: place,
      blockTable: place,
      slots: place,
    },
    ...{
      positions: place,
      info: place,
      out: place,
      numHeads: 1,
      numKvHeads: 1,
      headSize: 16,
      blockTokens: 1,
    },
    ...{ numBlocks: 1, numSlots: 1, tableStride: 1, scale: 1, countAt: 0, maxRows: 0 },
  };
  expect(attentionCall(PIPELINE, options).threads).toBe(0);
  const refused = (code: ErrorCode, change: Partial<AttentionOptions>) =>
    expectCode(code, () => attentionCall(PIPELINE, { ...options, ...change }));
  refused("BAD_OPTION", { cacheType: "I8" as "F32" });
  refused("BAD_OPTION", { numHeads: 3, numKvHeads: 2 });
  refused("BAD_OPTION", { headSize: 20 });
  refused("BAD_OPTION", { headSize: 264 });
  refused("BAD_OPTION", { headSize: 8 });
  refused("BAD_OPTION", { blockTokens: 0 });
  refused("BAD_OPTION", { scale: Number.NaN });
  refused("BAD_OPTION", { maxRows: 2 ** 31 });
  refused("BAD_OPTION", { kCache: { buffer, byteOffset: 8 }, numBlocks: 0 });
  refused("OUT_OF_RANGE", { maxRows: 1 });
  refused("OUT_OF_RANGE", { numBlocks: 2 });
  refused("OUT_OF_RANGE", { tableStride: 17 });
  refused("OUT_OF_RANGE", { countAt: 16 });
  expectCode("BAD_OPTION", () => attentionKernel({ cacheType: "I8" as "F32" }));
  buffer.close();
});

describeOverMock("as CUDA", () => {
  test(
    "a row has the same bits in any company",
    () => withCudaRun((run) => expectSameBits(run, MIXED)),
    60_000,
  );

  test.each(CASES.map((one) => [nameOf(one), one] as const))(
    "%s",
    (_, one) =>
      withCudaRun(async (run) => {
        expect(wrongness(one, await attentionOf(run, one))).toBeUndefined();
      }),
    60_000,
  );
});
