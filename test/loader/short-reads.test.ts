import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { ShortReads } from "../../src/loader/short-reads.ts";
import { PieceList, planReads } from "../../src/plan/read.ts";

const anyRoom = () => true;
/** Bytes of a piece that is far too long to be short. */
const LONG = 200_000;

interface Piece {
  readonly file: number;
  readonly fileOffset: number;
  readonly byteLength: number;
  readonly targetOffset: number;
}

function listOf(pieces: readonly Piece[]): PieceList {
  const list = new PieceList();
  for (const { file, fileOffset, byteLength, targetOffset } of pieces)
    list.push(file, fileOffset, byteLength, targetOffset);
  return list;
}

function rangesOf(short: ShortReads, plan: ReturnType<typeof planReads>): number[][] {
  const ranges: number[][] = [];
  short.eachRange(plan, (...range) => ranges.push(range));
  return ranges;
}

/** Rows of `byteLength` bytes at the file's places `numbers`, one behind the other in the target from `from` on. */
function rows(numbers: readonly number[], byteLength: number, from = 0): Piece[] {
  return numbers.map((number, i) => ({
    file: 0,
    fileOffset: number * 1_000_000,
    byteLength,
    targetOffset: from + i * byteLength,
  }));
}

const backwards = Array.from({ length: 20 }, (_, i) => 20 - i);

describe("short reads", () => {
  test("of rows in any order are one range", () => {
    const pieces = listOf(rows(backwards, 3000, 640));
    const plan = planReads(pieces);
    const short = new ShortReads();
    expect(short.place(pieces, plan, anyRoom)).toBe(20 * 3000);
    expect(rangesOf(short, plan)).toEqual([[0, 640, 20 * 3000]]);
    // The plan goes by the file, the places by the target.
    expect(short.placeOf(0)).toBe(19 * 3000);
    expect(short.placeOf(19)).toBe(0);
  });

  test("of two columns are two ranges", () => {
    const second = rows(backwards, 100, 8192).map((piece) => ({ ...piece, file: 1 }));
    const pieces = listOf([...rows(backwards, 50), ...second]);
    const plan = planReads(pieces);
    const short = new ShortReads();
    expect(short.place(pieces, plan, anyRoom)).toBe(20 * 150);
    expect(rangesOf(short, plan)).toEqual([
      [0, 0, 1000],
      [1000, 8192, 2000],
    ]);
  });

  test("leave long ones where they go, and a few alone", () => {
    const short = new ShortReads();
    const long = { file: 0, fileOffset: 50_000_000, byteLength: LONG, targetOffset: 60_000 };
    const pieces = listOf([...rows(backwards, 3000), long]);
    const plan = planReads(pieces);
    expect(short.place(pieces, plan, anyRoom)).toBe(60_000);
    expect(plan.byteLength[20]).toBe(LONG);
    expect(short.placeOf(20)).toBe(-1);
    const few = listOf([...rows(backwards.slice(0, 15), 3000), long]);
    const fewPlan = planReads(few);
    expect(short.place(few, fewPlan, anyRoom)).toBe(0);
    expect(rangesOf(short, fewPlan)).toEqual([]);
  });

  test("go where they would without room for all of them", () => {
    const short = new ShortReads();
    const pieces = listOf(rows(backwards, 3000));
    const plan = planReads(pieces);
    expect(short.place(pieces, plan, (byteLength) => byteLength < 20 * 3000)).toBe(0);
    expect(short.placeOf(0)).toBe(-1);
    expect(short.place(pieces, plan, (byteLength) => byteLength <= 20 * 3000)).toBe(20 * 3000);
  });

  test("bring every byte to its place, beside what is read otherwise", () => {
    const piece = fc.record({
      file: fc.nat(2),
      fileOffset: fc.oneof(fc.nat(300_000), fc.nat(30_000_000)),
      byteLength: fc.oneof(fc.nat(40), fc.nat(5000), fc.integer({ min: 120_000, max: 140_000 })),
      gap: fc.oneof(fc.constant(0), fc.nat(100)),
    });
    const short = new ShortReads();
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 60 }), fc.boolean(), (made, reversed) => {
        let end = 0;
        const placed: Piece[] = made.map(({ gap, ...rest }) => {
          const targetOffset = end + gap;
          end = targetOffset + rest.byteLength;
          return { ...rest, targetOffset };
        });
        const pieces = listOf(reversed ? placed.toReversed() : placed);
        const plan = planReads(pieces);
        const stagingBytes = short.place(pieces, plan, anyRoom);
        // What each place of the target gets is told by file and offset.
        const staging = new Map<number, string>();
        const target = new Map<number, string>();
        const put = (into: Map<number, string>, at: number, what: string) => {
          expect(into.has(at)).toBe(false);
          into.set(at, what);
        };
        for (let read = 0; stagingBytes > 0 && read < plan.length; read++) {
          const at = short.placeOf(read);
          if (at < 0) continue;
          expect(plan.direct[read]).toBe(1);
          expect(at + plan.byteLength[read]!).toBeLessThanOrEqual(stagingBytes);
          for (let i = 0; i < plan.byteLength[read]!; i += 1 + (i % 97))
            put(
              staging,
              at + i,
              `${plan.file[read]}:${plan.fileOffset[read]! + i}:${plan.targetOffset[read]! + i}`,
            );
        }
        let copied = 0;
        for (const [from, to, byteLength] of rangesOf(short, plan)) {
          copied += byteLength!;
          for (const [at, what] of staging) {
            if (at < from! || at >= from! + byteLength!) continue;
            put(target, to! + at - from!, what);
            expect(what.endsWith(`:${to! + at - from!}`)).toBe(true);
          }
        }
        expect(copied).toBe(stagingBytes);
        expect(target.size).toBe(staging.size);
      }),
      { numRuns: 300 },
    );
  });
});
