/** Rows by index, in the host's form and as C++, against a loop. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import fc from "fast-check";
import type { DispatchCall } from "../../../src/device/requests.ts";
import { type GatherOptions, gatherCall, gatherKernel } from "../../../src/kernels/gather.ts";
import { expectBytes, expectCode } from "../../conformance/harness.ts";
import { type Compiled, compileKernel, compiler } from "./cxx.ts";
import { Guarded, noise, PIPELINE, runCxx, runHost } from "./memory.ts";

const FILL = 0xa5;
let cxx: Compiled | undefined;
beforeAll(() => {
  if (compiler !== null) cxx = compileKernel(gatherKernel);
});
afterAll(() => cxx?.[Symbol.dispose]());

const forms = [
  { form: "the host's form", run: (call: DispatchCall) => runHost(gatherKernel, call) },
  ...(compiler === null ? [] : [{ form: "C++", run: (call: DispatchCall) => runCxx(cxx!.run, call) }]),
];

describe.each(forms)("gathers as $form", ({ run }) => {
  const shape = fc.record({
    rowBytes: fc.oneof(fc.nat(40), fc.nat(3000)),
    numRows: fc.nat(9),
    indices: fc.array(fc.oneof(fc.nat(10), fc.constant(2 ** 32 - 1)), { maxLength: 12 }),
    sourceGap: fc.nat(20),
    targetGap: fc.nat(20),
    before: fc.nat(20),
    offset: fc.nat(20),
  });

  test("rows of any length, stride and alignment, and zeros for rows that are not there", () => {
    const check = (value: typeof shape extends fc.Arbitrary<infer T> ? T : never) => {
      const { rowBytes, numRows, indices, sourceGap, targetGap, before, offset } = value;
      const sourceStride = rowBytes + sourceGap;
      const targetStride = rowBytes + targetGap;
      const span = (rows: number, stride: number) => (rows === 0 ? 0 : (rows - 1) * stride + rowBytes);
      using source = new Guarded(before + span(numRows, sourceStride));
      using index = new Guarded(indices.length * 4);
      using target = new Guarded(offset + span(indices.length, targetStride), FILL);
      using errors = new Guarded(4);
      source.bytes.set(noise(source.byteLength));
      new Uint32Array(index.bytes.buffer).set(indices);
      new Uint32Array(errors.bytes.buffer)[0] = 7;
      const expected = target.bytes.slice();
      for (const [i, row] of indices.entries()) {
        const at = before + row * sourceStride;
        const bytes = row < numRows ? source.bytes.slice(at, at + rowBytes) : new Uint8Array(rowBytes);
        expected.set(bytes, offset + i * targetStride);
      }
      const rows = { numRows, rowBytes, sourceStride, targetStride, count: indices.length };
      const places = {
        source: { buffer: source, byteOffset: before },
        indices: { buffer: index },
        target: { buffer: target, byteOffset: offset },
        errors: { buffer: errors },
      };
      run(gatherCall(PIPELINE, { ...rows, ...places }));
      expectBytes(target.bytes, expected);
      const wrong = indices.filter((row) => row >= numRows).length;
      expect(new Uint32Array(errors.bytes.buffer)[0]).toBe(7 + wrong);
    };
    fc.assert(fc.property(shape, check), { numRuns: 400 });
  });

  test("with fewer threads than rows", () => {
    using source = new Guarded(1000);
    using indices = new Guarded(400);
    using target = new Guarded(1000);
    using errors = new Guarded(4);
    source.bytes.set(noise(1000));
    const order = Array.from({ length: 100 }, (_, i) => (i * 37) % 100);
    new Uint32Array(indices.bytes.buffer).set(order);
    const places = { source, indices, target, errors };
    const call = gatherCall(PIPELINE, { ...placesOf(places), numRows: 100, rowBytes: 10, count: 100 });
    run({ ...call, threads: 7 });
    expectBytes(
      target.bytes,
      Uint8Array.from(order.flatMap((row) => [...source.bytes.subarray(row * 10, row * 10 + 10)])),
    );
  });
});

function placesOf<K extends string>(buffers: Readonly<Record<K, Guarded>>): Record<K, { buffer: Guarded }> {
  const entries = Object.entries<Guarded>(buffers).map(([name, buffer]) => [name, { buffer }]);
  return Object.fromEntries(entries) as Record<K, { buffer: Guarded }>;
}

test("rows that do not lie in their buffers are refused", () => {
  using source = new Guarded(100);
  using indices = new Guarded(40);
  using target = new Guarded(100);
  using errors = new Guarded(8);
  const places = placesOf({ source, indices, target, errors });
  const call = (change: Partial<GatherOptions>) => () =>
    gatherCall(PIPELINE, { ...places, numRows: 10, rowBytes: 10, count: 10, ...change });
  expect(call({})().threads).toBe(10);
  expectCode("OUT_OF_RANGE", call({ numRows: 11 }));
  expectCode("OUT_OF_RANGE", call({ sourceStride: 11 }));
  expect(call({ sourceStride: 10, numRows: 10 })).not.toThrow();
  expect(call({ sourceStride: 0, numRows: 2 ** 32 - 1 })).not.toThrow();
  expectCode("OUT_OF_RANGE", call({ count: 11 }));
  expectCode("OUT_OF_RANGE", call({ targetStride: 11 }));
  expectCode("BAD_OPTION", call({ targetStride: 9 }));
  expectCode("BAD_OPTION", call({ rowBytes: -1 }));
  expectCode("BAD_OPTION", call({ numRows: 2 ** 32 }));
  expectCode("BAD_OPTION", call({ errors: { buffer: errors, byteOffset: 1 } }));
  expectCode("OUT_OF_RANGE", call({ errors: { buffer: errors, byteOffset: 5 } }));
  expectCode("BAD_OPTION", call({ indices: { buffer: indices, byteOffset: 2 }, count: 9 }));
});
