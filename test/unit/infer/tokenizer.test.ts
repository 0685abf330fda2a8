import { afterAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { byteTokenizer, openTokenizer } from "../../../src/infer/tokenizer.ts";
import { failureOf } from "../failure.ts";

setDefaultTimeout(60_000);

const ROOT = join(import.meta.dir, "../../..");
const GOLDEN = join(ROOT, "test/golden/files/tokenizers");
const scratch = mkdtempSync(join(tmpdir(), "headrace-tokenizer-"));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

/** A model's folder that holds `files`, as text or as JSON. */
function folderOf(files: Readonly<Record<string, unknown>>): string {
  const folder = mkdtempSync(join(scratch, "model-"));
  for (const [name, value] of Object.entries(files)) {
    writeFileSync(join(folder, name), typeof value === "string" ? value : JSON.stringify(value));
  }
  return folder;
}

describe.each(["byte-level", "byte-fallback"])("tokenizer.json, %s", (name) => {
  const tokenizer = openTokenizer(join(GOLDEN, name))!;
  const cases = JSON.parse(readFileSync(join(GOLDEN, name, "golden.json"), "utf8")) as {
    text: string;
    ids: number[];
    decoded: string;
  }[];

  // Made by the library in Rust that such files are written for: test/golden/make_tokenizers.py.
  test.each(cases)("$text", ({ text, ids, decoded }) => {
    expect([...tokenizer.encode(text)]).toEqual(ids);
    expect(tokenizer.decode(Int32Array.from(ids))).toBe(decoded);
    expect(tokenizer.kind).toBe("tokenizer.json");
  });
});

describe("bytes", () => {
  const tokenizer = openTokenizer(join(ROOT, "datasets/tiny-llama"))!;

  test("are the tokenizer of tiny-llama", () => {
    expect(tokenizer.kind).toBe("bytes");
    expect([...tokenizer.encode("aé")]).toEqual([256, 0x61, 0xc3, 0xa9]);
    expect(tokenizer.decode([256, 0x61, 0xc3, 0xa9, 257, 258, 263])).toBe("aé");
    expect(tokenizer.decode([])).toBe("");
  });

  test("begin with nothing where special ids are not wanted", () => {
    expect([...tokenizer.encode("a", false)]).toEqual([0x61]);
    expect(tokenizer.vocabSize).toBe(257);
    const model = openTokenizer(join(GOLDEN, "byte-level"))!;
    const [first, ...rest] = model.encode("Call me Ishmael.");
    expect([first, ...model.encode("Call me Ishmael.", false)]).toEqual([0, ...rest]);
    const json = JSON.parse(readFileSync(join(GOLDEN, "byte-level/tokenizer.json"), "utf8"));
    expect(model.vocabSize).toBeGreaterThanOrEqual(Object.keys(json.model.vocab).length);
    expect(model.vocabSize).toBeLessThan(65_536);
  });

  test("that are no UTF-8 become U+FFFD", () => {
    expect(tokenizer.decode([0x61, 0xc3])).toBe("a\ufffd");
    expect(tokenizer.decode([0xff, 0x62])).toBe("\ufffdb");
    expect(tokenizer.decode([0xf0, 0x9f, 0x90, 256, 0x8b])).toBe("🐋");
    expect(tokenizer.decode([-1, 0x61])).toBe("a");
  });

  test("give back every text", () => {
    fc.assert(
      fc.property(fc.string({ unit: "binary" }), (text) => {
        expect(tokenizer.decode(tokenizer.encode(text))).toBe(text);
        expect(byteTokenizer(undefined).encode(text)).toEqual(tokenizer.encode(text).subarray(1));
      }),
    );
  });

  test("keep a mark of byte order, and make lone surrogates whole", () => {
    expect(tokenizer.decode(tokenizer.encode("\ufeffa"))).toBe("\ufeffa");
    expect(tokenizer.decode(tokenizer.encode("\ud800"))).toBe("\ufffd");
  });
});

describe("what decides for bytes", () => {
  test.each([
    ["256 and no more, without BOS", { vocab_size: 256 }, [97]],
    ["specials without names", { vocab_size: 259 }, [256, 97]],
    ["a BOS of its own", { vocab_size: 260, bos_token_id: 259, eos_token_id: [257, 258] }, [259, 97]],
    ["a BOS that is not wanted", { vocab_size: 260, bos_token_id: null }, [97]],
  ])("%s", (_, config, expected) => {
    const tokenizer = openTokenizer(folderOf({ "config.json": config }))!;
    expect([...tokenizer.encode("a")]).toEqual(expected);
  });

  test.each([
    ["a vocabulary of words", { vocab_size: 49152 }],
    ["one that is too small", { vocab_size: 255 }],
    ["an EOS among the bytes", { vocab_size: 258, eos_token_id: 0 }],
    ["no size", {}],
  ])("not %s", (_, config) => {
    expect(openTokenizer(folderOf({ "config.json": config }))).toBeUndefined();
  });
});

test("the fingerprint tells tokenizers apart", () => {
  const prints = [
    openTokenizer(join(GOLDEN, "byte-level"))!,
    openTokenizer(join(GOLDEN, "byte-fallback"))!,
    byteTokenizer(256),
    byteTokenizer(undefined),
  ].map(({ fingerprint }) => fingerprint);
  expect(new Set(prints).size).toBe(4);
  expect(openTokenizer(join(GOLDEN, "byte-level"))!.fingerprint).toBe(prints[0]!);
});

describe("files that cannot be used", () => {
  test.each([
    ["no files", {}, "SOURCE_NOT_FOUND", "neither tokenizer.json nor config.json"],
    ["text", { "tokenizer.json": "{" }, "BAD_MODEL", "tokenizer.json: is not JSON"],
    ["a list", { "tokenizer.json": [] }, "BAD_MODEL", "does not hold a JSON object"],
    ["an empty object", { "tokenizer.json": {} }, "BAD_MODEL", "cannot be used as a tokenizer"],
    [
      "a model of another time",
      { "tokenizer.json": { model: { type: "Nothing", vocab: {} }, added_tokens: [], decoder: null } },
      "BAD_MODEL",
      "cannot be used as a tokenizer",
    ],
    ["a config that is a number", { "config.json": "7" }, "BAD_MODEL", "config.json: does not hold"],
  ])("%s", (_, files, code, text) => {
    const error = failureOf(() => openTokenizer(folderOf(files)));
    expect(error.code).toBe(code as never);
    expect(error.message).toContain(text);
    expect(error.message).not.toContain("\n");
  });
});
