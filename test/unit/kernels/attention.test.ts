/** Attention: the host's, and the kernel text's, against double precision. */
import { expect, test } from "bun:test";
import { describeOverMock } from "../device/cuda-rig.ts";
import { type AttentionCase, attentionOf, wrongness } from "./attention-cases.ts";
import { onHost, withCudaRun } from "./runners.ts";

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
    ...{ cacheType: "F16", numHeads: 7, numKvHeads: 1, headSize: 72, blockTokens: 32, maxRows: 2 },
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
  {
    ...{ cacheType: "BF16", numHeads: 4, numKvHeads: 1, headSize: 128, blockTokens: 16, maxRows: 2 },
    rows: [
      [3, 64],
      [0, 17],
    ],
  },
];
const nameOf = (one: AttentionCase) => JSON.stringify(one).replaceAll(/[{}"]/g, "");

test.each(CASES.map((one) => [nameOf(one), one] as const))("on the host: %s", async (_, one) => {
  expect(wrongness(one, await attentionOf(onHost, one))).toBeUndefined();
});

describeOverMock("as CUDA", () => {
  test.each(CASES.map((one) => [nameOf(one), one] as const))(
    "%s",
    (_, one) =>
      withCudaRun(async (run) => {
        expect(wrongness(one, await attentionOf(run, one))).toBeUndefined();
      }),
    60_000,
  );
});
