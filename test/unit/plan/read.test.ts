import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { type CoalesceOptions, PieceList, planReads } from "../../../src/plan/read.ts";
import { ReadPlan } from "../../../src/plan/read-plan.ts";
import { expectCode } from "./expect-code.ts";

type Piece = readonly [file: number, fileOffset: number, byteLength: number, targetOffset: number];

function listOf(pieces: readonly Piece[]): PieceList {
  const list = new PieceList();
  for (const piece of pieces) list.push(...piece);
  return list;
}

/** The reads as `[file, fileOffset, byteLength, targetOffset, direct, numPieces]`. */
function readsOf(plan: ReadPlan): number[][] {
  return Array.from({ length: plan.length }, (_, i) => [
    plan.file[i]!,
    plan.fileOffset[i]!,
    plan.byteLength[i]!,
    plan.targetOffset[i]!,
    plan.direct[i]!,
    plan.numPieces[i]!,
  ]);
}

function plan(pieces: readonly Piece[], options: CoalesceOptions = {}): number[][] {
  return readsOf(planReads(listOf(pieces), options));
}

const FILE_LENGTH = 400;

function byteAt(file: number, offset: number): number {
  return (file * 101 + offset * 7 + (offset >> 4)) % 251;
}

/** Carries out a plan on small files, and counts how often each target byte is written. */
function execute(list: PieceList, plan: ReadPlan, targetLength: number) {
  const target = new Uint8Array(targetLength);
  const written = new Uint8Array(targetLength);
  const staging = new Uint8Array(plan.stagingBytes);
  const stagingUsed = new Uint8Array(plan.stagingBytes);
  const put = (into: Uint8Array, at: number, value: number): void => {
    expect(at).toBeLessThan(into.length);
    into[at] = value;
  };
  for (let i = 0; i < plan.length; i++) {
    const into = plan.direct[i] === 1 ? target : staging;
    const count = plan.direct[i] === 1 ? written : stagingUsed;
    for (let b = 0; b < plan.byteLength[i]!; b++) {
      put(into, plan.targetOffset[i]! + b, byteAt(plan.file[i]!, plan.fileOffset[i]! + b));
      count[plan.targetOffset[i]! + b]!++;
    }
  }
  expect(stagingUsed.every((times) => times === 1)).toBe(true);
  for (let i = 0; i < plan.length; i++) {
    if (plan.direct[i] === 1) continue;
    for (let k = plan.firstPiece[i]!; k < plan.firstPiece[i]! + plan.numPieces[i]!; k++) {
      const piece = plan.order[k]!;
      const from = plan.targetOffset[i]! + list.fileOffset[piece]! - plan.fileOffset[i]!;
      for (let b = 0; b < list.byteLength[piece]!; b++) {
        put(target, list.targetOffset[piece]! + b, staging[from + b]!);
        written[list.targetOffset[piece]! + b]!++;
      }
    }
  }
  return { target, written };
}

/** Pieces of three small files, back to back in the target in an order of their own. */
function withTargets(parts: (readonly [file: number, fileOffset: number, byteLength: number])[]) {
  const everyPart = fc.shuffledSubarray([...parts.keys()], { minLength: parts.length });
  return fc.oneof(fc.constant([...parts.keys()]), everyPart).map((targets) => {
    const offsets: number[] = [];
    let end = 0;
    for (const i of targets) {
      offsets[i] = end;
      end += parts[i]![2];
    }
    const pieces = parts.map(([file, at, length], i): Piece => [file, at, length, offsets[i]!]);
    return { pieces, targetLength: end };
  });
}

const anywhere = fc.array(fc.tuple(fc.nat(2), fc.nat(300), fc.oneof(fc.nat(6), fc.nat(100))), {
  maxLength: 100,
});
const disjoint = fc.array(fc.tuple(fc.nat(9), fc.nat(9)), { maxLength: 60 }).map((parts) => {
  let end = 0;
  return parts.map(([gap, length], i) => {
    const start = i % 20 === 0 ? gap : end + gap;
    end = start + length;
    return [Math.floor(i / 20), start, length] as const;
  });
});
const pieceArrays = fc
  .oneof(
    anywhere,
    disjoint,
    disjoint.chain((parts) => fc.shuffledSubarray(parts, { minLength: parts.length })),
  )
  .chain(withTargets);

const options = fc.record({
  maxGap: fc.oneof(fc.constant(0), fc.nat(60)),
  maxRead: fc.oneof(fc.constant(10 ** 6), fc.integer({ min: 1, max: 150 })),
  maxCopy: fc.oneof(fc.constant(10 ** 6), fc.nat(120)),
  maxStaging: fc.oneof(fc.constant(10 ** 6), fc.nat(300)),
});

describe("any plan", () => {
  test("delivers every byte of every piece exactly once, and nothing else", () => {
    const reused = new ReadPlan();
    fc.assert(
      fc.property(pieceArrays, options, ({ pieces, targetLength }, options) => {
        const list = listOf(pieces);
        const { target, written } = execute(list, planReads(list, options, reused), targetLength);
        const expected = new Uint8Array(targetLength);
        for (const [file, at, length, to] of pieces)
          for (let b = 0; b < length; b++) expected[to + b] = byteAt(file, at + b);
        expect(target).toEqual(expected);
        expect(written.every((times) => times === 1)).toBe(true);
      }),
      { numRuns: 500 },
    );
  });

  test("keeps its bounds: read length, staging, gaps, and no overlap where pieces have none", () => {
    fc.assert(
      fc.property(pieceArrays, options, ({ pieces }, options) => {
        const list = listOf(pieces);
        const plan = planReads(list, options);
        expect(plan.stagingBytes).toBeLessThanOrEqual(options.maxStaging);
        const wanted = [0, 1, 2].map(() => new Uint8Array(FILE_LENGTH));
        const read = [0, 1, 2].map(() => new Uint8Array(FILE_LENGTH));
        for (const [file, at, length] of pieces) for (let b = at; b < at + length; b++) wanted[file]![b]!++;
        let kept = 0;
        for (let i = 0; i < plan.length; i++) {
          const [file, start, length] = [plan.file[i]!, plan.fileOffset[i]!, plan.byteLength[i]!];
          const own = new Uint8Array(FILE_LENGTH);
          let longest = 0;
          for (let k = plan.firstPiece[i]!; k < plan.firstPiece[i]! + plan.numPieces[i]!; k++) {
            const piece = plan.order[k]!;
            kept++;
            expect(list.file[piece]).toBe(file);
            longest = Math.max(longest, list.byteLength[piece]!);
            own.fill(1, list.fileOffset[piece]!, list.fileOffset[piece]! + list.byteLength[piece]!);
          }
          expect(length).toBeLessThanOrEqual(Math.max(options.maxRead, longest));
          let gap = 0;
          for (let b = start; b < start + length; b++) {
            read[file]![b]!++;
            gap = own[b] === 1 ? 0 : gap + 1;
            expect(gap).toBeLessThanOrEqual(options.maxGap);
          }
          expect([own[start], own[start + length - 1]]).toEqual([1, 1]);
          if (plan.direct[i] === 0) expect(longest).toBeLessThanOrEqual(options.maxCopy);
        }
        expect(kept).toBe(pieces.filter((piece) => piece[2] > 0).length);
        if (wanted.every((times) => Math.max(...times) <= 1))
          expect(read.every((times) => Math.max(...times) <= 1)).toBe(true);
      }),
      { numRuns: 500 },
    );
  });

  test("takes the pieces by file and offset, equal ones as they came", () => {
    fc.assert(
      fc.property(pieceArrays, ({ pieces }) => {
        const plan = planReads(listOf(pieces), { maxGap: 0 });
        const indices = pieces.map((_, i) => i).filter((i) => pieces[i]![2] > 0);
        indices.sort((x, y) => {
          const [p, q] = [pieces[x]!, pieces[y]!];
          return p[0] - q[0] || p[1] - q[1] || x - y;
        });
        expect([...plan.order.subarray(0, indices.length)]).toEqual(indices);
      }),
    );
  });
});

describe("merging", () => {
  test("nothing gives nothing, and empty pieces are dropped", () => {
    expect(plan([])).toEqual([]);
    expect(
      plan([
        [0, 10, 0, 0],
        [0, 5, 0, 3],
      ]),
    ).toEqual([]);
  });

  test("pieces that follow in file and target are one direct read", () => {
    const pieces: Piece[] = [
      [0, 100, 50, 1000],
      [0, 150, 50, 1050],
      [0, 200, 1, 1100],
    ];
    expect(plan(pieces)).toEqual([[0, 100, 101, 1000, 1, 3]]);
    expect(plan(pieces, { maxStaging: 0, maxGap: 0, maxCopy: 0 })).toEqual([[0, 100, 101, 1000, 1, 3]]);
  });

  test("pieces that follow in the file alone go through staging", () => {
    const list = listOf([
      [0, 150, 50, 0],
      [0, 100, 50, 50],
      [1, 0, 10, 100],
      [1, 14, 10, 110],
    ]);
    const result = planReads(list);
    expect(readsOf(result)).toEqual([
      [0, 100, 100, 0, 0, 2],
      [1, 0, 24, 100, 0, 2],
    ]);
    expect(result.stagingBytes).toBe(124);
    expect([...result.order.subarray(0, 4)]).toEqual([1, 0, 2, 3]);
  });

  test("one piece out of place stages the whole read", () => {
    const pieces: Piece[] = [
      [0, 0, 10, 0],
      [0, 10, 10, 30],
      [0, 20, 10, 20],
    ];
    expect(plan(pieces)).toEqual([[0, 0, 30, 0, 0, 3]]);
  });

  test("a gap over maxGap parts them, one at it does not", () => {
    const pieces: Piece[] = [
      [0, 0, 10, 0],
      [0, 30, 10, 10],
    ];
    expect(plan(pieces, { maxGap: 20 })).toEqual([[0, 0, 40, 0, 0, 2]]);
    expect(plan(pieces, { maxGap: 19 })).toEqual([
      [0, 0, 10, 0, 1, 1],
      [0, 30, 10, 10, 1, 1],
    ]);
  });

  test("files never share a read", () => {
    expect(
      plan([
        [0, 0, 10, 0],
        [1, 10, 10, 10],
      ]).length,
    ).toBe(2);
  });

  test("the same row twice is read once", () => {
    expect(
      plan([
        [0, 100, 10, 0],
        [0, 100, 10, 10],
      ]),
    ).toEqual([[0, 100, 10, 0, 0, 2]]);
  });

  test("maxRead ends a read, and a longer piece is one read still", () => {
    const pieces: Piece[] = [0, 1, 2, 3].map((i): Piece => [0, i * 10, 10, i * 10]);
    expect(plan(pieces, { maxRead: 20 }).map((read) => read[2])).toEqual([20, 20]);
    expect(plan([[0, 0, 100, 0]], { maxRead: 20 })).toEqual([[0, 0, 100, 0, 1, 1]]);
  });

  test("a long run is not staged for the sake of a short piece behind it", () => {
    const pieces: Piece[] = [
      [0, 0, 100_000, 0],
      [0, 100_000, 10, 200_000],
    ];
    expect(plan(pieces)).toEqual([
      [0, 0, 100_000, 0, 1, 1],
      [0, 100_000, 10, 200_000, 1, 1],
    ]);
    expect(plan(pieces, { maxCopy: 100_000 }).length).toBe(1);
  });

  test("gaps add up to no more than the pieces, pages at least", () => {
    const far: Piece[] = Array.from({ length: 10 }, (_, i): Piece => [0, i * 4000, 4, i * 4]);
    expect(plan(far).length).toBe(1);
    const farther: Piece[] = Array.from({ length: 10 }, (_, i): Piece => [0, i * 16_000, 4, i * 4]);
    // 15,996 bytes of gap are more than two pages.
    expect(plan(farther).length).toBe(10);
    const large: Piece[] = Array.from({ length: 10 }, (_, i): Piece => [0, i * 26_000, 16_000, i * 16_000]);
    expect(plan(large).length).toBe(1);
  });

  test("staging memory that is used up makes the rest direct", () => {
    const pieces: Piece[] = Array.from({ length: 8 }, (_, i): Piece => [0, i * 10, 10, 70 - i * 10]);
    expect(plan(pieces, { maxStaging: 45 })).toEqual([
      [0, 0, 40, 0, 0, 4],
      [0, 40, 10, 30, 1, 1],
      [0, 50, 10, 20, 1, 1],
      [0, 60, 10, 10, 1, 1],
      [0, 70, 10, 0, 1, 1],
    ]);
  });

  test("offsets up to 2^53 - 1 are exact", () => {
    const most = Number.MAX_SAFE_INTEGER;
    expect(plan([[0, most - 10, 10, most - 10]])).toEqual([[0, most - 10, 10, most - 10, 1, 1]]);
  });

  test("a reused plan holds nothing of the one before", () => {
    const reused = new ReadPlan();
    planReads(
      listOf(Array.from({ length: 500 }, (_, i): Piece => [0, i * 10, 10, 5000 - i * 10])),
      {},
      reused,
    );
    expect(reused.stagingBytes).toBe(5000);
    planReads(listOf([[3, 7, 1, 2]]), {}, reused);
    expect(readsOf(reused)).toEqual([[3, 7, 1, 2, 1, 1]]);
    expect(reused.stagingBytes).toBe(0);
  });
});

test("bad options and pieces are refused with name and value", () => {
  for (const name of ["maxGap", "maxRead", "maxCopy", "maxStaging"])
    for (const value of [-1, 0.5, Number.NaN])
      expectCode("BAD_OPTION", [name, value], () => planReads(listOf([]), { [name]: value }));
  expectCode("BAD_OPTION", ["maxRead", 0], () => planReads(listOf([]), { maxRead: 0 }));
  const most = Number.MAX_SAFE_INTEGER;
  const bad: Piece[] = [
    [0, -1, 1, 0],
    [0, 0, -1, 0],
    [0, 0, 1, -1],
    [-1, 0, 1, 0],
    [0, 0.5, 1, 0],
    [0, most, 1, 0],
    [0, 0, 1, most],
    [0, 0, Number.NaN, 0],
  ];
  for (const piece of bad)
    expectCode("OUT_OF_RANGE", ["piece 1"], () => planReads(listOf([[0, 0, 1, 0], piece])));
});
