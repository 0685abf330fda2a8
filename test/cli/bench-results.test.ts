/** `bench report`, `bench compare` and `bench recommend`, and what `load` and `inspect` make of kept figures. */
import { describe, expect, test } from "bun:test";
import { existsSync, mkdirSync, readFileSync, utimesSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { machineHere } from "../../src/loader/recommended.ts";
import { FEW, linesOf, MACHINE, madeUpRecords, manyCells } from "../unit/bench/made-up.ts";
import { DATASETS, headrace, MAIN, scratch, spawn } from "./process.ts";

const folder = scratch();
const at = (name: string) => join(folder, name);

/** As made on this machine. */
const here = { machine: { ...MACHINE, ...machineHere() } };

writeFileSync(at("few.jsonl"), linesOf(madeUpRecords(FEW, here)));
writeFileSync(at("many.jsonl"), linesOf(madeUpRecords(manyCells(), {}, 2)));
writeFileSync(
  at("other.jsonl"),
  linesOf(
    madeUpRecords(
      FEW.map((cell) => ({ ...cell, rate: cell.rate * 1.5 })),
      {},
      3,
    ),
  ),
);

/** With a home of its own, so that this user's figures play no part. */
function atHome(home: string, ...args: string[]) {
  return spawn([process.execPath, MAIN, ...args], folder, { XDG_CONFIG_HOME: at(home) }).ended;
}

describe("bench report", () => {
  test("writes a page beside the results, or where it is told", async () => {
    const { code, out, err } = await headrace("bench", "report", at("few.jsonl"));
    expect({ code, err }).toEqual({ code: 0, err: "" });
    expect(out).toMatch(/^wrote .*few\.html: \d+(\.\d+)? kB\n$/);
    expect(readFileSync(at("few.html"), "utf8")).toStartWith("<!doctype html>");
    await headrace("bench", "report", at("few.jsonl"), "--out", at("page.html"));
    expect(readFileSync(at("page.html"), "utf8")).toBe(readFileSync(at("few.html"), "utf8"));
  });

  test("takes the newest results where none are named", async () => {
    mkdirSync(at("results"));
    writeFileSync(at("results/old.jsonl"), linesOf(madeUpRecords(FEW)));
    writeFileSync(at("results/new.jsonl"), linesOf(madeUpRecords(FEW)));
    utimesSync(at("results/old.jsonl"), 1, 1);
    const { out } = await atHome("none", "bench", "report");
    expect(out).toMatch(/^wrote results\/new\.html/);
    const nowhere = await spawn([process.execPath, MAIN, "bench", "report"], DATASETS).ended;
    expect(nowhere).toMatchObject({
      code: 1,
      err: expect.stringMatching(/no results in results\/.*SOURCE_NOT_FOUND/),
    });
  });

  test("refuses what is damaged, by line", async () => {
    const lines = readFileSync(at("few.jsonl"), "utf8").split("\n");
    writeFileSync(at("bad.jsonl"), [lines[0], "{", ...lines.slice(1)].join("\n"));
    const { code, err } = await headrace("bench", "report", at("bad.jsonl"));
    expect(code).toBe(1);
    expect(err).toMatch(/^headrace: .*bad\.jsonl: line 2: no JSON; .* \[BAD_RESULTS\]\n$/);
    expect(existsSync(at("bad.html"))).toBe(false);
  });
});

describe("bench compare", () => {
  test("prints what differs, each cell with its verdict, and the count", async () => {
    const { code, out, err } = await headrace("bench", "compare", at("few.jsonl"), at("other.jsonl"));
    expect({ code, err }).toEqual({ code: 0, err: "" });
    expect(out).toMatch(/^what differs +A +B$/m);
    expect(out).toMatch(/^safetensors by read +weights, cold, sequential +8 lanes .*1\.\d+× \(.*faster/m);
    expect(out).toEndWith("\nB against A: of 3 cells 3 faster, 0 slower, 0 without a clear difference.\n");
  });

  test("of a run with itself finds nothing, and lists cells that one has alone", async () => {
    const same = await headrace("bench", "compare", at("few.jsonl"), at("few.jsonl"));
    expect(same.out).toContain("machine, versions and settings are the same");
    expect(same.out).toContain("of 3 cells 0 faster, 0 slower, 3 without a clear difference.");
    const other = await headrace("bench", "compare", at("few.jsonl"), at("many.jsonl"));
    expect(other.out).toMatch(
      /^in A alone: 1 cell\n {2}safetensors by js-read, weights, cold, sequential, 1 lane$/m,
    );
  });

  test("gives JSON and a page", async () => {
    const args = ["--json", "--html", at("both.html")];
    const { out, err } = await headrace("bench", "compare", at("few.jsonl"), at("other.jsonl"), ...args);
    expect(JSON.parse(out).counts).toEqual({ faster: 3, slower: 0, unclear: 0 });
    expect(err).toMatch(/^headrace: wrote .*both\.html\n$/);
    expect(readFileSync(at("both.html"), "utf8")).toContain("of 3 cells 3 faster");
  });
});

describe("bench recommend", () => {
  test("prints settings with the figures that they come from", async () => {
    const { code, out, err } = await headrace("bench", "recommend", at("few.jsonl"));
    expect({ code, err }).toEqual({ code: 0, err: "" });
    expect(out).toMatch(/^ {2}fastest +safetensors by read \(8 lanes\), 2\.\d\d GB\/s \(/m);
    expect(out).toMatch(/^ {2}slower +safetensors by map \(8 lanes\), 1\.\d\d GB\/s/m);
    expect(out).toMatch(/^ {2}to load +headrace load SOURCE --device host --strategy read$/m);
    expect(out).toMatch(/^ {2}not in memory +read, 2\.\d\d GB\/s; map, 1\.\d\d GB\/s$/m);
    expect(out).toMatch(/^ {2}open +warm: map and read were not both measured; auto keeps its own rule$/m);
  });

  test("gives JSON, and keeps to a bound of memory", async () => {
    const { out } = await headrace("bench", "recommend", at("few.jsonl"), "--memory", "1MB", "--json");
    expect(JSON.parse(out)).toMatchObject({
      advice: [],
      notes: ["2 of 2 cells took more memory than that", "no cell is left to recommend"],
    });
  });

  test("saves nothing where nothing is clear, and over nothing else", async () => {
    writeFileSync(at("alone.jsonl"), linesOf(madeUpRecords([{ rate: 1 }])));
    const nothing = await headrace("bench", "recommend", at("alone.jsonl"), "--save", at("nothing.json"));
    expect(nothing).toMatchObject({
      code: 0,
      out: expect.stringContaining("the only one measured"),
      err: expect.stringMatching(
        /^headrace: nothing was saved: cold: map and read were not both measured; .*\n$/,
      ),
    });
    expect(existsSync(at("nothing.json"))).toBe(false);
    const before = readFileSync(at("few.jsonl"), "utf8");
    const over = await headrace("bench", "recommend", at("few.jsonl"), "--save", at("few.jsonl"));
    expect(over).toMatchObject({ code: 2, err: expect.stringContaining("holds no figures of this kind") });
    expect(readFileSync(at("few.jsonl"), "utf8")).toBe(before);
  });
});

describe("kept figures", () => {
  const prose = join(DATASETS, "prose");

  test("are taken up by load and inspect from where they are saved, and left by --no-recommended", async () => {
    const warm = [
      { rate: 20, path: "read", temperature: "warm" as const },
      { rate: 10, path: "map", temperature: "warm" as const },
      { rate: 2, path: "read" },
      { rate: 1, path: "map" },
    ];
    writeFileSync(at("warm.jsonl"), linesOf(madeUpRecords(warm, here)));
    const saved = await atHome("home", "bench", "recommend", at("warm.jsonl"), "--save");
    expect(saved.err).toMatch(/^headrace: wrote .*home\/headrace\/recommended\.json; /);
    const loaded = await atHome("home", "load", prose, "--device", "host", "--json");
    expect(loaded.err).toBe("");
    expect(Object.keys(JSON.parse(loaded.out).paths)[0]).toMatch(
      /^read \(.*: measured here, read \d.* GB\/s, map /,
    );
    const inspected = await atHome("home", "inspect", prose);
    expect(inspected.out).toMatch(/^path +read \(.*: measured here, read /m);
    const own = await atHome("home", "load", prose, "--device", "host", "--json", "--no-recommended");
    expect(own.out).not.toContain("measured here");
  });

  test("of another machine are not used, and both say why", async () => {
    const kept = JSON.parse(readFileSync(at("home/headrace/recommended.json"), "utf8"));
    kept.machine.cores = 4096;
    writeFileSync(at("foreign.json"), JSON.stringify(kept));
    for (const command of [
      ["load", prose, "--device", "host"],
      ["inspect", prose],
    ]) {
      const { code, out, err } = await atHome("none", ...command, "--recommended", at("foreign.json"));
      expect(code).toBe(0);
      expect(err).toMatch(
        /^headrace: .*foreign\.json: its figures are not used: .*another machine: cores 4096, here \d+\n$/,
      );
      expect(out).not.toContain("measured here");
    }
  });

  test("that are damaged where nobody named them are told of, and not used", async () => {
    mkdirSync(at("broken/headrace"), { recursive: true });
    writeFileSync(at("broken/headrace/recommended.json"), '{"version": 99}');
    for (const command of [
      ["load", prose, "--device", "host"],
      ["inspect", prose],
    ]) {
      const { code, err } = await atHome("broken", ...command);
      expect(code).toBe(0);
      expect(err).toMatch(
        /^headrace: its figures are not used: \S*broken\/headrace\/recommended\.json: .*\n$/,
      );
      expect(await atHome("broken", ...command, "--no-recommended")).toMatchObject({ code: 0, err: "" });
    }
  });

  test.each([
    ["are damaged", "damaged.json", [], 1, /damaged\.json: no JSON: .*make it again.*\[BAD_RESULTS\]/],
    ["are not there", "none.json", [], 1, /none\.json: .*\[SOURCE_NOT_FOUND\]/],
    [
      "cannot count",
      "damaged.json",
      ["--strategy", "map"],
      2,
      /--recommended means nothing without --strategy auto/,
    ],
  ])("that %s end a load", async (_, name, more, code, message) => {
    writeFileSync(at("damaged.json"), "{");
    const ended = await headrace("load", prose, "--device", "host", "--recommended", at(name), ...more);
    expect(ended).toMatchObject({ code, err: expect.stringMatching(message) });
  });
});
