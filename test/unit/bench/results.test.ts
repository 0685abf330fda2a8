/** What is made of the records of a run that was interrupted. */
import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import { parseHTML } from "linkedom";
import { readRecords } from "../../../src/bench/read.ts";
import { recommend } from "../../../src/bench/recommend.ts";
import type { BenchRecord, TrialRecord } from "../../../src/bench/record.ts";
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

describe("a trial that failed", () => {
  const busy = { computeMs: 5, share: 0.5 };
  const first = withoutCells.findIndex((record) => record.kind === "trial" && record.round === 1);
  const good = withoutCells[first] as TrialRecord;
  const failure: TrialRecord = { ...good, seconds: 0, bytes: 0, numBatches: 0, error: "ran out of luck" };
  /** The records of a run in which `trials` stand in the place of one that was good. */
  const withTrials = (records: readonly BenchRecord[], ...trials: TrialRecord[]) =>
    records.flatMap((record) => (record === good ? trials : [record]));
  const cellIn = (records: readonly BenchRecord[]) =>
    resultsOf(records).cells.find(({ key }) => key.id === good.cell);

  test("counts no more once it was done again well, in a run that ended and in one that did not", () => {
    for (const records of [whole, withoutCells]) {
      const again = withTrials(records, failure, failure, good);
      expect(resultsOf(again)).toEqual(resultsOf(records));
      expect(renderReport(again)).not.toContain("ran out of luck");
    }
    const begun = { ...failure, round: -1 };
    const warmUp = { ...good, round: -1 };
    expect(cellIn(withTrials(withoutCells, begun, warmUp, good))).toEqual(cellIn(withoutCells)!);
  });

  test.each([
    ["before that alone", [good, failure]],
    ["of another round", [failure, { ...good, round: 2 }]],
    ["that kept the device busy", [failure, { ...good, busy }]],
    ["that did not", [{ ...failure, busy }, good]],
    ["of another cell", [failure, { ...good, cell: good.cell.replace("/warm/", "/cold/") }]],
    ["that failed too", [failure, { ...failure, error: "and again" }]],
  ])("counts beside one %s", (_, trials) => {
    expect(cellIn(withTrials(withoutCells, ...trials))).toBeUndefined();
    const { skipped } = resultsOf(withTrials(withoutCells, ...trials));
    expect(skipped.find(({ key }) => key.id === good.cell)!.reason).toEndWith(
      "so that none counts: ran out of luck",
    );
  });
});
