/** What the llama engine promises beside its numbers: rows that nothing else changes, bounds, errors, memory. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { join } from "node:path";
import type { Device, Storage } from "../../../src/device/device.ts";
import { openHost } from "../../../src/device/host/device.ts";
import { HeadraceError } from "../../../src/errors.ts";
import type { InferRequest, SamplingOptions } from "../../../src/infer/engine.ts";
import { type LlamaEngine, openLlama } from "../../../src/infer/llama/engine.ts";
import type { LlamaOptions } from "../../../src/infer/llama/options.ts";
import { cudaSubjects } from "../../conformance/cuda-subjects.ts";
import { testWhere } from "../../conformance/harness.ts";
import { expectCode } from "../../loader/helpers.ts";
import { chunkOf, FILES, randomOf, requestOf, runRows, SMALL_MODELS } from "./llama-rig.ts";

const MISTRAL = join(FILES, "llama-mistral");

let device: Device;
beforeAll(() => {
  device = openHost();
});
afterAll(async () => {
  expect(device.openResources).toBe(0);
  await device.close();
});

function open(options: LlamaOptions = {}, folder = MISTRAL): Promise<LlamaEngine> {
  return openLlama(folder, device, { slots: 2, ...options });
}

const SAMPLINGS: readonly (SamplingOptions | undefined)[] = [
  undefined,
  { temperature: 0.8, seed: 5 },
  { temperature: 1.3, topK: 7, topP: 0.9, seed: 1 },
  { temperature: 1, minP: 0.05, repetitionPenalty: 1.2, seed: 2 ** 40 },
  { repetitionPenalty: 1.5 },
];

/** Rows of many lengths and kinds of sampling. */
function mixedRows(count: number, vocab: number, seed: number): InferRequest[] {
  const random = randomOf(seed);
  return Array.from({ length: count }, (_, row) => {
    const prompt = Array.from({ length: 1 + Math.floor(random() ** 2 * 60) }, () =>
      Math.floor(random() * vocab),
    );
    const sampling = SAMPLINGS[row % SAMPLINGS.length];
    const options = { maxNewTokens: 1 + Math.floor(random() * 12), logprobs: true };
    return requestOf(row, prompt, sampling === undefined ? options : { ...options, sampling });
  });
}

describe("a row's tokens, logprobs and logits are the same to the last bit", () => {
  const COUNT = 30;

  test.each([...SMALL_MODELS])(
    "alone and among others, in any order, however cut: %s",
    async (name) => {
      const folder = join(FILES, name);
      const alone = await open({ slots: 1, tokensPerStep: 256 }, folder);
      const rows = mixedRows(COUNT, alone.model.config.vocabSize, 3);
      const expected = await runRows(alone, rows, { logits: true });
      await alone.close();
      const ways: readonly (readonly [LlamaOptions, Parameters<typeof runRows>[2]])[] = [
        [{ slots: 64, tokensPerStep: 4096 }, { logits: true }],
        [{ slots: 7, tokensPerStep: 64, blockTokens: 5 }, { seed: 11 }],
        [
          { slots: 16, tokensPerStep: 512, blockTokens: 1 },
          { seed: 12, chunkTokens: 9, logits: true },
        ],
        [{ slots: 3, tokensPerStep: 3, blockTokens: 128 }, { seed: 13 }],
      ];
      for (const [options, run] of ways) {
        await using engine = await open(options, folder);
        const actual = await runRows(engine, rows, run);
        for (const { row } of rows) {
          const { tokens, logprobs, logits } = expected.get(row)!;
          expect(actual.get(row)!.tokens).toEqual(tokens);
          expect(actual.get(row)!.logprobs).toEqual(logprobs);
          if (run?.logits) expect(actual.get(row)!.logits).toEqual(logits);
        }
      }
      // What is compared is not one and the same for all rows.
      const seen = new Set([...expected.values()].flatMap(({ logits }) => logits));
      expect(seen.size).toBeGreaterThan(COUNT);
    },
    60_000,
  );

  test("when it is put back and begun anew", async () => {
    const rows = mixedRows(20, 37, 8);
    await using alone = await open({ slots: 1 });
    const expected = await runRows(alone, rows, { logits: true });
    await using engine = await open({ slots: 6, tokensPerStep: 128 });
    const actual = await runRows(engine, rows, { seed: 4, putBack: 0.3, logits: true });
    expect(actual).toEqual(expected);
  }, 30_000);

  test("with another seed or row it draws others", async () => {
    await using engine = await open({ slots: 8 });
    const sampling = { temperature: 1.5 };
    const prompt = [3, 1, 4];
    const rows = [0, 1].flatMap((seed) =>
      [0, 1].map((row) => requestOf(row, prompt, { maxNewTokens: 20, sampling: { ...sampling, seed } })),
    );
    const outputs = new Set<string>();
    for (const row of rows) outputs.add((await runRows(engine, [row])).get(row.row)!.tokens.join());
    expect(outputs.size).toBe(4);
  });
});

test("a penalty counts the tokens of prompt and output, and none of the slot's row before", async () => {
  await using engine = await open({ slots: 1, tokensPerStep: 4 });
  const penalty = 1.7;
  const prompts = [
    [3, 1, 4, 1, 5, 9],
    [2, 7, 18],
  ];
  for (const [row, prompt] of prompts.entries()) {
    const sampling = { repetitionPenalty: penalty };
    const rows = await runRows(engine, [requestOf(row, prompt, { maxNewTokens: 12, sampling })]);
    const plain = await runRows(engine, [requestOf(row, prompt, { maxNewTokens: 12 })]);
    const text = [...prompt];
    for (const token of rows.get(row)!.tokens) {
      const logits = (await engine.logits(Int32Array.from(text))).slice(-37);
      for (const held of new Set(text)) {
        logits[held] = logits[held]! > 0 ? logits[held]! / penalty : logits[held]! * penalty;
      }
      expect(token).toBe(logits.indexOf(Math.max(...logits)));
      text.push(token);
    }
    expect(rows.get(row)!.tokens).not.toEqual(plain.get(row)!.tokens);
  }
});

describe("logits()", () => {
  test("are those of steps, and leave what runs alone", async () => {
    await using engine = await open({ slots: 2, tokensPerStep: 32 });
    const tokens = Int32Array.from({ length: 50 }, (_, i) => (i * 7) % 37);
    const request = requestOf(0, tokens.subarray(0, 20), { logprobs: true });
    const [first] = await engine.prefill([chunkOf(1, request)]);
    const behind = (await engine.lastLogits()).slice();
    const all = await engine.logits(tokens);
    expect(all.length).toBe(50 * 37);
    expect(all.subarray(19 * 37, 20 * 37)).toEqual(behind);
    const own = all.subarray(19 * 37, 20 * 37);
    expect(first!.token).toBe(own.indexOf(Math.max(...own)));
    const total = own.reduce((sum, logit) => sum + Math.exp(logit), 0);
    expect(first!.logprob).toBeCloseTo(own[first!.token!]! - Math.log(total), 4);
    await engine.decode([1]);
    expect(await engine.logits(new Int32Array(0))).toEqual(new Float32Array(0));
  });

  test("refuse what is no text of the model", async () => {
    await using engine = await open({ contextLength: 16 });
    await expectCode("BAD_OPTION", () => engine.logits(Int32Array.of(1, 37)), "token 37 at position 1", "37");
    await expectCode("BAD_OPTION", () => engine.logits(new Int32Array(17)), "17", "16");
  });
});

describe("memory", () => {
  test("is taken by tokens, and comes back", async () => {
    await using engine = await open({ slots: 4, contextLength: 64, blockTokens: 8, kvBytes: 12 * 8 * 256 });
    // 12 blocks: a token takes 2 layers x 2 x 16 floats.
    expect(engine.freeTokens).toBe(96);
    expect(engine.reserve(0, 64)).toBe(true);
    expect(engine.freeTokens).toBe(32);
    expect(engine.reserve(1, 33)).toBe(false);
    expect(engine.freeTokens).toBe(32);
    expect(engine.reserve(1, 32)).toBe(true);
    expect(engine.reserve(2, 1)).toBe(false);
    engine.release(0);
    expect(engine.reserve(2, 1)).toBe(true);
    const request = requestOf(0, new Array(64).fill(1));
    await expectCode(
      "OUT_OF_MEMORY",
      () => engine.prefill([chunkOf(3, request)]),
      "slot 3",
      "12 blocks of 8",
    );
    engine.release(3);
    for (const slot of [1, 2]) engine.release(slot);
    expect(engine.freeTokens).toBe(96);
    expect(await engine.prefill([chunkOf(3, request)])).toHaveLength(1);
  });

  test("stays as it is over many rows", async () => {
    await using engine = await open({ slots: 32, tokensPerStep: 64 });
    const run = (count: number, seed: number) => runRows(engine, mixedRows(count, 37, seed), { seed });
    await run(150, 1);
    const { openResources } = device;
    const { memoryBytes, freeTokens } = engine;
    const sizes: number[] = [];
    for (let round = 0; round < 16; round++) {
      await run(100, 2 + round);
      Bun.gc(true);
      sizes.push(process.memoryUsage().rss);
    }
    expect(device.openResources).toBe(openResources);
    expect([engine.memoryBytes, engine.freeTokens]).toEqual([memoryBytes, freeTokens]);
    // The process's size goes up and down with the runtime's own heaps, and with what ran before; what is never given
    // back raises its low points too, here by 800 rows' worth.
    const [before, after] = [Math.min(...sizes.slice(0, 8)), Math.min(...sizes.slice(8))];
    expect(after - before).toBeLessThan(6 * 2 ** 20);
  }, 60_000);

  test("of keys and values can be half as much", async () => {
    const kvBytes = 40 * 256;
    await using wide = await open({ kvBytes, blockTokens: 8 });
    for (const kvType of ["F16", "BF16"] as const) {
      await using narrow = await open({ kvBytes, blockTokens: 8, kvType });
      expect(narrow.freeTokens).toBe(2 * wide.freeTokens);
      const tokens = Int32Array.of(1, 5, 9, 13, 17);
      const [one, other] = [await wide.logits(tokens), await narrow.logits(tokens)];
      const worst = Math.max(...one.map((logit, i) => Math.abs(logit - other[i]!)));
      expect(worst).toBeGreaterThan(0);
      expect(worst).toBeLessThan(kvType === "F16" ? 0.02 : 0.2);
    }
  });
});

describe("a row that cannot run fails alone", () => {
  const good = requestOf(0, [1, 2, 3]);
  const cases: readonly (readonly [name: string, bad: InferRequest, ...words: string[]])[] = [
    ["a token past the vocabulary", requestOf(1, [1, 37]), "token 37 at position 1", "vocabulary of 37"],
    ["a negative token", requestOf(1, [-1]), "token -1 at position 0"],
    ["a prompt past the context", requestOf(1, new Array(17).fill(1)), "17 tokens", "16"],
    ["sampling out of bounds", requestOf(1, [1], { sampling: { temperature: -1 } }), "temperature is -1"],
    ["a bad topP", requestOf(1, [1], { sampling: { temperature: 1, topP: Number.NaN } }), "topP is NaN"],
  ];
  test.each(cases)("%s", async (_, bad, ...words) => {
    await using engine = await open({ contextLength: 16 });
    const [alone] = await engine.prefill([chunkOf(0, good)]);
    engine.release(0);
    const results = await engine.prefill([chunkOf(0, bad), chunkOf(1, good)]);
    const failed = results.find(({ slot }) => slot === 0);
    expect(failed?.token).toBeUndefined();
    expect(failed?.error?.retry).toBe(false);
    for (const word of words) expect(failed?.error?.message).toContain(word);
    expect(results.find(({ slot }) => slot === 1)).toEqual({ ...alone!, slot: 1 });
    // The slot is as good as any other afterwards.
    engine.release(0);
    expect(await engine.prefill([chunkOf(0, good)])).toEqual([alone!]);
  });

  test("a sequence at the end of the context", async () => {
    await using engine = await open({ contextLength: 4 });
    await engine.prefill([chunkOf(0, good)]);
    expect((await engine.decode([0]))[0]!.error).toBeUndefined();
    const [last] = await engine.decode([0]);
    expect(last).toMatchObject({ slot: 0, error: { retry: false } });
    expect(last!.error!.message).toContain("4 tokens");
  });
});

describe("what no scheduler may ask", () => {
  const request = requestOf(0, [1, 2, 3]);

  test("is refused before anything runs", async () => {
    await using engine = await open();
    const refused: readonly (readonly [() => unknown, ...words: string[]])[] = [
      [() => engine.prefill([chunkOf(2, request)]), "slot 2", "2"],
      [() => engine.prefill([chunkOf(-1, request)]), "slot -1"],
      [() => engine.prefill([chunkOf(0.5, request)]), "slot 0.5"],
      [() => engine.prefill([chunkOf(0, request), chunkOf(0, request)]), "slot 0 comes twice"],
      [() => engine.prefill([chunkOf(0, request, { position: 3 })]), "position 3", "holds 0"],
      [() => engine.prefill([chunkOf(0, request, { tokens: new Int32Array(0) })]), "no tokens"],
      [() => engine.prefill([chunkOf(0, request, { generated: 4 })]), "generated is 4"],
      [() => engine.decode([0]), "no token to go on from"],
      [() => engine.reserve(5, 1), "slot 5"],
      [() => engine.release(5), "slot 5"],
    ];
    for (const [work, ...words] of refused) await expectCode("BAD_OPTION", work, ...words);
    await engine.prefill([chunkOf(0, request, { last: false })]);
    await expectCode("BAD_OPTION", () => engine.decode([0]), "prefill has not ended");
    await expectCode("OUT_OF_RANGE", () => engine.reserve(0, 257), "257", "256");
  });

  test("two calls at once", async () => {
    await using engine = await open();
    const first = engine.prefill([chunkOf(0, request)]);
    await expectCode("BAD_OPTION", () => engine.decode([0]), "in the middle of a step");
    await first;
    await engine.decode([0]);
  });

  test("anything after close, which waits for the step under way", async () => {
    const engine = await open();
    const first = engine.prefill([chunkOf(0, request)]);
    const closing = engine.close();
    expect(await first).toHaveLength(1);
    await closing;
    await engine.close();
    await expectCode("CLOSED", () => engine.prefill([chunkOf(0, request)]));
    await expectCode("CLOSED", () => engine.decode([0]));
    await expectCode("CLOSED", () => engine.logits(Int32Array.of(1)));
    await expectCode("CLOSED", () => engine.reserve(0, 1));
    await expectCode("CLOSED", () => engine.release(0));
  });
});

describe("options", () => {
  const refused: readonly (readonly [LlamaOptions, ...words: string[]])[] = [
    [{ slots: 0 }, "slots is 0", "1 to 4096"],
    [{ slots: 1.5 }, "slots is 1.5"],
    [{ slots: 8, tokensPerStep: 7 }, "tokensPerStep is 7", "from 8"],
    [{ contextLength: 257 }, "contextLength is 257", "1 to 256"],
    [{ blockTokens: 0 }, "blockTokens is 0"],
    [{ kvBytes: 4095 }, "kvBytes is 4095", "from 4096"],
    [
      { kvBytes: 4096, contextLength: 17 },
      "kvBytes is 4096",
      "at least 8192",
      "contextLength 17",
      "smaller contextLength",
    ],
    [{ kvBytes: 1, contextLength: 17 }, "kvBytes is 1;", "at least 8192", "contextLength 17"],
    [{ kvType: "F64" as never }, "kvType is F64", "F32, F16, BF16"],
    [{ strategy: "guess" as never }, "strategy is guess"],
  ];
  test.each(refused)("%j", async (options, ...words) => {
    await expectCode("BAD_OPTION", () => open(options), ...words);
  });

  const compilerless = cudaSubjects().find(({ runsKernels }) => runsKernels === false);
  testWhere(compilerless !== undefined, "the mock of CUDA cannot be compiled")(
    "for a device that compiles no kernels",
    async () => {
      const none = compilerless!.open();
      await expectCode("UNSUPPORTED", () => openLlama(MISTRAL, none));
      expect(none.openResources).toBe(0);
      await none.close();
    },
  );

  test("that take more memory than there is say what to lower", async () => {
    const full = openHost();
    const create = full.createBuffer.bind(full);
    full.createBuffer = (byteLength: number, storage?: Storage) => {
      if (byteLength > 2 ** 20) throw new HeadraceError("OUT_OF_MEMORY", `${byteLength} bytes are too many`);
      return create(byteLength, storage);
    };
    const options = { slots: 2, kvBytes: 2 ** 22, tokensPerStep: 65_536 };
    await expectCode(
      "OUT_OF_MEMORY",
      () => openLlama(MISTRAL, full, options),
      "kvBytes",
      "tokensPerStep",
      "65536",
    );
    expect(full.openResources).toBe(0);
    await full.close();
  });

  test("have defaults that fit the device and the model", async () => {
    await using engine = await openLlama(MISTRAL, device);
    expect(engine.capacity).toEqual({ slots: 16, contextLength: 256, tokensPerStep: 512 });
    expect(engine.freeTokens).toBe(16 * 256);
    await using small = await open({ kvBytes: 3 * 4096 });
    expect(small.capacity.contextLength).toBe(48);
  });
});
