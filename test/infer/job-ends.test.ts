/** Jobs that end early, folders that hold something already, and what goes wrong on the way. */
import { describe, expect, test } from "bun:test";
import {
  copyFileSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import * as arrow from "apache-arrow";
import { infer } from "../../src/index.ts";
import { echoEngine, echoOf } from "./echo-engine.ts";
import { ALL, jobRig, refused } from "./job-rig.ts";
import { writeShard, writeTokens } from "./prompt-files.ts";
import { outputBytes, readOutputs } from "./read-outputs.ts";

const { device, fresh, source: SOURCE, run, manifestText } = jobRig();

describe("a job that was ended early", () => {
  /** Rows that began, in order. */
  function noting() {
    const started: number[] = [];
    return { started, onStart: ({ row }: { row: number }) => void started.push(row) };
  }

  test("by its engine keeps what was finished, and the next run does the rest", async () => {
    const whole = fresh("out");
    await run({ out: whole });
    const out = fresh("out");
    const broken = echoEngine({ throwAt: 40 });
    await expect(run({ out, engine: broken })).rejects.toThrow("the engine broke at row 40");
    const { started, onStart } = noting();
    const report = await run({ out, engine: echoEngine({ onStart }) });
    expect(report.resumedRows).toBeGreaterThan(25);
    expect(report.rows + report.resumedRows).toBe(60);
    expect(started).toHaveLength(report.rows);
    expect(started.toSorted((a, b) => a - b)[0]).toBeGreaterThan(20);
    expect(outputBytes(out)).toEqual(outputBytes(whole));
    expect(readOutputs(out)).toEqual(ALL);
  });

  test("by drain finishes what runs, and the next run does the rest", async () => {
    const whole = fresh("out");
    await run({ out: whole });
    const out = fresh("out");
    const drain = new AbortController();
    const onStart = ({ row }: { row: number }) => row === 20 && drain.abort();
    const first = await run({ out, engine: echoEngine({ onStart }), drain: drain.signal });
    expect(first.interrupted).toBe(true);
    expect(first.rows).toBeGreaterThanOrEqual(20);
    expect(first.rows).toBeLessThan(40);
    const second = await run({ out });
    expect([second.resumedRows, second.rows, second.interrupted]).toEqual([
      first.rows,
      60 - first.rows,
      false,
    ]);
    expect(outputBytes(out)).toEqual(outputBytes(whole));
  });

  test("by its signal throws, and keeps what was finished", async () => {
    const out = fresh("out");
    const abort = new AbortController();
    const onStart = ({ row }: { row: number }) => row === 30 && abort.abort();
    await refused(run({ out, engine: echoEngine({ onStart }), signal: abort.signal }), "CANCELLED");
    const report = await run({ out });
    expect(report.resumedRows).toBeGreaterThan(10);
    expect(readOutputs(out)).toEqual(ALL);
  });

  test("is not run again once it is done", async () => {
    const out = fresh("out");
    await run({ out });
    const before = outputBytes(out);
    const { started, onStart } = noting();
    const report = await run({ out, engine: echoEngine({ onStart }) });
    expect(report).toMatchObject({ rows: 0, resumedRows: 60, interrupted: false, outputTokens: 0 });
    expect(started).toEqual([]);
    expect(outputBytes(out)).toEqual(before);
  });

  test("does not open finished shards again, where a manifest tells what they hold", async () => {
    const source = fresh("source");
    mkdirSync(source);
    for (const i of [0, 1, 2, 3])
      copyFileSync(join(SOURCE, `part-${i}.arrow`), join(source, `part-${i}.arrow`));
    writeFileSync(join(source, "dataset.json"), await manifestText(source));
    const out = fresh("out");
    await expect(run({ source, out, engine: echoEngine({ throwAt: 50, slots: 1 }) })).rejects.toThrow(
      "row 50",
    );
    const opened: string[] = [];
    const watched = new Proxy(device, {
      get(target, name) {
        const value = Reflect.get(target, name, target) as unknown;
        if (typeof value !== "function") return value;
        if (name === "openFile") {
          return (path: string, ...rest: []) => {
            opened.push(path);
            return target.openFile(path, ...rest);
          };
        }
        return value.bind(target);
      },
    });
    await run({ source, out, device: watched });
    expect(opened.filter((path) => path.startsWith(source))).toEqual([join(source, "part-3.arrow")]);
    expect(readOutputs(out).map(({ row }) => row)).toEqual(ALL.map(({ row }) => row));
  });
});

describe("rows that failed", () => {
  test("keep their errors, and run again where that is asked for", async () => {
    const whole = fresh("out");
    await run({ out: whole });
    const out = fresh("out");
    const fails = new Map([3, 30, 31].map((row) => [row, { message: "down", retry: false, attempts: 4 }]));
    await run({ out, engine: echoEngine({ fails }) });
    const lines = readFileSync(join(out, "errors.jsonl"), "utf8").trimEnd().split("\n");
    expect(lines.map((line) => (JSON.parse(line) as { attempts: number }).attempts)).toEqual([4, 4, 4]);
    const same = await run({ out });
    expect(same).toMatchObject({ rows: 0, resumedRows: 60, failedRows: 0, resumedFailedRows: 3 });
    await refused(run({ out, retryFailed: true, resume: false }), "BAD_OPTION", "retryFailed");
    const again = await run({ out, retryFailed: true });
    expect(again).toMatchObject({ rows: 3, resumedRows: 57, failedRows: 0, resumedFailedRows: 0 });
    expect(readOutputs(out)).toEqual(ALL);
    expect((await run({ out })).resumedFailedRows).toBe(0);
  });

  test("are not those of a shard that was cut: it is made again", async () => {
    const out = fresh("out");
    await run({ out });
    const [name] = readdirSync(out).filter((file) => file.startsWith("part-2"));
    truncateSync(join(out, name!), 64);
    const report = await run({ out });
    expect(report).toMatchObject({ rows: 20, resumedRows: 40, remadeShards: 1 });
    expect(readOutputs(out)).toEqual(ALL);
  });
});

describe("a folder", () => {
  test("of another job is refused, and what differs is named", async () => {
    const out = fresh("out");
    await run({ out });
    const before = outputBytes(out);
    await refused(run({ out, maxNewTokens: 7 }), "OTHER_JOB", "maxNewTokens is 6 there and 7 here");
    await refused(run({ out, name: "other" }), "OTHER_JOB", "own: echo");
    await refused(run({ out, limit: 3 }), "OTHER_JOB", "limit");
    await refused(run({ out, stop: ["x"] }), "OTHER_JOB", "stop");
    await refused(run({ out, temperature: 0.5 }), "OTHER_JOB", "temperature is 0 there and 0.5 here");
    await refused(run({ out, order: "completion" }), "OTHER_JOB");
    expect(outputBytes(out)).toEqual(before);
  });

  test("may be gone on with in another way", async () => {
    const out = fresh("out");
    await expect(run({ out, engine: echoEngine({ throwAt: 30 }) })).rejects.toThrow("row 30");
    // Neither of these changes an output.
    const report = await run({
      out,
      slots: 2,
      scheduler: "static",
      admit: "longest-first",
      timeoutMs: 60_000,
      seed: 9,
    });
    expect(report.resumedRows).toBeGreaterThan(0);
    expect(readOutputs(out)).toEqual(ALL);
  });

  test("with outputs is refused where that is asked for", async () => {
    const out = fresh("out");
    await run({ out, resume: false });
    await refused(run({ out, resume: false }), "BAD_OPTION", "holds 60 finished rows", out);
  });

  test("that is a file is refused", async () => {
    const out = fresh("out");
    writeFileSync(out, "mine");
    await refused(run({ out }), "IO_ERROR", out);
    expect(readFileSync(out, "utf8")).toBe("mine");
  });
});

describe("what goes wrong on the way", () => {
  test("a shard that is corrupt halfway keeps the outputs of the batches before it", async () => {
    const prompts = Array.from({ length: 300 }, (_, row) => [row % 250, 7]);
    const source = writeTokens(fresh("source"), [
      prompts.slice(0, 130),
      prompts.slice(130, 230),
      prompts.slice(230),
    ]);
    writeFileSync(join(source, "dataset.json"), await manifestText(source));
    const path = join(source, "part-2.arrow");
    const whole = readFileSync(path);
    const broken = Buffer.from(whole);
    broken.fill(0xff, broken.length - 300, broken.length - 40);
    writeFileSync(path, broken);
    const out = fresh("out");
    await refused(run({ source, out }), "ARROW_FOOTER", "part-2.arrow");
    writeFileSync(path, whole);
    const report = await run({ source, out });
    // Batches have 64 rows, and the fourth reaches into the corrupt shard.
    expect(report.resumedRows).toBe(192);
    expect(readOutputs(out).map(({ row, tokens }) => [row, tokens])).toEqual(
      prompts.map((prompt, row) => [row, echoOf(row, prompt, 6)]),
    );
  });

  test("an output folder that goes away ends the job", async () => {
    const out = fresh("out");
    const onStart = ({ row }: { row: number }) => row === 20 && rmSync(out, { recursive: true, force: true });
    await refused(run({ out, engine: echoEngine({ onStart }) }), "IO_ERROR", out);
    expect((await run({ out })).rows).toBeGreaterThan(0);
    expect(readOutputs(out)).toEqual(ALL);
  });

  test("text, and stops of text, want a tokenizer", async () => {
    const text = { type: new arrow.Utf8(), values: ["a"] };
    const source = writeShard(fresh("text.arrow"), { text });
    await refused(run({ source, model: undefined }), "BAD_OPTION", "column text is text", "token ids");
    await refused(run({ model: undefined, stop: ["x"] }), "BAD_OPTION", "stop is a text");
  });

  test("options out of their bounds are named", async () => {
    await refused(run({ slots: 0 }), "BAD_OPTION", "slots is 0; it must be a whole number from 1 to 4096");
    await refused(run({ topP: 0 }), "BAD_OPTION", "topP is 0");
    await refused(run({ temperature: -1 }), "BAD_OPTION", "temperature is -1");
    await refused(run({ stop: [""] }), "BAD_OPTION", "stop");
    await refused(run({ kvType: "F16" }), "BAD_OPTION", "kvType means nothing to engine own");
    await refused(
      infer({ source: SOURCE, out: fresh("out"), device }),
      "BAD_OPTION",
      "engine llama wants a model",
    );
    await refused(
      infer({ source: SOURCE, out: fresh("out"), device, engine: "http" }),
      "BAD_OPTION",
      "wants a url",
    );
  });
});
