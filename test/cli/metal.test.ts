/** Every dataset, each way, gives the host's digests through the Metal device. */
import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import { metalLibrary } from "../conformance/metal-subjects.ts";
import { headrace, report, scratch } from "./process.ts";

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

    test.each([["lz4"], ["lzfse"], ["zlib"], ["lzma"]])("stream from %s", async (codec) => {
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
