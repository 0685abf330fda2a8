/** Matrix products and attention on every device: as near to double precision as sums in single precision can be, and
 * a row's result the same to the last bit, whatever is beside it. */
import { expect, test } from "bun:test";
import type { Device, DeviceQueue } from "../../src/device/device.ts";
import {
  type AttentionCase,
  attentionOf,
  wrongness as attentionWrongness,
} from "../unit/kernels/attention-cases.ts";
import { type MatmulCase, productOf, wrongness } from "../unit/kernels/matmul-cases.ts";
import type { Run } from "../unit/kernels/runners.ts";
import { bytesOf, runWell, type Subject, useRig } from "./harness.ts";

const PRODUCTS: readonly MatmulCase[] = [
  { type: "BF16", inner: 136, outputs: [70, 9, 9], parts: 3, rows: 3, maxRows: 4 },
  { type: "F16", inner: 64, outputs: [40, 40], parts: 2, gated: true, bias: true, rows: 21, maxRows: 32 },
  { type: "F32", inner: 131, outputs: [50], accumulate: true, rows: 130, maxRows: 140 },
];
const ATTENTIONS: readonly AttentionCase[] = [
  {
    ...{ cacheType: "F32", numHeads: 6, numKvHeads: 3, headSize: 32, blockTokens: 16, maxRows: 8 },
    rows: [
      [0, 40],
      [1, 0],
      [2, 15],
      [2, 16],
    ],
  },
  {
    ...{ cacheType: "BF16", numHeads: 9, numKvHeads: 3, headSize: 64, blockTokens: 8, maxRows: 4 },
    rows: [
      [1, 100],
      [0, 33],
      [1, 7],
    ],
  },
];

export function productCases(subject: Subject): void {
  if (!subject.movesData) return;
  let device: Device;
  let queue: DeviceQueue;
  useRig(subject, (rig) => {
    ({ device, queue } = rig);
  });

  const run: Run = async (source, args, build) => {
    using pipeline = device.createPipeline(source);
    const buffers = args.map(({ bytes, shift = 0 }) => {
      const buffer = device.createBuffer(bytes.length + shift);
      new Uint8Array(buffer.view(shift, bytes.length)).set(bytes);
      return buffer;
    });
    const places = buffers.map((buffer, i) => ({ buffer, byteOffset: args[i]!.shift ?? 0 }));
    await runWell(queue, (list) => list.dispatch(build(pipeline, places)));
    const after = buffers.map((buffer, i) => bytesOf(buffer, args[i]!.shift ?? 0, args[i]!.bytes.length));
    for (const buffer of buffers) buffer.close();
    return after;
  };
  const seed = () => Math.floor(Math.random() * 1e6);

  test.each(PRODUCTS.map((one) => [`${one.type}, ${one.rows} rows of ${one.inner}`, one] as const))(
    "matmul: %s",
    async (_, one) => {
      const own = { ...one, seed: seed() };
      expect([own.seed, wrongness(own, await productOf(run, own))]).toEqual([own.seed, undefined]);
    },
  );

  test("matmul gives a row the same bits alone and among many", async () => {
    const one: MatmulCase = { type: "BF16", inner: 200, outputs: [90], rows: 1, maxRows: 1, seed: seed() };
    const alone = await productOf(run, one);
    for (const rows of [2, 7, 33, 150]) {
      const many = await productOf(run, { ...one, rows, maxRows: rows });
      expect(many.subarray(0, 90)).toEqual(alone);
    }
  });

  test.each(ATTENTIONS.map((one) => [`${one.numHeads} heads over ${one.cacheType}`, one] as const))(
    "attention: %s",
    async (_, one) => {
      const own = { ...one, seed: seed() };
      expect([own.seed, attentionWrongness(own, await attentionOf(run, own))]).toEqual([own.seed, undefined]);
    },
  );

  test("attention gives a row the same bits alone and among many, wherever its blocks lie", async () => {
    const one = { ...ATTENTIONS[0]!, seed: seed() };
    const width = one.numHeads * one.headSize;
    const many = await attentionOf(run, one);
    const alone = await attentionOf(run, { ...one, rows: [one.rows[0]!], maxRows: 1, isReversed: true });
    expect(alone).toEqual(many.subarray(0, width));
  });
}
