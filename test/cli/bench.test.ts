import { describe, expect, test } from "bun:test";
import {
  appendFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { readRecords } from "../../src/bench/read.ts";
import type { CellRecord, TrialRecord } from "../../src/bench/record.ts";
import { DATASETS, headrace, scratch, start, waitFor } from "./process.ts";

const folder = scratch();
const DATA = join(folder, "data");

/** A run of a moment: two cells of a mebibyte. */
function tiny(out: string, ...more: string[]): string[] {
  const cells = ["--data", "embeddings", "--formats", "safetensors", "--paths", "map,read"];
  const small = ["--size", "1MiB", "--temperatures", "warm", "--orders", "random", "--device", "host"];
  const batches = ["--batch-bytes", "64KiB", "--no-ceilings", "--rehearsal", "1MiB"];
  return [
    "bench",
    ...cells,
    ...small,
    ...batches,
    "--data-folder",
    DATA,
    "--out",
    join(folder, out),
    ...more,
  ];
}

function resultsIn(out: string): string {
  const [name, ...others] = readdirSync(join(folder, out)).filter((name) => !name.startsWith("."));
  expect(others).toEqual([]);
  return join(folder, out, name!);
}

const withCeilings = tiny("all", "--compute-ms", "1").filter((arg) => arg !== "--no-ceilings");

describe("bench", () => {
  test("measures every cell in every round, and writes all of it down", async () => {
    const { code, out, err } = await headrace(...withCeilings);
    expect(err).toContain("warm-up");
    expect(out).toContain("embeddings");
    expect(out).toContain("ceiling checksum");
    expect(code).toBe(0);
    const records = readRecords(resultsIn("all"));
    expect(records[0]).toMatchObject({
      kind: "run",
      command: expect.stringContaining("--data embeddings"),
      settings: {
        seed: 0,
        rounds: 5,
        formats: ["safetensors"],
        paths: ["map", "read"],
        rehearsalBytes: 2 ** 20,
      },
    });
    const trials = records.filter((record) => record.kind === "trial") as TrialRecord[];
    const cells = records.filter((record) => record.kind === "cell") as CellRecord[];
    expect(cells.map(({ cell }) => cell.path)).toEqual(["map", "read"]);
    for (const { cell, rounds, gigabytesPerSecond, busyShare, ceiling } of cells) {
      const own = trials.filter((trial) => trial.cell === cell.id && trial.busy === undefined);
      expect(own.map(({ round }) => round).toSorted((a, b) => a - b)).toEqual([-1, 0, 1, 2, 3, 4]);
      expect(rounds).toBe(5);
      expect(gigabytesPerSecond.low).toBeLessThanOrEqual(gigabytesPerSecond.median);
      expect(gigabytesPerSecond.high).toBeGreaterThanOrEqual(gigabytesPerSecond.median);
      expect(busyShare!.median).toBeGreaterThan(0);
      expect(ceiling!.part).toBeGreaterThan(0);
    }
    expect(new Set(trials.map(({ checksum }) => checksum)).size).toBe(1);
    for (const { rehearsal, bytes } of trials) {
      expect(rehearsal).toEqual({ bytes, seconds: expect.any(Number) });
    }
    // Rounds follow one another; the order of cells within them is shuffled.
    expect(trials.map(({ round }) => round)).toEqual(
      trials.map(({ round }) => round).toSorted((a, b) => a - b),
    );
    const names = records.filter((record) => record.kind === "ceiling").map(({ name }) => name);
    expect(names).toEqual(expect.arrayContaining(["pread-warm", "memcpy", "checksum", "harness"]));
  });

  test("goes on where a run was cut off, with the trials that it had", async () => {
    const path = join(folder, "cut.jsonl");
    const lines = readFileSync(resultsIn("all"), "utf8").split("\n");
    const half = lines.findIndex((line) => line.includes('"round":3')) + 1;
    writeFileSync(path, `${lines.slice(0, half).join("\n")}\n{"kind":"tri`);
    const before = readRecords(path);
    const { code, out } = await headrace("bench", "--resume", path, "--json", "--data-folder", DATA);
    expect(code).toBe(0);
    const after = readRecords(path);
    expect(after.slice(0, before.length)).toEqual([...before]);
    const trials = after.filter((record) => record.kind === "trial");
    const names = trials.map(({ cell, round, busy }) => `${cell} ${round} ${busy === undefined}`);
    expect(names.length).toBe(24);
    expect(new Set(names).size).toBe(24);
    expect(after.filter(({ kind }) => kind === "run").length).toBe(1);
    expect(JSON.parse(out)).toMatchObject({
      results: path,
      failures: [],
      cells: [{ rounds: 5 }, { rounds: 5 }],
    });
    const again = await headrace("bench", "--resume", path);
    expect(again.code).toBe(2);
    expect(again.err).toContain("there is nothing to resume [BAD_OPTION]");
    const more = await headrace("bench", "--resume", path, "--rounds", "9");
    expect(more).toMatchObject({
      code: 2,
      err: expect.stringContaining("--resume takes all settings from its file; leave out --rounds"),
    });
  });

  test("keeps what was measured when it is interrupted, and says how to go on", async () => {
    const args = tiny("interrupted", "--rounds", "500").filter(
      (arg) => arg !== "--data-folder" && arg !== DATA,
    );
    const { child, ended } = start(args);
    const results = join(folder, "interrupted");
    const count = () => {
      if (!existsSync(results) || !readdirSync(results).some((name) => name.endsWith(".jsonl"))) return 0;
      return readFileSync(resultsIn("interrupted"), "utf8").split('"kind":"trial"').length;
    };
    await waitFor("some trials", () => count() > 4);
    child.kill("SIGINT");
    const { code, err } = await ended;
    expect(code).toBe(130);
    expect(err).toContain(`interrupted; go on with 'bun run bench --resume ${resultsIn("interrupted")}'`);
    expect(err).toMatch(/data lies in .*\.bench-data-[\w-]+ until the run ends/);
    expect(readRecords(resultsIn("interrupted")).length).toBeGreaterThan(4);
    // The data that nobody asked to keep is gone.
    expect(readdirSync(results).filter((name) => !name.endsWith(".jsonl"))).toEqual([]);
  });

  test("removes the data of a run that was killed, and leaves that of one that runs", async () => {
    const out = join(folder, "killed");
    const args = tiny("killed", "--rounds", "500").filter((arg) => arg !== "--data-folder" && arg !== DATA);
    const dataIn = () => (existsSync(out) ? readdirSync(out).filter((name) => name.startsWith(".")) : []);
    const lives = start(args);
    await waitFor("data", () => dataIn().length === 1);
    const [kept] = dataIn();
    const killed = start(args);
    await waitFor("data of the other", () => dataIn().length === 2);
    const left = dataIn().find((name) => name !== kept)!;
    killed.child.kill("SIGKILL");
    await killed.ended;
    expect(dataIn()).toContain(left);
    // Of what nobody can tell whose it is, all stays.
    mkdirSync(join(out, ".bench-data-unknown"));
    const { code, err } = await headrace(...args.map((arg) => (arg === "500" ? "5" : arg)));
    expect(code).toBe(0);
    expect(err).toContain(`removed ${join(out, left)}: data of a run that was killed`);
    expect(dataIn().toSorted()).toEqual([kept!, ".bench-data-unknown"].toSorted());
    lives.child.kill("SIGINT");
    expect((await lives.ended).code).toBe(130);
    expect(dataIn()).toEqual([".bench-data-unknown"]);
  });

  test("ends where its data is taken away, and blames no reader", async () => {
    const data = join(folder, "taken");
    const args = tiny("robbed", "--rounds", "500").map((arg) => (arg === DATA ? data : arg));
    const { ended } = start(args);
    const results = join(folder, "robbed");
    await waitFor("a trial", () => existsSync(results) && readdirSync(results).length > 0);
    rmSync(join(data, "embeddings-1048576-0"), { recursive: true });
    const { code, err } = await ended;
    expect(code).toBe(1);
    expect(err).toMatch(
      /taken\/embeddings\S*\.safetensors: is gone, in the middle of the run; .*\[FILE_CHANGED\]/,
    );
  });

  test("leaves the rehearsal out where that is asked for, and says so in the settings", async () => {
    const { code } = await headrace(...tiny("unrehearsed"), "--rehearsal", "0");
    expect(code).toBe(0);
    const [run, ...records] = readRecords(resultsIn("unrehearsed"));
    expect(run).toMatchObject({ settings: { rehearsalBytes: 0 } });
    const trials = records.filter((record) => record.kind === "trial");
    expect(trials.length).toBe(12);
    for (const trial of trials) expect(trial).not.toHaveProperty("rehearsal");
  });

  test("takes a dataset of one's own, and packs it", async () => {
    const out = join(folder, "own");
    const cells = ["--formats", "arrow,arrow.lz4-body", "--paths", "read,stream", "--temperatures", "cold"];
    const where = [
      "--orders",
      "random",
      "--device",
      "host",
      "--data-folder",
      DATA,
      "--out",
      out,
      "--json",
      "--no-ceilings",
    ];
    const { code, out: text } = await headrace("bench", join(DATASETS, "prose"), ...cells, ...where);
    const report = JSON.parse(text) as { cells: CellRecord[]; failures: TrialRecord[] };
    expect(report.failures).toEqual([]);
    expect(code).toBe(0);
    const [plain, packed] = report.cells;
    expect(plain).toMatchObject({ rounds: 5, cell: { path: "read", data: "prose" } });
    expect(packed).toMatchObject({ rounds: 5, cell: { path: "stream", format: "arrow.lz4-body" } });
    expect(packed!.compression).toBeGreaterThan(plain!.compression);
    for (const record of readRecords(resultsIn("own"))) {
      if (record.kind !== "trial") continue;
      expect(record.rehearsal!.error).toBeUndefined();
      expect(record.rehearsal!.bytes).toBeGreaterThan(0);
    }
  });

  test("ends with 1 where a trial delivers other bytes than were made", async () => {
    const data = join(DATA, "embeddings-1048576-0", "safetensors");
    const path = join(data, readdirSync(data)[0]!);
    const bytes = readFileSync(path);
    bytes[bytes.length - 1]! ^= 1;
    writeFileSync(path, bytes);
    try {
      const { code, out, err } = await headrace(...tiny("bad"));
      expect(code).toBe(1);
      expect(err).toContain("bytes are missing, damaged or misplaced");
      // After its first failure no cell is tried again.
      expect(out).toMatch(/^2 trials FAILED:$/m);
    } finally {
      bytes[bytes.length - 1]! ^= 1;
      writeFileSync(path, bytes);
    }
  });

  test("lists cells without touching a disk", async () => {
    const { code, out } = await headrace("bench", "--list", "--json", "--data-folder", join(folder, "none"));
    expect(code).toBe(0);
    const { cells, seconds } = JSON.parse(out);
    expect(cells.length).toBeGreaterThan(20);
    expect(seconds).toBeGreaterThan(30);
    expect(existsSync(join(folder, "none"))).toBe(false);
    const table = await headrace("bench", "--list", "--quick");
    expect(table.out).toMatch(/\d+ cells, \d+ trials: about/);
  });

  test("refuses data larger than the disk before it writes any, with the numbers", async () => {
    const wanted = ["--larger-than-memory", "900TB", "--data", "weights", "--formats", "safetensors"];
    const { code, err } = await headrace("bench", ...wanted, "--data-folder", join(folder, "huge"));
    expect(code).toBe(1);
    expect(err).toMatch(/huge: has \d+ bytes free, and 1 forms? of 1800000000000000 bytes, .*\[DISK_FULL\]/);
    expect(readdirSync(join(folder, "huge"))).toEqual([]);
  });

  test.each([
    [["--rounds", "3"], "rounds"],
    [["--formats", "parquet"], "formats: parquet is none"],
    [["--paths", "mmap"], "paths: mmap is none of"],
    [["--lanes", "0"], "lanes"],
    [["--rehearsal", "4KiB"], "--rehearsal is 4096"],
    [["--size", "big"], "It must be a number of bytes"],
    [[DATASETS, "--size", "1GB"], "--size is for data that is made"],
    [
      ["reprot", "x.jsonl"],
      "reprot: neither a dataset, since there is no such file or folder, nor a subcommand; did you mean 'headrace bench report x.jsonl'? [BAD_OPTION]",
    ],
    [
      ["--formats", "arrow.lz4-body", "--paths", "map,read"],
      "nothing to measure: map of arrow.lz4-body: a compressed shard is streamed; read of arrow.lz4-body: a compressed shard is streamed [BAD_OPTION]",
    ],
    [
      ["--list", "--paths", "stream", "--formats", "arrow"],
      "stream of arrow: it is not compressed [BAD_OPTION]",
    ],
    [
      ["--out", import.meta.path],
      `${import.meta.path}: cannot be written: a file is there, and no folder; name another folder by --out [IO_ERROR]`,
    ],
    [
      ["--out", join(import.meta.path, "below")],
      "cannot be written: a part of it is a file, and no folder; name another folder by --out [IO_ERROR]",
    ],
    [["nonsense"], "nor a subcommand; the subcommands are report, compare, recommend [BAD_OPTION]"],
    [["no/thing"], "no/thing: there is no such file or folder [SOURCE_NOT_FOUND]"],
    [["run", "reprot"], "reprot: there is no such file or folder [SOURCE_NOT_FOUND]"],
    [[DATASETS, "other"], `other: one dataset at a time, and ${DATASETS} is named already [BAD_OPTION]`],
    [["--resume", "nothing.jsonl"], "nothing.jsonl"],
    [["--compute-ms", "no"], "It must be a number of milliseconds"],
  ])("refuses %p", async (args, why) => {
    const { code, out, err } = await headrace("bench", ...args);
    expect(out).toBe("");
    expect(code).not.toBe(0);
    expect(err).toContain(why);
    expect(err.trim().split("\n").length).toBe(1);
  });

  test.skipIf(process.platform !== "linux")("says where its data could not be written", async () => {
    const { code, err } = await headrace(...tiny("nowhere").map((arg) => (arg === DATA ? "/proc" : arg)));
    expect(code).toBe(1);
    expect(err).toEndWith(
      "headrace: /proc: cannot be written: no such folder; name another folder by --data-folder [IO_ERROR]\n",
    );
  });

  test("shows its subcommands' own help and failures", async () => {
    const help = await headrace("bench", "--help");
    expect(help.out).toContain("--larger-than-memory");
    for (const name of ["report", "compare", "recommend"]) {
      expect(help.out).toContain(name);
      // Options of the same name are the subcommand's own.
      expect((await headrace("bench", name, "--help")).out).toContain(`headrace bench ${name}`);
    }
    const { code, err } = await headrace("bench", "compare");
    expect(code).toBe(2);
    expect(err).toBe("headrace: missing required argument 'a'; see 'headrace bench compare --help'\n");
  });
});

test("a page of a run can be drawn from what bench wrote", async () => {
  const path = join(folder, "page.jsonl");
  writeFileSync(path, readFileSync(resultsIn("all")));
  const page = join(folder, "page.html");
  const { code, err } = await headrace("bench", "report", path, "--out", page);
  expect(err).toBe("");
  expect(code).toBe(0);
  expect(readFileSync(page, "utf8")).toContain("embeddings");
  appendFileSync(path, "no record\n");
  expect((await headrace("bench", "report", path)).code).not.toBe(0);
});
