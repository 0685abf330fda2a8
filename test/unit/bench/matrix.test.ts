import { describe, expect, test } from "bun:test";
import { notFor, parseFormat } from "../../../src/bench/formats.ts";
import { cellsOf, guessSeconds, keyOfId } from "../../../src/bench/matrix.ts";
import { type BenchOptions, planBench } from "../../../src/bench/options.ts";
import { resumedPlan, settingsOf } from "../../../src/bench/resume.ts";
import { failureOf } from "../failure.ts";
import { madeUpRun } from "./made-up.ts";

const DATA = [{ name: "tokens", kind: "tokens", tensors: false }] as const;

function keysOf(options: BenchOptions) {
  return cellsOf(planBench({ device: "host", ...options }), DATA).map(({ key }) => key);
}

describe("the id of a cell", () => {
  const keys = [
    ...keysOf({ lanes: [1, 8], requestBytes: [4096, 2 ** 20], peers: ["pyarrow", "dataloader"] }),
    ...keysOf({ device: "metal", orders: ["random", "sequential", "block-shuffled"] }),
    ...cellsOf(planBench({ device: "cuda" }), [{ name: "a/b\nc", tensors: true }]).map(({ key }) => key),
  ];

  test("tells its key", () => {
    expect(keys.some(({ requestBytes, path }) => requestBytes !== undefined && path === "read")).toBe(true);
    expect(keys.some(({ peer }) => peer === "pyarrow")).toBe(true);
    for (const key of keys) expect(keyOfId(key.id)).toEqual(key);
  });

  test.each([
    "",
    "weights",
    "a/b/c/d/e/f/g",
    "w/arrow/map/tepid/random/lanes 8/host",
    "w/arrow/map/cold/random/lanes x/host",
  ])("%p tells none", (id) => expect(keyOfId(id)).toBeUndefined());
});

describe("formats", () => {
  test("are told by their names", () => {
    expect(parseFormat("safetensors")).toEqual({ name: "safetensors", base: "safetensors", planes: false });
    expect(parseFormat("arrow.zst")).toMatchObject({ name: "arrow.zst-3", codec: "zstd", level: 3 });
    expect(parseFormat("safetensors.lz4-9")).toMatchObject({ codec: "lz4", level: 9, planes: false });
    expect(parseFormat("safetensors.bp.zst-19")).toMatchObject({ codec: "zstd", level: 19, planes: true });
    expect(parseFormat("arrow.lz4-body")).toMatchObject({ name: "arrow.lz4-body", codec: "lz4-body" });
    expect(parseFormat("arrow.zstd-body-9")).toMatchObject({ name: "arrow.zstd-body-9", level: 9 });
  });

  test.each([
    ["parquet", "parquet is none"],
    ["safetensors.zst-20", "its level must be 1 to 19"],
    ["safetensors.lz4-0", "its level must be 1 to 12"],
    ["safetensors.zstd-body", "bodies are Arrow's"],
    ["arrow.bp.zst-3", "planes are for safetensors.bp.zst"],
    ["arrow.zst-3.lz4", "arrow.zst-3.lz4 is none"],
  ])("%s is refused", (name, why) => {
    const error = failureOf(() => parseFormat(name));
    expect(error.code).toBe("BAD_OPTION");
    expect(error.message).toContain(why);
  });

  test("are reached by the ways that lead to them", () => {
    const ways = (name: string) =>
      ["map", "read", "stream", "js-read", "apache-arrow"].filter(
        (path) => notFor(path, parseFormat(name)) === undefined,
      );
    expect(ways("safetensors")).toEqual(["map", "read", "js-read"]);
    expect(ways("arrow")).toEqual(["map", "read", "apache-arrow"]);
    expect(ways("safetensors.zst-3")).toEqual(["stream", "js-read"]);
    expect(ways("safetensors.lz4-1")).toEqual(["stream"]);
    expect(ways("safetensors.bp.zst-3")).toEqual(["stream"]);
    expect(ways("arrow.zstd-body")).toEqual(["stream", "apache-arrow"]);
    expect(ways("arrow.lz4-body")).toEqual(["stream"]);
  });
});

describe("the matrix", () => {
  test("has each combination once, each with an id of its own", () => {
    const keys = keysOf({
      lanes: [1, 4],
      requestBytes: [65_536, 2 ** 20],
      peers: ["pyarrow", "safetensors"],
    });
    expect(new Set(keys.map(({ id }) => id)).size).toBe(keys.length);
    const reads = keys.filter(
      ({ path, format, temperature }) => [path, format, temperature].join() === "read,arrow,warm",
    );
    expect(reads.map(({ lanes, requestBytes }) => [lanes, requestBytes])).toEqual([
      [1, 65_536],
      [1, 2 ** 20],
      [4, 65_536],
      [4, 2 ** 20],
    ]);
  });

  test("sweeps lanes and sizes only where a way has them", () => {
    const keys = keysOf({ lanes: [1, 4], requestBytes: [65_536, 2 ** 20], temperatures: ["warm"] });
    const count = (path: string, format: string) =>
      keys.filter((key) => key.path === path && key.format === format).length;
    expect(count("map", "arrow")).toBe(1);
    expect(count("apache-arrow", "arrow")).toBe(1);
    expect(count("stream", "arrow.lz4-body")).toBe(2);
    expect(count("read", "arrow")).toBe(4);
  });

  test("holds a peer only to what it reads", () => {
    const keys = keysOf({ peers: ["pyarrow"], orders: ["sequential", "random", "block-shuffled"] });
    const peers = keys.filter(({ peer }) => peer === "pyarrow");
    expect(new Set(peers.map(({ format }) => format))).toEqual(
      new Set(["arrow", "arrow.zstd-body", "arrow.lz4-body"]),
    );
    expect(new Set(peers.map(({ order }) => order))).toEqual(new Set(["sequential", "random"]));
  });

  test("takes MTLIO for a Mac's, unless it is asked for", () => {
    const mtlio = (options: BenchOptions) =>
      keysOf(options).filter(({ path }) => path.startsWith("mtlio")).length;
    expect(mtlio({})).toBe(0);
    expect(mtlio({ device: "metal" })).toBeGreaterThan(0);
    expect(mtlio({ paths: ["mtlio-lzfse"] })).toBeGreaterThan(0);
  });

  test("guesses longer times for more rounds and for cold files", () => {
    const guess = (options: BenchOptions) => {
      const plan = planBench({ device: "host", ...options });
      return guessSeconds(plan, cellsOf(plan, DATA));
    };
    expect(guess({ rounds: 11 })).toBeCloseTo(2 * guess({ rounds: 5 }), 6);
    expect(guess({ temperatures: ["cold"] })).toBeGreaterThan(guess({ temperatures: ["warm"] }));
  });
});

describe("options", () => {
  test.each<[BenchOptions, string]>([
    [{ rounds: 4 }, "rounds is 4"],
    [{ byteLength: 10 }, "byteLength is 10"],
    [{ lanes: [0] }, "lanes is 0"],
    [{ lanes: [] }, "lanes is empty"],
    [{ requestBytes: [12] }, "requestBytes is 12"],
    [{ paths: ["mmap"] }, "paths: mmap is none of map, read"],
    [{ orders: ["sorted"] }, "orders is sorted"],
    [{ temperatures: ["tepid"] }, "temperatures is tepid"],
    [{ data: ["video"] }, "data: video is none of weights"],
    [{ peers: ["duckdb"] }, "peers: duckdb is none of safetensors"],
    [{ computeMs: 0 }, "computeMs is 0"],
    [{ largerThanMemory: 2 ** 26 }, "largerThanMemory is 67108864; it must be a whole number from 536870912"],
  ])("%p are refused", (options, why) => {
    const error = failureOf(() => planBench(options));
    expect(error.code).toBe("BAD_OPTION");
    expect(error.message).toContain(why);
  });
});

describe("a run that goes on", () => {
  const plan = planBench({
    device: "host",
    data: ["tokens"],
    rounds: 7,
    formats: ["arrow.lz4-body", "safetensors.zst-9"],
    lanes: [2, 4],
    requestBytes: [2 ** 20],
    computeMs: 1.5,
    largerThanMemory: 2 ** 30,
  });
  const run = { ...madeUpRun(), settings: settingsOf(plan) };

  test("has the settings of the one that was interrupted, wherever its data lies", () => {
    const { folder: _, ...settings } = plan;
    const { folder, python, ...found } = resumedPlan([run], "a.jsonl", {
      folder: "there",
      python: "python4",
    });
    expect(found).toEqual(settings);
    expect({ folder, python }).toEqual({ folder: "there", python: "python4" });
    const usual = planBench({ source: "data/", device: "host" });
    const again = resumedPlan([{ ...run, settings: settingsOf(usual) }], "a.jsonl");
    expect(again).toEqual(usual);
  });

  test.each([
    [{ rounds: "many" }, "rounds is many"],
    [{ data: "weights" }, ""],
    [{ lanes: ["x"] }, "lanes is NaN"],
    [{ hyperdrive: true }, "hyperdrive true would be unset"],
  ])("is refused with settings that this version has not: %p", (change, why) => {
    const other = { ...run, settings: { ...run.settings, ...change } };
    const error = failureOf(() => resumedPlan([other], "a.jsonl"));
    expect(error.code).toBe("BAD_RESULTS");
    expect(error.message).toStartWith(`a.jsonl: its settings are those of another version: ${why}`);
  });

  test("is refused where nothing is left to do", () => {
    const cell = { kind: "cell" } as never;
    const error = failureOf(() => resumedPlan([run, cell], "a.jsonl"));
    expect(error.message).toContain("came to its end");
  });
});
