/** Slots and the rows that wait for one. */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { Sequence } from "../../../src/infer/sequence.ts";
import { Slots } from "../../../src/infer/slots.ts";
import { WaitingRows } from "../../../src/infer/waiting.ts";
import { rowOf } from "./rows.ts";

const CAPACITY = { slots: 4, contextLength: 100, tokensPerStep: 8 };

function sequence(row: number, promptTokens = 3, maxNewTokens = 4): Sequence {
  return new Sequence(rowOf(row, { promptTokens, maxNewTokens }), row, CAPACITY, undefined);
}

describe("slots", () => {
  test("are never given twice, and lowest first", () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 6 }), fc.array(fc.nat(10)), (count, moves) => {
        const slots = new Slots(count);
        const held: Sequence[] = [];
        for (const [i, move] of moves.entries()) {
          if (move < 6 && slots.numFree > 0) {
            const one = sequence(i);
            const free = [...Array(count).keys()].filter((slot) =>
              held.every((other) => other.slot !== slot),
            );
            expect(slots.nextFree).toBe(Math.min(...free));
            slots.take(one);
            held.push(one);
            expect(one.slot).toBe(Math.min(...free));
          } else if (held.length > 0) {
            const [one] = held.splice(move % held.length, 1);
            const { slot } = one!;
            expect(slots.free(one!)).toBe(slot);
            expect([one!.slot, slots.at(slot)]).toEqual([-1, undefined]);
          }
          expect(slots.running).toEqual(held);
          expect(slots.numFree).toBe(count - held.length);
          for (const one of held) expect(slots.at(one.slot)).toBe(one);
        }
        if (slots.numFree === 0) expect(slots.nextFree).toBe(-1);
      }),
    );
  });
});

describe("rows that wait", () => {
  const turns = (waiting: WaitingRows) => {
    const rows: number[] = [];
    for (;;) {
      const next = waiting.peek();
      expect(waiting.shift()).toBe(next!);
      if (next === undefined) return rows;
      rows.push(next.request.row);
    }
  };

  test("come as they came, or the longest first", () => {
    const bounds = [7, 90, 7, 30, 90, 200];
    for (const [order, expected] of [
      ["fifo", [0, 1, 2, 3, 4, 5]],
      // The last two are cut to the context.
      ["longest-first", [5, 1, 4, 3, 0, 2]],
    ] as const) {
      const waiting = new WaitingRows(order);
      for (const [row, bound] of bounds.entries()) waiting.add(sequence(row, 3, bound - 3));
      expect(waiting.length).toBe(6);
      expect(turns(waiting)).toEqual(expected.slice());
    }
  });

  test("come first where they were put back, then where they are tried again", () => {
    const waiting = new WaitingRows("longest-first");
    waiting.add(sequence(0, 3, 90));
    for (const [row, age] of [
      [1, 5],
      [2, 3],
      [3, 4],
    ] as const) {
      const one = sequence(row);
      one.age = age;
      waiting.putBack(one);
    }
    for (const [row, notBeforeMs] of [
      [5, 100],
      [4, 100],
      [6, 300],
      [7, 200],
    ] as const) {
      const one = sequence(row);
      one.notBeforeMs = notBeforeMs;
      waiting.delay(one);
    }
    expect([waiting.length, waiting.numReady, waiting.numDelayed]).toEqual([8, 4, 4]);
    expect(waiting.nextWakeMs).toBe(100);
    waiting.wake(99);
    expect(waiting.numReady).toBe(4);
    waiting.wake(200);
    expect([waiting.numReady, waiting.nextWakeMs]).toEqual([7, 300]);
    expect(waiting.takeOut(({ request }) => request.row === 3 || request.row === 6)).toHaveLength(2);
    expect(turns(waiting)).toEqual([2, 1, 4, 5, 7, 0]);
    expect(waiting.nextWakeMs).toBe(Number.POSITIVE_INFINITY);
  });
});
