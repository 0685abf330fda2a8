/** The whole way from a dataset to shards of outputs, with an engine that follows from nothing but the prompt. */
import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { type Device, type Engine, infer, openLoader } from "../../src/index.ts";
import { echoEngine, echoOf } from "./echo-engine.ts";
import { ALL, jobRig, PROMPTS } from "./job-rig.ts";
import { tokenList, writeShard, writeTokens } from "./prompt-files.ts";
import { outputBytes, outputFiles, readOutputs } from "./read-outputs.ts";

const { device, fresh, source: SOURCE, run } = jobRig();

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
    expect(readOutputs(out)[3]).toMatchObject({
      text: text.slice(0, 2),
      finish: "stop",
      tokens: tokens.slice(0, 2),
    });
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
    await infer({
      source: SOURCE,
      out,
      device,
      engine: { engine: vectorEngine(device), name: "v", vectorLength: 3 },
    });
    expect(
      readOutputs(out).map(({ row, embedding, tokens, finish }) => [row, embedding, tokens, finish]),
    ).toEqual(PROMPTS.map((prompt, row) => [row, [row, prompt.length, 0.5], [], "stop"]));
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
    expect(rows.map(({ finish }) => finish)).toEqual([
      "length",
      "error",
      "error",
      "error",
      "length",
      "length",
    ]);
    expect(rows.map(({ error }) => error)).toEqual([
      null,
      "column tokens is null there",
      "the prompt is empty",
      "the prompt has 40 tokens, and the context of 16 leaves no room for one more",
      null,
      null,
    ]);
    expect(rows.slice(1, 4).map(({ text, tokens }) => [text, tokens])).toEqual(Array(3).fill(["", []]));
    const letters = readFileSync(report.deadLetters!, "utf8").trim().split("\n");
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
    expect(readOutputs(out).filter(({ error }) => error === null)).toEqual(
      ALL.filter(({ row }) => row !== 3 && row !== 30),
    );
  });
});
