/** Sections of segments, in one memory or two. */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { paddedLength, SegmentLayout } from "../../../src/plan/collate.ts";
import { expectCode } from "./expect-code.ts";

const ALIGNMENT = 64;

type Range = readonly [start: number, end: number];

function expectDisjoint(ranges: readonly Range[], within: number): void {
  const sorted = ranges.filter(([start, end]) => end > start).sort((a, b) => a[0] - b[0]);
  sorted.forEach(([start, end], i) => {
    expect(start % ALIGNMENT).toBe(0);
    expect(start).toBeGreaterThanOrEqual(i === 0 ? 0 : sorted[i - 1]![1]);
    expect(end).toBeLessThanOrEqual(within);
  });
}

const sections = fc.array(
  fc.record({
    kind: fc.constantFrom("section", "computed", "scratch"),
    byteLength: fc.integer({ min: 0, max: 1000 }),
  }),
  { maxLength: 30 },
);

describe("a segment", () => {
  test("in two memories: computed sections first in both, and no two share a byte", () => {
    fc.assert(
      fc.property(sections, (wanted) => {
        const layout = new SegmentLayout(ALIGNMENT, true);
        const places = wanted.map(({ kind, byteLength }) => layout[kind](byteLength));
        const device: Range[] = [];
        const host: Range[] = [];
        wanted.forEach(({ kind, byteLength }, i) => {
          const from = places[i]!;
          if (kind === "section") {
            device.push([layout.movedStart + from, layout.movedStart + from + byteLength]);
          } else if (kind === "scratch") {
            host.push([layout.scratchStart + from, layout.scratchStart + from + byteLength]);
          } else {
            expect(from + byteLength).toBeLessThanOrEqual(layout.computedBytes);
            device.push([from, from + byteLength]);
            host.push([from, from + byteLength]);
          }
        });
        expectDisjoint(device, layout.byteLength);
        expectDisjoint(host, layout.hostBytes);
        const sum = (kinds: readonly string[]) =>
          wanted.reduce(
            (total, one) => total + (kinds.includes(one.kind) ? one.byteLength + ALIGNMENT : 0),
            0,
          );
        expect(layout.byteLength).toBeLessThanOrEqual(sum(["section", "computed"]) + ALIGNMENT);
        expect(layout.hostBytes).toBeLessThanOrEqual(sum(["scratch", "computed"]) + ALIGNMENT);
        layout.clear();
        expect([layout.byteLength, layout.hostBytes, layout.computedBytes]).toEqual([0, 0, 0]);
      }),
    );
  });

  test("in one memory: sections of all kinds one behind the other, as they were asked for", () => {
    fc.assert(
      fc.property(sections, (wanted) => {
        const layout = new SegmentLayout(ALIGNMENT);
        let end = 0;
        for (const { kind, byteLength } of wanted.filter((one) => one.kind !== "scratch")) {
          const start = Math.ceil(end / ALIGNMENT) * ALIGNMENT;
          expect(layout[kind](byteLength)).toBe(start);
          end = start + byteLength;
        }
        expect([layout.byteLength, layout.hostBytes]).toEqual([end, end]);
        expect([layout.computedBytes, layout.movedStart, layout.scratchStart]).toEqual([0, 0, 0]);
      }),
    );
  });

  test("beyond what can be counted is refused", () => {
    for (const apart of [false, true]) {
      for (const kind of ["section", "computed"] as const) {
        const layout = new SegmentLayout(ALIGNMENT, apart);
        layout.section(2 ** 52);
        expectCode("BATCH_TOO_LARGE", ["beyond"], () => layout[kind](2 ** 53 - 2 ** 52 + 1));
      }
    }
  });
});

test("padded lengths are the next multiple, and at least one", () => {
  fc.assert(
    fc.property(fc.nat(10_000), fc.integer({ min: 1, max: 500 }), (longest, padTo) => {
      const length = paddedLength(longest, padTo);
      expect(length % padTo).toBe(0);
      expect(length).toBeGreaterThanOrEqual(Math.max(longest, padTo));
      expect(length - longest).toBeLessThan(padTo + (longest === 0 ? 1 : 0));
    }),
  );
});
