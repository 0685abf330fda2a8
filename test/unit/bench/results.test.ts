/** What is made of the records of a run that was interrupted. */
import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import { parseHTML } from "linkedom";
import { readRecords } from "../../../src/bench/read.ts";
import { recommend } from "../../../src/bench/recommend.ts";
import type { BenchRecord } from "../../../src/bench/record.ts";
import { renderReport } from "../../../src/bench/report.ts";
import { type CellResult, interruptionText, resultsOf } from "../../../src/bench/results.ts";

const PUBLISHED = join(import.meta.dir, "../../bench/results/shards/intel-xeon-2-cores-2026-11-22.jsonl");
const whole = readRecords(PUBLISHED);
const withoutCells = whole.filter(({ kind }) => kind !== "cell");

/** The run as a kill after round `last` leaves it, or in the middle of that. */
function killed(last: number, odd = false): BenchRecord[] {
  let begun = 0;
  return withoutCells.filter(
    (record) =>
      record.kind !== "trial" || record.round < last || (record.round === last && (!odd || begun++ < 7)),
  );
}

describe("a run that was interrupted", () => {
  test("after its last trial has the very figures that it would have written", () => {
    const [made, written] = [resultsOf(withoutCells), resultsOf(whole)];
    expect(made.unfinished.length).toBe(written.cells.length);
    // In the order of the trials, and not of the tables.
    const ordered = ({ record, ...cell }: CellResult) => {
      const ratios = record.ratios?.toSorted((a, b) => a.against.localeCompare(b.against));
      return { ...cell, record: { ...record, ratios } };
    };
    const byId = new Map(made.cells.map((cell) => [cell.key.id, cell]));
    for (const cell of written.cells) expect(ordered(byId.get(cell.key.id)!)).toEqual(ordered(cell));
  });

  test("while it wrote its figures has each cell once", () => {
    const cells = whole.filter(({ kind }) => kind === "cell");
    const some = whole.filter((record) => record.kind !== "cell" || cells.indexOf(record) < 5);
    const results = resultsOf(some);
    expect(results.unfinished.length).toBe(cells.length - 5);
    expect(new Set(results.cells.map(({ key }) => key.id)).size).toBe(resultsOf(whole).cells.length);
  });

  test("in the middle of a round has figures of what there is, and says so", () => {
    const records = killed(2, true);
    const { cells, unfinished } = resultsOf(records);
    expect(cells.length).toBe(resultsOf(whole).cells.length);
    expect(new Set(cells.map(({ rates }) => rates.length))).toEqual(new Set([2, 3]));
    expect(interruptionText({ cells, unfinished })).toBe(
      `the run was interrupted: the figures of ${cells.length} cells are of the trials that it came to`,
    );
    const { document } = parseHTML(renderReport(records));
    expect(document.querySelector(".warn")!.textContent).toContain("'bench --resume FILE' goes on with it.");
    expect(document.querySelectorAll("figure").length).toBeGreaterThan(3);
    expect(recommend(killed(3)).notes.at(-1)).toStartWith("the run was interrupted: the figures of");
    expect(recommend(killed(3)).advice.length).toBeGreaterThan(0);
  });

  test("in its warm-up has none, and says that", () => {
    const { cells, skipped } = resultsOf(killed(-1));
    expect(cells).toEqual([]);
    expect(new Set(skipped.map(({ reason }) => reason))).toEqual(
      new Set(["the run came to its warm-up alone"]),
    );
    expect(renderReport(killed(-1))).toContain("No cell has figures.");
  });

  test("by a version that named its cells otherwise has none", () => {
    const [run, trial] = [withoutCells[0]!, withoutCells.find(({ kind }) => kind === "trial")!];
    const { cells, unfinished } = resultsOf([run, { ...trial, cell: "weights by read" } as BenchRecord]);
    expect(cells).toEqual([]);
    expect(interruptionText({ cells, unfinished })).toBe(
      "the run was interrupted: 1 cell had begun and have no figures",
    );
  });
});
