/** Every kernel text as CUDA, by NVIDIA's own compiler, and that it loads and stores 16 bytes at a time. */
import { describe, expect, test } from "bun:test";
import { compileKernel } from "../../../src/device/cuda/compile.ts";
import { openNvrtc } from "../../../src/device/cuda/nvrtc.ts";
import type { KernelSource } from "../../../src/device/device.ts";
import { attentionKernel } from "../../../src/kernels/attention.ts";
import { checksumKernel } from "../../../src/kernels/checksum.ts";
import { convertKernel } from "../../../src/kernels/convert.ts";
import { embedRowsKernel } from "../../../src/kernels/embed.ts";
import { gatherKernel } from "../../../src/kernels/gather.ts";
import { matmulKernel } from "../../../src/kernels/matmul.ts";
import { moveKernel } from "../../../src/kernels/move.ts";
import { rmsNormKernel } from "../../../src/kernels/norm.ts";
import { padAndMaskKernel } from "../../../src/kernels/pad.ts";
import { poolFinishKernel, poolRowsKernel } from "../../../src/kernels/pool.ts";
import { ropeCacheKernel } from "../../../src/kernels/rope.ts";
import { sampleKernel } from "../../../src/kernels/sample.ts";
import { markSeenKernel } from "../../../src/kernels/seen.ts";
import { withoutComments } from "../../../src/kernels/signature.ts";
import { ADD, BLOCK_SUMS } from "../../conformance/kernels.ts";

const search = openNvrtc();
const reason = search.nvrtc === undefined ? ` (left out: ${search.reason})` : "";
if (search.nvrtc === undefined) console.warn(`kernels as CUDA: left out, ${search.reason}`);
/** Of Volta, Ampere and Hopper, as far as the compiler has them. */
const ARCHITECTURES = [70, 80, 90].filter((one) => search.nvrtc?.architectures.includes(one) ?? true);

/** As the CUDA device compiles it. */
function ptxOf({ name, text = "", functionConstants = [] }: KernelSource, computeCapability = 90): string {
  if (search.nvrtc === undefined) throw new Error(search.reason);
  const target = { computeCapability, driverVersion: search.nvrtc.version };
  const ptx = compileKernel(search.nvrtc, { name, text, functionConstants }, target);
  return new TextDecoder().decode(ptx);
}

const KERNELS = {
  add: ADD,
  block_sums: BLOCK_SUMS,
  checksum: checksumKernel,
  gather: gatherKernel,
  move: moveKernel,
  "pad_and_mask of 1 byte": padAndMaskKernel(1),
  "pad_and_mask of 8 bytes": padAndMaskKernel(8, 8),
  "convert F16 to F32": convertKernel({ from: "F16", to: "F32" }),
  "convert F32 to BF16": convertKernel({ from: "F32", to: "BF16", scaled: true }),
  "convert F32 to U8": convertKernel({ from: "F32", to: "U8", scaled: true }),
  "convert I8 to F16": convertKernel({ from: "I8", to: "F16" }),
  "attention over F32": attentionKernel({ cacheType: "F32" }),
  "attention over F16": attentionKernel({ cacheType: "F16" }),
  "matmul of few rows, matrix units": matmulKernel({ type: "BF16", matrixUnits: true, outputs: [64] }),
  "matmul of many rows, matrix units": matmulKernel({
    ...{ type: "BF16", parts: 2, gated: true, maxRows: 1024, matrixUnits: true },
    outputs: [8192, 8192],
  }),
  ...Object.fromEntries(
    [1, 8, 256, 257].flatMap((maxRows) => [
      [`matmul of ${maxRows} rows, F32`, matmulKernel({ type: "F32", maxRows, parts: 3, bias: true })],
      [
        `matmul of ${maxRows} rows, gated BF16`,
        matmulKernel({ type: "BF16", maxRows, parts: 2, gated: true }),
      ],
    ]),
  ),
  "embed_rows of BF16": embedRowsKernel("BF16"),
  "rms_norm of F16": rmsNormKernel({ type: "F16" }),
  "rms_norm_rows of F32": rmsNormKernel({ type: "F32", indexed: true }),
  "rope_cache of F16": ropeCacheKernel({ cacheType: "F16" }),
  mark_seen: markSeenKernel,
  "pool_rows by mean": poolRowsKernel("mean"),
  "pool_finish by mean": poolFinishKernel({ pooling: "mean", normalize: true }),
  sample: sampleKernel(),
};

/** Names that are types or address spaces to Metal, and would be good names for a variable to the other compilers. */
const METAL_WORDS = [
  "half",
  "bfloat",
  "uint",
  "ushort",
  "uchar",
  "ulong",
  "device",
  "constant",
  "thread",
  "threadgroup",
];

test.each(Object.entries(KERNELS))("%s has no name that Metal takes for itself", (_, { text = "" }) => {
  const words = new Set(withoutComments(text).match(/\b\w+\b/g));
  expect(METAL_WORDS.filter((word) => words.has(word))).toEqual([]);
});

/** A busy machine compiles slowly. */
const SLOW = 60_000;

describe.skipIf(search.nvrtc === undefined)(`NVRTC${reason}`, () => {
  const cases = Object.entries(KERNELS).flatMap(([name, kernel]) =>
    ARCHITECTURES.map((architecture) => ({ name, kernel, architecture })),
  );

  test.each(cases)("compiles $name for compute_$architecture", ({ kernel, architecture }) => {
    expect(ptxOf(kernel, architecture)).toContain(`.visible .entry ${kernel.name}(`);
  });

  test(
    "loads and stores 16 bytes at once where it matters",
    () => {
      const wide = (kernel: KernelSource, what: string) =>
        ptxOf(kernel).match(new RegExp(`\\b${what}(\\.global)?\\.v4\\.[uf]32`, "g"))?.length ?? 0;
      expect(wide(checksumKernel, "ld")).toBeGreaterThanOrEqual(4);
      expect(wide(moveKernel, "ld")).toBeGreaterThanOrEqual(4);
      expect(wide(moveKernel, "st")).toBeGreaterThanOrEqual(4);
      expect(wide(gatherKernel, "ld")).toBeGreaterThanOrEqual(4);
      expect(wide(convertKernel({ from: "F16", to: "F32" }), "st")).toBe(1);
      expect(wide(embedRowsKernel("F32"), "st")).toBe(1);
      expect(wide(rmsNormKernel({ type: "BF16" }), "ld")).toBeGreaterThanOrEqual(1);
      expect(wide(sampleKernel(), "ld")).toBeGreaterThanOrEqual(4);
    },
    SLOW,
  );

  test(
    "sums of products are in registers, and fused",
    () => {
      for (const maxRows of [1, 8, 256, 257]) {
        for (const gated of [false, true]) {
          const kernel = matmulKernel({ type: "BF16", maxRows, parts: gated ? 2 : 1, gated });
          const ptx = ptxOf(kernel);
          expect(ptx).not.toContain(".local ");
          expect(ptx).toMatch(/\bfma\.rn\.f32/);
          const source = maxRows > 256 ? /\bld\.shared\.v4\.[uf]32/ : /\bld(\.global)?\.v4\.[uf]32/;
          expect(ptx).toMatch(source);
        }
      }
      expect(ptxOf(attentionKernel({ cacheType: "BF16" }))).not.toContain(".local ");
      for (const maxRows of [1, 1024]) {
        const kernel = matmulKernel({ type: "BF16", maxRows, outputs: [8192], matrixUnits: true });
        const ptx = ptxOf(kernel);
        expect(ptx).not.toContain(".local ");
        // For 32 products: two steps, three parts of x, 4 tiles of weights, and rows of one tile or two.
        const units = ptx.match(/\bmma\.sync\.aligned\.m16n8k16\b/g)?.length ?? 0;
        expect(units).toBeGreaterThanOrEqual(2 * 3 * 4 * (maxRows > 1 ? 2 : 1));
      }
    },
    SLOW,
  );

  test("loads four windows before it stores the first", () => {
    const ptx = ptxOf(moveKernel);
    const loads = [...ptx.matchAll(/\bld\.v4\.[uf]32/g)].map(({ index }) => index);
    const firstStore = ptx.search(/\bst\.v4\.[uf]32/);
    expect(loads.filter((at) => at < firstStore).length).toBe(4);
  });

  test(
    "contracts nothing",
    () => {
      const scale = convertKernel({ from: "F32", to: "F32", scaled: true });
      const exact = [
        scale,
        rmsNormKernel({ type: "F32" }),
        ropeCacheKernel({ cacheType: "F32" }),
        sampleKernel(),
      ];
      for (const kernel of exact) {
        const ptx = ptxOf(kernel);
        expect(ptx).toMatch(/\bmul(\.rn)?\.f32/);
        expect(ptx).not.toMatch(/\bfma\b/);
        expect(ptx).not.toMatch(/\b(approx|ftz)\b/);
      }
    },
    SLOW,
  );
});
