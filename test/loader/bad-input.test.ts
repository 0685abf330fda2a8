/** Sources and shards that lie: a code, the file, the numbers; never a crash, a hang or a wrong batch. */
import { describe, expect, test } from "bun:test";
import { copyFileSync, mkdirSync, readFileSync, symlinkSync, truncateSync, writeFileSync } from "node:fs";
import { relative } from "node:path";
import * as arrow from "apache-arrow";
import { HeadraceError, type OpenOptions, openDataset, saveSafetensors } from "../../src/index.ts";
import { KINDS, writeArrow } from "./arrow-files.ts";
import { openLoader, openTestDevice } from "./device.ts";
import { collect, expectCode, idsOf, take, useTempDir } from "./helpers.ts";
import { SMALL_SPECS, writeDataset, writePlain, writeRagged, writeRaw } from "./safetensors-files.ts";

const temp = useTempDir();
const STRATEGIES = ["map", "read"] as const;

describe("finding the source", () => {
  test("that is not there", async () => {
    await expectCode("SOURCE_NOT_FOUND", () => openLoader(temp("nope")), "nope");
    await expectCode("SOURCE_NOT_FOUND", () => openLoader(temp("*.safetensors")), "*.safetensors");
    await expectCode("SOURCE_NOT_FOUND", () => openLoader(""));
    await expectCode("SOURCE_NOT_FOUND", () => openLoader(`${temp()}/a\0b.safetensors`));
    symlinkSync(temp("gone"), temp("link.safetensors"));
    await expectCode("SOURCE_NOT_FOUND", () => openLoader(temp("link.safetensors")));
  });

  test("that holds nothing", async () => {
    await expectCode("SOURCE_EMPTY", () => openLoader(temp()), "no shard", ".safetensors");
    writeFileSync(temp("notes.txt"), "hello");
    await expectCode("SOURCE_EMPTY", () => openLoader(temp()));
    await expectCode("SOURCE_EMPTY", () => openLoader([]));
  });

  test("that mixes formats", async () => {
    writePlain(temp("a.safetensors"), 3);
    writeArrow(temp("b.arrow"), { batches: [2] });
    await expectCode("SOURCE_MIXED", () => openLoader(temp()), "a.safetensors", "b.arrow");
    await expectCode("SOURCE_MIXED", () => openLoader([temp("a.safetensors"), temp("b.arrow")]));
    writeFileSync(temp("c.txt"), "hello");
    await expectCode("UNKNOWN_FORMAT", () => openLoader([temp("a.safetensors"), temp("c.txt")]), "c.txt");
  });

  test("that is no file: pipes are not waited for", async () => {
    for (const name of [
      "pipe.safetensors",
      "pipe.arrow",
      "dataset.json",
      "m.safetensors.index.json",
      "pipe",
    ]) {
      expect(Bun.spawnSync(["mkfifo", temp(name)]).exitCode).toBe(0);
      await expectCode("SOURCE_UNREADABLE", () => openLoader(temp(name)), name);
    }
    mkdirSync(temp("dir", "x.safetensors"), { recursive: true });
    await expectCode("SOURCE_UNREADABLE", () => openLoader(temp("dir")), "x.safetensors", "directory");
    await expectCode("SOURCE_UNREADABLE", () => openLoader("/dev/zero"), "/dev/zero");
  });

  test("that is of no known format", async () => {
    for (const content of ["hello world, this is no shard", "x", ""]) {
      writeFileSync(temp("a.bin"), content);
      await expectCode("UNKNOWN_FORMAT", () => openLoader(temp("a.bin")), "a.bin", content.length);
    }
  });

  test("and what names it well opens: file, folder, glob, list", async () => {
    writeDataset(temp, [3, 4], SMALL_SPECS);
    const files = [temp("part-000.safetensors"), temp("part-001.safetensors")];
    const whole = await collect(temp(), {});
    for (const source of [files, temp("part-*.safetensors"), [temp("part-000*"), files[1]!]]) {
      expect(await collect(source, {})).toEqual(whole);
    }
    // Errors name files as they were asked for.
    await using device = openTestDevice();
    const pattern = relative("", temp("part-*.safetensors"));
    using dataset = openDataset(pattern, device);
    expect(dataset.shardPaths).toEqual(files.map((file) => relative("", file)));
    using absolute = openDataset(temp("part-*.safetensors"), device);
    expect(absolute.shardPaths).toEqual(files);
    expect(absolute.fingerprint).toBe(dataset.fingerprint);
    expect(idsOf(await collect(files[1]!, {})).length).toBe(4);
    copyFileSync(files[0]!, temp("plain"));
    expect(idsOf(await collect(temp("plain"), {})).length).toBe(3);
  });
});

describe("shards that are cut", () => {
  test("at any length, safetensors", async () => {
    writePlain(temp("a.safetensors"), 10);
    const whole = readFileSync(temp("a.safetensors"));
    for (let length = 0; length < whole.length; length += length < 200 ? 7 : 1501) {
      writeFileSync(temp("a.safetensors"), whole.subarray(0, length));
      for (const strategy of STRATEGIES) await expectRefused(temp("a.safetensors"), { strategy });
    }
  });

  for (const form of ["file", "stream"] as const) {
    test(`at any length, arrow ${form}`, async () => {
      writeArrow(temp("a.arrow"), { batches: [5, 4], form });
      const whole = readFileSync(temp("a.arrow"));
      for (let length = 0; length < whole.length; length += 61) {
        writeFileSync(temp("a.arrow"), whole.subarray(0, length));
        // A stream that is cut between two messages is a shorter stream: then whole batches alone may come.
        const counts = form === "stream" ? [0, 5, 9] : [];
        await expectRefused(temp("a.arrow"), { strategy: "read" }, counts);
      }
    });
  }

  async function expectRefused(path: string, options: OpenOptions, counts: readonly number[] = []) {
    try {
      const ids = idsOf(await collect(path, options));
      expect(counts).toContain(ids.length);
    } catch (error) {
      if (!(error instanceof HeadraceError)) throw error;
      expect(error.message).toContain(path);
      expect(error.message).not.toContain("\n");
    }
  }
});

describe("list offsets that lie", () => {
  const cases = [
    ["decrease", [0, 4, 2, 6, 6, 6], 1, ["offset 2", "its start, 4"]],
    ["lead outside", [0, 4, 6, 90, 90, 90], 2, ["offset 90", "elements"]],
    ["are negative", [-3, 4, 6, 6, 6, 6], 0, ["offset -3"]],
    ["end outside", [0, 1, 2, 3, 4, 2147483647], 4, ["offset 2147483647"]],
  ] as const;
  for (const [title, offsets, row, parts] of cases) {
    for (const strategy of STRATEGIES) {
      test(`safetensors: ${title} (${strategy})`, async () => {
        writeRagged(temp("a.safetensors"), offsets, 8);
        for (const options of [
          {},
          { padTo: 4 },
          { batchLength: 4 },
          { batchBytes: 50 },
          { seed: 1 },
          { batchSize: 2 },
        ]) {
          await expectCode(
            "BAD_OFFSETS",
            () => collect(temp(), { strategy, ...options }),
            "a.safetensors",
            "column t",
            // A shuffled batch may meet the same lie from the row behind it.
            ...("seed" in options ? [] : [`row ${row}`, ...parts]),
          );
        }
      });

      test(`arrow: ${title}, in the second record batch (${strategy})`, async () => {
        const kinds = KINDS.filter((kind) => kind.name === "text");
        writeArrow(temp("a.arrow"), { batches: [4, 5], kinds });
        poke(temp("a.arrow"), offsets, 4);
        const told = ["a.arrow", "column text", `row ${4 + row}`, ...parts];
        await expectCode("BAD_OFFSETS", () => collect(temp(), { strategy, batchSize: 9 }), ...told);
      });
    }
  }

  /** Overwrites the offsets of the texts of samples `[first, first + 5)`. */
  function poke(path: string, offsets: readonly number[], first: number): void {
    const text = KINDS.find((kind) => kind.name === "text")!;
    const old = [0];
    for (let i = 0; i < 5; i++) old.push(old.at(-1)! + Buffer.byteLength(text.value(first + i) as string));
    const file = readFileSync(path);
    const at = file.indexOf(Buffer.from(Int32Array.from(old).buffer));
    expect(at).toBeGreaterThan(0);
    file.set(new Uint8Array(Int32Array.from(offsets).buffer), at);
    writeFileSync(path, file);
  }

  test("good batches before the bad row still come", async () => {
    writeRagged(temp("a.safetensors"), [0, 1, 2, 3, 4, 2, 6], 8);
    for (const strategy of STRATEGIES) {
      await using loader = await openLoader(temp(), { strategy, batchSize: 2 });
      const ids: number[] = [];
      await expectCode("BAD_OFFSETS", async () => {
        for await (using batch of loader) ids.push(...batch.sampleIds);
      });
      expect(ids).toEqual([0, 1, 2, 3]);
      expect(loader.state().position).toBe(4);
    }
  });
});

describe("dictionaries that lie", () => {
  const kinds = KINDS.filter((kind) => kind.dictionary);

  test("codes outside are refused with file, column, row and code", async () => {
    for (const [code, shown] of [
      [4, 4],
      [127, 127],
      [255, -1],
    ] as const) {
      writeArrow(temp("a.arrow"), { batches: [4, 3], kinds });
      const file = readFileSync(temp("a.arrow"));
      // Codes of samples 4, 5, 6: what they are follows from the order in which words are met.
      const at = findCodes(file);
      file[at + 1] = code;
      writeFileSync(temp("a.arrow"), file);
      for (const strategy of STRATEGIES) {
        const parts = ["a.arrow", "column source", "row 5", `code ${shown}`];
        await expectCode("BAD_DICTIONARY", () => collect(temp(), { strategy, batchSize: 7 }), ...parts);
      }
    }
  });

  /** Where the codes of samples 4, 5 and 6 lie: words are numbered in the order in which they are met. */
  function findCodes(file: Buffer): number {
    const words = Array.from({ length: 7 }, (_, sample) => kinds[0]!.value(sample));
    const vocabulary = [...new Set(words)];
    const codes = words.slice(4).map((word) => vocabulary.indexOf(word));
    const at = file.lastIndexOf(Buffer.from([...codes, 0, 0, 0, 0, 0]));
    expect([vocabulary.length, at > 0]).toEqual([4, true]);
    return at;
  }

  test("an entry that is null is refused with the file", async () => {
    const words = arrow.vectorFromArray(["a", null, "b"], new arrow.Utf8());
    const type = new arrow.Dictionary(new arrow.Utf8(), new arrow.Int8());
    const data = arrow.makeData({
      type,
      length: 3,
      nullCount: 0,
      data: Int8Array.of(0, 1, 2),
      dictionary: words,
    });
    const table = new arrow.Table({ source: arrow.makeVector(data) });
    writeFileSync(temp("a.arrow"), arrow.tableToIPC(table, "file"));
    await expectCode("BAD_DICTIONARY", () => openLoader(temp()), "a.arrow", "column source", "null");
  });
});

describe("shards that disagree", () => {
  const bytes = new Uint8Array(64);

  test("on a column's type, shape, presence: shard and field are named", async () => {
    saveSafetensors(temp("a.safetensors"), [
      { name: "x", dtype: "U8", shape: [4, 2], data: bytes.subarray(0, 8) },
    ]);
    for (const [name, dtype, shape, length] of [
      ["x", "I8", [4, 2], 8],
      ["x", "U8", [4, 3], 12],
      ["y", "U8", [4, 2], 8],
    ] as const) {
      saveSafetensors(temp("b.safetensors"), [{ name, dtype, shape, data: bytes.subarray(0, length) }]);
      await expectCode("SCHEMA_MISMATCH", () => openLoader(temp()), "b.safetensors", "column x");
    }
    const both = ["x", "z"].map(
      (name) => ({ name, dtype: "U8", shape: [4, 2], data: bytes.subarray(0, 8) }) as const,
    );
    saveSafetensors(temp("b.safetensors"), both);
    await expectCode("SCHEMA_MISMATCH", () => openLoader(temp()), "b.safetensors", "column z");
  });

  test("ragged here and fixed there; arrow types", async () => {
    writeRagged(temp("a.safetensors"), [0, 1, 2], 2);
    saveSafetensors(temp("b.safetensors"), [
      { name: "t", dtype: "U8", shape: [2], data: bytes.subarray(0, 2) },
    ]);
    await expectCode("SCHEMA_MISMATCH", () => openLoader(temp("?.safetensors")), "b.safetensors", "column t");
    const pick = (name: string) => KINDS.filter((kind) => kind.name === name);
    writeArrow(temp("a.arrow"), { batches: [2], kinds: pick("text") });
    writeArrow(temp("b.arrow"), {
      batches: [2],
      kinds: pick("blob").map((kind) => ({ ...kind, name: "text" })),
    });
    await expectCode(
      "SCHEMA_MISMATCH",
      () => openLoader(temp("?.arrow")),
      "b.arrow",
      "column text",
      "binary",
      "utf8",
    );
  });
});

describe("padValue", () => {
  test("must be what the column can hold", async () => {
    const tensors = [
      ["U8", 1, [-1, 256, 0.5]],
      ["I8", 1, [-129, 128]],
      ["U16", 2, [65536]],
      ["I32", 4, [2 ** 31, 0.5]],
      ["I64", 8, [0.5, 2 ** 63]],
      ["U64", 8, [-1]],
      ["F16", 2, [1e6]],
      ["F32", 4, [1e39]],
      ["F8_E4M3", 1, [1]],
    ] as const;
    for (const [dtype, item, values] of tensors) {
      writeRaw(temp("a.safetensors"), [
        {
          name: "t.offsets",
          dtype: "I64",
          shape: [3],
          bytes: new Uint8Array(BigInt64Array.of(0n, 2n, 3n).buffer),
        },
        { name: "t", dtype, shape: [3], bytes: new Uint8Array(3 * item) },
      ]);
      for (const padValue of values) {
        const options = { padTo: 4, padValue };
        await expectCode(
          "BAD_OPTION",
          () => openLoader(temp(), options),
          "padValue",
          padValue,
          "column t",
          dtype,
        );
      }
      await collect(temp(), { padTo: 4, padValue: 0 });
    }
  });

  test("is a number also for BF16, which comes as bits", async () => {
    writeRaw(temp("a.safetensors"), [
      { name: "t.offsets", dtype: "I32", shape: [3], bytes: new Uint8Array(Int32Array.of(0, 2, 3).buffer) },
      { name: "t", dtype: "BF16", shape: [3], bytes: new Uint8Array(Uint16Array.of(1, 2, 3).buffer) },
    ]);
    for (const [padValue, bits] of [
      [1, 0x3f80],
      [-2, 0xc000],
      [0.1, 0x3dcd],
      [-100, 0xc2c8],
    ] as const) {
      await collect(temp(), { padTo: 4, padValue }, (batch) => {
        expect([...batch.column("t").view].map(Number)).toEqual([1, 2, bits, bits, 3, bits, bits, bits]);
      });
    }
  });
});

test("numbers that are not there are refused by the dataset too", async () => {
  writeDataset(temp, [3, 4], SMALL_SPECS);
  await using device = openTestDevice();
  const dataset = openDataset(temp(), device);
  expect(dataset.describe(1).rows!.numRows).toBe(4);
  for (const index of [-1, 2, 0.5, Number.NaN]) {
    await expectCode("OUT_OF_RANGE", () => dataset.describe(index), index, 2);
  }
  dataset.close();
  dataset.close();
  await expectCode("CLOSED", () => dataset.describe(0));
});

test("a batch of rows past what one array can show is refused, not mangled", async () => {
  const offsets = new Uint8Array(Int32Array.of(0, 1, 2, 3).buffer);
  const rows = 3 * 2 ** 31;
  const json = JSON.stringify({
    "t.offsets": { dtype: "I32", shape: [4], data_offsets: [0, 16] },
    t: { dtype: "U8", shape: [3], data_offsets: [16, 19] },
    x: { dtype: "U8", shape: [3, 2 ** 31], data_offsets: [19, 19 + rows] },
  });
  const header = new Uint8Array(8 + json.length + 19);
  new DataView(header.buffer).setBigUint64(0, BigInt(json.length), true);
  header.set(new TextEncoder().encode(json), 8);
  header.set(offsets, 8 + json.length);
  writeFileSync(temp("a.safetensors"), header);
  truncateSync(temp("a.safetensors"), header.length + rows);
  const options = { strategy: "read", batchSize: 3, memoryBytes: 2 ** 36, prefetch: 0 } as const;
  await using loader = await openLoader(temp(), options);
  await expectCode("BATCH_TOO_LARGE", () => take(loader), "64424510", 2 ** 32);
});
