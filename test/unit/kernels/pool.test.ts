/** One vector a sequence: the same however its states came in steps. */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import {
  type Pooling,
  poolFinishCall,
  poolFinishKernel,
  poolRowsCall,
  poolRowsKernel,
} from "../../../src/kernels/pool.ts";
import { expectCode } from "../../conformance/harness.ts";
import { floats, floatsIn, infoOf, poison, useForms, wordsIn } from "./forms.ts";
import { Guarded, PIPELINE } from "./memory.ts";

const POOLINGS = ["mean", "first", "last"] as const;
const rowKernels = POOLINGS.map(poolRowsKernel);
const finishKernels = POOLINGS.flatMap((pooling) => [
  poolFinishKernel({ pooling }),
  poolFinishKernel({ pooling, normalize: true }),
]);
const run = useForms([...rowKernels, ...finishKernels]);
const SLOTS = 3;

interface Chunk {
  readonly slot: number;
  readonly position: number;
  readonly states: Float32Array<ArrayBuffer>;
}

/** One step of several chunks; gives what is kept after it. */
function pool(pooling: Pooling, hidden: number, kept: Float32Array<ArrayBuffer>, chunks: readonly Chunk[]) {
  const rows = chunks.flatMap(({ slot, position, states }) =>
    Array.from({ length: states.length / hidden }, (_, i) => ({ slot, position: position + i })),
  );
  const states = Float32Array.from(chunks.flatMap((chunk) => [...chunk.states]));
  const spare = new Float32Array(states.length + 2 * hidden);
  spare.set(states);
  const words = (values: readonly number[]) => Uint32Array.from([...values, 0, 0]);
  const after = run(
    rowKernels[POOLINGS.indexOf(pooling)]!,
    [
      ...[spare, words(rows.map(({ position }) => position)), words(rows.map(({ slot }) => slot))],
      ...[infoOf(rows.length), kept],
    ],
    (at) =>
      poolRowsCall(PIPELINE, {
        ...{ states: at[0]!, positions: at[1]!, slots: at[2]!, info: at[3]!, pooled: at[4]! },
        ...{ hidden, numSlots: SLOTS, countAt: 0, maxRows: rows.length + 2 },
      }),
  )[4]!;
  return floatsIn(after);
}

interface Finish {
  readonly pooling: Pooling;
  readonly normalize?: boolean;
  readonly hidden: number;
  /** Slot and last position of the rows of the step. */
  readonly rows: readonly (readonly [number, number])[];
  readonly lastRows: readonly number[];
  readonly targets: readonly number[];
  readonly numVectors: number;
}

function finish(pooled: Float32Array<ArrayBuffer>, options: Finish): Float32Array<ArrayBuffer> {
  const { pooling, normalize = false, hidden, rows, lastRows, targets, numVectors } = options;
  const kernel = finishKernels[2 * POOLINGS.indexOf(pooling) + (normalize ? 1 : 0)]!;
  const after = run(
    kernel,
    [
      ...[
        pooled,
        Uint32Array.from(rows, ([, position]) => position),
        Uint32Array.from(rows, ([slot]) => slot),
      ],
      ...[Uint32Array.from([...lastRows, 0]), Uint32Array.from([...targets, 0])],
      ...[infoOf(lastRows.length, 1), poison(numVectors * hidden)],
    ],
    (at) =>
      poolFinishCall(PIPELINE, {
        ...{ pooled: at[0]!, positions: at[1]!, slots: at[2]!, lastRows: at[3]!, targets: at[4]! },
        ...{ info: at[5]!, vectors: at[6]!, hidden, numSlots: SLOTS, numStates: rows.length, numVectors },
        ...{ countAt: 1, maxRows: lastRows.length + 1 },
      }),
  )[6]!;
  return floatsIn(after);
}

describe.each(POOLINGS)("%s", (pooling) => {
  test("is the same in one step and in any pieces, beside others", () => {
    const length = 9;
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 70 }), fc.subarray([1, 2, 3, 4, 5, 6, 7, 8]), (hidden, cuts) => {
        const states = floats(length * hidden, hidden);
        const other = floats(2 * hidden, 77);
        const old = floats(SLOTS * hidden, 99);
        const whole = pool(pooling, hidden, old, [{ slot: 2, position: 0, states }]);
        let kept = old;
        const ends = [0, ...cuts, length];
        for (const [i, end] of ends.slice(1).entries()) {
          const piece = states.slice(ends[i]! * hidden, end * hidden);
          kept = pool(pooling, hidden, kept, [
            { slot: 0, position: 5, states: other },
            { slot: 2, position: ends[i]!, states: piece },
            { slot: 99, position: 0, states: other },
          ]);
        }
        expect(kept.subarray(2 * hidden)).toEqual(whole.subarray(2 * hidden));
        expect(kept.subarray(hidden, 2 * hidden)).toEqual(old.subarray(hidden, 2 * hidden));
      }),
      { numRuns: 40 },
    );
  });

  test("is what its name says", () => {
    const hidden = 130;
    const states = floats(5 * hidden, 8);
    const kept = pool(pooling, hidden, poison(SLOTS * hidden), [{ slot: 1, position: 0, states }]);
    const rows = [[1, 4]] as const;
    const options = { pooling, hidden, rows, lastRows: [0], targets: [1], numVectors: 3 };
    const plain = finish(kept, options);
    const unit = finish(kept, { ...options, normalize: true });
    const rowAt = (row: number) => [...states.subarray(row * hidden, (row + 1) * hidden)];
    const expected = {
      mean: rowAt(0).map((_, i) => [0, 1, 2, 3, 4].reduce((sum, row) => sum + rowAt(row)[i]!, 0) / 5),
      first: rowAt(0),
      last: rowAt(4),
    }[pooling];
    const length = Math.hypot(...expected);
    for (const [i, value] of expected.entries()) {
      expect(plain[hidden + i]).toBeCloseTo(value, 6);
      expect(unit[hidden + i]).toBeCloseTo(value / length, 6);
    }
    const rest = [...wordsIn(new Uint8Array(unit.buffer)).subarray(0, hidden)];
    expect(rest.every((word) => word === 0x7fa5a5a5)).toBe(true);
  });
});

test("vectors go where they are to, and nowhere where that is out of range", () => {
  const hidden = 3;
  const pooled = Float32Array.of(1, 2, 3, 10, 20, 30, 5, 5, 5);
  const rows = [
    [0, 3],
    [1, 9],
    [7, 1],
  ] as const;
  const options = { pooling: "mean", hidden, rows, numVectors: 4 } as const;
  const made = finish(pooled, { ...options, lastRows: [1, 0, 0, 2], targets: [2, 0, 4, 3] });
  expect([...made.subarray(0, 3)]).toEqual([0.25, 0.5, 0.75]);
  expect([...made.subarray(6, 9)]).toEqual([1, 2, 3]);
  expect(wordsIn(new Uint8Array(made.buffer))[3]).toBe(0x7fa5a5a5);
  expect(made.subarray(9).every(Number.isNaN)).toBe(true);
  const past = finish(pooled, { ...options, lastRows: [3], targets: [0] });
  expect(past.subarray(0, 3).every(Number.isNaN)).toBe(true);
});

test("a vector of zeros has no direction, and stays one", () => {
  const options = { pooling: "last", normalize: true, hidden: 4, numVectors: 1 } as const;
  const made = finish(new Float32Array(12), { ...options, rows: [[0, 0]], lastRows: [0], targets: [0] });
  expect([...made]).toEqual([0, 0, 0, 0]);
});

test("calls check their options", () => {
  using buffer = new Guarded(4096);
  const place = { buffer };
  const both = { pooled: place, positions: place, slots: place, info: place, hidden: 16, numSlots: 4 };
  const rows = { ...both, states: place, countAt: 0, maxRows: 8 };
  const poolCall = (change: object) => () => poolRowsCall(PIPELINE, { ...rows, ...change });
  expect(poolCall({})().threads).toBe(128);
  expectCode("OUT_OF_RANGE", poolCall({ maxRows: 65 }));
  expectCode("OUT_OF_RANGE", poolCall({ numSlots: 65 }));
  expectCode("BAD_OPTION", poolCall({ hidden: 0 }));
  expectCode("BAD_OPTION", () => poolRowsKernel("max" as "mean"));
  const last = { ...both, lastRows: place, targets: place, vectors: place, numStates: 8, numVectors: 4 };
  const finishCall = (change: object) => () =>
    poolFinishCall(PIPELINE, { ...last, countAt: 1, maxRows: 4, ...change });
  expect(finishCall({})().threads).toBe(1024);
  expectCode("OUT_OF_RANGE", finishCall({ numVectors: 65 }));
  expectCode("OUT_OF_RANGE", finishCall({ numStates: 1025 }));
  expectCode("BAD_OPTION", finishCall({ numVectors: -1 }));
  expectCode("BAD_OPTION", finishCall({ vectors: { buffer, byteOffset: 2 } }));
  expectCode("BAD_OPTION", () => poolFinishKernel({ pooling: "sum" as "mean" }));
});
