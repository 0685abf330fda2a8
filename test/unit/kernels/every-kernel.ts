/** Every kernel text in the forms that it comes in, for compilers to judge. */
import type { KernelSource } from "../../../src/device/device.ts";
import { attentionKernel } from "../../../src/kernels/attention.ts";
import { checksumKernel } from "../../../src/kernels/checksum.ts";
import { convertKernel } from "../../../src/kernels/convert.ts";
import { embedRowsKernel } from "../../../src/kernels/embed.ts";
import { gatherKernel } from "../../../src/kernels/gather.ts";
import { matmulKernel } from "../../../src/kernels/matmul.ts";
import { moveKernel } from "../../../src/kernels/move.ts";
import { narrowRowsKernel } from "../../../src/kernels/narrow.ts";
import { rmsNormKernel } from "../../../src/kernels/norm.ts";
import { padAndMaskKernel } from "../../../src/kernels/pad.ts";
import { poolFinishKernel, poolRowsKernel } from "../../../src/kernels/pool.ts";
import { ropeCacheKernel } from "../../../src/kernels/rope.ts";
import { sampleKernel } from "../../../src/kernels/sample.ts";
import { markSeenKernel } from "../../../src/kernels/seen.ts";
import { ADD, BLOCK_SUMS } from "../../conformance/kernels.ts";

export const KERNELS: Readonly<Record<string, KernelSource>> = {
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
  "narrow_rows to F16": narrowRowsKernel({ to: "F16" }),
  "narrow_rows to BF16, gated": narrowRowsKernel({ to: "BF16", gated: true }),
  "pool_rows by mean": poolRowsKernel("mean"),
  "pool_finish by mean": poolFinishKernel({ pooling: "mean", normalize: true }),
  sample: sampleKernel(),
};
