/** RMSNorm: what its formula says, the same for a row whatever is beside it. */
import { describe, expect, test } from "bun:test";
import { type RmsNormOptions, rmsNormCall, rmsNormKernel } from "../../../src/kernels/norm.ts";
import { WEIGHT_TYPES } from "../../../src/kernels/weights.ts";
import { expectCode } from "../../conformance/harness.ts";
import { elementsOf, floats, floatsIn, infoOf, poison, useForms, valuesOf, wordsIn } from "./forms.ts";
import { Guarded, PIPELINE } from "./memory.ts";

const plain = WEIGHT_TYPES.map((type) => rmsNormKernel({ type }));
const indexed = rmsNormKernel({ type: "F32", indexed: true });
const run = useForms([...plain, indexed]);
const EPS = 1e-5;

/** The formula in doubles. */
function defined(x: Float32Array, weight: Float32Array): number[] {
  const mean = x.reduce((sum, value) => sum + value * value, 0) / x.length;
  return Array.from(x, (value, i) => (value / Math.sqrt(mean + EPS)) * weight[i]!);
}

function expectNear(actual: Float32Array, expected: readonly number[]): void {
  expect(actual.length).toBe(expected.length);
  for (const [i, value] of expected.entries()) {
    if (Math.abs(actual[i]! - value) > 2e-6 * Math.abs(value) + 1e-37) expect(actual[i]).toBe(value);
  }
}

describe.each(WEIGHT_TYPES.map((type, i) => ({ type, kernel: plain[i]! })))("with weights of $type", (of) => {
  test.each([1, 3, 4, 7, 130, 192, 576, 1021, 1024, 1025, 4100])("rows of %i elements", (hidden) => {
    const x = floats(4 * hidden, hidden, 3);
    const weight = elementsOf(of.type, floats(hidden, 5, 2));
    const y = run(of.kernel, [x, weight, infoOf(3, 1), poison(4 * hidden)], (at) =>
      rmsNormCall(PIPELINE, {
        ...{ type: of.type, x: at[0]!, weight: at[1]!, info: at[2]!, y: at[3]! },
        ...{ hidden, eps: EPS, countAt: 1, maxRows: 4 },
      }),
    )[3]!;
    for (let row = 0; row < 3; row++) {
      const range = [row * hidden, (row + 1) * hidden] as const;
      expectNear(floatsIn(y).subarray(...range), defined(x.subarray(...range), valuesOf(of.type, weight)));
    }
    expect(
      wordsIn(y)
        .subarray(3 * hidden)
        .every((word) => word === 0x7fa5a5a5),
    ).toBe(true);
  });
});

test("rows by their numbers are those rows, bit by bit, and NaN where there is none", () => {
  const hidden = 577;
  const x = floats(5 * hidden, 3);
  const weight = floats(hidden, 4);
  const options = { type: "F32", hidden, eps: EPS, countAt: 0 } as const;
  const all = run(plain[0]!, [x, weight, infoOf(5), poison(5 * hidden)], (at) =>
    rmsNormCall(PIPELINE, { ...options, x: at[0]!, weight: at[1]!, info: at[2]!, y: at[3]!, maxRows: 5 }),
  )[3]!;
  const numbers = Uint32Array.of(4, 0, 5, 4, 2 ** 32 - 1, 2, 1);
  const some = run(indexed, [x, numbers, weight, infoOf(6), poison(7 * hidden)], (at) =>
    rmsNormCall(PIPELINE, {
      ...{ ...options, indexed: true, inputRows: 5, maxRows: 7 },
      ...{ x: at[0]!, rows: at[1]!, weight: at[2]!, info: at[3]!, y: at[4]! },
    }),
  )[4]!;
  for (let i = 0; i < 6; i++) {
    const got = floatsIn(some).subarray(i * hidden, (i + 1) * hidden);
    const row = numbers[i]!;
    if (row >= 5) expect(got.every(Number.isNaN)).toBe(true);
    else expect(got).toEqual(floatsIn(all).subarray(row * hidden, (row + 1) * hidden));
  }
  expect(wordsIn(some)[6 * hidden]).toBe(0x7fa5a5a5);
});

test("y may be x", () => {
  const hidden = 192;
  const x = floats(2 * hidden, 9);
  const weight = floats(hidden, 4);
  const options = { type: "F32", hidden, eps: EPS, countAt: 0, maxRows: 2 } as const;
  const apart = run(plain[0]!, [x, weight, infoOf(2), poison(2 * hidden)], (at) =>
    rmsNormCall(PIPELINE, { ...options, x: at[0]!, weight: at[1]!, info: at[2]!, y: at[3]! }),
  )[3]!;
  const inPlace = run(plain[0]!, [x, weight, infoOf(99)], (at) =>
    rmsNormCall(PIPELINE, { ...options, x: at[0]!, weight: at[1]!, info: at[2]!, y: at[0]! }),
  )[0]!;
  expect(inPlace).toEqual(apart);
});

test("a row of zeros and one of huge numbers", () => {
  const hidden = 64;
  const x = new Float32Array(2 * hidden).fill(1e18, hidden);
  const weight = new Float32Array(hidden).fill(1);
  const y = run(plain[0]!, [x, weight, infoOf(2), poison(2 * hidden)], (at) =>
    rmsNormCall(PIPELINE, {
      ...{ type: "F32", x: at[0]!, weight: at[1]!, info: at[2]!, y: at[3]! },
      ...{ hidden, eps: EPS, countAt: 0, maxRows: 2 },
    }),
  )[3]!;
  expect(
    floatsIn(y)
      .subarray(0, hidden)
      .every((value) => value === 0),
  ).toBe(true);
  expect(
    floatsIn(y)
      .subarray(hidden)
      .every((value) => Math.abs(value - 1) < 1e-6),
  ).toBe(true);
});

test("a call checks its options", () => {
  using buffer = new Guarded(4096);
  const place = { buffer };
  const options: RmsNormOptions = {
    ...{ type: "F32", x: place, weight: place, info: place, y: place },
    ...{ hidden: 16, eps: EPS, countAt: 0, maxRows: 4 },
  };
  const call = (change: Partial<RmsNormOptions>) => () => rmsNormCall(PIPELINE, { ...options, ...change });
  expect(call({})().threads).toBe(1024);
  const rows = { indexed: true, rows: place, inputRows: 64 };
  expect(call(rows)().buffers).toHaveLength(5);
  expectCode("BAD_OPTION", call({ indexed: true }));
  expectCode("BAD_OPTION", call({ indexed: true, rows: place }));
  expectCode("BAD_OPTION", call({ rows: place, inputRows: 3 }));
  expectCode("OUT_OF_RANGE", call({ ...rows, inputRows: 65 }));
  expectCode("BAD_OPTION", call({ eps: -1 }));
  expectCode("BAD_OPTION", call({ eps: Number.NaN }));
  expectCode("BAD_OPTION", call({ hidden: 0 }));
  const large = { buffer: { byteLength: 2 ** 40, gpuAddress: 4096 } as Guarded };
  expect(call({ x: large, y: large, maxRows: 2 ** 24 - 1 })().threads).toBe(2 ** 32 - 256);
  expectCode("BAD_OPTION", call({ x: large, y: large, maxRows: 2 ** 24 }));
  expectCode("BAD_OPTION", call({ y: { buffer, byteOffset: 1 } }));
  expectCode("OUT_OF_RANGE", call({ maxRows: 65 }));
  expectCode("OUT_OF_RANGE", call({ weight: { buffer, byteOffset: 4096 - 60 } }));
  expectCode("BAD_OPTION", () => rmsNormKernel({ type: "U8" as "F32" }));
});
