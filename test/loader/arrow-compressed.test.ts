/** Arrow shards with compressed bodies, as pyarrow wrote them: batches are those of the same rows without compression. */
import { describe, expect, spyOn, test } from "bun:test";
import { copyFileSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { DecodePool } from "../../src/device/decode/pool.ts";
import { HeadraceError } from "../../src/errors.ts";
import { compressFrame } from "../unit/codec/frames.ts";
import { i64, patched } from "../unit/format/arrow-helpers.ts";
import { fileOf } from "../unit/format/arrow-write-files.ts";
import { openLoader } from "./device.ts";
import type { Snapshot } from "./helpers.ts";
import { collect, expectCode, useTempDir } from "./helpers.ts";

const GOLDEN = join(import.meta.dir, "../golden/files/arrow");
const temp = useTempDir();

/** Compressed files, and the file that each is like. */
const PAIRS = readdirSync(GOLDEN)
  .filter((name) => name.endsWith(".json"))
  .flatMap((name) => {
    const { like } = JSON.parse(readFileSync(join(GOLDEN, name), "utf8")) as { like?: string };
    return like === undefined ? [] : [[name.replace(/\.json$/, ""), like] as const];
  });

type Options = Parameters<typeof collect>[1];

/** The batches, or the code of what they failed with. */
async function outcomeOf(name: string, options: Options): Promise<readonly Snapshot[] | string> {
  try {
    return await collect(join(GOLDEN, name), options);
  } catch (error) {
    if (error instanceof HeadraceError) return error.code;
    throw error;
  }
}

describe("compressed bodies", () => {
  test("are there to be read", () => expect(PAIRS.length).toBeGreaterThan(30));

  test.each(PAIRS)("%s is like %s", async (name, like) => {
    for (const options of [{ batchSize: 1000 }, { batchSize: 3, seed: 4 }, { batchSize: 7, padTo: 4 }]) {
      const wanted = await outcomeOf(like, options);
      // A null entry of a dictionary is refused in either.
      if (!like.startsWith("dictionaries")) expect(wanted).not.toBeString();
      expect(await outcomeOf(name, options)).toEqual(wanted);
    }
  });

  test("are shards among others that are not compressed", async () => {
    const order = ["lists.arrow", "lists-zstd.arrow", "lists-lz4.arrows"];
    const mixed = temp("mixed");
    const plain = temp("plain");
    for (const folder of [mixed, plain]) mkdirSync(folder, { recursive: true });
    order.forEach((name, i) => {
      copyFileSync(join(GOLDEN, name), temp("mixed", `${i}.${name.split(".")[1]}`));
      copyFileSync(join(GOLDEN, "lists.arrow"), temp("plain", `${i}.arrow`));
    });
    const options = { batchSize: 5, seed: 3 };
    expect(await collect(mixed, options)).toEqual(await collect(plain, options));
  });

  test("of columns that nobody asks for may be longer than can be decoded", async () => {
    const numRows = 5000;
    const values = new Uint8Array(8 * numRows).fill(3);
    const fields = ["long", "fine"].map(
      (name) => ({ name, kind: "fixed", dtype: "I64", nullable: false }) as const,
    );
    const columns = fields.map(() => ({ values, nullCount: 0 }));
    // Frames of 33,000 bytes could become a gibibyte, and the first claims more than one.
    const sizes = [33_000, undefined];
    const compress = (bytes: Uint8Array) => {
      const size = sizes.shift();
      return size === undefined ? compressFrame("zstd", 3, bytes) : new Uint8Array(size);
    };
    const { bytes, places } = fileOf(fields, [{ numRows, columns }], () => ({ codec: "zstd", compress }));
    const at = places[0]!.offset + places[0]!.metadataLength;
    const path = temp("long.arrow");
    writeFileSync(
      path,
      patched(bytes, (view) => i64(view, at, 2 ** 30 + 1)),
    );
    await expectCode("UNSUPPORTED_COMPRESSION", () => collect(path, {}), path, "fewer rows a batch");
    const options = { columns: ["fine"], batchSize: 1000 };
    const found = await collect(path, options, (batch) => {
      expect((batch.column("fine").view as BigInt64Array)[999]).toBe(0x0303030303030303n);
    });
    expect(found).toHaveLength(5);
  });

  test("are streamed, whoever asks for what", async () => {
    const path = join(GOLDEN, "lists-zstd.arrow");
    await using loader = await openLoader(path, { batchSize: 4 });
    for await (using batch of loader) expect(batch.size).toBe(4);
    for (const strategy of ["map", "read"] as const)
      await expectCode("UNSUPPORTED", async () => {
        await using refused = await openLoader(path, { strategy });
        for await (using _ of refused);
      });
  });
});

describe("rows in random order", () => {
  const GROUPS = 24;
  const ROWS = 40;
  /** Of the values of one group. */
  const GROUP_BYTES = ROWS * 4096;

  /** A file of lists in small groups, compressed, and the loader's counts after some epochs of it. */
  async function load(options: NonNullable<Options>) {
    const field = { name: "list", kind: "list", dtype: "I32", nullable: false } as const;
    const groups = Array.from({ length: GROUPS }, (_, group) => {
      const values = new Uint8Array(
        Int32Array.from({ length: ROWS * 1024 }, (_, i) => group * 7 + (i >>> 8)).buffer,
      );
      const offsets = Int32Array.from({ length: ROWS + 1 }, (_, row) => row * 1024);
      return { numRows: ROWS, columns: [{ values, offsets, nullCount: 0 }] };
    });
    const compress = (bytes: Uint8Array) => compressFrame("lz4", 1, bytes);
    const path = temp("random.arrow");
    writeFileSync(path, fileOf([field], groups, () => ({ codec: "lz4", compress })).bytes);
    await using loader = await openLoader(path, { batchSize: 100, seed: 1, epochs: 3, ...options });
    let rows = 0;
    for await (using batch of loader) {
      const column = batch.column("list");
      batch.sampleIds.forEach((id, row) => {
        const values = column.row(row) as Int32Array;
        const first = Math.floor(id / ROWS) * 7 + (id % ROWS) * 4;
        expect([values.length, values[0], values[1023]]).toEqual([1024, first, first + 3]);
        rows++;
      });
    }
    expect(rows).toBe(3 * GROUPS * ROWS);
    return loader.stats;
  }

  test("decode each chunk of values once, on the lanes, and none for the offsets beside it", async () => {
    const { decodedBytes } = await load({});
    expect(decodedBytes).toBe(GROUPS * GROUP_BYTES);
  });

  test("say that their chunks come again, and what may be kept of them", async () => {
    const start = spyOn(DecodePool.prototype, "start");
    const asked = async (options: NonNullable<Options>) => {
      start.mockClear();
      const { arenaBytes } = await load(options);
      return { arenaBytes, options: start.mock.lastCall![1]! };
    };
    try {
      expect((await asked({})).options).toMatchObject({ comeAgain: true, keepBytes: undefined });
      const { arenaBytes, options } = await asked({ seed: undefined, memoryBytes: 2 ** 26, timeoutMs: 9999 });
      expect(options).toEqual({ comeAgain: false, keepBytes: 2 ** 26 - arenaBytes, timeoutMs: 9999 });
    } finally {
      start.mockRestore();
    }
  });

  test("decode again what memoryBytes leaves no room for, at most once for each batch and row", async () => {
    const batchBytes = 100 * 4096;
    // The arena's segments grow by a mebibyte, and leave room for about half of the chunks.
    const arenaBytes = 2 * 2 ** 20;
    const memoryBytes = arenaBytes + (GROUPS / 2) * GROUP_BYTES;
    const { decodedBytes, arenaBytes: arena } = await load({ memoryBytes, prefetch: 1 });
    expect(arena).toBe(arenaBytes);
    expect(batchBytes).toBeLessThan(2 ** 20);
    const batches = 3 * Math.ceil((GROUPS * ROWS) / 100);
    const most = batches * GROUPS * GROUP_BYTES;
    expect(decodedBytes).toBeGreaterThan(3 * GROUPS * GROUP_BYTES);
    // Half of them are there for each batch.
    expect(decodedBytes).toBeLessThan(0.6 * most);
  });
});
