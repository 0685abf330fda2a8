/** Which options make another job, which are refused, and what a refusal leaves behind. */
import { describe, expect, test } from "bun:test";
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { type InferOptions, type InferReport, infer, openDataset, openDevice } from "../../src/index.ts";
import { echoEngine } from "./echo-engine.ts";
import { jobRig, refused } from "./job-rig.ts";
import { readOutputs } from "./read-outputs.ts";

const MODEL = join(import.meta.dir, "../../datasets/tiny-llama");
const { device, fresh, source: SOURCE, run } = jobRig();

/** Runs tiny-llama over the first rows. */
function runLlama(changes: Partial<InferOptions> = {}): Promise<InferReport> {
  const out = fresh("out");
  return infer({
    source: SOURCE,
    out,
    device,
    model: MODEL,
    limit: 2,
    maxNewTokens: 2,
    slots: 2,
    ...changes,
  });
}

describe("the same job", () => {
  test.each([
    { contextLength: 512 },
    { kvType: "F32" },
    { kvBytes: 64 * 2 ** 20 },
    { topK: 0, topP: 1, minP: 0, temperature: 0, repetitionPenalty: 1 },
    { stopIds: [257] },
  ] as const)("is one with %j, which is so without", async (same) => {
    const out = fresh("out");
    await runLlama({ out });
    expect(await runLlama({ out, ...same })).toMatchObject({ rows: 0, resumedRows: 2 });
  });

  test("is one with a limit that leaves out no row", async () => {
    const out = fresh("out");
    await run({ out });
    expect((await run({ out, limit: 60 })).resumedRows).toBe(60);
    expect((await run({ out, limit: 1000 })).resumedRows).toBe(60);
  });

  test("is not one with another context", async () => {
    const out = fresh("out");
    await runLlama({ out });
    await refused(
      runLlama({ out, contextLength: 64 }),
      "OTHER_JOB",
      "contextLength is 512 there and 64 here",
    );
  });
});

describe("what cannot run leaves nothing", () => {
  const leavesNothing = async (changes: Partial<InferOptions>, code: string, ...texts: string[]) => {
    const out = fresh("out");
    await refused(runLlama({ out, ...changes }), code, ...texts);
    expect(existsSync(out)).toBe(false);
  };

  test("a cache that cannot hold a sequence, which would cut the context", async () => {
    await leavesNothing(
      { kvBytes: 100_000 },
      "BAD_OPTION",
      "kvBytes is 100000",
      "contextLength 512",
      "smaller",
    );
    await leavesNothing({ kvBytes: 1 }, "BAD_OPTION", "kvBytes is 1;", "contextLength 512");
    const error: unknown = await runLlama({ kvBytes: 1 }).catch((thrown: unknown) => thrown);
    const least = Number(/at least (\d+)/.exec((error as Error).message)![1]);
    expect(least).toBeGreaterThan(0);
    await leavesNothing({ kvBytes: least - 1 }, "BAD_OPTION");
    expect((await runLlama({ kvBytes: least })).rows).toBe(2);
  });

  test("a context past the model's", async () => {
    await leavesNothing({ contextLength: 513 }, "BAD_OPTION", "contextLength is 513", "from 2 to 512");
    await leavesNothing({ contextLength: 1 }, "BAD_OPTION", "contextLength is 1;", "from 2 to 512");
  });

  test("a step smaller than the slots", () => leavesNothing({ slots: 8, tokensPerStep: 4 }, "BAD_OPTION"));

  test("a model whose weights do not load", async () => {
    const model = fresh("model");
    mkdirSync(model);
    copyFileSync(join(MODEL, "config.json"), join(model, "config.json"));
    writeFileSync(join(model, "model.safetensors"), new Uint8Array(100));
    const out = fresh("out");
    await expect(runLlama({ out, model })).rejects.toThrow("model.safetensors");
    expect(existsSync(out)).toBe(false);
  });

  test("fast on a device that has no library", () =>
    leavesNothing({ fast: true }, "UNSUPPORTED", "no library of matrix products"));

  test("the null device", async () => {
    await using nothing = openDevice("null");
    await leavesNothing({ device: nothing }, "BAD_OPTION", "device null");
  });

  test.each([
    [{ temperature: 1e-30 }, "temperature is 1e-30"],
    [{ repetitionPenalty: 1e-7 }, "repetitionPenalty is 1e-7"],
    [{ topP: 0 }, "topP is 0; it must be a number above 0"],
    [{ seed: 2 ** 53 }, "seed is 9007199254740992; it must be a whole number from 0 to 9007199254740991"],
    [{ limit: -1 }, "limit is -1; it must be a whole number from 0"],
  ] as const)("%j", (options, text) => leavesNothing(options, "BAD_OPTION", text));

  test("no folder", () => refused(runLlama({ out: "" }), "BAD_OPTION", 'out is ""'));
});

describe("the folder of the source", () => {
  test("takes no outputs, by whatever path", async () => {
    const root = fresh("root");
    const source = join(root, "data");
    mkdirSync(source, { recursive: true });
    for (const name of readdirSync(SOURCE)) copyFileSync(join(SOURCE, name), join(source, name));
    const link = fresh("link");
    symlinkSync(source, link);
    const before = readdirSync(root, { recursive: true }).sort();
    for (const out of [source, link, `${source}/`, root]) {
      await refused(run({ source, out }), "BAD_OPTION", `out is ${out}`, "source's shards");
    }
    await refused(run({ source: join(source, "part-0.arrow"), out: link }), "BAD_OPTION", "part-0.arrow");
    expect(readdirSync(root, { recursive: true }).sort()).toEqual(before);
    expect((await run({ source, out: join(root, "out") })).rows).toBe(60);
  });
});

describe("the report", () => {
  test("names the file of rows that failed only where it is", async () => {
    expect("deadLetters" in JSON.parse(JSON.stringify(await run()))).toBe(false);
    const fails = new Map([[3, { message: "no such luck", retry: false }]]);
    const { deadLetters } = await run({ engine: echoEngine({ fails }) });
    expect(existsSync(deadLetters!)).toBe(true);
  });

  test("names no such file after an end before the first shard is whole", async () => {
    const out = fresh("out");
    const drain = new AbortController();
    const fails = new Map([[3, { message: "no such luck", retry: false }]]);
    const onStart = ({ row }: { row: number }) => row === 10 && drain.abort();
    const report = await run({ out, engine: echoEngine({ fails, onStart, slots: 2 }), drain: drain.signal });
    expect([report.interrupted, report.failedRows]).toEqual([true, 1]);
    expect([report.deadLetters, existsSync(join(out, "errors.jsonl"))]).toEqual([undefined, false]);
  });

  test("of no rows comes with a dataset that opens", async () => {
    const out = fresh("out");
    expect(await run({ out, limit: 0 })).toMatchObject({ rows: 0, totalRows: 0, interrupted: false });
    using dataset = openDataset(out, device);
    expect(dataset.numSamples).toBe(0);
    expect(readOutputs(out)).toEqual([]);
  });
});

test("another job is told by what differs, not by digits of fingerprints", async () => {
  const out = fresh("out");
  await run({ out });
  const other = fresh("other");
  mkdirSync(other);
  copyFileSync(join(SOURCE, "part-0.arrow"), join(other, "part-0.arrow"));
  const message = async (changes: Parameters<typeof run>[0]) => {
    const error: unknown = await run({ out, ...changes }).catch((thrown: unknown) => thrown);
    return (error as Error).message;
  };
  expect(await message({ source: other, maxNewTokens: 7 })).toContain(
    "of another job: another dataset, maxNewTokens is 6 there and 7 here; give",
  );
  expect(await message({ source: other })).toMatch(/another job: dataset is "[0-9a-f]+…? there and "/);
  const long = "x".repeat(200);
  const stops = fresh("out");
  await run({ out: stops, stop: [`${long}a`] });
  const shown = await run({ out: stops, stop: [`${long}b`] }).catch((thrown: Error) => thrown.message);
  expect(shown).toMatch(/stop is …x+a"\] there and …x+b"\] here/);
  rmSync(other, { recursive: true });
});
