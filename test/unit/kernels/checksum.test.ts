/** The checksum: its definition, what it notices, and the same sums from the kernel as C++. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import fc from "fast-check";
import type { DispatchCall } from "../../../src/device/requests.ts";
import {
  addChecksum,
  checksumCall,
  checksumKernel,
  checksumOf,
  finishChecksum,
} from "../../../src/kernels/checksum.ts";
import { expectCode } from "../../conformance/harness.ts";
import { type Compiled, compileKernel, compiler } from "./cxx.ts";
import { Guarded, noise, PIPELINE, runCxx, runHost } from "./memory.ts";

let cxx: Compiled | undefined;
beforeAll(() => {
  if (compiler !== null) cxx = compileKernel(checksumKernel);
});
afterAll(() => cxx?.[Symbol.dispose]());

/** The definition, in integers of any size. */
function defined(bytes: Uint8Array): string {
  const padded = new Uint8Array(Math.ceil(bytes.length / 16) * 16);
  padded.set(bytes);
  const view = new DataView(padded.buffer);
  let sums: readonly [bigint, bigint] = [0n, 0n];
  for (let at = 0; at < padded.length; at += 16) {
    const words = [0, 4, 8, 12].map((word) => BigInt(view.getUint32(at + word, true)));
    sums = added(sums, words, BigInt(at / 16));
  }
  const length = BigInt(bytes.length);
  sums = added(sums, [length % 2n ** 32n, length >> 32n, 0n, 0n], 2n ** 64n - 1n);
  return sums.map((sum) => sum.toString(16).padStart(8, "0")).join("");
}

function added(sums: readonly [bigint, bigint], words: readonly bigint[], block: bigint): [bigint, bigint] {
  const word = (value: bigint) => BigInt.asUintN(32, value);
  const low = word(block);
  const high = block >> 32n;
  let a = word(low * 0x9e3779b1n + high * 0x85ebca77n + 0x165667b1n);
  let b = word(low * 0xc2b2ae3dn + high * 0x27d4eb2fn + 0x2545f491n);
  for (const one of words) {
    a = word((a ^ one) * 0xcc9e2d51n);
    a ^= a >> 15n;
    b = word((b + one) * 0x1b873593n);
    b ^= b >> 13n;
  }
  a = word(a * 0x85ebca6bn);
  a = word((a ^ (a >> 13n)) * 0xc2b2ae35n);
  b = word(b * 0x7feb352dn);
  b = word((b ^ (b >> 15n)) * 0x846ca68bn);
  return [word(sums[0] + (a ^ (a >> 16n))), word(sums[1] + (b ^ (b >> 16n)))];
}

const range = fc.uint8Array({ maxLength: 200 });

describe("the checksum", () => {
  test("is what its definition says", () => {
    fc.assert(fc.property(range, (bytes) => expect(checksumOf(bytes)).toBe(defined(bytes))));
  });

  test("stays what it was", () => {
    expect(checksumOf(new Uint8Array(0))).toBe("a7c0a3a4de39e7dc");
    expect(checksumOf(Uint8Array.of(1))).toBe("9dd6c5ea42673ad0");
    expect(checksumOf(noise(100_000))).toBe("696c7ecabc552b6b");
  });

  test("does not depend on where the bytes lie", () => {
    const bytes = noise(140_000);
    const moved = new Uint8Array(140_010);
    for (const offset of [1, 2, 3, 4, 7]) {
      moved.set(bytes, offset);
      expect(checksumOf(moved.subarray(offset, offset + bytes.length))).toBe(checksumOf(bytes));
    }
  });

  test("comes from pieces in any order", () => {
    const bytes = noise(5000);
    fc.assert(
      fc.property(
        fc.uniqueArray(fc.integer({ min: 1, max: 312 }), { maxLength: 10 }),
        fc.nat(),
        (cuts, turn) => {
          const ends = [0, ...cuts.toSorted((a, b) => a - b).map((cut) => cut * 16), bytes.length];
          const pieces = ends.slice(1).map((end, index) => [ends[index]!, end] as const);
          const sums = new Uint32Array(2);
          for (let i = 0; i < pieces.length; i++) {
            const [start, end] = pieces[(i + turn) % pieces.length]!;
            addChecksum(sums, bytes.subarray(start, end), start);
          }
          expect(finishChecksum(sums, bytes.length)).toBe(checksumOf(bytes));
        },
      ),
    );
  });

  test("tells numbers of blocks past 2^32 apart", () => {
    const bytes = noise(32);
    const at = (position: number) => {
      const sums = new Uint32Array(2);
      addChecksum(sums, bytes, position);
      return sums.join();
    };
    const border = 16 * 2 ** 32;
    const places = [0, 16, border - 16, border, border + 16, 2 * border];
    expect(new Set(places.map(at)).size).toBe(places.length);
    // Across the border, piece by piece and at once.
    const sums = new Uint32Array(2);
    addChecksum(sums, bytes.subarray(16), border);
    addChecksum(sums, bytes.subarray(0, 16), border - 16);
    expect(sums.join()).toBe(at(border - 16));
  });

  test("refuses pieces that begin within a block", () => {
    for (const position of [1, 8, -16, 0.5]) {
      expectCode("BAD_OPTION", () => addChecksum(new Uint32Array(2), new Uint8Array(1), position));
    }
  });
});

/** How many of `values` were there before. */
function repeats(values: readonly (string | number)[]): number {
  return values.length - new Set(values).size;
}

describe("the checksum notices", () => {
  test("any change of length, also by zeros", () => {
    const sums = Array.from({ length: 2000 }, (_, length) => checksumOf(new Uint8Array(length)));
    expect(repeats(sums)).toBe(0);
  });

  test("any byte that changes, and any two that change places", () => {
    const bytes = fc.uint8Array({ minLength: 2, maxLength: 200 });
    fc.assert(
      fc.property(bytes, fc.nat(), fc.nat(), fc.integer({ min: 1, max: 255 }), (list, i, j, change) => {
        const before = checksumOf(list);
        const changed = list.slice();
        changed[i % list.length]! ^= change;
        expect(checksumOf(changed)).not.toBe(before);
        const swapped = list.slice();
        swapped[i % list.length] = list[j % list.length]!;
        swapped[j % list.length] = list[i % list.length]!;
        if (swapped.join() !== list.join()) expect(checksumOf(swapped)).not.toBe(before);
      }),
      { numRuns: 2000 },
    );
  });

  test("blocks that change places, and a range that moves by a byte", () => {
    const bytes = noise(4096);
    const sums = [checksumOf(bytes), checksumOf(bytes.subarray(1)), checksumOf(bytes.subarray(0, -1))];
    for (let i = 0; i < 4096; i += 256) {
      for (let j = i + 16; j < 4096; j += 16) {
        const swapped = bytes.slice();
        swapped.set(bytes.subarray(i, i + 16), j);
        swapped.set(bytes.subarray(j, j + 16), i);
        sums.push(checksumOf(swapped));
      }
    }
    expect(repeats(sums)).toBe(0);
  });

  test("single bits, as rarely alike in one word as chance has it", () => {
    const bytes = new Uint8Array(2048);
    const sums: string[] = [];
    for (let bit = 0; bit < bytes.length * 8; bit++) {
      bytes[bit >> 3] = 1 << (bit & 7);
      sums.push(checksumOf(bytes));
      bytes[bit >> 3] = 0;
    }
    expectByChance(sums);
  });

  test("signs of two numbers, as rarely alike in one word as chance has it", () => {
    const bytes = new Uint8Array(noise(16 * 64).map((byte, at) => (at % 4 === 3 ? byte & 0x7f : byte)));
    const sums: string[] = [];
    for (let i = 3; i < bytes.length; i += 4) {
      for (let j = i + 4; j < bytes.length; j += 4) {
        bytes[i]! ^= 0x80;
        bytes[j]! ^= 0x80;
        sums.push(checksumOf(bytes));
        bytes[i]! ^= 0x80;
        bytes[j]! ^= 0x80;
      }
    }
    expectByChance(sums);
  });
});

/** No two alike, and of their halves no more than random ones would be but for once in 10^9. */
function expectByChance(sums: readonly string[]): void {
  expect(repeats(sums)).toBe(0);
  const mean = sums.length ** 2 / 2 ** 33;
  expect(repeats(sums.map((sum) => sum.slice(0, 8)))).toBeLessThan(mean + 6 * Math.sqrt(mean) + 9);
  expect(repeats(sums.map((sum) => sum.slice(8)))).toBeLessThan(mean + 6 * Math.sqrt(mean) + 9);
}

const forms = [
  { form: "the host's form", run: (call: DispatchCall) => runHost(checksumKernel, call) },
  ...(compiler === null ? [] : [{ form: "C++", run: (call: DispatchCall) => runCxx(cxx!.run, call) }]),
];

describe.each(forms)("sums as $form", ({ run }) => {
  test("of any range up to both ends of the memory", () => {
    const lengths = fc.oneof(fc.nat(80), fc.nat(5000));
    fc.assert(
      fc.property(
        lengths,
        fc.nat(600),
        fc.nat(20),
        fc.constantFrom("start", "end"),
        (length, before, after, side) => {
          using buffer = new Guarded(before + length + after, 0, side);
          using sums = new Guarded(8);
          buffer.bytes.set(noise(buffer.byteLength, length));
          const bytes = { buffer, byteOffset: before };
          run(checksumCall(PIPELINE, { bytes, byteLength: length, sums: { buffer: sums } }));
          const words = new Uint32Array(sums.bytes.buffer);
          expect(finishChecksum(words, length)).toBe(checksumOf(buffer.bytes.slice(before, before + length)));
        },
      ),
      { numRuns: 500 },
    );
  });

  test("of pieces, added to what is there", () => {
    using buffer = new Guarded(3001);
    using sums = new Guarded(8);
    buffer.bytes.set(noise(3001));
    for (const [start, end] of [
      [1600, 3001],
      [0, 16],
      [16, 1600],
    ] as const) {
      const bytes = { buffer, byteOffset: start };
      const byteLength = end - start;
      run(checksumCall(PIPELINE, { bytes, byteLength, sums: { buffer: sums }, position: start }));
    }
    expect(finishChecksum(new Uint32Array(sums.bytes.buffer), 3001)).toBe(checksumOf(buffer.bytes));
  });

  test("at a place past 2^32 blocks", () => {
    using buffer = new Guarded(100);
    using sums = new Guarded(8);
    buffer.bytes.set(noise(100));
    const position = 16 * (2 ** 32 - 2);
    run(checksumCall(PIPELINE, { bytes: { buffer }, byteLength: 100, sums: { buffer: sums }, position }));
    const expected = new Uint32Array(2);
    addChecksum(expected, buffer.bytes, position);
    expect(new Uint32Array(sums.bytes.buffer)).toEqual(expected);
  });
});

test("a call checks its places", () => {
  using buffer = new Guarded(64);
  using sums = new Guarded(16);
  const call = (change: Partial<Parameters<typeof checksumCall>[1]>) => () =>
    checksumCall(PIPELINE, { bytes: { buffer }, byteLength: 64, sums: { buffer: sums }, ...change });
  expect(call({})().threads).toBe(1);
  expectCode("OUT_OF_RANGE", call({ byteLength: 65 }));
  expectCode("OUT_OF_RANGE", call({ byteLength: -1 }));
  expectCode("OUT_OF_RANGE", call({ bytes: { buffer, byteOffset: 1 } }));
  expectCode("OUT_OF_RANGE", call({ sums: { buffer: sums, byteOffset: 12 } }));
  expectCode("BAD_OPTION", call({ sums: { buffer: sums, byteOffset: 2 } }));
  expectCode("BAD_OPTION", call({ position: 8 }));
});

test("a large range takes no more threads than fill a GPU", () => {
  using sums = new Guarded(8);
  const buffer = { byteLength: 2 ** 36, gpuAddress: 2 ** 40 } as Guarded;
  const bytes = { buffer, byteOffset: 2 ** 35 + 1 };
  const call = checksumCall(PIPELINE, { bytes, byteLength: 2 ** 34, sums: { buffer: sums } });
  expect(call.threads).toBe(2 ** 18);
  expect(call.buffers[0]!.offset).toBe(2 ** 35 + 1);
});
