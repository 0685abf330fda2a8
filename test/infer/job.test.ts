/** The whole way from a dataset to shards of outputs, with an engine that follows from nothing but the prompt. */
import { afterAll, describe, expect, test } from "bun:test";
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as arrow from "apache-arrow";
import {
  type Device,
  type Engine,
  encodeManifest,
  HeadraceError,
  type InferOptions,
  type InferReport,
  infer,
  makeManifest,
  openDataset,
  openDevice,
  openLoader,
} from "../../src/index.ts";
import { echoEngine, echoOf } from "./echo-engine.ts";
import { tokenList, writeShard, writeTokens } from "./prompt-files.ts";
import { outputBytes, outputFiles, readOutputs } from "./read-outputs.ts";

const TINY_LLAMA = join(import.meta.dir, "../../datasets/tiny-llama");
const scratch = mkdtempSync(join(tmpdir(), "headrace-job-"));
const device = openDevice("host");
afterAll(async () => {
  await device.close();
  rmSync(scratch, { recursive: true, force: true });
});

let numbers = 0;
const fresh = (name: string) => join(scratch, `${name}-${numbers++}`);

/** 60 prompts in shards of 25, 0, 20 and 15. */
const PROMPTS = Array.from({ length: 60 }, (_, row) =>
  Array.from({ length: 1 + ((row * 5) % 9) }, (_, i) => (row * 13 + i) % 250),
);
const CUTS = [0, 25, 25, 45, 60];
const SOURCE = writeTokens(
  fresh("source"),
  CUTS.slice(1).map((end, i) => PROMPTS.slice(CUTS[i], end)),
);

type Changes = Omit<Partial<InferOptions>, "engine"> & { readonly engine?: Engine; readonly name?: string };

/** Runs the job over {@link SOURCE}, into a new folder where none is given. */
function run({ engine = echoEngine(), name = "echo", ...changes }: Changes = {}): Promise<InferReport> {
  return infer({
    source: SOURCE,
    out: fresh("out"),
    device,
    maxNewTokens: 6,
    model: TINY_LLAMA,
    ...changes,
    engine: { engine, name },
  });
}

async function refused(running: Promise<unknown>, code: string, ...texts: string[]): Promise<void> {
  const error = await running.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  expect(error).toBeInstanceOf(HeadraceError);
  const { code: found, message } = error as HeadraceError;
  expect([found as string, message.includes("\n")]).toEqual([code, false]);
  for (const text of texts) expect(message).toContain(text);
}

function expected(row: number) {
  const tokens = echoOf(row, PROMPTS[row]!, 6);
  const shard = CUTS.findLastIndex((start) => start <= row);
  return {
    row,
    shard: `part-${shard}.arrow`,
    tokens,
    text: String.fromCharCode(...tokens),
    finish: "length",
    error: null,
  };
}

const ALL = PROMPTS.map((_, row) => expected(row));

describe("a job", () => {
  test("gives each row its output, in the order of the input", async () => {
    const out = fresh("out");
    const report = await run({ out });
    expect(readOutputs(out)).toEqual(ALL);
    expect(outputFiles(out)).toHaveLength(4);
    expect(report).toMatchObject({
      rows: 60,
      promptTokens: PROMPTS.flat().length,
      outputTokens: 360,
      resumedRows: 0,
      failedRows: 0,
      totalRows: 60,
      interrupted: false,
      column: "tokens",
      engine: "echo",
      out,
    });
    expect(report.outputTokensPerSecond * report.seconds).toBeCloseTo(360, 3);
    expect(report.occupancy).toBeGreaterThan(0.5);
    expect(report.occupancy).toBeLessThanOrEqual(1);
    expect(Object.keys(report).slice(0, 9)).toEqual(
      "rows promptTokens outputTokens seconds outputTokensPerSecond occupancy dataWaitShare resumedRows failedRows".split(
        " ",
      ),
    );
  });

  test("is the same, byte for byte, whatever the slots, the scheduler and what is admitted first", async () => {
    const first = fresh("out");
    await run({ out: first });
    for (const changes of [
      { engine: echoEngine({ slots: 1 }) },
      { engine: echoEngine({ slots: 33 }), slots: 7 },
      { scheduler: "static" as const },
      { admit: "longest-first" as const },
    ]) {
      const out = fresh("out");
      await run({ out, ...changes });
      expect(outputBytes(out)).toEqual(outputBytes(first));
    }
  });

  test("in the order of completion has the same rows", async () => {
    const out = fresh("out");
    await run({ out, order: "completion", admit: "longest-first" });
    expect(readOutputs(out).toSorted((a, b) => a.row - b.row)).toEqual(ALL);
  });

  test("is read back by this project's own loader", async () => {
    const out = fresh("out");
    await run({ out });
    await using loader = await openLoader(out, { device, batchSize: 7, strategy: "map" });
    const rows: unknown[] = [];
    for await (using batch of loader) {
      for (let i = 0; i < batch.numSamples; i++) {
        rows.push({
          row: Number(batch.column("row").view[i]),
          shard: batch.column("shard").text(i),
          tokens: Array.from(batch.column("tokens").row(i) as Int32Array),
          text: batch.column("text").text(i),
          finish: batch.column("finish").text(i),
          error: batch.column("error").text(i) || null,
        });
      }
    }
    expect(rows).toEqual(ALL);
  });

  test("with a limit has the first rows alone", async () => {
    const out = fresh("out");
    expect(await run({ out, limit: 30 })).toMatchObject({ rows: 30, totalRows: 30, interrupted: false });
    expect(readOutputs(out)).toEqual(ALL.slice(0, 30));
    expect(await run({ limit: 0 })).toMatchObject({ rows: 0, totalRows: 0, occupancy: 0 });
  });

  test("over an empty dataset ends with nothing", async () => {
    const source = writeTokens(fresh("source"), [[], []]);
    const out = fresh("out");
    expect(await run({ source, out })).toMatchObject({ rows: 0, totalRows: 0, interrupted: false });
    expect(readOutputs(out)).toEqual([]);
    expect(await run({ source, out })).toMatchObject({ rows: 0, resumedRows: 0 });
  });

  test("tells where it stands", async () => {
    const told: unknown[] = [];
    await run({ onProgress: (progress) => told.push(progress) });
    expect(told.at(-1)).toMatchObject({ rows: 60, totalRows: 60, resumedRows: 0 });
  });

  test("stops at texts, also where they straddle tokens, and at ids", async () => {
    const out = fresh("out");
    const tokens = echoOf(3, PROMPTS[3]!, 6);
    const text = String.fromCharCode(...tokens);
    const limits = { limit: 4, stop: [text.slice(2, 4)] };
    await run({ out, ...limits });
    expect(readOutputs(out)[3]).toMatchObject({ text: text.slice(0, 2), finish: "stop", tokens: tokens.slice(0, 2) });
    const byId = fresh("out");
    await run({ out: byId, limit: 4, stopIds: [tokens[1]!] });
    expect(readOutputs(byId)[3]).toMatchObject({ tokens: tokens.slice(0, 1), finish: "stop" });
  });

  test("has no text where there is no tokenizer", async () => {
    const out = fresh("out");
    await run({ out, model: undefined, limit: 2 });
    expect(readOutputs(out).map(({ text, tokens }) => [text, tokens.length])).toEqual([
      [null, 6],
      [null, 6],
    ]);
  });

  test("writes vectors from the device's memory", async () => {
    const out = fresh("out");
    await infer({ source: SOURCE, out, device, engine: { engine: vectorEngine(device), name: "v", vectorLength: 3 } });
    expect(readOutputs(out).map(({ row, embedding, tokens, finish }) => [row, embedding, tokens, finish])).toEqual(
      PROMPTS.map((prompt, row) => [row, [row, prompt.length, 0.5], [], "stop"]),
    );
  });
});

/** Gives `[row, prompt's length, 0.5]` as a vector. */
function vectorEngine(own: Device): Engine {
  const buffer = own.createBuffer(64 * 12);
  const values = new Float32Array(buffer.view(0, 64 * 12));
  const free = Array.from({ length: 64 }, (_, i) => i);
  return {
    capacity: { slots: 4, contextLength: 64, tokensPerStep: 64, promptsOnly: true },
    async prefill(chunks) {
      return chunks.map(({ slot, request }) => {
        const place = free.pop()!;
        values.set([request.row, request.prompt.length, 0.5], 3 * place);
        const embedding = {
          buffer,
          byteOffset: 12 * place,
          length: 3,
          release: () => {
            values.fill(Number.NaN, 3 * place, 3 * place + 3);
            free.push(place);
          },
        };
        return { slot, finish: "stop" as const, embedding };
      });
    },
    decode: async () => [],
    release() {},
  };
}

describe("rows that cannot run", () => {
  const long = Array.from({ length: 40 }, () => 1);
  const values = [[1, 2], null, [], long, [999], [3]];
  const source = writeShard(fresh("odd.arrow"), { tokens: { type: tokenList(), values } });

  test("have an error, and the others go on", async () => {
    const out = fresh("out");
    const engine = echoEngine({ contextLength: 16 });
    const report = await run({ source, out, engine });
    expect(report).toMatchObject({ rows: 6, failedRows: 3, outputTokens: 18, interrupted: false });
    const rows = readOutputs(out);
    expect(rows.map(({ finish }) => finish)).toEqual(["length", "error", "error", "error", "length", "length"]);
    expect(rows.map(({ error }) => error)).toEqual([
      null,
      "column tokens is null there",
      "the prompt is empty",
      "the prompt has 40 tokens, and the context of 16 leaves no room for one more",
      null,
      null,
    ]);
    const letters = readFileSync(report.deadLetters, "utf8").trim().split("\n");
    expect(letters.map((line) => (JSON.parse(line) as { row: number }).row)).toEqual([1, 2, 3]);
  });

  test("have it too where the engine says so, after tries that may help", async () => {
    const out = fresh("out");
    const fails = new Map([
      [3, { message: "no such luck", retry: false }],
      [30, { message: "busy", retry: true }],
    ]);
    const report = await run({ out, engine: echoEngine({ fails }), retries: 1 });
    expect(report).toMatchObject({ rows: 60, failedRows: 2, retries: 1 });
    const failed = readOutputs(out).filter(({ error }) => error !== null);
    expect(failed.map(({ row, finish }) => [row, finish])).toEqual([
      [3, "error"],
      [30, "error"],
    ]);
    expect(failed[0]!.error).toContain("no such luck");
    expect(readOutputs(out).filter(({ error }) => error === null)).toEqual(ALL.filter(({ row }) => row !== 3 && row !== 30));
  });
});

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
    expect([second.resumedRows, second.rows, second.interrupted]).toEqual([first.rows, 60 - first.rows, false]);
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
    for (const i of [0, 1, 2, 3]) copyFileSync(join(SOURCE, `part-${i}.arrow`), join(source, `part-${i}.arrow`));
    writeFileSync(join(source, "dataset.json"), await manifestText(source));
    const out = fresh("out");
    await expect(run({ source, out, engine: echoEngine({ throwAt: 50, slots: 1 }) })).rejects.toThrow("row 50");
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

async function manifestText(source: string): Promise<string> {
  using dataset = openDataset(join(source, "*.arrow"), device);
  return encodeManifest(await makeManifest(dataset, { folder: source }));
}

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
    const report = await run({ out, slots: 2, scheduler: "static", admit: "longest-first", timeoutMs: 60_000, seed: 9 });
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
    expect(existsSync(join(scratch, "never"))).toBe(false);
  });

  test("options out of their bounds are named", async () => {
    await refused(run({ slots: 0 }), "BAD_OPTION", "slots is 0; it must be a whole number from 1 to 4096");
    await refused(run({ topP: 0 }), "BAD_OPTION", "topP is 0");
    await refused(run({ temperature: -1 }), "BAD_OPTION", "temperature is -1");
    await refused(run({ stop: [""] }), "BAD_OPTION", "stop");
    await refused(run({ kvType: "F16" }), "BAD_OPTION", "kvType means nothing to engine own");
    await refused(infer({ source: SOURCE, out: fresh("out"), device }), "BAD_OPTION", "engine llama wants a model");
    await refused(infer({ source: SOURCE, out: fresh("out"), device, engine: "http" }), "BAD_OPTION", "wants a url");
  });
});
