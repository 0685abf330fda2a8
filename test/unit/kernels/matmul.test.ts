/** Matrix products: the host's, and the kernel text's in all tiles, against sums in double precision. */
import { expect, test } from "bun:test";
import { matmulTile } from "../../../src/kernels/matmul.ts";
import { describeOverMock } from "../device/cuda-rig.ts";
import { type MatmulCase, productOf, wrongness } from "./matmul-cases.ts";
import { onHost, withCudaRun } from "./runners.ts";

const CASES: readonly MatmulCase[] = [
  { type: "F32", inner: 8, outputs: [5, 7, 3], parts: 3, bias: true, rows: 3, maxRows: 4 },
  { type: "BF16", inner: 136, outputs: [70], rows: 1, maxRows: 1 },
  { type: "F16", inner: 64, outputs: [33, 40], parts: 2, bias: true, rows: 5, maxRows: 8 },
  { type: "BF16", inner: 200, outputs: [37, 37], parts: 2, gated: true, bias: true, rows: 19, maxRows: 32 },
  { type: "F32", inner: 131, outputs: [50], accumulate: true, rows: 17, maxRows: 17 },
  { type: "F16", inner: 77, outputs: [65], rows: 2, maxRows: 2, shift: 1 },
  { type: "BF16", inner: 72, outputs: [34, 34], parts: 2, gated: true, rows: 70, maxRows: 300 },
  { type: "F32", inner: 88, outputs: [66, 3], parts: 2, rows: 130, maxRows: 257, shift: 1 },
  { type: "F16", inner: 1, outputs: [1], rows: 1, maxRows: 1 },
];
const nameOf = (one: MatmulCase) => JSON.stringify(one).replaceAll(/[{}"]/g, "");

test.each(CASES.map((one) => [nameOf(one), one] as const))("on the host: %s", async (_, one) => {
  expect(wrongness(one, await productOf(onHost, one))).toBeUndefined();
});

describeOverMock("as CUDA", () => {
  test.each(CASES.map((one) => [nameOf(one), one] as const))(
    "%s",
    (_, one) =>
      withCudaRun(async (run) => {
        expect(wrongness(one, await productOf(run, one))).toBeUndefined();
      }),
    60_000,
  );

  test(
    "all tiles give the same bits",
    () =>
      withCudaRun(async (run) => {
        for (const options of [
          { type: "BF16", outputs: [37, 37], parts: 2, gated: true, bias: true, inner: 136 },
          { type: "F32", outputs: [40, 9], parts: 2, inner: 203 },
        ] as const) {
          const tiles = [1, 4, 16, 300].map((maxRows) => ({ maxRows, name: matmulTile(maxRows) }));
          expect(new Set(tiles.map(({ name }) => name)).size).toBe(4);
          const results: Uint8Array[] = [];
          for (const { maxRows } of tiles) {
            const y = await productOf(run, { ...options, rows: Math.min(maxRows, 21), maxRows });
            results.push(new Uint8Array(y.buffer, y.byteOffset, y.byteLength));
          }
          const width = options.parts === 2 && "gated" in options ? 37 : 49;
          for (const [i, { maxRows }] of tiles.entries()) {
            const bytes = Math.min(maxRows, 16) * width * 4;
            expect(Buffer.compare(results[i]!.subarray(0, bytes), results[3]!.subarray(0, bytes))).toBe(0);
          }
        }
      }),
    60_000,
  );
});
