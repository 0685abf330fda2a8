import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { LoadFlags } from "../../src/cli/load.ts";
import { Run } from "../../src/cli/run.ts";
import { openDevice, openLoader } from "../../src/index.ts";
import { discrete } from "../loader/discrete.ts";
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

  // No device here has memory of its own, so that the command's own part runs over a double of one.
  test.each([
    ["prose", "map", 64, prose],
    ["prose", "read", 2999, prose],
    ["digits", "map", 100, digits],
    ["tiny-llama", "read", 10, llama],
  ] as const)(
    "%s, %s, batches of %i, in memory that the host cannot see",
    async (name, strategy, size, wanted) => {
      await using host = openDevice("host");
      const { device, traffic } = discrete(host);
      const open = () => openLoader(join(DATASETS, name), { device, strategy, batchSize: size });
      const flags = { digest: true, json: true, epochs: 1, worldSize: 1 } as LoadFlags;
      await using loader = await open();
      const run = new Run(loader, flags, performance.now(), new AbortController().signal, undefined);
      await run.consume();
      expect(run.report().digests).toEqual(wanted);
      expect([traffic.peeks, traffic.mapped > 0]).toEqual([0, strategy === "map"]);
      await using other = await open();
      const { digest: _, ...plain } = flags;
      const silent = new Run(
        other,
        plain as LoadFlags,
        performance.now(),
        new AbortController().signal,
        undefined,
      );
      await silent.consume();
      expect(silent.report()).toMatchObject({ samples: run.report().samples, bytes: run.report().bytes });
      expect([silent.report().digests, traffic.peeks]).toEqual([undefined, 0]);
    },
  );
});
