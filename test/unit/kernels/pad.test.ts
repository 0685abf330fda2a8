/** Padding with a mask, in the host's form and as C++, against a loop over elements. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import fc from "fast-check";
import type { DispatchCall } from "../../../src/device/requests.ts";
import {
  type PadAndMaskOptions,
  type PadElementBytes,
  padAndMaskCall,
  padAndMaskKernel,
} from "../../../src/kernels/pad.ts";
import { expectBytes, expectCode } from "../../conformance/harness.ts";
import { type CompiledAll, compileKernels, compiler } from "./cxx.ts";
import { Guarded, noise, PIPELINE, runCxx, runHost } from "./memory.ts";

const FILL = 0xa5;
const SIZES = [
  [1, 4],
  [2, 4],
  [4, 4],
  [8, 4],
  [4, 8],
] as const;
let cxx: CompiledAll | undefined;
beforeAll(() => {
  if (compiler === null) return;
  cxx = compileKernels(SIZES.map(([element, offset]) => padAndMaskKernel(element, offset)));
});
afterAll(() => cxx?.[Symbol.dispose]());

const forms = SIZES.flatMap(([element, offset], index) => [
  {
    form: "the host's form",
    element,
    offset,
    run: (call: DispatchCall) => runHost(padAndMaskKernel(element, offset), call),
  },
  ...(compiler === null
    ? []
    : [
        {
          form: "C++",
          element,
          offset,
          run: (call: DispatchCall) => runCxx(cxx!.runs[index]!, call),
        },
      ]),
]);

interface Ragged {
  readonly offsets: readonly number[];
  readonly numValues: number;
  readonly length: number;
  readonly pad: bigint;
}

/** What should come out, element by element. */
function expected({ offsets, numValues, length, pad }: Ragged, values: Uint8Array, element: number) {
  const rows = offsets.length - 1;
  const padded = new Uint8Array(rows * length * element);
  const mask = new Uint8Array(rows * length);
  const padBytes = Array.from({ length: element }, (_, i) => Number((pad >> BigInt(8 * i)) & 255n));
  let errors = 0;
  for (let row = 0; row < rows; row++) {
    const start = offsets[row]!;
    const end = offsets[row + 1]!;
    const isRight = start <= end && end <= numValues;
    if (!isRight) errors++;
    for (let column = 0; column < length; column++) {
      const isValue = isRight && start + column < end;
      const at = start + column;
      const bytes = isValue ? values.subarray(at * element, (at + 1) * element) : padBytes;
      padded.set(bytes, (row * length + column) * element);
      mask[row * length + column] = isValue ? 1 : 0;
    }
  }
  return { padded, mask, errors };
}

/** Runs one case and checks every byte. */
function check(
  ragged: Ragged,
  element: PadElementBytes,
  offset: 4 | 8,
  run: (call: DispatchCall) => void,
): void {
  const { offsets, numValues, length, pad } = ragged;
  const rows = offsets.length - 1;
  using values = new Guarded(numValues * element);
  using offsetBytes = new Guarded(offsets.length * offset);
  using padded = new Guarded(rows * length * element, FILL);
  using mask = new Guarded(rows * length, FILL);
  using errors = new Guarded(4);
  values.bytes.set(noise(values.byteLength));
  const view = new DataView(offsetBytes.bytes.buffer);
  for (const [i, one] of offsets.entries()) {
    if (offset === 8) view.setBigInt64(i * 8, BigInt(one), true);
    else view.setUint32(i * 4, one, true);
  }
  const places = {
    values: { buffer: values },
    offsets: { buffer: offsetBytes },
    padded: { buffer: padded },
    mask: { buffer: mask },
    errors: { buffer: errors },
  };
  const sizes = { elementBytes: element, offsetBytes: offset } as const;
  run(padAndMaskCall(PIPELINE, { ...sizes, ...places, numValues, rows, length, pad }));
  const wanted = expected(ragged, values.bytes, element);
  expectBytes(padded.bytes, wanted.padded);
  expectBytes(mask.bytes, wanted.mask);
  expect(new Uint32Array(errors.bytes.buffer)[0]).toBe(wanted.errors);
}

describe.each(forms)(
  "pads elements of $element bytes, offsets of $offset, as $form",
  ({ element, offset, run }) => {
    const pads = fc.bigInt({ min: 0n, max: 2n ** BigInt(8 * element) - 1n });

    test("rows of any lengths, cut where they are too long", () => {
      const lengths = fc.array(fc.oneof(fc.nat(5), fc.nat(600)), { maxLength: 9 });
      fc.assert(
        fc.property(lengths, fc.nat(5), fc.nat(300), pads, (list, first, length, pad) => {
          const offsets = [first];
          for (const one of list) offsets.push(offsets.at(-1)! + one);
          check({ offsets, numValues: offsets.at(-1)!, length, pad }, element, offset, run);
        }),
        { numRuns: 60 },
      );
    });

    test("wrong offsets, which read nothing and are counted", () => {
      const offsets = fc.array(fc.oneof(fc.nat(30), fc.integer({ min: 2 ** 32 - 3, max: 2 ** 32 - 1 })), {
        minLength: 1,
        maxLength: 9,
      });
      fc.assert(
        fc.property(offsets, fc.nat(20), fc.nat(20), pads, (list, numValues, length, pad) =>
          check({ offsets: list, numValues, length, pad }, element, offset, run),
        ),
        { numRuns: 60 },
      );
    });
  },
);

test("negative offsets of 8 bytes are wrong ones", () => {
  const ragged = { offsets: [-1, 2, -5, 3], numValues: 3, length: 2, pad: 9n };
  using values = new Guarded(12);
  using offsets = new Guarded(32);
  using padded = new Guarded(24);
  using mask = new Guarded(6);
  using errors = new Guarded(4);
  new BigInt64Array(offsets.bytes.buffer).set(ragged.offsets.map(BigInt));
  const places = {
    values: { buffer: values },
    offsets: { buffer: offsets },
    padded: { buffer: padded },
    mask: { buffer: mask },
    errors: { buffer: errors },
  };
  const call = padAndMaskCall(PIPELINE, {
    ...places,
    ...ragged,
    offsets: places.offsets,
    elementBytes: 4,
    offsetBytes: 8,
    rows: 3,
  });
  runHost(padAndMaskKernel(4, 8), call);
  expect([...new Uint32Array(padded.bytes.buffer)]).toEqual([9, 9, 9, 9, 9, 9]);
  if (compiler !== null) runCxx(cxx!.runs[4]!, call);
  expect(new Uint32Array(errors.bytes.buffer)[0]).toBe(compiler === null ? 3 : 6);
});

test("bad sizes and places are refused", () => {
  expectCode("BAD_OPTION", () => padAndMaskKernel(3 as PadElementBytes));
  expectCode("BAD_OPTION", () => padAndMaskKernel(4, 2 as 4));
  using buffer = new Guarded(64);
  const place = { buffer };
  const call = (change: Partial<PadAndMaskOptions>) => () =>
    padAndMaskCall(PIPELINE, {
      elementBytes: 2,
      values: place,
      numValues: 32,
      offsets: place,
      rows: 4,
      length: 8,
      padded: place,
      mask: place,
      errors: place,
      ...change,
    });
  expect(call({})().threads).toBe(32);
  expectCode("OUT_OF_RANGE", call({ numValues: 33 }));
  expectCode("OUT_OF_RANGE", call({ rows: 16, length: 1 }));
  expectCode("OUT_OF_RANGE", call({ length: 9 }));
  expectCode("OUT_OF_RANGE", call({ mask: { buffer, byteOffset: 33 } }));
  expectCode("BAD_OPTION", call({ values: { buffer, byteOffset: 1 }, numValues: 1 }));
  expectCode("BAD_OPTION", call({ pad: 65_536n }));
  expectCode("BAD_OPTION", call({ pad: -1n }));
  expectCode("BAD_OPTION", call({ rows: 2 ** 31, length: 2 ** 31 }));
});
