/** Copies by addresses, in the host's form and as C++, against plain copies. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import fc from "fast-check";
import type { DispatchCall } from "../../../src/device/requests.ts";
import {
  MOVE_ADDRESS_BYTES,
  MOVE_LENGTH_BYTES,
  moveCall,
  moveKernel,
  writeMove,
} from "../../../src/kernels/move.ts";
import { expectBytes, expectCode } from "../../conformance/harness.ts";
import { type Compiled, compileKernel, compiler } from "./cxx.ts";
import { Guarded, noise, PIPELINE, runCxx, runHost } from "./memory.ts";

const FILL = 0xa5;
let cxx: Compiled | undefined;
beforeAll(() => {
  if (compiler !== null) cxx = compileKernel(moveKernel);
});
afterAll(() => cxx?.[Symbol.dispose]());

interface Move {
  /** Bytes between the last move's end and this one's start, of the source and of the target. */
  readonly sourceGap: number;
  readonly targetGap: number;
  readonly length: number;
}

type Run = (call: DispatchCall) => void;

/** Runs `moves`, back to back but for their gaps and the last up to the guard pages, and checks every byte. */
function checkMoves(moves: readonly Move[], maxByteLength: number, run: Run): void {
  const total = moves.reduce((sum, move) => sum + move.length, 0);
  const sourceBytes = total + moves.reduce((sum, move) => sum + move.sourceGap, 0);
  const targetBytes = total + moves.reduce((sum, move) => sum + move.targetGap, 0);
  using source = new Guarded(sourceBytes);
  using target = new Guarded(targetBytes, FILL);
  using addresses = new Guarded(moves.length * MOVE_ADDRESS_BYTES);
  using byteLengths = new Guarded(moves.length * MOVE_LENGTH_BYTES);
  const table = {
    addresses: new Uint32Array(addresses.bytes.buffer),
    byteLengths: new Uint32Array(byteLengths.bytes.buffer),
  };
  source.bytes.set(noise(sourceBytes));
  const expected = new Uint8Array(targetBytes).fill(FILL);
  let from = 0;
  let to = 0;
  for (const [index, { sourceGap, targetGap, length }] of moves.entries()) {
    from += sourceGap;
    to += targetGap;
    writeMove(table, index, source.gpuAddress + from, target.gpuAddress + to, length);
    expected.set(source.bytes.subarray(from, from + length), to);
    from += length;
    to += length;
  }
  const tables = { addresses: { buffer: addresses }, byteLengths: { buffer: byteLengths } };
  run(moveCall(PIPELINE, { ...tables, count: moves.length, maxByteLength }));
  expectBytes(target.bytes, expected);
}

const forms = [
  { form: "the host's form", run: (call: DispatchCall) => runHost(moveKernel, call) },
  ...(compiler === null ? [] : [{ form: "C++", run: (call: DispatchCall) => runCxx(cxx!.run, call) }]),
];

describe.each(forms)("moves as $form", ({ run }) => {
  test("of any length and alignment", () => {
    const move = fc.record({
      sourceGap: fc.nat(40),
      targetGap: fc.nat(40),
      length: fc.oneof(fc.nat(70), fc.nat(6000)),
    });
    const moves = fc.array(move, { minLength: 1, maxLength: 12 });
    fc.assert(
      fc.property(moves, fc.nat(10_000), (list, longest) => checkMoves(list, longest, run)),
      { numRuns: 300 },
    );
  });

  test("of every pair of alignments, at both ends of the memory", () => {
    for (const length of [1, 15, 16, 17, 100, 257]) {
      for (let phase = 0; phase < 256; phase++) {
        const gaps = { sourceGap: phase % 16, targetGap: phase >> 4 };
        checkMoves(
          [
            { ...gaps, length },
            { sourceGap: 0, targetGap: 0, length },
          ],
          length,
          run,
        );
      }
    }
  });

  test("of no move, and of moves of no bytes", () => {
    checkMoves([], 0, run);
    checkMoves([{ sourceGap: 3, targetGap: 0, length: 0 }], 0, run);
  });
});

test("a table takes addresses past 4 GiB", () => {
  const table = { addresses: new Uint32Array(8), byteLengths: new Uint32Array(4) };
  writeMove(table, 1, 0x7fff_1234_5678, 0x1_0000_0001, 2 ** 33 + 5);
  const read = (words: Uint32Array) => [...new BigUint64Array(words.buffer)];
  expect(read(table.addresses)).toEqual([0n, 0n, 0x7fff_1234_5678n, 0x1_0000_0001n]);
  expect(read(table.byteLengths)).toEqual([0n, 2n ** 33n + 5n]);
});

test("threads follow the length of the moves", () => {
  using table = new Guarded(4096);
  const places = { addresses: { buffer: table }, byteLengths: { buffer: table, byteOffset: 2048 } };
  const threads = (maxByteLength: number) =>
    moveCall(PIPELINE, { ...places, count: 10, maxByteLength }).threads / 10;
  expect([0, 1, 16, 17, 100, 512, 3072, 65_536, 2 ** 40].map(threads)).toEqual([
    1, 1, 1, 2, 8, 32, 64, 256, 256,
  ]);
});

test("more moves than one dispatch has teams for are taken one after another", () => {
  using table = new Guarded(0);
  const many = { buffer: { ...table, byteLength: 2 ** 40, gpuAddress: 2 ** 40 } as Guarded };
  const options = { addresses: many, byteLengths: many, count: 2 ** 24 + 5, maxByteLength: 65_536 };
  expect(moveCall(PIPELINE, options).threads).toBe(2 ** 32 - 256);
  checkMoves(
    Array.from({ length: 20 }, () => ({ sourceGap: 1, targetGap: 2, length: 100 })),
    100,
    ({ threads, ...call }) => {
      const fewer = { ...call, threads: threads / 4 };
      if (compiler === null) runHost(moveKernel, fewer);
      else runCxx(cxx!.run, fewer);
    },
  );
});

test("bad tables are refused", () => {
  using table = new Guarded(64);
  const addresses = { buffer: table };
  const byteLengths = { buffer: table, byteOffset: 48 };
  const call = (change: Partial<Parameters<typeof moveCall>[1]>) => () =>
    moveCall(PIPELINE, { addresses, byteLengths, count: 2, maxByteLength: 100, ...change });
  expect(call({})).not.toThrow();
  expectCode("OUT_OF_RANGE", call({ count: 3 }));
  expectCode("BAD_OPTION", call({ count: -1 }));
  expectCode("BAD_OPTION", call({ count: 0.5 }));
  expectCode("BAD_OPTION", call({ maxByteLength: Number.NaN }));
  expectCode("BAD_OPTION", call({ addresses: { buffer: table, byteOffset: 4 } }));
});
