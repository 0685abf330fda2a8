import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { digestsOf, proseDigests, proseRows, shardsOf, tensorsOf } from "./expected.ts";
import { DATASETS, report } from "./process.ts";

describe("digests are of the bytes that others read", () => {
  const manifest = JSON.parse(readFileSync(join(DATASETS, "prose/dataset.json"), "utf8"));
  const prose = proseDigests(proseRows(), manifest.dictionaries.source);
  const digits = digestsOf(shardsOf("digits", ".safetensors").flatMap(tensorsOf));
  const llama = digestsOf(tensorsOf(join(DATASETS, "tiny-llama/model.safetensors")));

  test.each([
    ["map", "64"],
    ["map", "613"],
    ["read", "64"],
    ["read", "2999"],
  ])("prose, %s, batches of %s", async (strategy, size) => {
    const result = await report("load", "--strategy", strategy, "--batch-size", size, "--digest");
    expect(result).toMatchObject({ strategy, samples: 3000, batches: Math.ceil(3000 / Number(size)) });
    expect(result.digests).toEqual(prose);
  });

  test.each([
    ["map", "100"],
    ["read", "333"],
  ])("digits, %s, batches of %s", async (strategy, size) => {
    const args = ["--strategy", strategy, "--batch-size", size, "--digest"];
    const result = await report("load", "datasets/digits", ...args);
    expect(result).toMatchObject({ strategy, samples: 2000, batches: Math.ceil(2000 / Number(size)) });
    expect(result.digests).toEqual(digits);
  });

  test.each([
    ["map", "1"],
    ["read", "10"],
  ])("tiny-llama, %s, batches of %s", async (strategy, size) => {
    const args = ["--strategy", strategy, "--batch-size", size, "--digest"];
    const result = await report("load", "datasets/tiny-llama", ...args);
    expect(Object.keys(llama)).toHaveLength(result.samples);
    expect(result.digests).toEqual(llama);
  });
});
