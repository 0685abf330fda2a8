import { describe, expect, test } from "bun:test";
import { parseFormat } from "../../../src/bench/formats.ts";
import type { Cell } from "../../../src/bench/matrix.ts";
import type { CeilingRecord, TrialRecord } from "../../../src/bench/record.ts";
import { summarize } from "../../../src/bench/summary.ts";

function cellOf(path: string, temperature: "cold" | "warm" = "warm", format = "safetensors"): Cell {
  const key = {
    data: "weights",
    format,
    path,
    temperature,
    order: "sequential",
    lanes: 8,
    device: "host",
  } as const;
  return { key: { ...key, id: `${format}/${path}/${temperature}` }, format: parseFormat(format), data: 0 };
}

function trialOf(cell: Cell, round: number, seconds: number, change: Partial<TrialRecord> = {}): TrialRecord {
  return {
    kind: "trial",
    cell: cell.key.id,
    round,
    seconds,
    openSeconds: 0.1,
    bytes: 1e9,
    fileBytes: 5e8,
    checksum: "",
    residency: 0,
    temperature: cell.key.temperature,
    cpuSeconds: 2 * seconds,
    minorFaults: 10,
    majorFaults: 1,
    peakRssBytes: 1e6 * (round + 2),
    batchMs: [1, 2, 3, 4, 5, 6].map((ms) => ms * seconds),
    numBatches: 10,
    ...change,
  };
}

const ceiling = (name: string, median: number): CeilingRecord => {
  return {
    kind: "ceiling",
    name,
    gigabytesPerSecond: { median, p5: median, p95: median, low: median, high: median },
    note: "",
  };
};

function figuresOf(
  cells: readonly Cell[],
  trials: readonly TrialRecord[],
  ceilings: readonly CeilingRecord[] = [],
) {
  const byCell = Map.groupBy(trials, ({ cell }) => cell);
  return summarize(cells, { trials: byCell, skipped: new Map([["gone", "why"]]), ceilings }, 1);
}

describe("a cell's figures", () => {
  const cell = cellOf("read");

  test("leave out warm-ups, and trials that kept the device busy", () => {
    const [figures] = figuresOf(
      [cell],
      [
        trialOf(cell, -1, 100),
        trialOf(cell, 0, 1),
        trialOf(cell, 1, 2),
        trialOf(cell, 2, 4),
        trialOf(cell, 0, 60, { busy: { computeMs: 5, share: 0.5 } }),
        trialOf(cell, 1, 60, { busy: { computeMs: 5, share: 0.7 } }),
      ],
    );
    expect(figures).toMatchObject({
      rounds: 3,
      compression: 2,
      minorFaultsPerGigabyte: 10,
      peakRssBytes: 4e6,
    });
    expect(figures!.gigabytesPerSecond.median).toBeCloseTo(0.5, 12);
    expect(figures!.cpuSecondsPerGigabyte).toBeCloseTo(4, 12);
    expect(figures!.batchMs[5]).toBeCloseTo(12, 12);
    expect(figures!.busyShare!.median).toBeCloseTo(0.6, 12);
  });

  test("are none where a single trial failed", () => {
    const other = cellOf("map");
    const [failed, whole] = figuresOf(
      [cell, other],
      [
        trialOf(cell, 0, 1),
        trialOf(cell, 1, 2),
        trialOf(cell, 2, 50, { error: "a wrong sum" }),
        trialOf(other, 0, 1),
      ],
    );
    expect(failed).toMatchObject({
      rounds: 0,
      skipped: "1 of its 3 trials failed, so that none counts: a wrong sum",
    });
    expect(whole).toMatchObject({ rounds: 1 });
    expect(whole!.ratios ?? []).toEqual([]);
  });

  test("of a cold one are those of its proven trials, and warm where none is", () => {
    const cold = cellOf("read", "cold");
    const unproven = { temperature: "warm", residency: 0.9 } as const;
    const [some] = figuresOf([cold], [trialOf(cold, 0, 1), trialOf(cold, 1, 10, unproven)]);
    expect(some).toMatchObject({ rounds: 1, unproven: 1, residency: 0 });
    expect(some!.cell.temperature).toBe("cold");
    const [none] = figuresOf([cold], [trialOf(cold, 0, 1, unproven), trialOf(cold, 1, 1, unproven)]);
    expect(none).toMatchObject({ rounds: 2, unproven: 2, residency: 0.9 });
    expect(none!.cell.temperature).toBe("warm");
  });

  test("are none where it was skipped, with the reason", () => {
    const gone = { ...cell, key: { ...cell.key, id: "gone" } };
    const [skipped, empty] = figuresOf([gone, cell], []);
    expect(skipped!.skipped).toBe("why");
    expect(empty!.skipped).toBe("no trial of it ended well");
  });

  test("stand beside the lowest ceiling that applies, in bytes of values", () => {
    const ceilings = [
      ceiling("pread-warm", 3),
      ceiling("checksum", 10),
      ceiling("pread-cold", 0.1),
      ceiling("link", 1),
    ];
    const map = cellOf("map");
    const [read, mapped] = figuresOf([cell, map], [trialOf(cell, 0, 1), trialOf(map, 0, 1)], ceilings);
    // Two bytes of values for each byte of the file.
    expect(read!.ceiling).toEqual({ name: "pread-warm", part: 1 / 6 });
    expect(mapped!.ceiling).toEqual({ name: "checksum", part: 0.1 });
  });

  test("are held against what users do without this project, in the same order and temperature", () => {
    const cells = [
      cell,
      cellOf("js-read"),
      cellOf("js-read", "cold"),
      cellOf("apache-arrow", "warm", "arrow"),
    ];
    const figures = figuresOf(
      cells,
      cells.flatMap((one, i) => [0, 1, 2].map((round) => trialOf(one, round, i + 1))),
    );
    expect(figures[0]!.ratios!.map(({ against, ratio }) => [against, ratio.median])).toEqual([
      ["js-read of safetensors", 2],
      ["apache-arrow of arrow", 4],
    ]);
    expect(figures[1]!.ratios).toBeUndefined();
  });
});
