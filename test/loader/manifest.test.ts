/** Datasets with a manifest: opened without touching a shard, checked when a shard is opened. */
import { beforeEach, describe, expect, test } from "bun:test";
import { appendFileSync, copyFileSync, mkdirSync, rmSync, writeFileSync } from "node:fs";
import { encodeManifest, type Manifest, type OpenOptions, openDataset } from "../../src/index.ts";
import { KINDS, writeArrow } from "./arrow-files.ts";
import { openLoader, openTestDevice } from "./device.ts";
import { collect, type ExpectedColumn, expectCode, expectRows, idsOf, useTempDir } from "./helpers.ts";
import { SMALL_SPECS, writeDataset } from "./safetensors-files.ts";

const temp = useTempDir();
const COUNTS = [4, 6, 3];

/** The manifest that describes what lies in the folder, found through a loader without one. */
async function describeFolder(options: OpenOptions = {}): Promise<Manifest> {
  rmSync(temp("dataset.json"), { force: true });
  await using device = openTestDevice();
  using dataset = openDataset(temp(), device, options);
  const shards = dataset.shardPaths.map((path, i) => {
    const { byteLength, rows, tensors } = dataset.describe(i);
    const samples = dataset.view === "rows" ? rows!.numRows : tensors!.length;
    return { path: path.slice(temp().length + 1), samples, bytes: byteLength };
  });
  const samples = shards.reduce((sum, shard) => sum + shard.samples, 0);
  return { headrace: 1, view: dataset.view, samples, schema: dataset.schema, shards };
}

function write(manifest: object): void {
  writeFileSync(temp("dataset.json"), encodeManifest(manifest as Manifest));
}

const open = () => openLoader(temp());
const read = (options: OpenOptions = {}) => collect(temp(), options);

describe("a right one", () => {
  test("gives what the shards give, with the same fingerprint", async () => {
    const oracle = writeDataset(temp, COUNTS, SMALL_SPECS);
    const without = await read({ seed: 1, batchSize: 5 });
    await using plain = await openLoader(temp());
    write(await describeFolder());
    for (const source of [temp(), temp("dataset.json")]) {
      await using loader = await openLoader(source);
      expect(loader.dataset.fingerprint).toBe(plain.dataset.fingerprint);
      expect(await collect(source, { seed: 1, batchSize: 5 }, (b) => expectRows(b, oracle))).toEqual(without);
    }
  });

  test("opens no shard until one is needed", async () => {
    writeDataset(temp, COUNTS, SMALL_SPECS);
    write(await describeFolder());
    await using loader = await openLoader(temp(), { batchSize: 4, prefetch: 0 });
    expect(loader.dataset.numSamples).toBe(13);
    expect(loader.dataset.paths.size).toBe(0);
    for await (using _ of loader) expect([...loader.dataset.paths.keys()][0]).toBe("part-000.safetensors");
    expect(loader.dataset.paths.size).toBe(3);
  });

  test("of tensors", async () => {
    writeDataset(temp, [2], SMALL_SPECS);
    const without = await read({ view: "tensors" });
    write({ ...(await describeFolder({ view: "tensors" })) });
    expect(await read()).toEqual(without);
    expect((await read({ columns: ["i16"] })).length).toBe(1);
  });

  test("may be looked at in another view, and for chosen columns", async () => {
    const oracle = writeDataset(temp, [3], SMALL_SPECS);
    write(await describeFolder());
    expect((await read({ view: "tensors" })).length).toBe(4);
    await collect(temp(), { columns: ["i*"] }, (batch) =>
      expectRows(
        batch,
        oracle.filter((column) => column.name === "i16"),
      ),
    );
    await expectCode("UNKNOWN_COLUMN", () => openLoader(temp(), { columns: ["i61"] }), "i61", "i16");
  });

  test("with shards in folders below", async () => {
    writeDataset(temp, [3], SMALL_SPECS);
    const manifest = await describeFolder();
    mkdirSync(temp("deep", "er"), { recursive: true });
    copyFileSync(temp("part-000.safetensors"), temp("deep", "er", "x.safetensors"));
    write({ ...manifest, shards: [{ ...manifest.shards[0]!, path: "deep/er/x.safetensors" }] });
    expect(idsOf(await read()).length).toBe(3);
  });
});

describe("one that is wrong in itself", () => {
  let manifest: Manifest;
  beforeEach(async () => {
    writeDataset(temp, COUNTS, SMALL_SPECS);
    manifest = await describeFolder();
  });

  test("by form", async () => {
    for (const [change, where] of [
      [{ headrace: 2 }, "headrace"],
      [{ headrace: undefined }, "headrace"],
      [{ view: "columns" }, "view"],
      [{ samples: -1 }, "samples"],
      [{ samples: 1.5 }, "samples"],
      [{ shards: [] }, "shards"],
      [{ shards: [{ path: "a.safetensors", samples: "3", bytes: 1 }] }, "shards.0.samples"],
      [{ schema: { columns: [{ name: "x" }] } }, "schema.columns.0"],
      [{ schema: { columns: [{ ...manifest.schema.columns[0], dtype: "F31" }] } }, "dtype"],
    ] as const) {
      write({ ...manifest, ...change });
      await expectCode("BAD_MANIFEST", open, "dataset.json", where);
    }
    for (const text of ["", "{", "[]", "null", "\u0000"]) {
      writeFileSync(temp("dataset.json"), text);
      await expectCode("BAD_MANIFEST", open, "dataset.json");
    }
  });

  test("by totals that do not add up", async () => {
    write({ ...manifest, samples: 14 });
    await expectCode("BAD_MANIFEST", open, 14, 13);
  });

  test("by a shard that is there twice, or a column", async () => {
    const [first, second] = manifest.shards;
    write({ ...manifest, samples: 14, shards: [first, second, first] });
    await expectCode("BAD_MANIFEST", open, "part-000.safetensors", "twice");
    const [column] = manifest.schema.columns;
    write({ ...manifest, schema: { columns: [column, column] } });
    await expectCode("BAD_MANIFEST", open, "f32", "twice");
  });

  test("by paths that lead elsewhere", async () => {
    for (const path of [
      "../x.safetensors",
      "/x.safetensors",
      "a/../../x.safetensors",
      "file://x.safetensors",
      "a\\x",
    ]) {
      write({ ...manifest, samples: 4, shards: [{ ...manifest.shards[0]!, path }] });
      await expectCode("UNSAFE_PATH", open, "dataset.json", JSON.stringify(path));
    }
  });

  test("by shards of two formats", async () => {
    const [first, second] = manifest.shards;
    write({ ...manifest, samples: 10, shards: [first, { ...second, path: "x.arrow" }] });
    await expectCode("SOURCE_MIXED", open, "x.arrow");
  });
});

describe("one that is wrong about its shards", () => {
  let manifest: Manifest;
  beforeEach(async () => {
    writeDataset(temp, COUNTS, SMALL_SPECS);
    manifest = await describeFolder();
  });

  function change(index: number, change: object): void {
    const shards = manifest.shards.map((shard, i) => (i === index ? { ...shard, ...change } : shard));
    const samples = shards.reduce((sum, shard) => sum + shard.samples, 0);
    write({ ...manifest, samples, shards });
  }

  test("a shard that is missing is told when it is needed, after the batches before it", async () => {
    write(manifest);
    rmSync(temp("part-001.safetensors"));
    await using loader = await openLoader(temp(), { batchSize: 4 });
    const ids: number[] = [];
    await expectCode(
      "SOURCE_NOT_FOUND",
      async () => {
        for await (using batch of loader) ids.push(...batch.sampleIds);
      },
      "part-001.safetensors",
    );
    expect(ids).toEqual([0, 1, 2, 3]);
  });

  test("other lengths and counts than the file's", async () => {
    for (const strategy of ["map", "read"] as const) {
      change(1, { bytes: 17 });
      await expectCode("FILE_CHANGED", () => read({ strategy }), "part-001.safetensors", 17);
      for (const samples of [5, 7]) {
        change(1, { samples });
        await expectCode("FILE_CHANGED", () => read({ strategy }), "part-001.safetensors", samples, 6);
      }
    }
    write(manifest);
    appendFileSync(temp("part-002.safetensors"), "x");
    await expectCode("FILE_CHANGED", () => read(), "part-002.safetensors");
  });

  test("columns that are not so", async () => {
    const columns = manifest.schema.columns;
    for (const wrong of [
      { ...columns[0]!, dtype: "F64" },
      { ...columns[0]!, shape: [3, 2] },
      { ...columns[0]!, name: "f33" },
      { ...columns[0]!, ragged: true },
      { ...columns[2]!, ragged: false },
      { ...columns[0]!, logical: "utf8" },
    ]) {
      const others = columns.filter((column) => column.name !== wrong.name && column.name !== "f32");
      write({ ...manifest, schema: { columns: [wrong, ...others] } });
      for (const strategy of ["map", "read"] as const) {
        await expectCode(
          "SCHEMA_MISMATCH",
          () => read({ strategy }),
          "part-000.safetensors",
          `column ${wrong.name}`,
        );
      }
    }
  });

  test("tensors that are fewer or more", async () => {
    manifest = await describeFolder({ view: "tensors", columns: undefined }).catch(() => manifest);
    write({
      headrace: 1,
      view: "tensors",
      samples: 5,
      schema: { columns: [] },
      shards: [{ ...manifest.shards[0]!, samples: 5 }],
    });
    await expectCode("FILE_CHANGED", () => read(), "part-000.safetensors", 5, 4);
  });
});

describe("dictionaries", () => {
  const kinds = KINDS.filter((kind) => ["i8", "source"].includes(kind.name));
  let oracle: ExpectedColumn[] = [];
  let manifest: Manifest;
  beforeEach(async () => {
    oracle = [];
    writeArrow(temp("a.arrow"), { batches: [5, 3], kinds }, oracle);
    writeArrow(temp("b.arrow"), { batches: [6], first: 8, kinds }, oracle);
    manifest = await describeFolder();
  });

  test("in the manifest fix the codes without opening a shard", async () => {
    const source = ["mail", "unused", "web", "book", "code", ""];
    write({ ...manifest, dictionaries: { source } });
    await using loader = await openLoader(temp(), { seed: 1, batchSize: 4, prefetch: 0 });
    expect(loader.dataset.paths.size).toBe(0);
    for await (using batch of loader) {
      expectRows(batch, oracle);
      for (let row = 0; row < batch.size; row++) {
        const column = batch.column("source");
        expect(source[Number(column.view[row])]).toBe(column.text(row));
      }
    }
  });

  test("left out are read from the shards", async () => {
    write(manifest);
    await collect(temp(), { seed: 1 }, (batch) => expectRows(batch, oracle));
  });

  test("that lack an entry are refused with the file", async () => {
    write({ ...manifest, dictionaries: { source: ["web", "book"] } });
    await expectCode("BAD_DICTIONARY", () => read(), "a.arrow", "column source", 2);
  });

  test("with an entry twice are refused, as codes after it would shift", async () => {
    write({ ...manifest, dictionaries: { source: ["web", "web", "book", "mail", "code", ""] } });
    await expectCode("BAD_MANIFEST", open, "source", "web", "twice");
  });

  test("that the schema denies are refused, never read as plain numbers", async () => {
    const [i8, source] = manifest.schema.columns;
    const { dictionary, ...plain } = source!;
    for (const wrong of [plain, { ...source!, dictionary: { ...dictionary!, dtype: "I32" } }]) {
      write({ ...manifest, schema: { columns: [i8, wrong] } });
      await expectCode("SCHEMA_MISMATCH", () => read(), "a.arrow", "column source");
    }
  });
});
