/** Inputs of a vendor's products: rounded once, gated or not, and nothing past the rows that count. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import type { KernelSource } from "../../../src/device/device.ts";
import { narrowRowsCall, narrowRowsKernel } from "../../../src/kernels/narrow.ts";
import { WEIGHT_BYTES, WEIGHT_TYPES } from "../../../src/kernels/weights.ts";
import { expectCode } from "../../conformance/harness.ts";
import { type CompiledAll, compileKernels, compiler } from "./cxx.ts";
import { elementsOf, floats, infoOf, poison, useForms, valuesOf } from "./forms.ts";
import { Guarded, PIPELINE, runCxx, runHost } from "./memory.ts";

const plain = WEIGHT_TYPES.map((to) => narrowRowsKernel({ to }));
const gated = WEIGHT_TYPES.map((to) => narrowRowsKernel({ to, gated: true }));
/** Half a unit in the last place, and what two forms of an exponential may differ by. */
const NEAR = { F32: 2 ** -21, F16: 2 ** -10, BF16: 2 ** -7 } as const;

describe.each(WEIGHT_TYPES.map((to, i) => [to, plain[i]!] as const))("to %s", (to, kernel) => {
  const run = useForms(plain);

  test.each([1, 3, 64, 577])("rows of %i elements", (width) => {
    const x = floats(4 * width, width, 300);
    const left = poison(4 * width);
    const y = run(kernel, [x, infoOf(3, 2), left], (at) =>
      narrowRowsCall(PIPELINE, {
        ...{ to, x: at[0]!, info: at[1]!, y: at[2]!, width, countAt: 2, maxRows: 4 },
      }),
    )[2]!;
    const bytes = 3 * width * WEIGHT_BYTES[to];
    const wanted = elementsOf(to, x.slice(0, 3 * width));
    expect(y.slice(0, bytes)).toEqual(new Uint8Array(wanted.buffer));
    expect(y.slice(bytes)).toEqual(new Uint8Array(left.buffer).slice(bytes));
  });
});

describe.each(WEIGHT_TYPES.map((to, i) => ({ to, kernel: gated[i]!, i })))("gated, to $to", (of) => {
  let compiled: CompiledAll | undefined;
  beforeAll(() => {
    if (compiler !== null) compiled = compileKernels(gated);
  });
  afterAll(() => compiled?.[Symbol.dispose]());

  /** What one form makes of it. */
  function runForm(kernel: KernelSource, isHost: boolean, x: Float32Array, width: number): Uint8Array {
    const buffers = [new Uint8Array(x.buffer), new Uint8Array(infoOf(3).buffer)];
    buffers.push(new Uint8Array(poison(4 * width).buffer));
    const guarded = buffers.map((bytes) => {
      const one = new Guarded(bytes.length);
      one.bytes.set(bytes);
      return one;
    });
    try {
      const [at, info, y] = guarded.map((buffer) => ({ buffer }));
      const rows = { info: info!, countAt: 0, maxRows: 4 };
      const call = narrowRowsCall(PIPELINE, { to: of.to, gated: true, x: at!, y: y!, width, ...rows });
      if (isHost) runHost(kernel, call);
      else runCxx(compiled!.runs[of.i]!, call);
      return guarded[2]!.bytes.slice();
    } finally {
      for (const buffer of guarded) buffer.close();
    }
  }

  for (const isHost of [true, false]) {
    test.skipIf(!isHost && compiler === null)(isHost ? "in TypeScript" : "as C++", () => {
      for (const width of [1, 5, 96]) {
        const x = floats(8 * width, width + 1, 12);
        const bytes = runForm(of.kernel, isHost, x, width);
        const size = WEIGHT_BYTES[of.to];
        const Elements = of.to === "F32" ? Float32Array : Uint16Array;
        const got = valuesOf(of.to, new Elements(bytes.slice(0, 3 * width * size).buffer));
        for (const [at, value] of got.entries()) {
          const first = Math.floor(at / width) * 2 * width + (at % width);
          const [gate, up] = [x[first]!, x[first + width]!];
          const wanted = (gate / (1 + Math.exp(-gate))) * up;
          expect(Math.abs(value - wanted)).toBeLessThanOrEqual(NEAR[of.to] * Math.abs(wanted) + 2 ** -24);
        }
        const rest = bytes.slice(3 * width * size);
        expect(rest).toEqual(new Uint8Array(poison(4 * width).buffer).slice(3 * width * size));
      }
    });
  }
});

test("what does not fit is refused", () => {
  expectCode("BAD_OPTION", () => narrowRowsKernel({ to: "I8" as "F32" }));
  const buffers = [64, 32, 32].map((length) => new Guarded(length));
  const [x, info, y] = buffers.map((buffer) => ({ buffer }));
  const good = { to: "F16", x: x!, info: info!, y: y!, width: 4, countAt: 0, maxRows: 4 } as const;
  narrowRowsCall(PIPELINE, good);
  expectCode("OUT_OF_RANGE", () => narrowRowsCall(PIPELINE, { ...good, gated: true }));
  expectCode("OUT_OF_RANGE", () => narrowRowsCall(PIPELINE, { ...good, to: "F32" }));
  expectCode("BAD_OPTION", () => narrowRowsCall(PIPELINE, { ...good, width: 0 }));
  expectCode("OUT_OF_RANGE", () => narrowRowsCall(PIPELINE, { ...good, countAt: 8 }));
  for (const buffer of buffers) buffer.close();
});
