/** Conversions, in the host's form and as C++, against numbers calculated another way. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import fc from "fast-check";
import {
  type Conversion,
  type ConvertOptions,
  convertCall,
  convertKernel,
} from "../../../src/kernels/convert.ts";
import type { ConvertSource, ConvertTarget } from "../../../src/kernels/elements.ts";
import { floatBitsToBfloat, floatBitsToHalf, halfToFloatBits } from "../../../src/kernels/floats.ts";
import { expectBytes, expectCode } from "../../conformance/harness.ts";
import { type CompiledAll, compileKernels, compiler } from "./cxx.ts";
import { Guarded, noise, PIPELINE, runCxx, runHost } from "./memory.ts";

const INTEGERS = ["I8", "U8", "I16", "U16", "I32", "U32"] as const;
const FLOATS = ["F32", "F16", "BF16"] as const;
const BYTES: Readonly<Record<ConvertSource, number>> = {
  F32: 4,
  F16: 2,
  BF16: 2,
  I8: 1,
  U8: 1,
  I16: 2,
  U16: 2,
  I32: 4,
  U32: 4,
};
const PAIRS: readonly (readonly [ConvertSource, ConvertTarget])[] = [
  ...FLOATS.flatMap((from) =>
    [...FLOATS, "I32", "I8", "U8"].map((to) => [from, to as ConvertTarget] as const),
  ),
  ...INTEGERS.flatMap((from) => FLOATS.map((to) => [from, to] as const)),
];
const CONVERSIONS: readonly Conversion[] = PAIRS.flatMap(([from, to]) =>
  [false, true].map((scaled) => ({ from, to, scaled })),
);
const nameOf = ({ from, to, scaled }: Conversion) => `${from} to ${to}${scaled ? " with scale" : ""}`;

let cxx: CompiledAll | undefined;
beforeAll(() => {
  if (compiler !== null) cxx = compileKernels(CONVERSIONS.map(convertKernel));
}, 60_000);
afterAll(() => cxx?.[Symbol.dispose]());

/** Reads an element as a number; JavaScript's own views do it but for BF16. */
function readOf(type: ConvertSource, view: DataView, index: number): number {
  const at = index * BYTES[type];
  switch (type) {
    case "F32":
      return view.getFloat32(at, true);
    case "F16":
      return view.getFloat16(at, true);
    case "BF16": {
      const wide = new DataView(new ArrayBuffer(4));
      wide.setUint16(2, view.getUint16(at, true), true);
      return wide.getFloat32(0, true);
    }
    case "I8":
      return view.getInt8(at);
    case "U8":
      return view.getUint8(at);
    case "I16":
      return view.getInt16(at, true);
    case "U16":
      return view.getUint16(at, true);
    case "I32":
      return view.getInt32(at, true);
    default:
      return view.getUint32(at, true);
  }
}

/** The BF16 nearest to an F32 by comparing its two neighbours. */
function nearestBfloat(value: number): number {
  if (Number.isNaN(value)) return Number.NaN;
  const wide = new DataView(new ArrayBuffer(4));
  wide.setFloat32(0, value, true);
  const bits = wide.getUint32(0, true);
  const numberOf = (one: number) => {
    // What would come after the largest number, where rounding is concerned.
    if ((one & 0x7fff) === 0x7f80) return one < 0x8000 ? 2 ** 128 : -(2 ** 128);
    wide.setUint32(0, one << 16, true);
    return wide.getFloat32(0, true);
  };
  const low = bits >>> 16;
  if ((bits & 0x7fffffff) === 0x7f800000) return value;
  const [below, above] = [numberOf(low), numberOf(low + 1)];
  const [down, up] = [Math.abs(value - below), Math.abs(above - value)];
  const nearest = down < up || (down === up && low % 2 === 0) ? below : above;
  return Math.abs(nearest) === 2 ** 128 ? Math.sign(nearest) * Number.POSITIVE_INFINITY : nearest;
}

/** What an F32 becomes, as a number. */
function wanted(type: ConvertTarget, value: number): number {
  if (type === "F32") return value;
  if (type === "F16") return Math.f16round(value);
  if (type === "BF16") return nearestBfloat(value);
  if (Number.isNaN(value)) return 0;
  const [least, most] = { I8: [-128, 127], U8: [0, 255], I32: [-2147483648, 2147483647] }[type] as [
    number,
    number,
  ];
  const clamped = Math.min(most, Math.max(least, value));
  const twice = clamped * 2;
  const isTie = Number.isInteger(twice) && twice % 2 !== 0;
  return (isTie ? 2 * Math.round(clamped / 2) : Math.round(clamped)) + 0;
}

/** Bytes of a source that have every kind of number, and the values around which rounding turns. */
function sourceBytes(type: ConvertSource, count: number): Uint8Array {
  const bytes = noise(count * BYTES[type], 77);
  if (type !== "F32") return bytes;
  const view = new DataView(bytes.buffer);
  const special = [
    0,
    -0,
    0.5,
    1.5,
    2.5,
    -0.5,
    -1.5,
    -2.5,
    126.5,
    127.5,
    127.49999,
    -128.5,
    -129,
    254.5,
    255.5,
    256,
    65504,
    65519.99,
    65520,
    65536,
    2 ** 22 + 0.5,
    2 ** 23 - 0.5,
    2 ** 23 + 1,
    2 ** 31,
    -(2 ** 31),
    2147483520,
    2 ** -14,
    2 ** -24,
    2 ** -25,
    1.5 * 2 ** -25,
    2 ** -126,
    2 ** -149,
    3.4e38,
    1e38,
    Number.POSITIVE_INFINITY,
    Number.NEGATIVE_INFINITY,
    Number.NaN,
  ];
  for (const [i, value] of special.entries()) if (i < count) view.setFloat32(i * 4, value, true);
  // Small numbers, which noise over all exponents hardly ever gives.
  for (let i = special.length; i < count / 2; i++) view.setFloat32(i * 4, (i - count / 4) * 0.37, true);
  return bytes;
}

const SCALE = 0.75;
const BIAS = -3.5;

/** Converts by the host's form, and checks the numbers. */
function checkHost(conversion: Conversion): void {
  const { from, to, scaled = false } = conversion;
  const count = from === "F16" || from === "BF16" || from === "I16" || from === "U16" ? 65_536 : 4000;
  using source = new Guarded(count * BYTES[from]);
  using target = new Guarded(count * BYTES[to]);
  if (count === 65_536)
    new Uint16Array(source.bytes.buffer).set(Uint16Array.from({ length: count }, (_, i) => i));
  else source.bytes.set(sourceBytes(from, count));
  const change = scaled ? { scale: SCALE, bias: BIAS } : {};
  const places = { source: { buffer: source }, target: { buffer: target } };
  runHost(convertKernel(conversion), convertCall(PIPELINE, { ...conversion, ...places, count, ...change }));
  const read = new DataView(source.bytes.buffer);
  const written = new DataView(target.bytes.buffer);
  for (let i = 0; i < count; i++) {
    const plain = Math.fround(readOf(from, read, i));
    const value = scaled ? Math.fround(Math.fround(plain * SCALE) + BIAS) : plain;
    const got = readOf(to, written, i);
    if (!Object.is(got, wanted(to, value))) {
      throw new Error(`element ${i}: ${plain} became ${got} and should be ${wanted(to, value)}`);
    }
  }
}

/** Bytes in which every NaN is the same one. */
function withoutPayloads(type: ConvertTarget, bytes: Uint8Array): Uint8Array {
  const view = new DataView(bytes.slice().buffer);
  for (let i = 0; i < bytes.length / BYTES[type]; i++) {
    if (!Number.isNaN(readOf(type, view, i))) continue;
    if (BYTES[type] === 4) view.setUint32(i * 4, 0x7fc00000, true);
    else view.setUint16(i * 2, 0x7fff, true);
  }
  return new Uint8Array(view.buffer);
}

/** Runs both forms over the same elements `offset` elements past an aligned place. */
function checkCxx(conversion: Conversion, count: number, offset: number, scale: number, bias: number): void {
  const { from, to, scaled = false } = conversion;
  const run = cxx!.runs[CONVERSIONS.indexOf(conversion)]!;
  const first = offset * BYTES[from];
  // Either may lie aligned where the other does not.
  const firstOut = (offset % 3) * BYTES[to];
  using source = new Guarded(first + count * BYTES[from], 0, "start");
  using byHost = new Guarded(firstOut + count * BYTES[to], 0xa5, "start");
  using byCxx = new Guarded(firstOut + count * BYTES[to], 0xa5, "start");
  source.bytes.set(sourceBytes(from, count), first);
  const call = (buffer: Guarded) =>
    convertCall(PIPELINE, {
      ...conversion,
      source: { buffer: source, byteOffset: first },
      target: { buffer, byteOffset: firstOut },
      count,
      ...(scaled ? { scale, bias } : {}),
    });
  runHost(convertKernel(conversion), call(byHost));
  runCxx(run, call(byCxx));
  if (!scaled) expectBytes(byCxx.bytes, byHost.bytes);
  else expectBytes(withoutPayloads(to, byCxx.bytes), withoutPayloads(to, byHost.bytes));
}

describe("the host's conversion of", () => {
  test.each(CONVERSIONS.map((conversion) => ({ name: nameOf(conversion), conversion })))(
    "$name",
    ({ conversion }) => checkHost(conversion),
  );
});

describe.skipIf(compiler === null)("C++ converts as the host", () => {
  test("from any place, with any scale and bias", () => {
    for (const one of CONVERSIONS) {
      checkCxx(one, 3000, 0, 1.5, 0.25);
      checkCxx(one, 3000, 1, -3, 1e-3);
    }
    const float = fc.float({ noNaN: true });
    fc.assert(fc.property(fc.constantFrom(...CONVERSIONS), fc.nat(70), fc.nat(9), float, float, checkCxx), {
      numRuns: 500,
    });
  });
});

test("every F16 becomes its F32 and comes back", () => {
  for (let half = 0; half < 65_536; half++) {
    const isNotNumber = (half & 0x7fff) > 0x7c00;
    // A signalling NaN comes back as a quiet one.
    expect(floatBitsToHalf(halfToFloatBits(half))).toBe(isNotNumber ? half | 0x200 : half);
  }
});

test("NaNs keep their sign, and never become infinite", () => {
  for (const bits of [0x7f800001, 0xff800001, 0x7fffffff, 0xffc00000]) {
    const sign = bits >>> 31;
    expect(floatBitsToHalf(bits) >>> 15).toBe(sign);
    expect(floatBitsToHalf(bits) & 0x7fff).toBeGreaterThan(0x7c00);
    expect(floatBitsToBfloat(bits) >>> 15).toBe(sign);
    expect(floatBitsToBfloat(bits) & 0x7fff).toBeGreaterThan(0x7f80);
  }
});

test("what has no conversion, and bad places, are refused", () => {
  expectCode("BAD_OPTION", () => convertKernel({ from: "I8", to: "I32" }));
  expectCode("BAD_OPTION", () => convertKernel({ from: "F64" as "F32", to: "F32" }));
  expectCode("BAD_OPTION", () => convertKernel({ from: "F32", to: "U16" as "U8" }));
  using buffer = new Guarded(64);
  const call = (change: Partial<ConvertOptions>) => () =>
    convertCall(PIPELINE, {
      from: "F16",
      to: "F32",
      source: { buffer },
      target: { buffer },
      count: 16,
      ...change,
    });
  expect(call({})().threads).toBe(4);
  expectCode("OUT_OF_RANGE", call({ count: 17 }));
  expectCode("OUT_OF_RANGE", call({ source: { buffer, byteOffset: 34 } }));
  expectCode("BAD_OPTION", call({ source: { buffer, byteOffset: 1 } }));
  expectCode("BAD_OPTION", call({ target: { buffer, byteOffset: 2 }, count: 1 }));
  expectCode("BAD_OPTION", call({ scale: 2 }));
  expectCode("BAD_OPTION", call({ count: 1.5 }));
});
