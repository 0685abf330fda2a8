/** The writer on a real disk: what it makes, whom it refuses, and how it fails. */
import { describe, expect, test } from "bun:test";
import { spawnSync } from "node:child_process";
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
import {
  type OutputColumn,
  openDataset,
  openDevice,
  openLoader,
  openWriter,
  type WriterOptions,
} from "../../src/index.ts";
import { expectCode, useTempDir } from "./helpers.ts";
import { COLUMNS, knownLetters, knownRow, optionsOf, outputOf, shardsOf, WIDTH } from "./writeback-job.ts";

const temp = useTempDir();
const COUNTS = [6, 0, 8];
const TOTAL = 14;
const ROWS = Array.from({ length: TOTAL }, (_, i) => i);

async function write(folder: string, options: WriterOptions, rows: readonly number[] = ROWS) {
  const writer = await openWriter(folder, options);
  for (const row of rows) await writer.add(outputOf(row));
  await writer.close();
  return writer;
}

function bytesIn(folder: string): Record<string, string> {
  const names = readdirSync(folder).sort();
  return Object.fromEntries(
    names.map((name) => [name, readFileSync(`${folder}/${name}`).toString("latin1")]),
  );
}

describe("a folder of outputs", () => {
  for (const strategy of ["map", "read"] as const) {
    test(`is a dataset that the loader can ${strategy}`, async () => {
      await write(temp("out"), optionsOf(COUNTS));
      await using loader = await openLoader(temp("out"), { device: "host", strategy, batchSize: 5 });
      const seen: number[] = [];
      for await (using batch of loader) {
        const column = (name: string) => batch.column(name);
        [...batch.sampleIds].forEach((id, i) => {
          const row = Number(column("row").view[i]);
          seen.push(row);
          expect(row).toBe(id);
          const known = knownRow(row);
          const offsets = column("tokens").offsets!.view;
          const range = [Number(offsets[i]), Number(offsets[i + 1])] as const;
          expect([...column("tokens").view.subarray(...range)].map(Number)).toEqual([...known.tokens]);
          for (const name of ["text", "finish"] as const) expect(column(name).text(i)).toBe(known[name]);
          expect(column("shard").text(i)).toBe(row < 6 ? "part-0.arrow" : "part-2.arrow");
          expect(column("error").validity?.view[i] ?? 1).toBe(known.error === null ? 0 : 1);
          if (known.error !== null) expect(column("error").text(i)).toBe(known.error);
          const embedding = [...column("embedding").view.subarray(i * WIDTH, (i + 1) * WIDTH)].map(Number);
          expect(embedding).toEqual([...(known.embedding ?? Array(WIDTH).fill(0))]);
          expect(column("embedding").validity?.view[i] ?? 1).toBe(known.embedding === null ? 0 : 1);
          expect(Number(column("score").view[i])).toBe(known.score);
        });
      }
      expect(seen).toEqual(ROWS);
    });
  }

  test("as safetensors, where missing values are empty", async () => {
    await write(temp("out"), optionsOf(COUNTS, { format: "safetensors" }));
    expect(readdirSync(temp("out"))).toContain("part-0-01234567.safetensors");
    await using loader = await openLoader(temp("out"), { device: "host", batchSize: TOTAL });
    for await (using batch of loader) {
      expect([...batch.column("shard").view].map(Number)).toEqual(ROWS.map((row) => (row < 6 ? 0 : 2)));
      for (const row of ROWS) {
        const { offsets, view } = batch.column("error");
        const text = Buffer.from(
          view.slice(Number(offsets!.view[row]), Number(offsets!.view[row + 1])) as Uint8Array,
        );
        expect(text.toString()).toBe(knownRow(row).error ?? "");
      }
    }
  });

  test("has dead letters, and nothing of the work", async () => {
    const writer = await write(temp("out"), optionsOf(COUNTS), ROWS.toReversed());
    expect(readdirSync(temp("out")).sort()).toEqual([
      "dataset.json",
      "errors.jsonl",
      "part-0-01234567.arrow",
      "part-1-01234567.arrow",
      "part-2-01234567.arrow",
    ]);
    expect(readFileSync(temp("out", "errors.jsonl"), "utf8")).toBe(knownLetters(COUNTS));
    expect(writer.summary).toEqual({
      rows: TOTAL,
      resumedRows: 0,
      failedRows: 2,
      resumedFailedRows: 0,
      remadeShards: 0,
      shards: 3,
      committedShards: 3,
      bytes: ["0", "1", "2"].reduce(
        (sum, i) => sum + readFileSync(temp("out", `part-${i}-01234567.arrow`)).length,
        0,
      ),
      complete: true,
    });
  });

  test("shows whole shards alone while the others are made", async () => {
    const writer = await openWriter(temp("out"), optionsOf(COUNTS));
    for (const row of [6, 7, 8, 9, 10, 11, 12, 13, 0, 1]) await writer.add(outputOf(row));
    await writer.flush();
    const device = openDevice("host");
    using dataset = openDataset(temp("out"), device);
    expect(dataset.shards.map(({ name }) => name)).toEqual([
      "part-1-01234567.arrow",
      "part-2-01234567.arrow",
    ]);
    expect(dataset.numSamples).toBe(8);
    await writer.close();
    await device.close();
    expect(writer.finished()).toEqual([
      [0, 2],
      [6, 14],
    ]);
    expect(writer.remaining()).toEqual([[2, 6]]);
  });

  test("of no rows, and of no shards", async () => {
    const writer = await write(temp("out"), optionsOf([0, 0]), []);
    expect(writer.summary).toMatchObject({ rows: 0, committedShards: 2, complete: true });
    await using loader = await openLoader(temp("out"), { device: "host" });
    expect(loader.dataset.numSamples).toBe(0);
    const none = await write(temp("none"), optionsOf([]), []);
    expect(none.summary.complete).toBe(true);
    expect(none.remaining()).toEqual([]);
    expect(readdirSync(temp("none"))).toEqual([]);
  });
});

describe("the same job", () => {
  test("goes on where it was, byte for byte, and finds nothing to do when it is done", async () => {
    await write(temp("whole"), optionsOf(COUNTS));
    await write(temp("out"), optionsOf(COUNTS), [3, 0, 9, 13]);
    const second = await openWriter(temp("out"), optionsOf(COUNTS));
    expect(second.summary).toMatchObject({ rows: 4, resumedRows: 4, failedRows: 1 });
    expect(second.remaining()).toEqual([
      [1, 3],
      [4, 9],
      [10, 13],
    ]);
    for (const row of [1, 2, 4, 5, 6, 7, 8, 10]) await second.add(outputOf(row));
    await second.close();
    await write(temp("out"), optionsOf(COUNTS), [11, 12]);
    expect(bytesIn(temp("out"))).toEqual(bytesIn(temp("whole")));
    const again = await openWriter(temp("out"), optionsOf(COUNTS));
    expect(again.remaining()).toEqual([]);
    expect(again.finished()).toEqual([[0, TOTAL]]);
    await again.close();
    expect(again.summary).toMatchObject({ rows: TOTAL, resumedRows: TOTAL, failedRows: 2, complete: true });
    expect(bytesIn(temp("out"))).toEqual(bytesIn(temp("whole")));
  });

  test("makes a shard anew that somebody removed", async () => {
    await write(temp("out"), optionsOf(COUNTS));
    const before = bytesIn(temp("out"));
    rmSync(temp("out", "part-2-01234567.arrow"));
    const writer = await openWriter(temp("out"), optionsOf(COUNTS));
    expect(writer.remaining()).toEqual([[6, 14]]);
    for (let row = 6; row < 14; row++) await writer.add(outputOf(row));
    await writer.close();
    expect(bytesIn(temp("out"))).toEqual(before);
  });

  test("takes nothing over of a shard that was put together in part", async () => {
    await write(temp("whole"), optionsOf(COUNTS));
    await write(temp("out"), optionsOf(COUNTS), [1]);
    for (const name of ["part", "copy"]) {
      writeFileSync(temp("out", ".headrace", `part-0-01234567.arrow.${name}`), Buffer.alloc(50_000, 0xff));
    }
    await write(
      temp("out"),
      optionsOf(COUNTS),
      ROWS.filter((row) => row !== 1),
    );
    expect(bytesIn(temp("out"))).toEqual(bytesIn(temp("whole")));
  });

  test("loses the rows behind damage in an attempt, and no other", async () => {
    await write(temp("whole"), optionsOf(COUNTS));
    const attempt = temp("out", ".headrace", "part-2-01234567.arrow.attempt");
    for (const damage of ["cut", "flipped", "foreign"] as const) {
      rmSync(temp("out"), { recursive: true, force: true });
      const writer = await openWriter(temp("out"), optionsOf(COUNTS));
      for (const row of [6, 7]) {
        writer.add(outputOf(row));
        await writer.flush();
      }
      const whole = readFileSync(attempt).length;
      writer.add(outputOf(8));
      await writer.close();
      if (damage === "cut") truncateSync(attempt, whole + 40);
      else {
        const bytes = readFileSync(attempt);
        bytes[damage === "flipped" ? whole + 50 : 12]! ^= 1;
        writeFileSync(attempt, bytes);
      }
      const next = await openWriter(temp("out"), optionsOf(COUNTS));
      expect(next.finished()).toEqual(damage === "foreign" ? [] : [[6, 8]]);
      // Nothing of it stays behind what is written next.
      if (damage !== "foreign") expect(readFileSync(attempt).length).toBe(whole);
      for (const [start, end] of next.remaining()) {
        for (let row = start; row < end; row++) await next.add(outputOf(row));
      }
      await next.close();
      expect(bytesIn(temp("out"))).toEqual(bytesIn(temp("whole")));
    }
  });
});

describe("another job", () => {
  const other = (more: Partial<WriterOptions>) => openWriter(temp("out"), optionsOf(COUNTS, more));

  for (const when of ["begun", "done"] as const) {
    test(`is refused where one is ${when}, and touches nothing`, async () => {
      await write(temp("out"), optionsOf(COUNTS), when === "begun" ? [1] : ROWS);
      const before = readdirSync(temp("out"), { recursive: true }).sort();
      await expectCode(
        "OTHER_JOB",
        () => other({ job: { model: "m", seed: 2 } }),
        "another job: seed is 1 there and 2 here",
      );
      await expectCode(
        "OTHER_JOB",
        () => other({ job: { model: "m" } }),
        "another job: seed is 1 there and unset here",
      );
      await expectCode("OTHER_JOB", () => other({ order: "completion" }), 'order is "input" there');
      await expectCode("OTHER_JOB", () => other({ columns: COLUMNS.slice(1) }), "columns is");
      await expectCode("OTHER_JOB", () => other({ fingerprint: "f".repeat(32) }), "fingerprint is");
      await expectCode("OTHER_JOB", () => other({ shards: shardsOf([6, 1, 8]) }), "shards is");
      expect(readdirSync(temp("out"), { recursive: true }).sort()).toEqual(before);
      await (await openWriter(temp("out"), optionsOf(COUNTS, { job: { seed: 1, model: "m" } }))).close();
    });
  }

  test("is whoever left files by our names", async () => {
    for (const name of ["dataset.json", "part-2-01234567.arrow", "errors.jsonl"]) {
      mkdirSync(temp("out"), { recursive: true });
      writeFileSync(temp("out", name), "{}");
      await expectCode("OTHER_JOB", () => other({}), name);
      expect(readFileSync(temp("out", name), "utf8")).toBe("{}");
      rmSync(temp("out"), { recursive: true });
    }
  });

  test("may have other files beside ours", async () => {
    mkdirSync(temp("out"));
    writeFileSync(temp("out", "notes.txt"), "mine");
    await write(temp("out"), optionsOf(COUNTS));
    expect(readFileSync(temp("out", "notes.txt"), "utf8")).toBe("mine");
  });

  test("is told by plain JSON alone", async () => {
    for (const job of [{ a: Number.NaN }, { a: new Date() }, { a: () => 1 }, { a: [undefined] }]) {
      await expectCode("BAD_OPTION", () => other({ job: job as never }), "job", ".a");
    }
  });
});

describe("the lock", () => {
  test("keeps out a second writer, until the first is closed", async () => {
    const first = await openWriter(temp("out"), optionsOf(COUNTS));
    await expectCode("BUSY", () => openWriter(temp("out"), optionsOf(COUNTS)), `process ${process.pid}`);
    await first.close();
    await (await openWriter(temp("out"), optionsOf(COUNTS))).close();
  });

  test("of a dead process, or of a number that was given again, is taken over", async () => {
    const { pid } = spawnSync("true");
    const host = hostname().replace(/[^A-Za-z0-9.]/g, "_");
    for (const name of [
      `lock-${host}-${pid}-0-aa`,
      `lock-${host}-${pid}-77-bb`,
      `lock-${host}-${process.pid}-1-cc`,
    ]) {
      mkdirSync(temp("out", ".headrace"), { recursive: true });
      writeFileSync(temp("out", ".headrace", name), "");
      const writer = await openWriter(temp("out"), optionsOf(COUNTS));
      expect(existsSync(temp("out", ".headrace", name))).toBe(false);
      await writer.close();
    }
  });

  test("of another machine, or of a process that lives, is not", async () => {
    const host = hostname().replace(/[^A-Za-z0-9.]/g, "_");
    mkdirSync(temp("out", ".headrace"), { recursive: true });
    for (const [name, owner] of [
      ["lock-elsewhere-5-7-aa", "process 5 of elsewhere"],
      [`lock-${host}-1-0-aa`, "process 1 is"],
    ] as const) {
      writeFileSync(temp("out", ".headrace", name), "");
      await expectCode("BUSY", () => openWriter(temp("out"), optionsOf(COUNTS)), owner, name);
      rmSync(temp("out", ".headrace", name));
    }
    expect(readdirSync(temp("out", ".headrace"))).toEqual([]);
  });
});

describe("names", () => {
  test("come of the shard and the dataset, and stay apart and inside the folder", async () => {
    const names = [
      "../../etc/x.arrow",
      "a/x.arrow",
      "A/x.arrow",
      "ü.arrow",
      ".hidden",
      `${"l".repeat(300)}.arrow`,
    ];
    const shards = names.map((name, i) => ({ name, start: i, end: i + 1 }));
    await write(temp("out"), { ...optionsOf([]), shards }, [0, 1, 2, 3, 4, 5]);
    const made = readdirSync(temp("out")).filter((name) => name.endsWith(".arrow"));
    expect(made.length).toBe(6);
    for (const name of made) expect(name).toMatch(/^[A-Za-z0-9_][A-Za-z0-9._-]*-[0-5]-01234567\.arrow$/);
    await using loader = await openLoader(temp("out"), { device: "host", batchSize: 6 });
    for await (using batch of loader)
      expect(ROWS.slice(0, 6).map((i) => batch.column("shard").text(i))).toEqual(names);
  });
});

test("waiting is asked for where the disk does not keep up, and texts of any length come through", async () => {
  const columns: OutputColumn[] = [{ name: "text", kind: "utf8" }];
  const long = "é".repeat(3_000_000);
  const writer = await openWriter(temp("out"), {
    ...optionsOf([4]),
    columns,
    maxPendingBytes: 1_000_000,
    mergeBytes: 1,
  });
  const room = writer.add({ row: 0, text: long });
  expect(room).toBeInstanceOf(Promise);
  await room;
  for (const [row, text] of [
    [1, ""],
    [2, "\ud800"],
    [3, "z"],
  ] as const)
    await writer.add({ row, text });
  await writer.close();
  await using loader = await openLoader(temp("out"), { device: "host", batchSize: 4 });
  for await (using batch of loader) {
    expect([0, 1, 2, 3].map((i) => batch.column("text").text(i))).toEqual([long, "", "\ufffd", "z"]);
  }
});
