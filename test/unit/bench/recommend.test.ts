import { describe, expect, test } from "bun:test";
import { type RecommendOptions, recommend } from "../../../src/bench/recommend.ts";
import { adviceRows, loadCode, loadFlags, packFlags } from "../../../src/bench/recommend-text.ts";
import { parseRecommended } from "../../../src/loader/recommended.ts";
import { MACHINE, type MadeUp, madeUpRecords } from "./made-up.ts";

const advise = (cells: readonly MadeUp[], options?: RecommendOptions) =>
  recommend(madeUpRecords(cells), options);
const lines = (cells: readonly MadeUp[]) => new Map(adviceRows(advise(cells).advice[0]!));

describe("advice", () => {
  test("names what lies above all others", () => {
    const [one] = advise([
      { rate: 2, path: "read" },
      { rate: 1, path: "map" },
    ]).advice;
    expect(one!.path).toEqual({ values: ["read"], varied: true });
    expect(one!.next!.key.path).toBe("map");
    expect(loadFlags(one!)).toBe("headrace load SOURCE --device host --strategy read");
    expect(loadCode(one!)).toBe('openLoader(source, { device: openDevice("host"), strategy: "read" })');
  });

  test("says either where intervals overlap, and sets nothing then", () => {
    const cells = [
      { rate: 2, path: "read", spread: 0.2 },
      { rate: 1.98, path: "map", spread: 0.2 },
    ];
    const [one] = advise(cells).advice;
    expect(new Set(one!.path.values)).toEqual(new Set(["read", "map"]));
    expect(one!.next).toBeUndefined();
    expect(lines(cells).get("strategy")).toMatch(/^either (?:read or map|map or read): no clear difference$/);
    expect(loadFlags(one!)).toBe("headrace load SOURCE --device host");
  });

  test("gives lanes and request only where several were tried", () => {
    const cells = [1, 4, 16].map((lanes) => ({ rate: lanes, lanes, requestBytes: lanes * 2 ** 20 }));
    const [one] = advise(cells).advice;
    expect(loadCode(one!)).toContain("{ lanes: 16, pieceBytes: 16777216 }");
    expect(loadFlags(one!)).toContain("--lanes 16");
    const mapped = [...cells, { rate: 16, path: "map", lanes: 1 }];
    expect(advise(mapped).advice[0]!.lanes.values).toEqual([16]);
    const [alone] = advise([cells[0]!]).advice;
    expect(loadFlags(alone!)).not.toContain("--lanes");
    expect(lines([cells[0]!]).get("lanes")).toBe("1, the only one measured");
  });

  test("names the format with the command that makes it", () => {
    const cells = [
      { rate: 2, path: "stream", format: "safetensors.zst-9", compression: 2 },
      { rate: 1, path: "read" },
    ];
    const [one] = advise(cells).advice;
    expect(packFlags(one!)).toContain("--codec zstd --level 9");
    expect(packFlags({ format: { values: ["arrow.lz4-body"], varied: true } })).toContain("--codec lz4-body");
    expect(packFlags({ format: { values: ["a", "b"], varied: true } })).toBeUndefined();
    expect(packFlags({ format: { values: ["numpy"], varied: true } })).toBeUndefined();
  });

  test("is apart for cold and warm, orders and devices", () => {
    const { advice } = advise([
      { rate: 1 },
      { rate: 2, temperature: "warm" },
      { rate: 3, order: "random" },
      { rate: 4, device: "cuda" },
    ]);
    expect(advice).toHaveLength(4);
    expect(loadFlags(advice.find(({ order }) => order === "random")!)).toContain("--shuffle");
    expect(advise([{ rate: 1 }, { rate: 4, device: "cuda" }], { device: "cuda" }).advice).toHaveLength(1);
  });

  test("leaves out others' ways, few trials, and what takes too much memory, and says so", () => {
    const cells: MadeUp[] = [
      { rate: 1 },
      { rate: 9, path: "js-read" },
      { rate: 9, path: "peer", peer: "pyarrow 24.0.0 (Python)" },
      { rate: 9, path: "map", rounds: 2 },
      { rate: 9, path: "map", lanes: 2, peakRssBytes: 2e9 },
    ];
    const { advice, notes } = advise(cells, { memoryBytes: 1e9 });
    expect(advice[0]!.best.key).toMatchObject({ path: "read", lanes: 8 });
    expect(advice[0]!.notes).toEqual([
      expect.stringMatching(/^faster than all of these: safetensors by (?:js-read|py)/),
    ]);
    expect(notes).toEqual([
      "1 of 3 cells took more memory than that",
      "1 of 2 cells have under 3 trials that count",
    ]);
    expect(advise(cells, { memoryBytes: 1 }).notes).toContain("no cell is left to recommend");
  });

  test("of a run that was interrupted says so", () => {
    const begun = madeUpRecords([{ rate: 1 }]).filter(({ kind }) => kind !== "cell");
    expect(recommend(begun).notes).toEqual([
      "the run was interrupted: 1 cell had begun and have no figures",
      "no cell is left to recommend",
    ]);
  });

  test("does not take rounds for cold that were not shown to be", () => {
    const { advice } = advise([{ rate: 1 }, { rate: 9, path: "map", unproven: 6 }]);
    expect(advice[0]!.best.key.path).toBe("read");
  });

  test("gives the prefetch only where the device was kept busy", () => {
    expect(advise([{ rate: 1, busy: 0.97 }]).advice[0]!.prefetch).toBe(2);
    const [slow] = advise([{ rate: 1, busy: 0.5 }]).advice;
    expect(slow!.prefetch).toBeUndefined();
    expect(slow!.notes[0]).toBe(
      "with prefetch 2 the device was busy 50 % of the time: not enough to advise it",
    );
  });

  test("streams by MTLIO with the codec of the path", () => {
    const [one] = advise([{ rate: 1, path: "mtlio-lzfse", device: "metal" }]).advice;
    expect(loadFlags(one!)).toBe(
      "headrace load SOURCE --device metal --strategy stream --stream-codec lzfse",
    );
    expect(loadCode(one!)).toContain('stream: { codec: "lzfse" }');
  });
});

describe("figures for auto", () => {
  const measured = (cells: readonly MadeUp[]) => advise(cells).measured[0]!;

  test("are those of map and read where one is clearly faster", () => {
    const { recommended } = measured([
      { rate: 2, path: "read" },
      { rate: 1, path: "map" },
      { rate: 9, path: "read", temperature: "warm" },
      { rate: 20, path: "map", temperature: "warm" },
    ]);
    expect(recommended.cold!.strategy).toBe("read");
    expect(recommended.warm!.strategy).toBe("map");
    expect(recommended.warm!.gigabytesPerSecond).toBeCloseTo(20, -1);
    expect(recommended.machine).toEqual({ cpu: MACHINE.cpu, cores: 2, memoryBytes: 25e9, arch: "x64" });
    expect(parseRecommended(JSON.stringify(recommended))).toEqual(recommended);
  });

  test("are not there where they overlap, contradict each other, or one is missing", () => {
    const overlap = measured([
      { rate: 2, path: "read", spread: 0.2 },
      { rate: 1.98, path: "map", spread: 0.2 },
    ]);
    expect(overlap.recommended.cold).toBeUndefined();
    expect(overlap.notes[0]).toMatch(/^cold: no clear difference between map and read/);
    const mixed = measured([
      { rate: 2, path: "read" },
      { rate: 1, path: "map" },
      { rate: 1, path: "read", order: "random" },
      { rate: 2, path: "map", order: "random" },
    ]);
    expect(mixed.recommended.cold).toBeUndefined();
    expect(mixed.notes[0]).toMatch(/^cold: map was faster for 1 kind of data or order, read for 1;/);
    expect(measured([{ rate: 2 }]).notes[0]).toMatch(/^cold: map and read were not both measured/);
  });

  test("of several kinds tell of the one with the least gain", () => {
    const { recommended } = measured([
      { rate: 9, path: "read" },
      { rate: 1, path: "map" },
      { rate: 3, path: "read", order: "random" },
      { rate: 2, path: "map", order: "random" },
    ]);
    expect(recommended.cold!.otherGigabytesPerSecond).toBeCloseTo(2, 0);
  });
});

test("one cell alone is no fastest", () => {
  expect([...lines([{ rate: 1 }]).keys()][0]).toBe("the only one measured");
  expect([...lines([{ rate: 1 }, { rate: 9, path: "map" }]).keys()][0]).toBe("fastest");
});

test("what has no figures is named with the reason, and so are other devices", () => {
  const cells: MadeUp[] = [
    { rate: 1 },
    { rate: 1, path: "map", skipped: "its sum is another" },
    { rate: 1, path: "map", temperature: "warm", skipped: "its sum is another" },
    { rate: 1, path: "mtlio-raw", skipped: "no queue" },
    { rate: 1, path: "js-read", skipped: "theirs is not ours to tell of" },
  ];
  expect(advise(cells).notes).toEqual([
    "no figures of safetensors by map (2 cells): its sum is another",
    "no figures of safetensors by mtlio-raw (1 cell): no queue",
  ]);
  expect(advise(cells, { device: "cuda" }).notes).toEqual([
    "the run has no cell of device cuda; it has host",
    "no cell is left to recommend",
  ]);
});
