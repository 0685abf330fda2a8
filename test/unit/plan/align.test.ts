import { expect, test } from "bun:test";
import fc from "fast-check";
import { roundUp } from "../../../src/plan/align.ts";
import { expectCode } from "./expect-code.ts";

test("is the least multiple that is not below, for any safe integers", () => {
  const n = fc.oneof(fc.maxSafeNat(), fc.nat(100_000));
  const multiple = fc.oneof(fc.integer({ min: 1, max: 2 ** 31 }), fc.integer({ min: 1, max: 64 }));
  fc.assert(
    fc.property(n, multiple, (n, multiple) => {
      const exact = ((BigInt(n) + BigInt(multiple) - 1n) / BigInt(multiple)) * BigInt(multiple);
      if (exact > BigInt(Number.MAX_SAFE_INTEGER)) {
        expectCode("OUT_OF_RANGE", [n, multiple], () => roundUp(n, multiple));
      } else {
        expect(BigInt(roundUp(n, multiple))).toBe(exact);
      }
    }),
  );
});

test.each([
  [0, 16384, 0],
  [1, 16384, 16384],
  [40_000, 16384, 49152],
  [16384, 16384, 16384],
  [7, 3, 9],
  [Number.MAX_SAFE_INTEGER, 1, Number.MAX_SAFE_INTEGER],
])("%d to a multiple of %d is %d", (n, multiple, expected) => {
  expect(roundUp(n, multiple)).toBe(expected);
});

test.each([
  [-1, 8],
  [1.5, 8],
  [Number.NaN, 8],
  [8, 0],
  [8, -8],
  [8, 0.5],
  [Number.MAX_SAFE_INTEGER, 16384],
  [2 ** 53, 1],
])("%d to a multiple of %d is refused", (n, multiple) => {
  expectCode("OUT_OF_RANGE", [n, multiple], () => roundUp(n, multiple));
});
