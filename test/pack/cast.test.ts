/** Casts of elements, against arithmetic that is exact. */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { CAST_TYPES, Caster, type CastType, castBytes } from "../../src/pack/cast.ts";

function bytesOf(view: ArrayBufferView): Uint8Array {
  return new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
}

/** Casts `input`, placed at an odd address, and gives the target's bytes. */
function cast(from: CastType, to: CastType, input: ArrayBufferView, saturate = false): ArrayBuffer {
  const bytes = bytesOf(input);
  const odd = new Uint8Array(bytes.length + 1).subarray(1);
  odd.set(bytes);
  const target = new Uint8Array((bytes.length / castBytes(from)) * castBytes(to));
  const misfit = new Caster(from, to, saturate).cast(odd, target);
  if (misfit !== undefined) throw new RangeError(`${misfit.index}: ${misfit.value}`);
  return target.buffer;
}

const doubles = fc.oneof(
  fc.double(),
  fc.float(),
  fc.integer().map((value) => value / 4),
  // Near the halves of BF16 and of F16, where a second rounding would show.
  fc
    .tuple(fc.integer({ min: 0x3f80, max: 0x4780 }), fc.integer({ min: -2, max: 2 }), fc.boolean())
    .map(([high, near, negative]) => {
      const middle = new Float32Array(Uint32Array.of((high << 16) | 0x8000).buffer)[0]!;
      const value = middle * (1 + near * 2 ** -50);
      return negative ? -value : value;
    }),
);

/** The nearest BF16 as it is defined: compared with both neighbours. */
function nearestBfloat(value: number): number {
  const valueAt = (bits: number) => new Float32Array(Uint32Array.of(bits << 16).buffer)[0]!;
  const sign = Object.is(value, -0) || value < 0 ? 0x8000 : 0;
  const magnitude = Math.abs(value);
  let low = 0;
  let high = 0x7f80;
  while (high - low > 1) {
    const middle = (low + high) >>> 1;
    if (valueAt(middle) <= magnitude) low = middle;
    else high = middle;
  }
  if (valueAt(low) > magnitude || magnitude === Number.POSITIVE_INFINITY) return sign | 0x7f80;
  // The next beyond the largest would be 2^128.
  const above = high === 0x7f80 ? 2 ** 128 : valueAt(high);
  const down = magnitude - valueAt(low);
  const up = above - magnitude;
  return sign | (down < up || (down === up && low % 2 === 0) ? low : high);
}

describe("floats", () => {
  test("become the nearest BF16, rounded once", () => {
    fc.assert(
      fc.property(fc.array(doubles, { maxLength: 20 }), (values) => {
        const finite = values.filter((value) => !Number.isNaN(value));
        const found = new Uint16Array(cast("F64", "BF16", Float64Array.from(finite)));
        expect([...found]).toEqual(finite.map(nearestBfloat));
      }),
      { numRuns: 300 },
    );
  });

  test("become the nearest F16 and F32, rounded once", () => {
    const values = [
      2049,
      2049 + 2 ** -40,
      2051,
      65519.99,
      65520,
      -65520,
      2 ** -25,
      2 ** -25 * (1 + 2 ** -40),
      1e-9,
      -0,
      Number.NaN,
    ];
    const halves = new Float16Array(cast("F64", "F16", Float64Array.from(values)));
    expect([...halves]).toEqual([2048, 2050, 2052, 65504, Infinity, -Infinity, 0, 2 ** -24, 0, -0, NaN]);
    fc.assert(
      fc.property(fc.array(doubles), (many) => {
        expect([...new Float32Array(cast("F64", "F32", Float64Array.from(many)))]).toEqual(
          many.map(Math.fround),
        );
      }),
    );
  });

  test("of 16 bits become what they are", () => {
    const bits = Uint16Array.from({ length: 65536 }, (_, i) => i);
    const wide = new Float32Array(cast("BF16", "F32", bits));
    expect(
      wide.every((value, i) => Object.is(value, new Float32Array(Uint32Array.of(i << 16).buffer)[0])),
    ).toBe(true);
    const back = new Uint16Array(cast("F32", "BF16", wide));
    // NaNs stay NaN, and get quiet.
    const wrong = [...back].filter((value, i) => value !== i && value !== (i | 0x40));
    expect(wrong).toEqual([]);
    expect(new Float16Array(cast("BF16", "F16", Uint16Array.of(0x3f80, 0x7f80, 0xc000)))).toEqual(
      Float16Array.of(1, Infinity, -2),
    );
  });
});

describe("integers", () => {
  const LIMITS: Record<string, [bigint, bigint]> = Object.fromEntries(
    [8, 16, 32, 64].flatMap((bits) => [
      [`I${bits}`, [-(2n ** BigInt(bits - 1)), 2n ** BigInt(bits - 1) - 1n]],
      [`U${bits}`, [0n, 2n ** BigInt(bits) - 1n]],
    ]),
  );
  const types = Object.keys(LIMITS) as CastType[];
  const write = (type: CastType, values: readonly bigint[]) => {
    const bytes = new Uint8Array(values.length * castBytes(type));
    values.forEach((value, i) => {
      for (let at = 0; at < castBytes(type); at++)
        bytes[i * castBytes(type) + at] = Number((value >> BigInt(8 * at)) & 255n);
    });
    return bytes;
  };
  const clamp = (value: bigint, [least, most]: [bigint, bigint]) =>
    value < least ? least : value > most ? most : value;
  const pairs = types.flatMap((from) => types.map((to) => [from, to] as const));

  test.each(pairs)("%s to %s are exact, or told", (from, to) => {
    const [least, most] = LIMITS[from]!;
    const edges = [least, most, 0n, 1n, -1n, ...LIMITS[to]!, LIMITS[to]![0] - 1n, LIMITS[to]![1] + 1n];
    const inside = edges.filter((value) => value >= least && value <= most);
    const value = fc.oneof(fc.constantFrom(...inside), fc.bigInt(least, most));
    fc.assert(
      fc.property(fc.array(value, { minLength: 1, maxLength: 6 }), (values) => {
        const saturated = new Uint8Array(cast(from, to, write(from, values), true));
        expect(saturated).toEqual(
          write(
            to,
            values.map((one) => clamp(one, LIMITS[to]!)),
          ),
        );
        const odd = values.findIndex((one) => clamp(one, LIMITS[to]!) !== one);
        if (odd < 0) expect(new Uint8Array(cast(from, to, write(from, values)))).toEqual(saturated);
        else expect(() => cast(from, to, write(from, values))).toThrow(`${odd}: ${values[odd]}`);
      }),
      { numRuns: 40 },
    );
  });

  test("of floats are the nearest even, and NaN is told", () => {
    const values = Float64Array.of(0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 2.4, -2.6, 127.4);
    expect([...new Int8Array(cast("F64", "I8", values))]).toEqual([0, 2, 2, 0, -2, -2, 2, -3, 127]);
    expect(() => cast("F32", "I8", Float32Array.of(1, 127.5))).toThrow("1: 127.5");
    expect(() => cast("F32", "I64", Float32Array.of(NaN))).toThrow("0: NaN");
    expect(() => cast("F32", "I64", Float32Array.of(2 ** 63))).toThrow("0: 9223372036854776000");
    expect(
      new BigInt64Array(
        cast("F64", "I64", Float64Array.of(NaN, 1e300, -1e300, -(2 ** 63), 2 ** 62 + 2 ** 40), true),
      ),
    ).toEqual(BigInt64Array.of(0n, 2n ** 63n - 1n, -(2n ** 63n), -(2n ** 63n), 2n ** 62n + 2n ** 40n));
    expect(new BigUint64Array(cast("F64", "U64", Float64Array.of(2 ** 63 + 2 ** 12, 1e300), true))).toEqual(
      BigUint64Array.of(2n ** 63n + 2n ** 12n, 2n ** 64n - 1n),
    );
  });

  test("of 64 bits become the nearest float, rounded once", () => {
    // Halfway between two F32s but for the lowest bit, which a double drops.
    const middle = 2n ** 60n + 2n ** 36n;
    const found = new Float32Array(
      cast("I64", "F32", BigInt64Array.of(middle, middle + 1n, -middle - 1n, 2n ** 53n + 1n)),
    );
    expect([...found]).toEqual([2 ** 60, 2 ** 60 + 2 ** 37, -(2 ** 60) - 2 ** 37, 2 ** 53]);
    fc.assert(
      fc.property(fc.bigInt(0n, 2n ** 64n - 1n), (value) => {
        const [near] = new Float32Array(cast("U64", "F32", BigUint64Array.of(value)));
        const off = (float: number) => {
          const difference = BigInt(float) - value;
          return difference < 0n ? -difference : difference;
        };
        const bits = new Uint32Array(Float32Array.of(near!).buffer)[0]!;
        const neighbours = [bits - 1, bits + 1].map(
          (one) => new Float32Array(Uint32Array.of(one).buffer)[0]!,
        );
        for (const other of neighbours)
          if (Number.isFinite(other) && value > 0n) expect(off(near!) <= off(Math.round(other))).toBe(true);
      }),
    );
  });
});

test("all pairs give as many elements, over more than a block", () => {
  for (const from of CAST_TYPES) {
    for (const to of CAST_TYPES) {
      const ones = cast("U8", from, new Uint8Array(20_000).fill(1));
      expect(cast(from, to, new Uint8Array(ones))).toEqual(cast("U8", to, new Uint8Array(20_000).fill(1)));
    }
  }
});

test("BOOL is 1 for all that is not zero", () => {
  expect(new Uint8Array(cast("F32", "BOOL", Float32Array.of(0, -0, 0.1, NaN, -5)))).toEqual(
    Uint8Array.of(0, 0, 1, 1, 1),
  );
});
