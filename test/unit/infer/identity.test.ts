/** What makes two runs one job, and what does not. */
import { afterAll, describe, expect, test } from "bun:test";
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openDevice } from "../../../src/device/open.ts";
import { modelFingerprint } from "../../../src/infer/fingerprint.ts";
import { identityOf, type JobModel, settleOptions } from "../../../src/infer/identity.ts";
import { type InferOptions, resolveInferOptions } from "../../../src/infer/options.ts";
import type { PromptDataset } from "../../../src/infer/prompts.ts";
import { byteTokenizer } from "../../../src/infer/tokenizer.ts";
import { FakeEngine } from "./fake-engine.ts";
import { FILES } from "./llama-rig.ts";

const scratch = mkdtempSync(join(tmpdir(), "headrace-identity-"));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

const device = openDevice("host");
afterAll(() => device.close());

const BASE: InferOptions = { source: "data", out: "out", device, model: "model" };
const MODEL: JobModel = {
  fingerprint: "ab",
  tokenizer: byteTokenizer(256),
  stopIds: [2],
  vocabSize: 300,
  maxPositions: 2048,
  hiddenSize: 8,
};

interface Job {
  readonly options?: Partial<InferOptions>;
  readonly model?: Partial<JobModel>;
  readonly dataset?: string;
  readonly column?: string;
}

function identity({ options, model, dataset = "fp", column = "tokens" }: Job): string {
  const found = { fingerprint: dataset, numSamples: 1000 };
  const prompts = { dataset: found, column, kind: "tokens" } as unknown as PromptDataset;
  const its = { ...MODEL, ...model };
  const settled = settleOptions(resolveInferOptions({ ...BASE, ...options }), its);
  return JSON.stringify(identityOf(settled, its, prompts));
}

const own = (name: string) => ({ engine: { engine: new FakeEngine(), name } });
const sampled = { temperature: 0.7 };
const http = { engine: "http", url: "http://a/v1" } as const;
const embed = { engine: "embed" } as const;

describe("another job is one with another", () => {
  const cases: readonly (readonly [name: string, one: Job, other: Job])[] = [
    ["dataset", {}, { dataset: "other" }],
    ["column", {}, { column: "text" }],
    ["limit", {}, { options: { limit: 5 } }],
    ["model", {}, { model: { fingerprint: "cd" } }],
    ["tokenizer", {}, { model: { tokenizer: byteTokenizer(undefined) } }],
    ["end token of the model", {}, { model: { stopIds: [3] } }],
    ["engine", {}, { options: embed }],
    ["engine of one's own", { options: own("one") }, { options: own("other") }],
    ["order", {}, { options: { order: "completion" } }],
    ["contextLength", {}, { options: { contextLength: 64 } }],
    ["kvType", {}, { options: { kvType: "F16" } }],
    ["fast", {}, { options: { fast: true } }],
    ["maxNewTokens", {}, { options: { maxNewTokens: 63 } }],
    ["stop", {}, { options: { stop: ["x"] } }],
    ["stopIds", {}, { options: { stopIds: [4] } }],
    ["logprobs", {}, { options: { logprobs: true } }],
    ["repetitionPenalty", {}, { options: { repetitionPenalty: 1.1 } }],
    ["temperature", {}, { options: sampled }],
    ["topK", { options: sampled }, { options: { ...sampled, topK: 4 } }],
    ["topP", { options: sampled }, { options: { ...sampled, topP: 0.9 } }],
    ["minP", { options: sampled }, { options: { ...sampled, minP: 0.1 } }],
    ["seed", { options: sampled }, { options: { ...sampled, seed: 1 } }],
    ["pooling", { options: embed }, { options: { ...embed, pooling: "last" } }],
    ["normalize", { options: embed }, { options: { ...embed, normalize: true } }],
    ["apiModel", { options: http }, { options: { ...http, apiModel: "m" } }],
    ["apiMode", { options: http }, { options: { ...http, apiMode: "chat" } }],
    ["server, where no model is named", { options: http }, { options: { ...http, url: "http://b/v1" } }],
  ];
  test.each(cases)("%s", (_, one, other) => {
    expect(identity(one)).not.toBe(identity(other));
  });
});

describe("the same job may have another", () => {
  const named = { ...http, apiModel: "m" };
  const cases: readonly (readonly [name: string, one: Job, other: Job])[] = [
    ["place to write to", {}, { options: { out: "elsewhere" } }],
    ["place of its model", {}, { options: { model: "elsewhere" } }],
    ["number of slots", {}, { options: { slots: 3, tokensPerStep: 64, kvBytes: 2 ** 20 } }],
    ["scheduler", {}, { options: { scheduler: "static", admit: "longest-first" } }],
    ["limit of time or tries", {}, { options: { timeoutMs: 5, retries: 1, resume: false } }],
    ["seed, where nothing is drawn", {}, { options: { seed: 4, topK: 3, topP: 0.5, minP: 0.1 } }],
    [
      "way to say a default",
      {},
      {
        options: {
          ...{ temperature: 0, repetitionPenalty: 1, stop: [], fast: false },
          ...{ contextLength: 2048, kvType: "F32", limit: 1000 },
        },
      },
    ],
    ["server, where the model is named", { options: named }, { options: { ...named, url: "http://b/v1" } }],
    ["key", { options: named }, { options: { ...named, apiKey: "k" } }],
  ];
  test.each(cases)("%s", (_, one, other) => {
    expect(identity(one)).toBe(identity(other));
  });
});

describe("the fingerprint of a model", () => {
  let numbers = 0;
  /** A copy of a model's folder. */
  function copy(): string {
    const folder = join(scratch, `model-${numbers++}`);
    cpSync(join(FILES, "llama-qwen2"), folder, { recursive: true });
    return folder;
  }
  const before = modelFingerprint(copy());

  test("is that of its copies, and of those with other files beside it", () => {
    const folder = copy();
    writeFileSync(join(folder, "README.md"), "read me");
    expect(modelFingerprint(folder)).toBe(before);
  });

  test.each([
    "config.json",
    "generation_config.json",
    "model.safetensors.index.json",
    "model-00003-of-00004.safetensors",
  ])("changes with %s", (name) => {
    const folder = copy();
    const bytes = readFileSync(join(folder, name));
    bytes[bytes.length - 2]! ^= 1;
    writeFileSync(join(folder, name), bytes);
    expect(modelFingerprint(folder)).not.toBe(before);
    rmSync(join(folder, name));
    expect(modelFingerprint(folder)).not.toBe(before);
  });

  test("looks at a large file from end to end", () => {
    const folder = copy();
    const path = join(folder, "large.safetensors");
    const bytes = new Uint8Array(4 * 2 ** 20);
    const found = new Set<string>();
    // Places that lie in the first, in a middle and in the last of what is read; then what only the length tells.
    for (const at of [undefined, 0, Math.floor((31 * (bytes.length - 16_384)) / 63), bytes.length - 1]) {
      const changed = bytes.slice();
      if (at !== undefined) changed[at] = 1;
      writeFileSync(path, changed);
      found.add(modelFingerprint(folder));
    }
    writeFileSync(path, bytes.subarray(1));
    found.add(modelFingerprint(folder));
    expect(found.size).toBe(5);
  });
});
