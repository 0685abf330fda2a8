/** Compressed shards on the CUDA device: decoded into memory that is pinned, and copied up once they are. */
import { expect, test } from "bun:test";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { openHost } from "../../../src/device/host/device.ts";
import type { OpenOptions } from "../../../src/index.ts";
import { CONTAINERS, compressFile, digestsOn } from "../../loader/compress.ts";
import { describeOverMock, SHUFFLED, withCuda } from "./cuda-rig.ts";

const DATASETS = join(import.meta.dir, "../../../datasets");

describeOverMock("compressed shards", () => {
  const cases: readonly (readonly [string, OpenOptions])[] = [
    ["prose", { batchSize: 300 }],
    ["prose", { batchSize: 200, seed: 3, padTo: 8, limit: 1500 }],
    ["digits", { batchSize: 400, seed: 1 }],
    ["tiny-llama", { view: "tensors", batchSize: 9 }],
  ];

  test.each(cases)("%s %o", async (name, options) => {
    const folder = join(DATASETS, name);
    const names = readdirSync(folder).filter((one) => /\.(safetensors|arrow)$/.test(one));
    const plain = names.sort().map((one) => join(folder, one));
    await using host = openHost();
    const expected = await digestsOn(host, plain, options);
    await withCuda({ config: SHUFFLED }, async ({ device, dir }) => {
      const compressed: string[] = [];
      for (const [i, path] of plain.entries()) {
        const { ending, options: how } = i % 2 === 0 ? CONTAINERS.zstd : CONTAINERS.lz4;
        const to = join(dir, `${names[i]}${ending}`);
        await compressFile(path, to, how);
        compressed.push(to);
      }
      expect(await digestsOn(device, compressed, options)).toEqual(expected);
    });
  });
});
