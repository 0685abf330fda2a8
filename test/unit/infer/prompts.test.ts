import { afterAll, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as arrow from "apache-arrow";
import { type Device, HeadraceError, HostReader, Loader, openDevice } from "../../../src/index.ts";
import { openPrompts, type Prompt, promptsOf } from "../../../src/infer/prompts.ts";
import { byteTokenizer, type Tokenizer } from "../../../src/infer/tokenizer.ts";
import { tokenList, writeShard } from "../../infer/prompt-files.ts";
import { discrete } from "../../loader/discrete.ts";
import { failureOf } from "../failure.ts";

const PROSE = join(import.meta.dir, "../../../datasets/prose");
const scratch = mkdtempSync(join(tmpdir(), "headrace-prompts-"));
const host = openDevice("host");
afterAll(async () => {
  await host.close();
  rmSync(scratch, { recursive: true, force: true });
});

let shards = 0;
function shard(columns: Parameters<typeof writeShard>[1]): string {
  return writeShard(join(scratch, `${shards++}.arrow`), columns);
}

async function read(
  source: string,
  column?: string,
  { tokenizer, vocab, device = host }: { tokenizer?: Tokenizer; vocab?: number; device?: Device } = {},
): Promise<Prompt[]> {
  const prompts = openPrompts(source, device, column);
  using dataset = prompts.dataset;
  await using loader = new Loader(dataset, device, { batchSize: 2 });
  await using reader = new HostReader(device);
  const found: Prompt[] = [];
  for await (using batch of loader)
    found.push(...(await promptsOf(batch, prompts, reader, tokenizer, vocab)));
  return found;
}

const tokensOf = (prompts: readonly Prompt[]) => prompts.map(({ tokens }) => [...tokens]);
const RAGGED = [[1, 2, 3], [], [7]];

describe.each([
  ["what the host sees", () => host],
  ["memory that it does not see", () => discrete(host).device],
])("prompts in %s", (_, device) => {
  test.each([
    ["int8", new arrow.Int8()],
    ["uint16", new arrow.Uint16()],
    ["int32", new arrow.Int32()],
  ])("are lists of %s", async (_name, child) => {
    const source = shard({ tokens: { type: tokenList(child), values: RAGGED } });
    const prompts = await read(source, undefined, { device: device() });
    expect(tokensOf(prompts)).toEqual(RAGGED);
    expect(prompts.map(({ row, text, error }) => [row, text, error])).toEqual(
      [0, 1, 2].map((row) => [row, undefined, undefined]),
    );
  });

  test("are lists of int64, or of one length", async () => {
    const long = shard({ tokens: { type: tokenList(new arrow.Int64()), values: [[1n, 2n], [3n]] } });
    expect(tokensOf(await read(long, undefined, { device: device() }))).toEqual([[1, 2], [3]]);
    const type = new arrow.FixedSizeList(2, new arrow.Field("item", new arrow.Int32(), false));
    const fixed = shard({
      tokens: {
        type,
        values: [
          [1, 2],
          [3, 4],
          [5, 6],
        ],
      },
    });
    expect(tokensOf(await read(fixed, undefined, { device: device() }))).toEqual([
      [1, 2],
      [3, 4],
      [5, 6],
    ]);
  });

  test("are text, plain or by a dictionary", async () => {
    const values = ["aé", "", "aé"];
    const plain = shard({ text: { type: new arrow.Utf8(), values } });
    const coded = shard({
      text: { type: new arrow.Dictionary(new arrow.Utf8(), new arrow.Int32()), values },
    });
    for (const source of [plain, coded]) {
      const prompts = await read(source, undefined, { tokenizer: byteTokenizer(256), device: device() });
      expect(prompts.map(({ text }) => text)).toEqual(values);
      expect(tokensOf(prompts)).toEqual([[256, 97, 195, 169], [256], [256, 97, 195, 169]]);
    }
    expect(tokensOf(await read(plain, "text", { device: device() }))).toEqual([[], [], []]);
  });

  test("that are null have a reason", async () => {
    const source = shard({ tokens: { type: tokenList(), values: [[1], null, [2]] } });
    const prompts = await read(source, undefined, { device: device() });
    expect(tokensOf(prompts)).toEqual([[1], [], [2]]);
    expect(prompts.map(({ error }) => error)).toEqual([undefined, "column tokens is null there", undefined]);
  });
});

test("every prompt of prose is what the dataset holds", async () => {
  const prompts = await read(PROSE);
  expect(prompts.map(({ row }) => row)).toEqual(Array.from({ length: 3000 }, (_, i) => i));
  expect(prompts.reduce((sum, { tokens }) => sum + tokens.length, 0)).toBe(1_008_649);
  const texts = await read(PROSE, "text", { tokenizer: byteTokenizer(256) });
  prompts.forEach(({ tokens }, i) => {
    expect([...tokens]).toEqual([...texts[i]!.tokens, 257]);
  });
});

test("tokens outside the vocabulary fail their row alone", async () => {
  const source = shard({ tokens: { type: tokenList(), values: [[1, 263], [1, 264], [-1]] } });
  expect((await read(source, undefined, { vocab: 264 })).map(({ error }) => error)).toEqual([
    undefined,
    "token 1 of the prompt is 264; tokens of this model are 0 to 263",
    "token 0 of the prompt is -1; tokens of this model are 0 to 263",
  ]);
  const huge = shard({ tokens: { type: tokenList(new arrow.Int64()), values: [[2n ** 40n]] } });
  expect((await read(huge))[0]!.error).toContain("is 1099511627776");
});

describe("the column", () => {
  const texts = { type: new arrow.Utf8(), values: ["a"] };
  const numbers = { type: new arrow.Float32(), values: [1] };
  const bytes = { type: new arrow.Binary(), values: [new Uint8Array([97])] };

  test("is tokens where there is such, else text, else the one that is named", () => {
    const both = shard({ text: texts, tokens: { type: tokenList(), values: [[1]] } });
    const odd = shard({ tokens: numbers, text: texts });
    const named = shard({ "a[b]*": texts, "a[b]": texts });
    const chosen = (source: string, column?: string) => {
      const { dataset, column: name, kind } = openPrompts(source, host, column);
      const { length } = dataset.schema.columns;
      dataset.close();
      return [name, kind, length];
    };
    expect(chosen(both)).toEqual(["tokens", "tokens", 1]);
    expect(chosen(both, "text")).toEqual(["text", "text", 1]);
    expect(chosen(odd)).toEqual(["text", "text", 1]);
    expect(chosen(named, "a[b]*")).toEqual(["a[b]*", "text", 1]);
  });

  test.each([
    ["is not there", { body: texts }, "txt", "UNKNOWN_COLUMN", "txt"],
    ["is none by default", { body: texts }, undefined, "UNKNOWN_COLUMN", "name the column with the prompts"],
    ["is binary", { text: bytes }, "text", "BAD_OPTION", "column text is binary, not utf8"],
    ["is binary by default", { text: bytes }, undefined, "UNKNOWN_COLUMN", "column text is binary, not utf8"],
    ["holds numbers", { tokens: numbers }, "tokens", "BAD_OPTION", "column tokens holds F32"],
    ["is none of the usual kinds", { tokens: numbers }, undefined, "UNKNOWN_COLUMN", "holds F32"],
  ])("%s", (_, columns, column, code, text) => {
    const error = failureOf(() => openPrompts(shard(columns), host, column));
    expect(error).toBeInstanceOf(HeadraceError);
    expect([error.code as string, error.message]).toEqual([code, expect.stringContaining(text)]);
  });
});
