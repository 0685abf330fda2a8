/** Every dataset, each way, gives the host's digests through the Metal device. */
import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import { metalLibrary } from "../conformance/metal-subjects.ts";
import { writeTokens } from "../infer/prompt-files.ts";
import { readOutputs } from "../infer/read-outputs.ts";
import { proseRows } from "./expected.ts";
import { DATASETS, headrace, report, scratch } from "./process.ts";

const library = metalLibrary();
const reason = "missing" in library ? ` (left out: ${library.missing})` : "";
const folder = scratch();

describe.skipIf("missing" in library)(`load over metal${reason}`, () => {
  describe.each(["datasets/prose", "datasets/digits", "datasets/tiny-llama"])("%s", (dataset) => {
    const load = (...args: string[]) => report("load", dataset, "--batch-size", "97", "--digest", ...args);
    let host: ReturnType<typeof load> | undefined;
    const wantedOnce = () => {
      host ??= load("--device", "host");
      return host;
    };

    test.each([["map"], ["read"], ["stream"]])("%s", async (strategy) => {
      const wanted = await wantedOnce();
      const result = await load("--device", "metal", "--strategy", strategy);
      expect(Object.keys(wanted.digests).length).toBeGreaterThan(0);
      expect(result.digests).toEqual(wanted.digests);
      expect(result).toMatchObject({ strategy, samples: wanted.samples, batches: wanted.batches });
    });

    test.each([["lz4"], ["lzfse"], ["zlib"], ["lzma"], ["lzbitmap"]])("stream from %s", async (codec) => {
      const args = ["--device", "metal", "--strategy", "stream", "--stream-codec", codec];
      const result = await load(...args, "--stream-cache", join(folder, codec));
      expect(result.digests).toEqual((await wantedOnce()).digests);
    });
  });

  test("a shuffled epoch has the host's order", async () => {
    const args = ["load", "datasets/digits", "--shuffle", "7", "--digest", "--batch-size", "64"];
    const [host, metal] = await Promise.all(
      ["host", "metal"].map((device) => report(...args, "--device", device)),
    );
    expect(metal!.digests).toEqual(host!.digests);
  });

  test("the doctor knows the device", async () => {
    const { code, out } = await headrace("doctor", "--device", "metal", "--no-rates", "--json");
    expect(code).toBe(0);
    expect(out).toContain("libHeadraceMetal");
  });
});

describe.skipIf("missing" in library)(`infer over metal${reason}`, () => {
  /** Prompts of prose, cut to what a stand-in can be asked for, of one step and of several. */
  const prompts = proseRows()
    .slice(0, 5)
    .map(({ tokens }, row) => Array.from(tokens.slice(0, [40, 3, 1, 17, 25][row])));
  const dataset = writeTokens(join(folder, "prompts"), [prompts.slice(0, 2), prompts.slice(2)]);
  let numbers = 0;

  /** The outputs of a run. */
  const infer = async (model: string, ...args: string[]) => {
    const out = join(folder, `out-${numbers++}`);
    const { code, err } = await headrace("infer", dataset, "--model", model, "--out", out, ...args);
    expect({ code, err }).toEqual({ code: 0, err: "" });
    return readOutputs(out);
  };

  test.each([
    ["greedily", ["--slots", "2"]],
    [
      "by chance, with log-probabilities",
      ["--temperature", "0.9", "--top-p", "0.9", "--seed", "5", "--logprobs"],
    ],
    ["with a cache of halves, in small steps", ["--kv-type", "f16", "--tokens-per-step", "16"]],
  ])(
    "%s, it gives the host's outputs",
    async (_, args) => {
      const options = ["--max-new-tokens", "4", ...args];
      const model = join(DATASETS, "tiny-llama");
      const [host, metal] = await Promise.all(
        ["host", "metal"].map((device) => infer(model, "--device", device, ...options)),
      );
      const plain = (rows: typeof host) => rows!.map(({ logprobs: _, ...row }) => row);
      expect(plain(metal)).toEqual(plain(host));
      expect(host!.map(({ tokens }) => tokens.length)).toEqual([4, 4, 4, 4, 4]);
      for (const [row, { logprobs }] of host!.entries()) {
        for (const [i, logprob] of (logprobs ?? []).entries()) {
          expect(metal![row]!.logprobs![i]!).toBeCloseTo(logprob, 4);
        }
      }
    },
    120_000,
  );
});
