/** The modules for WebAssembly: that they are what their texts say, and the exponential of one. */
import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { assembleWasm, WASM_MODULES } from "../../../scripts/make-wasm.ts";
import { Simd } from "../../../src/kernels/wasm/simd.ts";

test.each(WASM_MODULES)("%s is made of its text; bun scripts/make-wasm.ts makes it anew", async (module) => {
  const committed = readFileSync(new URL(`../../../${module}.wasm`, import.meta.url));
  expect(Buffer.compare(await assembleWasm(module), committed)).toBe(0);
});

test("gates are right to a few units in the last place, from end to end of the floats", () => {
  const simd = new Simd();
  const edges = [
    0,
    1e-30,
    87,
    88.7,
    88.75,
    89.5,
    103,
    104.5,
    150,
    1e30,
    3.4e38,
    Number.POSITIVE_INFINITY,
    Number.NaN,
  ];
  const inputs = [...edges, ...edges.map((x) => -x)];
  for (let x = -20; x < 20; x += 0.0371) inputs.push(x);
  while (inputs.length % 4 !== 0) inputs.push(1);
  const count = inputs.length;
  simd.reserve(count * 8);
  simd.floats.set(inputs);
  simd.floats.fill(1, count, 2 * count);
  simd.run.gate(0, count * 4, count);
  for (const [i, input] of inputs.entries()) {
    const x = Math.fround(input);
    const want = x / (1 + Math.exp(-x));
    const got = simd.floats[i]!;
    if (Number.isNaN(want)) expect(got).toBeNaN();
    // Past the largest power of e that is a float, results are 0.
    else if (x < -88.72) expect(Math.abs(got)).toBeLessThanOrEqual(Math.abs(want) + 1e-36);
    else if (Number.isFinite(want))
      expect(Math.abs(got - want)).toBeLessThanOrEqual(Math.abs(want) * 2 ** -21);
    else expect(got).toBe(want);
  }
});

test("its memory grows with what is asked for, and no more", () => {
  const simd = new Simd();
  simd.reserve(100_000);
  const { bytes } = simd;
  expect(bytes.length).toBe(131_072);
  simd.reserve(131_072);
  expect(simd.bytes).toBe(bytes);
  expect(() => simd.reserve(2 ** 33)).toThrow(RangeError);
});
