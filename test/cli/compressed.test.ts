/** What the commands say of compressed shards. */
import { afterAll, describe, expect, test } from "bun:test";
import { readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { CONTAINERS, compressFolder } from "../loader/compress.ts";
import { DATASETS, headrace, report, scratch } from "./process.ts";

const folder = scratch();
afterAll(() => rmSync(folder, { recursive: true, force: true }));
await compressFolder(join(DATASETS, "digits"), folder, CONTAINERS.zstd);

describe("compressed shards", () => {
  test("load streams them, says so, and counts what is decoded", async () => {
    const plain = await report("load", "datasets/digits", "--digest");
    const ours = await report("load", folder, "--digest");
    expect(ours.digests).toEqual(plain.digests);
    expect(ours).toMatchObject({ strategy: "stream", samples: 2000, bytes: plain.bytes });
    expect((ours as { decodedBytes?: number }).decodedBytes).toBeGreaterThan(plain.bytes * 0.8);
    const { code, out } = await headrace("load", folder, "--no-checksums");
    expect(code).toBe(0);
    expect(out).toMatch(/path +stream \(compressed \(zstd\): its chunks are decoded\), 4 shards/);
    expect(out).toMatch(/decoded +[\d.]+ MB/);
  });

  test("inspect tells codec, ratio, chunks and what decodes", async () => {
    const { code, out } = await headrace("inspect", folder, "--rows", "1");
    expect(code).toBe(0);
    expect(out).toMatch(/decoded by +zstd: .+, lz4: .+/);
    expect(out.match(/safetensors, zstd \d\.\d\d:1 in 13 chunks/g)).toHaveLength(4);
    const json = JSON.parse((await headrace("inspect", folder, "--json")).out);
    const { compressed, alignment, bytes } = json.shards[0];
    expect(compressed).toMatchObject({ codecs: "zstd", chunks: 13, chunkBytes: 32 * 1024 });
    expect(compressed.ratio).toBeGreaterThan(2);
    expect([alignment, bytes]).toEqual([
      undefined,
      Bun.file(join(folder, readdirSync(folder).sort()[0]!)).size,
    ]);
  });

  test("a way that they do not have is refused", async () => {
    const { code, err } = await headrace("load", folder, "--strategy", "map");
    expect(code).toBe(1);
    expect(err).toMatch(/^headrace: .*is compressed \(zstd\).*use the strategy auto or stream.*\n$/);
  });
});
