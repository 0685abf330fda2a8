/** Compressed shards give the batches of the plain ones, whatever the form, the order and the device's memory. */
import { describe, expect, test } from "bun:test";
import { copyFileSync, readdirSync, readFileSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { chunkAt } from "../../src/format/chunks.ts";
import { type OpenOptions, openDataset, openDevice } from "../../src/index.ts";
import type { ChunkTable } from "../../src/types.ts";
import { writeArrowDataset } from "./arrow-files.ts";
import { CONTAINERS, compressFile, compressFolder, digestsOn, PLANES } from "./compress.ts";
import { openLoader, openTestDevice } from "./device.ts";
import { discrete } from "./discrete.ts";
import { assertRestoresEverywhere, collect, expectCode, take, useTempDir } from "./helpers.ts";
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
  const found = await digestsOn(discrete(host).device, source, options);
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
    await compressFolder(join(DATASETS, "prose"), temp(), CONTAINERS.zstd);
    await expectSame(temp(), shardsOf("prose"), { batchSize: 100, ...options });
  });

  test("resumed at every batch", async () => {
    await compressFolder(join(DATASETS, "digits"), temp(), CONTAINERS.lz4);
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

describe("files of the command lines", () => {
  const digits = shardsOf("digits")[0]!;

  test.each([
    ["zstd", "with its size", 'zstd -q "$1" -o "$2"', "zst", "stream"],
    ["zstd", "from a pipe", 'zstd -qc < "$1" > "$2"', "zst", "temporary file"],
    ["zstd", "in several frames", 'zstd -qc "$1" > "$2"; printf "" | zstd -qc >> "$2"', "zst", "stream"],
    ["lz4", "with its own settings", 'lz4 -q "$1" "$2"', "lz4", "stream"],
    ["lz4", "with linked blocks", 'lz4 -q -BD "$1" "$2"', "lz4", "stream"],
    ["lz4", "with independent blocks and a size", 'lz4 -q -BI --content-size "$1" "$2"', "lz4", "stream"],
  ] as const)("%s, %s", async (tool, _, script, ending, way) => {
    if (Bun.which(tool) === null) return console.log(`skipped: there is no ${tool} here`);
    const path = temp(`digits.safetensors.${ending}`);
    const { exitCode, stderr } = Bun.spawnSync(["sh", "-c", script, "sh", digits, path]);
    if (exitCode !== 0) throw new Error(stderr.toString());
    await expectSame(path, digits, { batchSize: 64 });
    await using loader = await openLoader(path);
    expect([...loader.dataset.paths.values()].map(({ strategy, reason }) => `${strategy} ${reason}`)).toEqual(
      [expect.stringContaining(way)],
    );
    if (way === "stream") return;
    await expectCode("UNSUPPORTED", () => openDataset(path, loader.device), path, "prepareSource");
  });
});

describe("what cannot be", () => {
  test("other strategies are refused", async () => {
    await compressFolder(join(DATASETS, "digits"), temp(), CONTAINERS.lz4);
    for (const strategy of ["map", "read"] as const) {
      await expectCode(
        "UNSUPPORTED",
        () => openLoader(temp(), { strategy }),
        "lz4",
        strategy,
        "auto or stream",
      );
    }
    await expectSame(temp(), shardsOf("digits"), { batchSize: 300, strategy: "stream" });
  });

  test("a shard beside its compressed form", async () => {
    const [from] = shardsOf("digits");
    copyFileSync(from!, temp("a.safetensors"));
    await compressFile(from!, temp("a.safetensors.zst"), { codec: "zstd" });
    await expectCode("SOURCE_MIXED", () => openLoader(temp()), "a.safetensors and a.safetensors.zst");
  });

  test("a device that decodes nothing", async () => {
    await compressFolder(join(DATASETS, "digits"), temp(), CONTAINERS.zstd);
    await using device = openDevice("null");
    await expectCode("UNSUPPORTED", () => openDataset(temp(), device), "null", "digits-00000");
  });

  test("a dictionary in a chunk that is corrupt is told with one path", async () => {
    const path = temp("a.arrow.lz4");
    await compressFile(shardsOf("prose")[0]!, path, { codec: "lz4", chunkBytes: 4096 });
    await using device = openTestDevice();
    let entries: number;
    let table: ChunkTable;
    {
      using dataset = openDataset(path, device);
      const { rows, chunks } = dataset.describe(0);
      const { dictionary } = rows!.groups[0]!.columns.find((column) => column.dictionary !== undefined)!;
      entries = dictionary![0]!.column.values.start;
      table = chunks!;
    }
    const chunk = chunkAt(table, entries + 4096);
    const bytes = readFileSync(path);
    bytes[table.fileOffset[chunk]! + table.fileLength[chunk]! - 9]! ^= 0x40;
    writeFileSync(path, bytes);
    const message = await expectCode("BAD_CHUNK", () => openLoader(path), `${path}: chunk ${chunk} of `);
    expect(message.split("a.arrow.lz4")).toHaveLength(2);
  });

  test("a chunk that is corrupt fails its batch, and checksums can be left out", async () => {
    const path = temp("a.safetensors.zst");
    await compressFile(shardsOf("digits")[0]!, path, { codec: "zstd", chunkBytes: 32 * 1024 });
    const bytes = readFileSync(path);
    await using device = openTestDevice();
    using dataset = openDataset(path, device);
    const { chunks } = dataset.describe(0);
    // The last four bytes of a frame are its checksum.
    const end = chunks!.fileOffset[5]! + chunks!.fileLength[5]!;
    bytes[end - 1]! ^= 0xff;
    writeFileSync(path, bytes);
    const run = (options: OpenOptions) => collect(path, { batchSize: 20, ...options });
    await expectCode("BAD_CHUNK", () => run({}), path, "chunk 5 of");
    const expected = await collect(shardsOf("digits")[0]!, { batchSize: 20 });
    expect(await run({ checksums: false })).toEqual(expected);
    // Batches before it come.
    await using loader = await openLoader(path, { batchSize: 20 });
    expect((await take(loader, 3)).map(({ digest }) => digest)).toEqual(
      expected.slice(0, 3).map(({ digest }) => digest),
    );
  });

  test("a file that is cut off while it is loaded", async () => {
    const path = temp("a.safetensors.lz4");
    await compressFile(shardsOf("digits")[0]!, path, { codec: "lz4", chunkBytes: 8 * 1024 });
    await using loader = await openLoader(path, { batchSize: 10, prefetch: 0 });
    const batches = loader[Symbol.asyncIterator]();
    (await batches.next()).value!.release();
    truncateSync(path, 20_000);
    const rest = async () => {
      for (;;) {
        const { value } = await batches.next();
        if (value === undefined) return;
        value.release();
      }
    };
    await expectCode("FILE_CHANGED", rest, path, "20000");
  });

  test("decoded bytes are counted", async () => {
    await compressFolder(join(DATASETS, "digits"), temp(), CONTAINERS.lz4);
    await using loader = await openLoader(temp(), { batchSize: 500 });
    for await (using _ of loader);
    const { bytes, decodedBytes } = loader.stats;
    expect(decodedBytes).toBeGreaterThan(bytes * 0.9);
    expect(decodedBytes).toBeLessThan(bytes * 1.1);
  });

  test("a signal ends a batch early, and nothing stays open", async () => {
    await compressFolder(join(DATASETS, "prose"), temp(), CONTAINERS["zstd in large chunks"]);
    await using device = openTestDevice();
    const stop = new AbortController();
    const stopped = async () => {
      await using loader = await openLoader(temp(), { device, batchSize: 500, signal: stop.signal });
      const next = loader[Symbol.asyncIterator]().next();
      stop.abort();
      await next;
    };
    await expectCode("CANCELLED", stopped);
    expect(device.openResources).toBe(0);
  });
});
