/** The Llama engine with the vendor's matrix products, over the mocks of CUDA and of cuBLAS. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { Device } from "../../../src/device/device.ts";
import { openDevice } from "../../../src/device/open.ts";
import { openLlama } from "../../../src/infer/llama/engine.ts";
import { describeOverMock, theMock, withCuda } from "../device/cuda-rig.ts";
import { FILES, requestOf, runRows } from "./llama-rig.ts";

setDefaultTimeout(60_000);

interface Golden {
  readonly samples: readonly { readonly prompt: readonly number[]; readonly output: readonly number[] }[];
  readonly logits: readonly (readonly number[])[];
}

const goldenOf = (name: string): Golden => JSON.parse(readFileSync(join(FILES, name, "golden.json"), "utf8"));

/** Of a pass: products by the library, of which some are two where weights lie apart; and what rounding inputs to the
 * weights' type may change. */
const MODELS = [
  // Biases everywhere but in the head.
  { name: "llama-biased", products: 1, near: 0.01 },
  // Of queries, keys and values alone; three others a layer, and the head.
  { name: "llama-qwen2", products: 3, near: 1e-4 },
  { name: "llama-mistral", products: 4, near: 0.05 },
] as const;

function worstOf(actual: Float32Array, expected: readonly number[]): number {
  expect(actual.length).toBe(expected.length);
  return expected.reduce((worst, value, i) => Math.max(worst, Math.abs(actual[i]! - value)), 0);
}

async function refusal(device: Device): Promise<string> {
  const opened = openLlama(join(FILES, "llama-qwen2"), device, { fast: true });
  const error = await opened.then(
    () => undefined,
    (error) => error,
  );
  return `${error?.code}: ${error?.message}`;
}

describeOverMock("a Llama with the vendor's products", () => {
  for (const { name, products, near } of MODELS) {
    test(
      `${name}: the logits are transformers', and steps go through graphs`,
      () =>
        withCuda({ options: { cublas: theMock().path } }, async ({ device, mock }) => {
          const golden = goldenOf(name);
          const engine = await openLlama(join(FILES, name), device, { slots: 3, fast: true });
          const { numLayers } = engine.model.config;
          const logits = await engine.logits(Int32Array.from(golden.samples[1]!.prompt));
          expect(worstOf(logits, golden.logits.flat())).toBeLessThan(near);
          const least = name === "llama-biased" ? 1 : numLayers * products + 1;
          expect(mock.calls("cublasGemmEx")).toBeGreaterThanOrEqual(least);
          const { prompt } = golden.samples[0]!;
          const requests = [0, 1, 2].map((row) => requestOf(row, prompt, { maxNewTokens: 6 }));
          const outcomes = await runRows(engine, requests);
          const launched = mock.calls("cublasGemmEx");
          for (const { tokens } of outcomes.values()) expect(tokens.length).toBe(6);
          // The same steps again: what was recorded is replayed.
          await runRows(engine, requests);
          expect(mock.calls("cublasGemmEx")).toBe(launched);
          await engine.close();
        }),
      60_000,
    );
  }

  test(
    "gives the tokens of the default where nothing is close",
    () =>
      withCuda({ options: { cublas: theMock().path } }, async ({ device }) => {
        const { samples } = goldenOf("llama-qwen2");
        const requests = samples
          .slice(0, 3)
          .map(({ prompt }, row) => requestOf(row, prompt, { maxNewTokens: 5 }));
        const engine = await openLlama(join(FILES, "llama-qwen2"), device, { slots: 2, fast: true });
        const outcomes = await runRows(engine, requests);
        for (const [row, { output }] of samples.slice(0, 3).entries()) {
          expect(outcomes.get(row)!.tokens).toEqual(output.slice(0, 5));
        }
        await engine.close();
      }),
    60_000,
  );

  test("is refused where there is no library, and leaves nothing open", async () => {
    await withCuda({ options: { cublas: false } }, async ({ device }) => {
      expect(await refusal(device)).toStartWith("UNSUPPORTED: fast: ");
    });
    const host = openDevice("host");
    expect(await refusal(host)).toStartWith("UNSUPPORTED: fast: host has no library of matrix products here");
    expect(host.openResources).toBe(0);
    await host.close();
  });
});
