/** Compressed shards give the batches of the plain ones, whatever the form, the order and the device's memory. */
import { describe, expect, test } from "bun:test";
import { copyFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { HostReader, type OpenOptions, openDevice } from "../../src/index.ts";
import { writeArrowDataset } from "./arrow-files.ts";
import { CONTAINERS, compressFile, compressFolder, PLANES } from "./compress.ts";
import { openLoader } from "./device.ts";
import { discrete } from "./discrete.ts";
import { assertRestoresEverywhere, collect, useTempDir } from "./helpers.ts";
import { SMALL_SPECS, writeDataset } from "./safetensors-files.ts";

const DATASETS = join(import.meta.dir, "../../datasets");
const GOLDEN = join(import.meta.dir, "../golden/files/arrow");
const temp = useTempDir();

/** The shards of a committed dataset, without its manifest. */
function shardsOf(name: string): string[] {
  const folder = join(DATASETS, name);
  const names = readdirSync(folder).filter((one) => /\.(safetensors|arrow)$/.test(one));
  return names.sort().map((one) => join(folder, one));
}

/** Every byte of every batch, on a device whose memory the host does not see. */
async function collectApart(source: string | string[], options: OpenOptions): Promise<string[]> {
  await using host = openDevice("host");
  const { device } = discrete(host);
  const found: string[] = [];
  {
    await using reader = new HostReader(device);
    await using loader = await openLoader(source, { ...options, device });
    for await (using batch of loader) {
      const hash = new Bun.CryptoHasher("sha256");
      for (const column of batch.columns.values()) {
        for (const part of [column, column.offsets, column.mask, column.validity]) {
          if (part !== undefined) hash.update(await reader.read(part));
        }
      }
      found.push(`${[...batch.sampleIds].join()} ${hash.digest("hex")}`);
    }
  }
  expect(host.openResources).toBe(0);
  return found;
}

/** On the device under test, and on one whose memory the host does not see. */
async function expectSame(compressed: string | string[], plain: string | string[], options: OpenOptions) {
  const expected = await collect(plain, { ...options, strategy: "read" });
  expect(expected.length).toBeGreaterThan(0);
  expect(await collect(compressed, options)).toEqual(expected);
  expect(await collectApart(compressed, options)).toEqual(
    await collectApart(plain, { ...options, strategy: "read" }),
  );
}

describe.each(Object.entries(CONTAINERS))("%s", (_, form) => {
  test.each(["prose", "digits", "tiny-llama"])("%s", async (name) => {
    await compressFolder(join(DATASETS, name), temp(), form);
    const view = name === "tiny-llama" ? "tensors" : "rows";
    for (const batchSize of [37, 613]) await expectSame(temp(), shardsOf(name), { view, batchSize });
  });
});

test("byte planes", async () => {
  await compressFolder(join(DATASETS, "tiny-llama"), temp(), PLANES);
  await expectSame(temp(), shardsOf("tiny-llama"), { view: "tensors", batchSize: 5 });
});

describe("orders and shapes", () => {
  const cases: Record<string, OpenOptions> = {
    shuffled: { seed: 7 },
    "shuffled in blocks": { seed: 7, blockSize: 64 },
    padded: { seed: 3, padTo: 8 },
    "a rank of three": { seed: 3, rank: 1, worldSize: 3, lastBatch: "drop" },
    "two epochs": { seed: 5, epochs: 2 },
    "one row a batch": { seed: 5, limit: 20, batchSize: 1 },
    "by elements": { batchLength: 4000, lengthColumn: "tokens", batchSize: undefined },
    "one column": { columns: ["tokens"] },
  };

  test.each(Object.entries(cases))("prose, %s", async (_, options) => {
    await compressFolder(join(DATASETS, "prose"), temp(), CONTAINERS["zstd"]!);
    await expectSame(temp(), shardsOf("prose"), { batchSize: 100, ...options });
  });

  test("resumed at every batch", async () => {
    await compressFolder(join(DATASETS, "digits"), temp(), CONTAINERS["lz4"]!);
    await assertRestoresEverywhere((resume) =>
      openLoader(temp(), { batchSize: 400, seed: 2, ...(resume === undefined ? {} : { resume }) }),
    );
  });

  test("plain and compressed shards side by side, with nulls, lists, dictionaries and streams", async () => {
    writeArrowDataset(temp, { isNull: (sample, column) => (sample + column) % 6 === 0 });
    const plain = ["a", "b", "c"].map((name) => temp(`${name}.arrow`));
    await compressFile(plain[1]!, temp("b.arrow.zst"), { codec: "zstd", chunkBytes: 4096 });
    const mixed = [plain[0]!, temp("b.arrow.zst"), plain[2]!];
    for (const options of [{}, { seed: 3 }, { seed: 3, padTo: 4 }]) {
      await expectSame(mixed, plain, { batchSize: 7, ...options });
    }
  });

  test("safetensors of every type", async () => {
    writeDataset(temp, [30, 30], SMALL_SPECS);
    const plain = readdirSync(temp())
      .filter((name) => name.endsWith(".safetensors"))
      .sort();
    for (const name of plain)
      await compressFile(temp(name), temp(`${name}.lz4`), { codec: "lz4", chunkBytes: 4096 });
    const compressed = plain.map((name) => temp(`${name}.lz4`));
    const paths = plain.map((name) => temp(name));
    await expectSame(compressed, paths, { batchSize: 7, seed: 1 });
    await expectSame(compressed[0]!, paths[0]!, { view: "tensors", batchSize: 3 });
  });
});

describe("Arrow bodies that pyarrow compressed", () => {
  const names = readdirSync(GOLDEN).filter((name) => /-(lz4|zstd)\.arrows?$/.test(name));
  const pairs = names
    .map((name) => [name, name.replace(/-(lz4|zstd)\./, ".")] as const)
    .filter(([, plain]) => readdirSync(GOLDEN).includes(plain));

  test("are there", () => expect(pairs.length).toBeGreaterThan(10));

  test.each(pairs)("%s", async (name, plain) => {
    copyFileSync(join(GOLDEN, name), temp(name));
    for (const options of [{}, { seed: 4, padTo: 2 }]) {
      const all = { batchSize: 3, ...options };
      const expected = await collect(join(GOLDEN, plain), all).catch((error) => error.code);
      const ours = await collect(temp(name), all).catch((error) => error.code);
      expect(ours).toEqual(expected);
    }
  });
});
