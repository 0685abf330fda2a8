import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { asFlags } from "../../src/cli/flags.ts";
import {
  amountText,
  anyNumber,
  byteCount,
  bytesText,
  countText,
  cutFront,
  fitWidths,
  nameList,
  printable,
  timeText,
  wholeNumber,
} from "../../src/cli/output.ts";
import { Quantiles } from "../../src/infer/quantiles.ts";

describe("numbers for people", () => {
  test.each([
    [0, "0 B"],
    [999, "999 B"],
    [1000, "1.00 kB"],
    [999_499, "999 kB"],
    [999_500, "1.00 MB"],
    [5_097_621, "5.10 MB"],
    [64e9, "64.0 GB"],
    [2 ** 53, "9.01 PB"],
  ])("%d bytes", (bytes, text) => expect(bytesText(bytes)).toBe(text));

  test.each([
    [0.0123, "0.0123 ms"],
    [999.4, "999 ms"],
    [999.6, "1.00 s"],
    [99_900, "99.9 s"],
    [100_000, "1 min 40 s"],
    [3_599_600, "60 min 0 s"],
    [7_440_000, "2 h 4 min"],
  ])("%d ms", (ms, text) => expect(timeText(ms)).toBe(text));

  test("counts", () => {
    expect(countText(1_234_567.4)).toBe("1,234,567");
    expect([0, 1, 2].map((n) => amountText(n, "batch", "batches"))).toEqual([
      "0 batches",
      "1 batch",
      "2 batches",
    ]);
  });
});

describe("values of options", () => {
  test.each([
    ["4096", 4096],
    ["64MiB", 2 ** 26],
    ["1.5GB", 1.5e9],
    ["10 kb", 10_000],
    ["2tib", 2 ** 41],
  ])("%s bytes", (text, bytes) => expect(byteCount(text)).toBe(bytes));

  test.each([["0"], ["-1"], ["1e3"], ["5 apples"], [""], ["9e99"], ["9007199254740992"], ["0.5"]])(
    "%p is no number of bytes",
    (text) => expect(() => byteCount(text)).toThrow("64MiB"),
  );

  test("whole numbers, numbers, names", () => {
    expect(wholeNumber(0)("0")).toBe(0);
    for (const bad of ["", " 1", "1.0", "0x1", "-0", "９", "9007199254740993"]) {
      expect(() => wholeNumber(0)(bad)).toThrow("whole number");
    }
    expect(anyNumber("-1.5e3")).toBe(-1500);
    for (const bad of ["", " ", "x", "NaN", "Infinity"]) expect(() => anyNumber(bad)).toThrow("a number");
    expect(nameList(" a, b ,,c ")).toEqual(["a", "b", "c"]);
    expect(() => nameList(", ")).toThrow("commas");
  });

  test("the library's names become flags, and only those", () => {
    expect(asFlags("worldSize (2), seed 3; tokenIds and memoryBytes")).toBe(
      "--world-size (2), --shuffle 3; tokenIds and --memory",
    );
    expect(asFlags("data/seed/rank.arrow")).toBe("data/seed/rank.arrow");
  });
});

describe("what a terminal gets", () => {
  test("holds nothing that it would obey", () => {
    fc.assert(
      fc.property(fc.string({ unit: "binary" }), (text) => {
        expect(printable(text)).not.toMatch(/[\p{Cc}\u2028\u2029\u202a-\u202e\u2066-\u2069]/u);
      }),
    );
    expect(printable("a\u001b[1m\u202e数据")).toBe("a\\u{001b}[1m\\u{202e}数据");
  });

  test("fits: only the widest give way, and none below 8 columns", () => {
    const widths = fc.array(fc.nat(100), { minLength: 1, maxLength: 8 });
    fc.assert(
      fc.property(widths, fc.integer({ min: 1, max: 300 }), (natural, columns) => {
        const fitted = fitWidths(natural, columns);
        const total = (list: readonly number[]) => list.reduce((a, b) => a + b + 2, 0);
        fitted.forEach((width, i) => {
          expect(width).toBeLessThanOrEqual(natural[i]!);
          expect(width).toBeGreaterThanOrEqual(Math.min(natural[i]!, 8));
        });
        if (total(fitted) > columns) expect(Math.max(...fitted)).toBeLessThanOrEqual(8);
        else if (total(natural) > columns) expect(total(fitted)).toBe(columns);
        else expect(fitted).toEqual(natural);
      }),
    );
    expect(fitWidths([200, 5], undefined)).toEqual([200, 5]);
  });

  test("paths are cut at their front", () => {
    expect(cutFront("a/long/path/x.arrow", 10)).toBe("…h/x.arrow");
    expect(cutFront("数据/数据.arrow", 9)).toBe("…据.arrow");
    expect(cutFront("words go on", 5)).toBe("words go on");
    expect(cutFront("short", 5)).toBe("short");
  });
});

describe("quantiles", () => {
  test("are those of the sorted values, to within 1 %", () => {
    const values = fc.array(fc.double({ min: 1e-3, max: 1e8, noNaN: true }), {
      minLength: 1,
      maxLength: 300,
    });
    fc.assert(
      fc.property(values, fc.double({ min: 0, max: 1, noNaN: true }), (list, share) => {
        const quantiles = new Quantiles();
        for (const value of list) quantiles.add(value);
        const exact = list.toSorted((a, b) => a - b)[
          Math.min(list.length - 1, Math.floor(list.length * share))
        ]!;
        expect(Math.abs(quantiles.at(share) - exact)).toBeLessThanOrEqual(exact * 0.01);
      }),
    );
  });

  test("of nothing are 0, of extremes within them", () => {
    expect(new Quantiles().at(0.5)).toBe(0);
    const quantiles = new Quantiles();
    for (const value of [0, 0, 1e12]) quantiles.add(value);
    expect(quantiles.at(0.5)).toBe(0);
    expect(quantiles.at(1)).toBeLessThanOrEqual(1e12);
  });
});

test.each([
  ["byteLength is 1000; it must be a whole number from 1048576", "--size is 1000"],
  ["rehearsalBytes is 5; it must be", "--rehearsal is 5"],
  ["formats: foo is none: it must be safetensors", "--formats: foo is none"],
  ["orders is zig; it must be one of", "--orders is zig"],
])("what bench says of its options names what was typed: %s", (message, typed) => {
  expect(asFlags(message, "bench")).toStartWith(typed);
});
