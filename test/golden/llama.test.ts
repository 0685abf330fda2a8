/**
 * The engines against Hugging Face transformers: `files/tiny-llama` has what transformers 5.17 computed with
 * `datasets/tiny-llama`, in float32 over its bfloat16 weights, greedily; `files/llama-*` were made by `make_llama.py`.
 *
 * Over every device that this machine can run kernels on.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { Device } from "../../src/device/device.ts";
import { openDevice } from "../../src/device/open.ts";
import { describeSafetensors } from "../../src/format/safetensors.ts";
import { openEmbedder } from "../../src/infer/embed.ts";
import type { InferRequest } from "../../src/infer/engine.ts";
import { openLlama } from "../../src/infer/llama/engine.ts";
import { cudaSubjects } from "../conformance/cuda-subjects.ts";
import { metalSubjects } from "../conformance/metal-subjects.ts";
import { chunkOf, FILES, requestOf, runRows, SMALL_MODELS } from "../unit/infer/llama-rig.ts";
import { LlamaReference } from "./llama-reference.ts";

interface Sample {
  readonly prompt: readonly number[];
  readonly output: readonly number[];
  /** By which each token's logit was above the next one's. */
  readonly margin: readonly number[];
}

interface Golden {
  readonly samples: readonly Sample[];
  readonly logits: readonly (readonly number[])[];
  readonly pooled: Readonly<Record<"mean" | "last" | "first" | "normalized", readonly number[]>>;
}

/** How much of tiny-llama's is run. */
const TINY_SAMPLES = { fast: 48, slow: 1 } as const;
const TINY_TOKENS = { fast: 160, slow: 4 } as const;
/** What float32 in another order may change. */
const NEAR = 1e-3;

const TINY = join(import.meta.dir, "../../datasets/tiny-llama");

function goldenOf(name: string): Golden {
  return JSON.parse(readFileSync(join(FILES, name, "golden.json"), "utf8"));
}

/** The tensors of logits.safetensors. */
function tinyLogits(): { tokens: Int32Array; logits: Float32Array }[] {
  const file = readFileSync(join(FILES, "tiny-llama/logits.safetensors"));
  const { tensors = [] } = describeSafetensors((at, length) => file.subarray(at, at + length), file.length);
  const bytes = (name: string) => {
    const { start, end } = tensors.find((tensor) => tensor.name === name)!.range;
    return new Uint8Array(file.subarray(start, end)).buffer;
  };
  return [0, 1].map((index) => ({
    tokens: new Int32Array(bytes(`tokens.${index}`)),
    logits: new Float32Array(bytes(`logits.${index}`)),
  }));
}

function expectNear(actual: ArrayLike<number>, expected: ArrayLike<number>, most = NEAR): void {
  expect(actual.length).toBe(expected.length);
  let worst = 0;
  for (let i = 0; i < actual.length; i++) {
    const difference = Math.abs(actual[i]! - expected[i]!);
    if (!(difference <= worst)) worst = difference;
  }
  expect(worst).toBeLessThan(most);
}

/** The tokens are transformers', up to the first that won by next to nothing. */
function expectGreedy(tokens: readonly number[], { output, margin }: Sample): void {
  const at = tokens.findIndex((token, index) => token !== output[index]);
  if (at >= 0) expect(margin[at]!).toBeLessThan(NEAR);
}

function requestsOf(samples: readonly Sample[], maxNewTokens: number): InferRequest[] {
  return samples.map(({ prompt }, row) => requestOf(row, prompt, { maxNewTokens }));
}

interface Runs {
  readonly name: string;
  readonly open: () => Device;
  /** Whether a kernel's threads run one after the other: on the mock of CUDA, and on Metal's stand-in. */
  readonly isSlow: boolean;
  /** Whether the larger model runs there. */
  readonly runsTiny: boolean;
}

const SUBJECTS: readonly Runs[] = [
  { name: "host", open: () => openDevice("host") },
  ...cudaSubjects().filter(
    (subject) => subject.runsKernels !== false && !/lane|second|registration/.test(subject.name),
  ),
  ...metalSubjects().filter((subject) => !/lane|Worker/.test(subject.name)),
].map(({ name, open }) => {
  const isSlow = /mock|stand-in/.test(name);
  return { name, open, isSlow, runsTiny: !isSlow || !/with/.test(name) };
});

describe.each([...SUBJECTS])("over $name", ({ open, isSlow, runsTiny }) => {
  let device: Device;
  beforeAll(() => {
    device = open();
  });
  afterAll(async () => {
    const left = device.openResources;
    await device.close();
    expect(left).toBe(0);
  });

  describe.each([...SMALL_MODELS])("%s", (name) => {
    const folder = join(FILES, name);
    const golden = goldenOf(name);

    test("gives the greedy tokens of transformers, all rows at once", async () => {
      await using engine = await openLlama(folder, device, { slots: 3, tokensPerStep: 32 });
      const { length } = golden.samples[0]!.output;
      const rows = await runRows(engine, requestsOf(golden.samples, isSlow ? 6 : length));
      for (const [row, sample] of golden.samples.entries()) expectGreedy(rows.get(row)!.tokens, sample);
    }, 60_000);

    test("gives the logits of transformers, and of the reference", async () => {
      await using engine = await openLlama(folder, device, { slots: 2 });
      const { prompt } = golden.samples[1]!;
      const logits = await engine.logits(Int32Array.from(prompt));
      expectNear(logits, golden.logits.flat(), 1e-4);
      const reference = new LlamaReference(folder).logits(prompt);
      expectNear(
        logits,
        reference.flatMap((row) => [...row]),
        1e-4,
      );
    }, 60_000);

    test("gives the pooled hidden states of transformers", async () => {
      const request = requestOf(0, golden.samples[1]!.prompt);
      const cases = [
        { options: {}, expected: golden.pooled.mean },
        { options: { pooling: "last" }, expected: golden.pooled.last },
        { options: { pooling: "first" }, expected: golden.pooled.first },
        { options: { normalize: true }, expected: golden.pooled.normalized },
      ] as const;
      for (const { options, expected } of cases) {
        await using engine = await openEmbedder(folder, device, { slots: 2, ...options });
        const [result] = await engine.prefill([chunkOf(1, request)]);
        expect(result).toMatchObject({ slot: 1, finish: "stop" });
        const { buffer, byteOffset, length, release } = result!.embedding!;
        expectNear(new Float32Array(buffer.view(byteOffset, length * 4)), expected, 1e-5);
        release();
      }
    }, 60_000);
  });

  test.each(["llama-biased", "llama-mistral"])(
    "%s: gives a row the same bits whatever is beside it",
    async (name) => {
      const folder = join(FILES, name);
      const rows = goldenOf(name).samples.map(({ prompt }, row) =>
        requestOf(row, prompt.slice(0, 40), {
          maxNewTokens: 5,
          logprobs: true,
          ...(row % 2 === 0 ? {} : { sampling: { temperature: 1, repetitionPenalty: 1.3, topP: 0.9 } }),
        }),
      );
      await using alone = await openLlama(folder, device, { slots: 1, tokensPerStep: 64 });
      await using among = await openLlama(folder, device, { slots: 4, tokensPerStep: 64, blockTokens: 5 });
      const expected = await runRows(alone, rows, { logits: true });
      expect(await runRows(among, rows, { seed: 9, putBack: 0.1, logits: true })).toEqual(expected);
    },
    60_000,
  );

  // In F32 and in F16, which every such library multiplies.
  test.each(["llama-qwen2", "llama-biased"])(
    "%s: gives nearly those logits by the vendor's products, where there are",
    async (name) => {
      if (device.createMatmul === undefined) return;
      await using engine = await openLlama(join(FILES, name), device, { slots: 2, fast: true });
      const golden = goldenOf(name);
      const { prompt } = golden.samples[1]!;
      expectNear(await engine.logits(Int32Array.from(prompt)), golden.logits.flat(), 0.02);
    },
    60_000,
  );

  describe.if(runsTiny)("tiny-llama", () => {
    // Emulated, they take minutes.
    const units = isSlow ? { matrixUnits: false } : {};

    test("gives the greedy tokens of transformers", async () => {
      const { samples } = goldenOf("tiny-llama");
      const some = samples.slice(0, isSlow ? TINY_SAMPLES.slow : TINY_SAMPLES.fast);
      const count = isSlow ? TINY_TOKENS.slow : TINY_TOKENS.fast;
      await using engine = await openLlama(TINY, device, { slots: some.length, ...units });
      const rows = await runRows(engine, requestsOf(some, count));
      for (const [row, sample] of some.entries()) expectGreedy(rows.get(row)!.tokens, sample);
      expect([...rows.values()].every(({ tokens }) => tokens.length === count)).toBe(true);
    }, 120_000);

    test("gives the logits of transformers", async () => {
      await using engine = await openLlama(TINY, device, { slots: 64, ...units });
      for (const { tokens, logits } of tinyLogits()) {
        const some = isSlow ? tokens.slice(0, 8) : tokens;
        expectNear(await engine.logits(some), logits.subarray(0, some.length * 264));
      }
    }, 120_000);
  });
});
