/** Embedding: vectors that nothing else changes, and a ring that bounds how many are out. */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { join } from "node:path";
import type { Device } from "../../../src/device/device.ts";
import { openHost } from "../../../src/device/host/device.ts";
import { type EmbedEngine, type EmbedOptions, openEmbedder } from "../../../src/infer/embed.ts";
import type { DeviceVector, InferRequest, PrefillChunk, SlotResult } from "../../../src/infer/engine.ts";
import { generate } from "../../../src/infer/generate.ts";
import { expectCode } from "../../loader/helpers.ts";
import { chunkOf, FILES, randomOf, requestOf } from "./llama-rig.ts";

setDefaultTimeout(60_000);

const FOLDER = join(FILES, "llama-biased");

let device: Device;
beforeAll(() => {
  device = openHost();
});
afterAll(async () => {
  expect(device.openResources).toBe(0);
  await device.close();
});

function open(options: EmbedOptions = {}): Promise<EmbedEngine> {
  return openEmbedder(FOLDER, device, { slots: 2, ...options });
}

function copyOf({ buffer, byteOffset, length }: DeviceVector): Float32Array {
  return new Float32Array(buffer.view(byteOffset, length * 4)).slice();
}

/** Runs rows in chunks of random lengths, in all slots. */
async function embedAll(engine: EmbedEngine, rows: readonly InferRequest[], seed: number) {
  const random = randomOf(seed);
  const waiting = [...rows];
  const running = new Map<number, { request: InferRequest; done: number }>();
  const vectors = new Map<number, Float32Array>();
  while (waiting.length > 0 || running.size > 0) {
    const chunks: PrefillChunk[] = [];
    for (let slot = 0; slot < engine.capacity.slots; slot++) {
      if (!running.has(slot) && waiting.length > 0) running.set(slot, { request: waiting.shift()!, done: 0 });
      const row = running.get(slot);
      if (row === undefined) continue;
      const { request, done } = row;
      const count = Math.ceil(random() * (request.prompt.length - done));
      const last = done + count === request.prompt.length;
      chunks.push(
        chunkOf(slot, request, { position: done, tokens: request.prompt.slice(done, done + count), last }),
      );
      row.done += count;
    }
    for (const { slot, embedding } of await engine.prefill(chunks)) {
      vectors.set(running.get(slot)!.request.row, copyOf(embedding!));
      embedding!.release();
      engine.release(slot);
      running.delete(slot);
    }
  }
  return vectors;
}

describe("a row's vector", () => {
  test("is the same to the last bit alone and among others, however it is cut", async () => {
    const random = randomOf(2);
    const rows = Array.from({ length: 20 }, (_, row) =>
      requestOf(
        row,
        Array.from({ length: 1 + Math.floor(random() * 50) }, () => Math.floor(random() * 32)),
      ),
    );
    for (const options of [{}, { normalize: true }, { pooling: "last" }, { pooling: "first" }] as const) {
      await using alone = await open({ ...options, slots: 1 });
      await using many = await open({ ...options, slots: 9, tokensPerStep: 24, blockTokens: 3 });
      const expected = new Map<number, Float32Array>();
      for (const request of rows) {
        const [result] = await alone.prefill([chunkOf(0, request)]);
        expected.set(request.row, copyOf(result!.embedding!));
        result!.embedding!.release();
        alone.release(0);
      }
      const actual = await embedAll(many, rows, 6);
      for (const { row } of rows) expect(actual.get(row)).toEqual(expected.get(row)!);
      const norms = [...actual.values()].map((vector) => Math.hypot(...vector));
      if ("normalize" in options) for (const norm of norms) expect(norm).toBeCloseTo(1, 5);
      else expect(new Set(norms).size).toBeGreaterThan(10);
    }
  });

  test("of a row that cannot run is an error, and the others come", async () => {
    await using engine = await open();
    const results = await engine.prefill([chunkOf(0, requestOf(0, [40])), chunkOf(1, requestOf(1, [3]))]);
    const of = (slot: number) => results.find((result) => result.slot === slot)!;
    expect(of(0).error?.message).toContain("token 40");
    expect(of(1)).toMatchObject({ finish: "stop", embedding: { length: 45 } });
    expect(engine.dimensions).toBe(45);
  });
});

describe("vectors that are out", () => {
  const request = requestOf(0, [1, 2, 3]);
  const both = [chunkOf(0, request), chunkOf(1, request)];

  test("hold up steps until enough have come back, once each", async () => {
    await using engine = await open({ vectors: 3 });
    const [first, second] = await engine.prefill(both);
    let done: readonly SlotResult[] | undefined;
    const waiting = engine.prefill(both).then((results) => {
      done = results;
    });
    await Bun.sleep(5);
    expect(done).toBeUndefined();
    const kept = copyOf(second!.embedding!);
    first!.embedding!.release();
    first!.embedding!.release();
    await waiting;
    expect(done).toHaveLength(2);
    expect(copyOf(second!.embedding!)).toEqual(kept);
    // One is free, or two if a second release counted.
    const places = new Set([second!, ...done!].map(({ embedding }) => embedding!.byteOffset));
    expect(places.size).toBe(3);
  });

  test("end a step that waits for them when the engine is closed", async () => {
    const engine = await open({ vectors: 2 });
    await engine.prefill(both);
    const waiting = engine.prefill(both);
    const failed = expectCode("CLOSED", () => waiting, "vectors");
    await engine.close();
    await failed;
    await expectCode("CLOSED", () => engine.prefill(both));
  });
});

test("what makes no sense is refused", async () => {
  await expectCode("BAD_OPTION", () => open({ vectors: 1 }), "vectors is 1", "from 2");
  await expectCode("BAD_OPTION", () => open({ pooling: "max" as never }), "max", "mean");
  await using engine = await open();
  await expectCode("BAD_OPTION", () => engine.decode([0]), "makes no tokens");
  expect(await engine.decode([])).toEqual([]);
});

test("prompts may fill the whole context, and be no longer", async () => {
  await using engine = await open({ contextLength: 8 });
  const requests = [8, 9].map((length, row) => ({
    row,
    prompt: new Int32Array(length).fill(5),
    maxNewTokens: 1,
  }));
  const found: Record<number, string> = {};
  for await (const { row, finish, error, embedding } of generate(requests, engine)) {
    found[row] = error ?? finish;
    embedding?.release();
  }
  expect(found).toEqual({ 0: "stop", 1: "the prompt has 9 tokens, more than the context of 8" });
});
