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
import { ropeCacheKernel } from "../../../src/kernels/rope.ts";
import { sampleKernel } from "../../../src/kernels/sample.ts";
import { KERNELS } from "./every-kernel.ts";

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
