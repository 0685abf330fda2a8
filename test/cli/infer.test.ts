import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type Device, generate, openDevice, openLlama } from "../../src/index.ts";
import { HEADER_BYTES } from "../../src/loader/writeback/attempt.ts";
import { outputBytes, outputFiles, readOutputs } from "../infer/read-outputs.ts";
import { proseRows } from "./expected.ts";
import { DATASETS, type Ended, headrace, onTerminal, scratch, start, waitFor } from "./process.ts";

setDefaultTimeout(120_000);

const folder = scratch();
const PROSE = join(DATASETS, "prose");
const MODEL = join(DATASETS, "tiny-llama");
const rows = proseRows();
let numbers = 0;
const fresh = () => join(folder, `out-${numbers++}`);

/** Runs tiny-llama over the first rows of prose. */
function infer(out: string, ...args: string[]): Promise<Ended> {
  return headrace("infer", PROSE, "--model", MODEL, "--out", out, "--device", "host", ...args);
}

const FEW = ["--limit", "6", "--max-new-tokens", "8"];

/** What the model makes of these rows' tokens, one at a time. */
async function greedy(device: Device, numRows: number, maxNewTokens: number): Promise<number[][]> {
  const engine = await openLlama(MODEL, device, { slots: 1 });
  const found: number[][] = [];
  async function* requests() {
    for (const [row, { tokens }] of rows.slice(0, numRows).entries()) {
      yield { row, prompt: tokens, maxNewTokens, stopIds: [257] };
    }
  }
  for await (const { row, tokens } of generate(requests(), engine)) found[row] = [...tokens];
  await engine.close();
  return found;
}

describe("what it does", () => {
  test("writes an output for each row, and says so as one JSON object", async () => {
    const out = fresh();
    const { code, out: printed, err } = await infer(out, ...FEW, "--json");
    expect({ code, err }).toEqual({ code: 0, err: "" });
    expect(printed).toMatch(/^\{.*\}\n$/);
    const report = JSON.parse(printed);
    expect(Object.keys(report).slice(0, 9)).toEqual([
      "rows",
      "promptTokens",
      "outputTokens",
      "seconds",
      "outputTokensPerSecond",
      "occupancy",
      "dataWaitShare",
      "resumedRows",
      "failedRows",
    ]);
    const promptTokens = rows.slice(0, 6).reduce((sum, { length }) => sum + length, 0);
    expect(report).toMatchObject({
      rows: 6,
      promptTokens,
      resumedRows: 0,
      failedRows: 0,
      interrupted: false,
    });
    expect(report.outputTokensPerSecond * report.seconds).toBeCloseTo(report.outputTokens, 3);
    await using device = openDevice("host");
    const expected = await greedy(device, 6, 8);
    const found = readOutputs(out);
    expect(found.map(({ tokens }) => tokens)).toEqual(expected);
    expect(found.reduce((sum, { tokens }) => sum + tokens.length, 0)).toBe(report.outputTokens);
    expect(found.map(({ row, shard, finish, error }) => [row, shard, finish, error])).toEqual(
      expected.map((_, row) => [row, "prose-00000.arrow", "length", null]),
    );
    const text = (tokens: number[]) => Buffer.from(tokens.filter((token) => token < 256)).toString();
    expect(found.map((row) => row.text)).toEqual(expected.map(text));
  });

  test("prints a table, and neither bar nor colours in a pipe", async () => {
    const out = fresh();
    const { code, out: printed, err } = await infer(out, ...FEW);
    expect({ code, err }).toEqual({ code: 0, err: "" });
    expect(printed).toMatch(/^dataset +.*prose \(6 rows, column tokens\)$/m);
    expect(printed).toMatch(/^engine +llama on host$/m);
    expect(printed).toMatch(/^rows +6 in [\d.]+ m?s$/m);
    expect(printed).toMatch(/^prompts +[\d,]+ tokens$/m);
    expect(printed).toMatch(/^outputs +48 tokens, [\d,]+ tokens\/s$/m);
    expect(printed).toMatch(/^slots in use +[\d.]+ %$/m);
    expect(printed).toMatch(/^waited for data +(< )?[\d.]+ %$/m);
    expect(printed).not.toContain("\u001b");
  });

  test("takes text by the model's tokenizer, and stops at texts", async () => {
    const out = fresh();
    const args = ["--limit", "3", "--max-new-tokens", "24", "--column", "text"];
    expect((await infer(out, ...args)).code).toBe(0);
    // Of the others, the model says at once that they are at their end.
    const whole = readOutputs(out)[1]!.text!;
    expect(whole).toHaveLength(24);
    const stop = whole.slice(5, 8);
    const stopped = fresh();
    expect((await infer(stopped, ...args, "--stop", stop)).code).toBe(0);
    const found = readOutputs(stopped)[1]!;
    expect([found.text, found.finish]).toEqual([whole.slice(0, whole.indexOf(stop)), "stop"]);
  });

  test("samples by the seed alone, and gives log probabilities on request", async () => {
    const sampled = async (...args: string[]) => {
      const out = fresh();
      const options = [
        "--limit",
        "3",
        "--max-new-tokens",
        "6",
        "--temperature",
        "0.9",
        "--top-p",
        "0.9",
        "--logprobs",
      ];
      expect((await infer(out, ...options, ...args)).code).toBe(0);
      return readOutputs(out);
    };
    const first = await sampled("--seed", "5");
    expect(await sampled("--seed", "5", "--slots", "1", "--admit", "longest-first")).toEqual(first);
    expect(await sampled("--seed", "6")).not.toEqual(first);
    for (const { tokens, logprobs } of first) {
      expect(logprobs).toHaveLength(tokens.length);
      for (const logprob of logprobs!) expect(logprob).toBeLessThanOrEqual(0);
    }
  });

  test("embeds, and tells of no tokens", async () => {
    const out = fresh();
    const { code, out: table } = await infer(
      out,
      "--limit",
      "4",
      "--engine",
      "embed",
      "--pooling",
      "last",
      "--normalize",
    );
    expect(code).toBe(0);
    const labels = table
      .trimEnd()
      .split("\n")
      .map((line) => line.split(/ {2,}/)[0]);
    expect(labels).toContain("vector after");
    for (const none of ["outputs", "first token after"]) expect(labels).not.toContain(none);
    for (const { embedding, tokens, text, finish } of readOutputs(out)) {
      expect([embedding!.length, tokens.length, text, finish]).toEqual([192, 0, "", "stop"]);
      expect(Math.hypot(...embedding!)).toBeCloseTo(1, 4);
    }
  });

  test("goes on where it was, and does nothing where all is done", async () => {
    const out = fresh();
    await infer(out, ...FEW);
    const before = outputBytes(out);
    const { code, out: printed } = await infer(out, ...FEW, "--json");
    expect([code, JSON.parse(printed)]).toEqual([0, expect.objectContaining({ rows: 0, resumedRows: 6 })]);
    expect(outputBytes(out)).toEqual(before);
    expect((await infer(out, ...FEW, "--resume")).code).toBe(0);
    const refused = await infer(out, ...FEW, "--no-resume");
    expect([refused.code, refused.err]).toEqual([2, expect.stringContaining("headrace: --no-resume: ")]);
  });

  test("writes a trace", async () => {
    const trace = join(folder, "trace.json");
    expect((await infer(fresh(), ...FEW, "--trace", trace)).code).toBe(0);
    expect(readFileSync(trace, "utf8")).toContain("infer: steps");
  });

  test("counts rows that fail, lists them, and still ends with 0", async () => {
    const out = fresh();
    const args = ["--limit", "6", "--max-new-tokens", "4", "--context", "400", "--json"];
    const { code, out: printed, err } = await infer(out, ...args);
    const long = rows.slice(0, 6).filter(({ length }) => length >= 400).length;
    expect(long).toBeGreaterThan(0);
    expect(long).toBeLessThan(6);
    expect([code, JSON.parse(printed).failedRows]).toEqual([0, long]);
    expect(err).toBe(`headrace: ${long} of 6 rows failed; see ${out}/errors.jsonl\n`);
    expect(readOutputs(out).filter(({ finish }) => finish === "error")).toHaveLength(long);
  });

  test("ends with 1 where every row failed", async () => {
    const out = fresh();
    const args = ["--limit", "2", "--context", "20"];
    const { code, err } = await infer(out, ...args);
    expect([code, err]).toEqual([1, expect.stringContaining("2 of 2 rows failed")]);
    const same = await infer(out, ...args);
    expect([same.code, same.err]).toEqual([1, expect.stringContaining("2 rows of earlier runs failed")]);
    expect(same.err).toContain("--retry-failed");
    expect(same.out).toMatch(/taken over +2 rows that were finished before, 2 of them failed/);
    const again = await infer(out, ...args, "--retry-failed");
    expect([again.code, again.err]).toEqual([1, expect.stringContaining("2 of 2 rows failed")]);
    expect(readFileSync(join(out, "errors.jsonl"), "utf8")).toContain('"retry":1');
  });
});

/** Bytes of all attempt files of a job that is not done. */
function attemptBytes(out: string): number {
  const work = join(out, ".headrace");
  if (!existsSync(work)) return 0;
  const attempts = readdirSync(work).filter((name) => name.endsWith(".attempt"));
  return attempts.reduce((sum, name) => sum + statSync(join(work, name)).size, 0);
}

describe("Ctrl-C", () => {
  /** Starts a job of minutes, sends `signal` once outputs come, and waits for its end. */
  async function interrupt(out: string, signal: NodeJS.Signals): Promise<Ended> {
    const args = ["--max-new-tokens", "16", "--json", "--progress"];
    const { child, ended } = start([
      "infer",
      PROSE,
      "--model",
      MODEL,
      "--out",
      out,
      "--device",
      "host",
      ...args,
    ]);
    await waitFor("the first outputs", () => attemptBytes(out) > HEADER_BYTES, 60_000);
    child.kill(signal);
    return ended;
  }

  test.each([
    ["SIGINT", 130],
    ["SIGTERM", 143],
  ] as const)("%s finishes what runs, commits, and ends with %d", async (signal, expected) => {
    const out = fresh();
    const { code, out: printed, err } = await interrupt(out, signal);
    const report = JSON.parse(printed);
    expect([code, report.interrupted]).toEqual([expected, true]);
    expect(report.rows).toBeGreaterThan(0);
    expect(report.rows).toBeLessThan(3000);
    const left = (3000 - report.rows).toLocaleString("en-US");
    expect(err).toContain(
      `headrace: interrupted with ${left} rows to go; the same command goes on from there`,
    );
    expect(outputFiles(out)).toEqual([]);
    expect(existsSync(join(out, ".headrace"))).toBe(true);
  });
});

describe("what it refuses, in one line", () => {
  const refused = async (args: string[], expectedCode: number, ...texts: string[]) => {
    const { code, out, err } = await headrace("infer", ...args);
    expect({ code, out, lines: err.trimEnd().split("\n").length }).toEqual({
      code: expectedCode,
      out: "",
      lines: 1,
    });
    for (const text of texts) expect(err).toContain(text);
  };
  const base = (out = fresh()) => [PROSE, "--model", MODEL, "--out", out, "--device", "host"];

  test("a folder with another job", async () => {
    const out = fresh();
    await infer(out, ...FEW);
    await refused(
      [...base(out), "--limit", "6", "--max-new-tokens", "9"],
      1,
      "OTHER_JOB",
      "--max-new-tokens is 8 there and 9 here",
    );
  });

  test("bad models", async () => {
    const model = (path: string) => [PROSE, "--model", path, "--out", fresh(), "--device", "host"];
    await refused(model(join(folder, "nowhere")), 1, "SOURCE_NOT_FOUND", "nowhere");
    await refused(model(PROSE), 1, "BAD_MODEL", "config.json");
    const broken = join(folder, "broken");
    mkdirSync(broken);
    writeFileSync(join(broken, "config.json"), "{");
    await refused(model(broken), 1, "BAD_MODEL", "broken");
    writeFileSync(join(broken, "config.json"), '{"architectures":["BertModel"]}');
    await refused(model(broken), 1, "[");
  });

  test("bad sources and columns", async () => {
    await refused([join(folder, "nowhere"), "--model", MODEL, "--out", fresh()], 1, "SOURCE_NOT_FOUND");
    await refused([...base(), "--column", "txt"], 2, "UNKNOWN_COLUMN", "txt");
    await refused([...base(), "--column", "length"], 2, "column length holds I32", "lists of integers");
  });

  test("bad options", async () => {
    await refused([PROSE, "--model", MODEL], 2, "required option '--out <folder>'");
    await refused([PROSE, "--out", fresh(), "--device", "host"], 2, "--engine llama wants --model");
    await refused(
      [PROSE, "--out", fresh(), "--engine", "http", "--device", "host"],
      2,
      "--engine http wants --url",
    );
    await refused([...base(), "--slots", "0"], 2, "--slots", "1 to 4096");
    await refused([...base(), "--temperature", "hot"], 2, "--temperature", "must be a number");
    await refused([...base(), "--top-p", "0"], 2, "--top-p is 0");
    await refused([...base(), "--pooling", "mean"], 2, "--pooling means nothing to engine llama");
    await refused(
      [...base(), "--ordinal", "1"],
      2,
      "headrace: --ordinal means nothing without --device cuda",
    );
    await refused([...base(), "--scheduler", "magic"], 2, "--scheduler");
    await refused([...base(), "--context", "100000"], 2, "--context is 100000");
  });
});

test("--help has every option, examples and exit codes", async () => {
  const { code, out } = await headrace("infer", "--help");
  expect(code).toBe(0);
  for (const option of "model out engine column limit slots max-new-tokens temperature top-k top-p min-p repetition-penalty seed stop logprobs order scheduler admit timeout retries resume no-resume device ordinal fast context kv-memory kv-type pooling normalize url api-model chat progress trace json".split(
    " ",
  )) {
    expect(out).toContain(`--${option}`);
  }
  expect(out).toContain("Exit codes:");
  expect(out).toContain("headrace infer datasets/prose --model datasets/tiny-llama --out out/");
});

test("on a terminal there is a bar, which goes away", async () => {
  const args = ["infer", PROSE, "--model", MODEL, "--out", fresh(), "--device", "host"];
  const { code, out } = await onTerminal(130, ...args, "--limit", "16", "--max-new-tokens", "48");
  expect(code).toBe(0);
  expect(out).toMatch(/\d+\/16 rows \| [\d,]+ tokens\/s \| slots [\d.]+ % \| ETA/);
  expect(out).toContain("written to");
});
