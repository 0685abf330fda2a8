/** The parts under the Arrow reader: checked flatbuffers, and the comparison of bitmaps. */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { HeadraceError } from "../../../src/errors.ts";
import { MetadataBuffer, oneLine, quoted } from "../../../src/format/arrow-metadata.ts";
import { nullsUnderNullRows } from "../../../src/format/arrow-nulls.ts";
import { readerOf } from "./arrow-helpers.ts";

function codeOf(work: () => unknown): string {
  try {
    return `returned ${work()}`;
  } catch (error) {
    return error instanceof HeadraceError ? error.code : `threw ${error}`;
  }
}

describe("MetadataBuffer", () => {
  const bytes = (...words: number[]) => new Uint8Array(new Int32Array(words).buffer);
  const buffer = (content: Uint8Array) => new MetadataBuffer(content, "ARROW_FOOTER", "the footer");

  test("reads little-endian numbers, also of a part of a larger buffer", () => {
    const part = buffer(
      new Uint8Array([9, 9, 9, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]).subarray(3),
    );
    expect(part.readInt64(0)).toBe(-2n);
    expect(part.readInt32(0)).toBe(-2);
    expect(part.readInt16(0)).toBe(-2);
    expect(part.readInt8(0)).toBe(-2);
    expect(part.readUint8(0)).toBe(254);
  });

  test("refuses every position outside", () => {
    const four = buffer(bytes(0));
    const reads = [
      (at: number) => four.readUint8(at),
      (at: number) => four.readInt8(at),
      (at: number) => four.readInt16(at),
      (at: number) => four.readInt32(at),
      (at: number) => four.readInt64(at),
      (at: number) => four.__indirect(at),
      (at: number) => four.__vector_len(at),
      (at: number) => four.__string(at),
    ];
    for (const read of reads)
      for (const at of [-1, -(2 ** 31), 4, 2 ** 31, 2 ** 40])
        expect(codeOf(() => read(at))).toBe("ARROW_FOOTER");
    expect(codeOf(() => four.readInt16(3))).toBe("ARROW_FOOTER");
    expect(codeOf(() => four.readInt32(1))).toBe("ARROW_FOOTER");
  });

  test("refuses vectors and strings longer than what is left", () => {
    expect(buffer(bytes(4, 1, 0)).__vector_len(0)).toBe(1);
    expect(codeOf(() => buffer(bytes(4, 2, 0)).__vector_len(0))).toBe("ARROW_FOOTER");
    expect(codeOf(() => buffer(bytes(4, -1, 0)).__vector_len(0))).toBe("ARROW_FOOTER");
    expect(buffer(bytes(4, 4, 0x64636261)).__string(0)).toBe("abcd");
    expect(codeOf(() => buffer(bytes(4, 5, 0)).__string(0))).toBe("ARROW_FOOTER");
    expect(codeOf(() => buffer(bytes(4, -1, 0)).__string(0))).toBe("ARROW_FOOTER");
  });

  test("refuses one string decoded over and over", () => {
    const content = new Uint8Array(1008).fill(0x61);
    content.set(bytes(4, 1000));
    const hostile = buffer(content);
    let count = 0;
    expect(
      codeOf(() => {
        for (; count < 1000; count++) hostile.__string(0);
      }),
    ).toBe("ARROW_FOOTER");
    expect(count).toBe(8);
  });

  test("keeps a byte order mark, which is part of a name", () => {
    expect(buffer(bytes(4, 4, 0x61bfbbef)).__string(0)).toBe("\ufeffa");
  });

  test("takes sizes from 0 to 2^53 - 1", () => {
    const any = buffer(bytes(0));
    expect(any.size(2n ** 53n - 1n, "it")).toBe(Number.MAX_SAFE_INTEGER);
    for (const size of [-1n, 2n ** 53n, 2n ** 63n - 1n, -1, 1.5, Number.NaN])
      expect(codeOf(() => any.size(size, "it"))).toBe("ARROW_FOOTER");
  });
});

test("names in messages stay short and on one line", () => {
  expect(quoted("a\nb")).toBe('"a\\nb"');
  expect(quoted("x".repeat(1e6)).length).toBeLessThan(100);
  expect(oneLine("a\r\n\u2028b")).toBe("a   b");
  expect(oneLine("x".repeat(1e6)).length).toBeLessThan(130);
});

describe("nullsUnderNullRows", () => {
  const pack = (present: readonly boolean[]) => {
    const bits = new Uint8Array(Math.ceil(present.length / 8));
    present.forEach((is, i) => {
      if (is) bits[i >> 3] = (bits[i >> 3] as number) | (1 << (i & 7));
    });
    return bits;
  };

  function count(rows: Uint8Array, elements: Uint8Array, numRows: number, perRow: number): number {
    const file = new Uint8Array(rows.length + elements.length);
    file.set(rows);
    file.set(elements, rows.length);
    const split = rows.length;
    const place = (start: number, end: number) => ({ read: readerOf(file), range: { start, end } });
    return nullsUnderNullRows(place(0, split), place(split, file.length), numRows, perRow);
  }

  test("agrees with counting bit by bit", () => {
    const mostly = fc.integer({ min: 0, max: 9 }).map((n) => n > 1);
    const input = fc
      .tuple(fc.array(mostly, { maxLength: 100 }), fc.integer({ min: 0, max: 20 }))
      .chain(([rows, perRow]) => {
        const length = rows.length * perRow;
        return fc.tuple(
          fc.constant(rows),
          fc.constant(perRow),
          fc.array(fc.boolean(), { minLength: length, maxLength: length }),
        );
      });
    fc.assert(
      fc.property(input, ([rows, perRow, elements]) => {
        const expected = elements.filter((is, i) => !is && !rows[Math.floor(i / perRow)]).length;
        expect(count(pack(rows), pack(elements), rows.length, perRow)).toBe(expected);
      }),
    );
  });

  test("over bitmaps of several pieces", () => {
    const numRows = 300_000;
    const rows = new Uint8Array(numRows / 8 + 1).fill(0xff);
    rows[0] = 0xfe;
    rows[10] = 0xfe;
    rows[30_000] = 0xf7;
    const elements = new Uint8Array((numRows * 16) / 8);
    expect(count(rows, elements, numRows, 16)).toBe(48);
  });
});
