/** Failed rows that run again, shards whose files are not as they were, and folders that are nobody's. */
import { describe, expect, test } from "bun:test";
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { hostname } from "node:os";
import { openWriter, type WriterOptions } from "../../src/index.ts";
import { openWriterOver } from "../../src/loader/writeback/open.ts";
import { expectCode, useTempDir } from "./helpers.ts";
import { CrashDisk, type Fate } from "./writeback-disk.ts";
import { knownLetters, knownRow, optionsOf, outputOf, randomOf } from "./writeback-job.ts";

const temp = useTempDir();
/** Rows 3, 10 and 17 fail: one in each of three shards. */
const COUNTS = [6, 0, 8, 4, 2];
const TOTAL = 20;
const ROWS = Array.from({ length: TOTAL }, (_, row) => row);
const FAILED = ROWS.filter((row) => knownRow(row).error !== null);

type Writer = Awaited<ReturnType<typeof openWriter>>;

/** What a row gives whose server is there again. */
function good(row: number) {
  return { ...outputOf(row), error: null, finish: "stop", text: `${row} good`, tokens: Int32Array.of(row) };
}

const once = (row: number) => (FAILED.includes(row) ? good(row) : outputOf(row));

async function write(
  folder: string,
  options: WriterOptions,
  rows = ROWS,
  output: typeof outputOf | typeof once = outputOf,
) {
  const writer = await openWriter(folder, options);
  for (const row of rows) await writer.add(output(row));
  await writer.close();
  return writer;
}

const rowsOf = (writer: Writer) =>
  writer.remaining().flatMap(([start, end]) => Array.from({ length: end - start }, (_, i) => start + i));

/** Shards by the manifest, by the start of their names. */
function shardsIn(folder: string): Record<string, string> {
  const { shards } = JSON.parse(readFileSync(`${folder}/dataset.json`, "utf8"));
  return Object.fromEntries(
    shards.map(({ path }: { path: string }) => [
      path.slice(0, 6),
      readFileSync(`${folder}/${path}`, "latin1"),
    ]),
  );
}

describe("rows that failed", () => {
  for (const format of ["arrow", "safetensors"] as const) {
    for (const order of ["input", "completion"] as const) {
      for (const small of [false, true]) {
        test(`run again in ${format} and order of ${order}${small ? ", in small bits" : ""}`, async () => {
          const bits = small ? { mergeBytes: 40, ...(format === "arrow" ? { maxBatchBytes: 600 } : {}) } : {};
          const options = optionsOf(COUNTS, { format, order, ...bits });
          await write(temp("never"), options, ROWS, once);
          await write(temp("out"), options);
          const same = await openWriter(temp("out"), options);
          expect(rowsOf(same)).toEqual([]);
          expect(same.summary).toMatchObject({ failedRows: 3, resumedFailedRows: 3, complete: true });
          await same.close();
          const before = shardsIn(temp("out"));
          const writer = await openWriter(temp("out"), { ...options, retryFailed: true });
          expect(rowsOf(writer)).toEqual(FAILED);
          expect(writer.summary).toMatchObject({
            rows: TOTAL - 3,
            failedRows: 0,
            resumedFailedRows: 0,
            complete: false,
          });
          await writer.add(good(FAILED[0]!));
          // The others count until theirs is there.
          await writer.flush();
          expect(shardsIn(temp("out"))["part-2"]).toBe(before["part-2"]!);
          for (const row of FAILED.slice(1)) await writer.add(good(row));
          await writer.close();
          expect(writer.summary).toMatchObject({ rows: TOTAL, failedRows: 0, complete: true });
          if (order === "input") expect(shardsIn(temp("out"))).toEqual(shardsIn(temp("never")));
          const extension = format === "arrow" ? "arrow" : "safetensors";
          expect(readdirSync(temp("out")).sort()).toEqual([
            "dataset.json",
            `part-0-01234567.1.${extension}`,
            `part-1-01234567.${extension}`,
            `part-2-01234567.1.${extension}`,
            `part-3-01234567.1.${extension}`,
            `part-4-01234567.${extension}`,
          ]);
        });
      }
    }
  }

  test("may fail again, and again", async () => {
    const options = optionsOf(COUNTS);
    await write(temp("out"), options);
    for (const retry of [1, 2]) {
      await write(temp("out"), { ...options, retryFailed: true }, FAILED);
      const lines = readFileSync(temp("out", "errors.jsonl"), "utf8").trimEnd().split("\n");
      expect(lines.map((line) => JSON.parse(line))).toEqual(
        knownLetters(COUNTS)
          .trimEnd()
          .split("\n")
          .map((line) => ({ ...JSON.parse(line), retry })),
      );
    }
    await write(temp("out"), { ...options, retryFailed: true }, FAILED.slice(1), once);
    const rest = await openWriter(temp("out"), options);
    // What has begun to run again goes on, asked for or not.
    expect(rowsOf(rest)).toEqual([FAILED[0]!]);
    expect(rest.summary).toMatchObject({ failedRows: 0, rows: TOTAL - 1 });
    await rest.add(good(FAILED[0]!));
    await rest.close();
    await write(temp("never"), options, ROWS, once);
    expect(shardsIn(temp("out"))).toEqual(shardsIn(temp("never")));
    expect(existsSync(temp("out", "errors.jsonl"))).toBe(false);
    expect(readdirSync(temp("out"))).toHaveLength(6);
  });

  test("of shards that are not whole run again as well", async () => {
    const options = optionsOf(COUNTS);
    await write(temp("out"), options, [3, 1, 10, 17]);
    const writer = await openWriter(temp("out"), { ...options, retryFailed: true });
    expect(rowsOf(writer)).toEqual(ROWS.filter((row) => row !== 1));
    for (const row of rowsOf(writer)) await writer.add(once(row));
    await writer.close();
    await write(temp("never"), options, ROWS, once);
    expect(shardsIn(temp("out"))).toEqual(shardsIn(temp("never")));
  });

  test("of a shard in which all failed run again", async () => {
    const options = optionsOf([3]);
    const failed = [0, 1, 2];
    const bad = (row: number) => ({ ...outputOf(row), error: "down" });
    await write(temp("out"), options, failed, bad as never);
    const writer = await openWriter(temp("out"), { ...options, retryFailed: true });
    expect(rowsOf(writer)).toEqual(failed);
    await writer.close();
    await write(temp("out"), options, failed, once);
    await write(temp("never"), options, failed, once);
    expect(shardsIn(temp("out"))).toEqual(shardsIn(temp("never")));
  });

  test("are not run again out of a shard that is damaged", async () => {
    await write(temp("out"), optionsOf(COUNTS));
    const path = temp("out", "part-2-01234567.arrow");
    const bytes = readFileSync(path);
    bytes.fill(0xff, bytes.length - 200, bytes.length - 100);
    writeFileSync(path, bytes);
    const open = () => openWriter(temp("out"), optionsOf(COUNTS, { retryFailed: true }));
    await expectCode("FILE_CHANGED", open, path, "remove it");
    rmSync(path);
    const writer = await open();
    expect(writer.summary.remadeShards).toBe(1);
    expect(rowsOf(writer)).toEqual([3, 6, 7, 8, 9, 10, 11, 12, 13, 17]);
    await writer.close();
  });

  test("end up once each, whichever operation is the last before a crash", async () => {
    const options = optionsOf([4, 9], { mergeBytes: 300, syncMs: 0 });
    const clean = new CrashDisk(randomOf(1));
    const runOn = async (disk: CrashDisk, more: Partial<WriterOptions>, output: typeof once) => {
      const writer = await openWriterOver("/out", { ...options, ...more }, disk.process());
      for (const row of rowsOf(writer)) await writer.add(output(row));
      await writer.close();
      return writer;
    };
    const quiet = (promise: Promise<unknown>) =>
      promise.then(
        () => true,
        () => false,
      );
    await runOn(clean, {}, once);
    const wanted = shardBytes(clean);
    let crashes = 0;
    for (let at = 0; ; at++) {
      const disk = new CrashDisk(randomOf(at + 7));
      await runOn(disk, {}, outputOf as never);
      const first = disk.operations;
      disk.fate = (operation): Fate => (operation === first + at ? "crash" : undefined);
      const done = await quiet(runOn(disk, { retryFailed: true }, once));
      disk.fate = () => undefined;
      // Whole at every moment: the manifest names files that are there, as long as it says.
      expect(shardBytes(disk)).toHaveLength(2);
      const writer = await runOn(disk, { retryFailed: true }, once);
      expect(writer.summary).toMatchObject({ rows: 13, failedRows: 0, complete: true });
      expect(shardBytes(disk)).toEqual(wanted);
      expect(Object.keys(disk.files())).toHaveLength(3);
      if (done) break;
      crashes++;
    }
    expect(crashes).toBeGreaterThan(40);
  }, 30_000);
});

/** Of the shards that the manifest lists, which must be there. */
function shardBytes(disk: CrashDisk): string[] {
  const files = disk.files();
  const { shards } = JSON.parse(files["/out/dataset.json"]!);
  return shards.map(({ path, bytes }: { path: string; bytes: number }) => {
    const found = files[`/out/${path}`];
    expect(found?.length).toBe(bytes);
    return found!;
  });
}

describe("a folder", () => {
  test("whose shard was cut is not done: the shard is made again", async () => {
    await write(temp("out"), optionsOf(COUNTS));
    const before = shardsIn(temp("out"));
    truncateSync(temp("out", "part-2-01234567.arrow"), 100);
    const writer = await openWriter(temp("out"), optionsOf(COUNTS));
    expect(rowsOf(writer)).toEqual([6, 7, 8, 9, 10, 11, 12, 13]);
    expect(writer.summary).toMatchObject({ remadeShards: 1, complete: false });
    for (const row of rowsOf(writer)) await writer.add(outputOf(row));
    await writer.close();
    expect(shardsIn(temp("out"))).toEqual(before);
    expect(readFileSync(temp("out", "errors.jsonl"), "utf8")).toBe(knownLetters(COUNTS));
  });

  test("without any row is the next job's, and with one it is not", async () => {
    const other = (seed: number, counts = COUNTS) => optionsOf(counts, { job: { model: "m", seed } });
    await write(temp("out"), other(1), []);
    expect(existsSync(temp("out", ".headrace", "job.json"))).toBe(true);
    expect(existsSync(temp("out", "part-1-01234567.arrow"))).toBe(true);
    await write(temp("out"), other(2, [3, 2]), []);
    expect(existsSync(temp("out", "part-1-01234567.arrow"))).toBe(false);
    await write(temp("out"), other(3), [4]);
    await expectCode("OTHER_JOB", () => openWriter(temp("out"), other(4)), "seed");
    await write(
      temp("out"),
      other(3),
      ROWS.filter((row) => row !== 4),
    );
    await expectCode("OTHER_JOB", () => openWriter(temp("out"), other(4)), "seed");
  });

  test("of a job that is done and had no rows is not the next one's", async () => {
    await write(temp("out"), optionsOf([0]), []);
    const before = readFileSync(temp("out", "dataset.json"), "utf8");
    await expectCode("OTHER_JOB", () => openWriter(temp("out"), optionsOf([2])), "shards");
    expect(readFileSync(temp("out", "dataset.json"), "utf8")).toBe(before);
  });

  test("with a manifest that is of no outputs stays as it is", async () => {
    for (const text of ['{"headrace":1,"view":"rows","shards":[]}', "[1]", "null", "no JSON", ""]) {
      rmSync(temp("out"), { recursive: true, force: true });
      mkdirSync(temp("out"));
      writeFileSync(temp("out", "dataset.json"), text);
      await expectCode("OTHER_JOB", () => openWriter(temp("out"), optionsOf(COUNTS)), "dataset.json");
      expect(readdirSync(temp("out"))).toEqual(["dataset.json"]);
      expect(readFileSync(temp("out", "dataset.json"), "utf8")).toBe(text);
    }
  });

  test("is not kept by a process that has ended, and that nobody has asked how", async () => {
    if (!existsSync("/proc/self/stat")) return;
    await write(temp("out"), optionsOf(COUNTS), [0]);
    // The shell becomes a program that never waits for its child, before that ends.
    const parent = Bun.spawn(["sh", "-c", "sleep 0.1 & echo $!; exec sleep 60"], { stdout: "pipe" });
    try {
      const { value } = await parent.stdout.getReader().read();
      const pid = Number(new TextDecoder().decode(value).trim());
      const stat = () => readFileSync(`/proc/${pid}/stat`, "utf8").split(") ").at(-1)!.split(" ");
      while (stat()[0] !== "Z") await Bun.sleep(5);
      const host = hostname().replace(/[^A-Za-z0-9.]/g, "_");
      const lock = temp("out", ".headrace", `lock-${host}-${pid}-${stat()[19]}-00ff`);
      writeFileSync(lock, "");
      await (await openWriter(temp("out"), optionsOf(COUNTS))).close();
      expect(existsSync(lock)).toBe(false);
    } finally {
      parent.kill();
      await parent.exited;
    }
  });
});
