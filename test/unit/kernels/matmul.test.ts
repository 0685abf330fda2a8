/** Matrix products: the host's, and the kernel text's in all tiles, against sums in double precision. */
import { expect, test } from "bun:test";
import fc from "fast-check";
import type { ErrorCode } from "../../../src/errors.ts";
import { type MatmulOptions, matmulCall, matmulKernel, matmulTile } from "../../../src/kernels/matmul.ts";
import { expectCode } from "../../conformance/harness.ts";
import { describeOverMock } from "../device/cuda-rig.ts";
import { type MatmulCase, operands, productOf, wrongness } from "./matmul-cases.ts";
import { Guarded, PIPELINE } from "./memory.ts";
import { onHost, type Run, withCudaRun } from "./runners.ts";

const CASES: readonly MatmulCase[] = [
  { type: "F32", inner: 8, outputs: [5, 7, 3], parts: 3, bias: true, rows: 3, maxRows: 4 },
  { type: "BF16", inner: 136, outputs: [70], rows: 1, maxRows: 1, claimed: 9 },
  { type: "F16", inner: 64, outputs: [33, 40], parts: 2, bias: true, rows: 5, maxRows: 8 },
  { type: "BF16", inner: 200, outputs: [37, 37], parts: 2, gated: true, bias: true, rows: 19, maxRows: 32 },
  { type: "F32", inner: 131, outputs: [50], accumulate: true, rows: 17, maxRows: 17, claimed: 2 ** 32 - 1 },
  { type: "F16", inner: 77, outputs: [65], rows: 0, maxRows: 2, shift: 1 },
  { type: "BF16", inner: 72, outputs: [34, 34], parts: 2, gated: true, rows: 70, maxRows: 300 },
  { type: "F32", inner: 88, outputs: [66, 3], parts: 2, rows: 130, maxRows: 257, shift: 1 },
  { type: "F16", inner: 1, outputs: [1], rows: 1, maxRows: 1 },
  {
    type: "BF16",
    matrixUnits: true,
    inner: 160,
    outputs: [37, 9, 3],
    parts: 3,
    rows: 18,
    maxRows: 32,
    bias: true,
  },
  {
    type: "BF16",
    matrixUnits: true,
    inner: 32,
    outputs: [20, 20],
    parts: 2,
    gated: true,
    rows: 1,
    maxRows: 1,
  },
  { type: "BF16", matrixUnits: true, inner: 576, outputs: [70], accumulate: true, rows: 40, maxRows: 257 },
];
const nameOf = (one: MatmulCase) => JSON.stringify(one).replaceAll(/[{}"]/g, "");

test.each(CASES.map((one) => [nameOf(one), one] as const))("on the host: %s", async (_, one) => {
  expect(wrongness(one, await productOf(onHost, one))).toBeUndefined();
});

test("on the host, random products are right", async () => {
  const cases = fc.record({
    type: fc.constantFrom("F32", "F16", "BF16"),
    inner: fc.integer({ min: 1, max: 90 }),
    outputs: fc.array(fc.integer({ min: 1, max: 30 }), { minLength: 1, maxLength: 3 }),
    gated: fc.boolean(),
    bias: fc.boolean(),
    accumulate: fc.boolean(),
    rows: fc.integer({ min: 0, max: 9 }),
    more: fc.integer({ min: 0, max: 3 }),
    shift: fc.constantFrom(0, 1, 2, 4),
    seed: fc.integer({ min: 1, max: 1e6 }),
  });
  const property = fc.asyncProperty(cases, async ({ outputs, gated, accumulate, more, ...one }) => {
    const width = outputs[0]!;
    const all: MatmulCase = {
      ...{ ...one, maxRows: one.rows + more, gated, accumulate: accumulate && !gated },
      outputs: gated ? [width, width] : outputs,
      parts: (gated ? 2 : outputs.length) as 1 | 2 | 3,
    };
    expect(wrongness(all, await productOf(onHost, all))).toBeUndefined();
  });
  await fc.assert(property, { numRuns: 60 });
});

test("on the host, a row has the same bits in any company, and panels and blocks of rows do not show", async () => {
  const options = { type: "BF16", inner: 20_000, outputs: [21], bias: true } as const;
  const all = await productOf(onHost, { ...options, rows: 70, maxRows: 70 });
  expect(wrongness({ ...options, rows: 70, maxRows: 70 }, all)).toBeUndefined();
  for (const rows of [1, 2, 3, 53]) {
    expect(await productOf(onHost, { ...options, rows, maxRows: rows })).toEqual(all.slice(0, rows * 21));
  }
});

test("one kernel's host form takes dispatches of any shape, one after another", async () => {
  const kernel = matmulKernel({ type: "F16" });
  const reused: Run = (source, args, build) => onHost({ ...source, host: kernel.host! }, args, build);
  for (const inner of [300, 8, 77]) {
    const one: MatmulCase = { type: "F16", inner, outputs: [inner + 3], rows: 5, maxRows: 6 };
    expect(wrongness(one, await productOf(reused, one))).toBeUndefined();
  }
});

test("infinities and NaNs of weights stay what they are, in the columns that they are in", async () => {
  for (const type of ["F32", "F16", "BF16"] as const) {
    const one: MatmulCase = { type, inner: 9, outputs: [6], rows: 1, maxRows: 1 };
    const got = await productOf((source, args, build) => {
      const bytes = args[1]!.bytes.slice();
      const bits = type === "F32" ? new Uint32Array(bytes.buffer) : new Uint16Array(bytes.buffer);
      bits[9] = { F32: 0x7f800000, F16: 0x7c00, BF16: 0x7f80 }[type];
      bits[2 * 9 + 8] = { F32: 0x7fc00000, F16: 0x7e00, BF16: 0x7fc0 }[type];
      // The smallest there is.
      bits.fill(0, 27, 36);
      bits[27] = 1;
      const changed = [args[0]!, { bytes }, ...args.slice(2)];
      return onHost(source, changed, build).then((after) => after.with(1, args[1]!.bytes));
    }, one);
    const x = operands(one).x;
    expect(Math.abs(got[1]!)).toBe(Number.POSITIVE_INFINITY);
    expect(got[2]).toBeNaN();
    const least = { F32: 2 ** -149, F16: 2 ** -24, BF16: 2 ** -133 }[type];
    expect(got[3]).toBe(Math.fround(x[0]! * least));
    expect([got[0], got[4], got[5]].every(Number.isFinite)).toBe(true);
  }
});

test("what is of no use is refused", () => {
  const buffer = new Guarded(64);
  const place = { buffer };
  const options = {
    ...{ type: "F32" as const, x: place, weights: [place], info: place, y: place, inner: 4, outputs: [4] },
    ...{ countAt: 0, maxRows: 4 },
  };
  expect(matmulCall(PIPELINE, options).threads).toBe(256);
  const refused = (code: ErrorCode, change: Partial<MatmulOptions>) =>
    expectCode(code, () => matmulCall(PIPELINE, { ...options, ...change }));
  refused("BAD_OPTION", { type: "I8" as "F32" });
  refused("BAD_OPTION", { parts: 4 as 3 });
  refused("BAD_OPTION", { matrixUnits: true });
  refused("BAD_OPTION", { matrixUnits: true, type: "BF16", inner: 24 });
  refused("BAD_OPTION", { parts: 2 });
  refused("BAD_OPTION", { gated: true });
  refused("BAD_OPTION", { gated: true, parts: 2, weights: [place, place], outputs: [4, 3] });
  refused("BAD_OPTION", {
    gated: true,
    parts: 2,
    weights: [place, place],
    outputs: [4, 4],
    accumulate: true,
  });
  refused("BAD_OPTION", { bias: true });
  refused("BAD_OPTION", { inner: 0 });
  refused("BAD_OPTION", { outputs: [0] });
  refused("BAD_OPTION", { maxRows: -1 });
  refused("BAD_OPTION", { x: { buffer, byteOffset: 2 }, maxRows: 1 });
  refused("OUT_OF_RANGE", { maxRows: 5 });
  refused("OUT_OF_RANGE", { outputs: [5] });
  refused("OUT_OF_RANGE", { countAt: 16 });
  refused("OUT_OF_RANGE", { bias: true, biases: [{ buffer, byteOffset: 56 }] });
  buffer.close();
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
        const gated = {
          type: "BF16",
          outputs: [37, 37],
          parts: 2,
          gated: true,
          bias: true,
          inner: 136,
        } as const;
        const sides = { type: "F32", outputs: [40, 9], parts: 2, inner: 203 } as const;
        for (const { options, maxRows } of [
          { options: gated, maxRows: [1, 4, 16, 300] },
          { options: sides, maxRows: [1, 4, 16, 300] },
          { options: { ...gated, matrixUnits: true, inner: 64 }, maxRows: [16, 6144] },
          { options: { ...gated, matrixUnits: true, inner: 576 }, maxRows: [16, 6144] },
        ]) {
          expect(new Set(maxRows.map((most) => matmulTile({ ...options, maxRows: most }))).size).toBe(
            maxRows.length,
          );
          const results: Uint8Array[] = [];
          for (const most of maxRows) {
            const y = await productOf(run, { ...options, rows: Math.min(most, 21), maxRows: most });
            results.push(new Uint8Array(y.buffer, y.byteOffset, y.byteLength));
          }
          const width = "gated" in options ? 37 : 49;
          for (const [i, most] of maxRows.entries()) {
            const bytes = Math.min(most, 16) * width * 4;
            const last = results.at(-1)!.subarray(0, bytes);
            expect(Buffer.compare(results[i]!.subarray(0, bytes), last)).toBe(0);
          }
        }
      }),
    60_000,
  );
});
