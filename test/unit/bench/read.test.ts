import { afterAll, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { parseRecords, readRecords } from "../../../src/bench/read.ts";
import { resultsOf } from "../../../src/bench/results.ts";
import { HeadraceError } from "../../../src/errors.ts";
import { failureOf } from "../failure.ts";
import { FEW, linesOf, madeUpRecords, madeUpRun } from "./made-up.ts";

const folder = mkdtempSync(join(tmpdir(), "headrace-results-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const records = madeUpRecords(FEW);
const text = linesOf(records);

function without(value: unknown): unknown {
  return JSON.parse(JSON.stringify(value));
}

describe("results", () => {
  test("come back as they were written", () => {
    const path = join(folder, "run.jsonl");
    writeFileSync(path, text);
    expect(without(readRecords(path))).toEqual(without(records));
  });

  test("of an interrupted run end with the last whole line, wherever the rest was cut off", () => {
    const whole = text.trimEnd().split("\n");
    const last = whole.at(-1)!;
    const before = `${whole.slice(0, -1).join("\n")}\n`;
    for (const length of [0, 1, last.length >> 1, last.length - 1]) {
      expect(parseRecords(before + last.slice(0, length), "x")).toHaveLength(whole.length - 1);
    }
    expect(parseRecords(before + last, "x")).toHaveLength(whole.length);
  });

  test("that are cut off before their first line ended are refused", () => {
    expect(failureOf(() => parseRecords('{"kind":"ru', "x")).message).toBe(
      "x: holds no record; it must be what 'headrace bench' wrote",
    );
  });

  test("without cells name those that had begun", () => {
    const begun = records.filter(({ kind }) => kind !== "cell");
    const results = resultsOf(begun);
    expect(results.cells).toEqual([]);
    expect(results.unfinished).toHaveLength(FEW.length);
  });

  const lines = text.split("\n");
  test.each([
    ["a line that is damaged", [lines[0], "{", ...lines.slice(1)], /^x: line 2: no JSON/],
    [
      "another version",
      [JSON.stringify({ ...madeUpRun(), version: 2 })],
      /^x: line 1: has version 2.*reads 1/,
    ],
    ["no version", [JSON.stringify({ kind: "run" })], /^x: line 1: has version none/],
    ["a start that is no run", [lines[1]], /^x: line 1: the first record must be that of a run/],
    ["two runs", [lines[0], lines[0]], /^x: line 2: a second run begins/],
    ["an unknown kind", [lines[0], '{"kind":"guess"}'], /^x: line 2: kind: /],
    ["a figure that is none", [lines[0], lines[1]!.replace(/"median":[\d.]+/, '"median":null')], /median/],
    ["a negative rate", [lines[0], lines[1]!.replace(/"median":/, '"median":-')], /^x: line 2: .*median/],
    ["an array", ["[]"], /^x: line 1: the first record/],
  ])("with %s are refused by line", (_, parts, message) => {
    const failure = failureOf(() => parseRecords(`${parts.join("\n")}\n`, "x"));
    expect(failure.code).toBe("BAD_RESULTS");
    expect(failure.message).toMatch(message);
    expect(failure.message).not.toContain("\n");
  });

  test("that are not there, or no file, are refused", () => {
    expect(failureOf(() => readRecords(join(folder, "none"))).code).toBe("SOURCE_NOT_FOUND");
    expect(failureOf(() => readRecords(folder)).code).toBe("SOURCE_UNREADABLE");
  });

  test("with a cell twice are refused", () => {
    expect(failureOf(() => resultsOf([...records, records.at(-1)!])).message).toMatch(/comes twice/);
  });

  test("whatever is done to them give records or a failure by code", () => {
    fc.assert(
      fc.property(fc.nat(text.length - 1), fc.string({ maxLength: 3 }), fc.nat(9), (at, put, cut) => {
        try {
          resultsOf(parseRecords(text.slice(0, at) + put + text.slice(at + cut), "x"));
        } catch (error) {
          if (!(error instanceof HeadraceError)) throw error;
          expect(error.code).toBe("BAD_RESULTS");
        }
      }),
      { numRuns: 100 },
    );
  });
});

describe("cells", () => {
  test("that were not shown to be cold have only their cold trials", () => {
    const [cell] = resultsOf(madeUpRecords([{ rate: 2, rounds: 7, unproven: 3 }])).cells;
    expect(cell).toMatchObject({ unproven: 3 });
    expect(cell!.trials).toHaveLength(4);
    expect(cell!.done).toHaveLength(7);
  });

  test("of which no trial was cold have no figures, and say why", () => {
    const results = resultsOf(madeUpRecords([{ rate: 2, rounds: 5, unproven: 5 }]));
    expect(results.cells).toEqual([]);
    expect(results.skipped[0]!.reason).toBe("none of 5 trials could be shown to be cold");
  });

  test("without figures keep their reason", () => {
    const results = resultsOf(madeUpRecords([{ rate: 2, skipped: "no such device" }]));
    expect(results.skipped[0]!.reason).toBe("no such device");
  });
});
