/** What `verify` finds in shards that were changed after they were packed. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { cpSync, mkdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type Manifest, pack, type VerifyReport, verify } from "../../src/index.ts";
import { useTempDir } from "../loader/helpers.ts";
import { rejection, textFile } from "./text.ts";

setDefaultTimeout(60_000);

const temp = useTempDir();
const DATASETS = join(import.meta.dir, "../../datasets");

/** Three shards with text, numbers and lists. */
async function dataset(folder: string, options: Partial<Parameters<typeof pack>[1]> = {}): Promise<string> {
  const rows = Array.from({ length: 3000 }, (_, i) => ({
    id: i,
    text: `${i} `.repeat(300),
    tokens: [i, -i],
    half: i / 2,
  }));
  const path = textFile(folder, "a.jsonl", rows.map((row) => `${JSON.stringify(row)}\n`).join(""));
  const out = join(folder, "out");
  await pack(path, { out, shardBytes: 2 ** 21, rowsPerBatch: 500, ...options });
  return out;
}

function change(path: string, edit: (bytes: Buffer) => void): void {
  const bytes = readFileSync(path);
  edit(bytes);
  writeFileSync(path, bytes);
}

function changeManifest(folder: string, edit: (manifest: Manifest) => unknown): void {
  const path = join(folder, "dataset.json");
  writeFileSync(path, JSON.stringify(edit(JSON.parse(readFileSync(path, "utf8")))));
}

/** Codes by shard. */
function codes(report: VerifyReport): string[][] {
  return report.shards.map(({ problems }) => problems.map(({ code }) => code));
}

test.each([["none"], ["zstd"], ["lz4"], ["zstd-body"], ["lz4-body"]] as const)(
  "all is well with codec %s",
  async (codec) => {
    const folder = await dataset(temp("well"), { codec });
    const seen: number[] = [];
    const report = await verify(folder, { onProgress: (bytes, total) => seen.push(bytes / total) });
    expect(report).toMatchObject({ manifest: true, samples: 3000, failedShards: 0 });
    expect(report.shards.length).toBeGreaterThan(1);
    for (const { checks } of report.shards)
      expect(checks).toEqual(["size", "sha256", "structure", "schema", "samples", "values", "bounds"]);
    expect(seen.at(-1)).toBeCloseTo(1, 6);
    expect(seen).toEqual(seen.toSorted((a, b) => a - b));
  },
);

test.each([["prose"], ["digits"], ["tiny-llama"]])("all is well with %s", async (name) => {
  expect((await verify(join(DATASETS, name))).failedShards).toBe(0);
});

describe("what is wrong", () => {
  test("every shard that is damaged is named, and not only the first", async () => {
    const folder = await dataset(temp("all"));
    const shards = (await verify(folder)).shards.map(({ path }) => path);
    expect(shards.length).toBeGreaterThan(2);
    change(shards[0]!, (bytes) =>
      bytes.writeUInt8(bytes.readUInt8(bytes.length >> 1) ^ 1, bytes.length >> 1),
    );
    truncateSync(shards[1]!, 5000);
    rmSync(shards[2]!);
    const report = await verify(folder);
    expect(report.failedShards).toBe(3);
    const [first, second, third] = codes(report);
    expect(first![0]).toBe("DIGEST_MISMATCH");
    expect(second).toContain("FILE_CHANGED");
    expect(third).toContain("SOURCE_NOT_FOUND");
    expect(report.shards[0]!.problems[0]!.message).toMatch(
      /a-00000\.arrow: its sha256 is [0-9a-f]{64}, and dataset\.json lists/,
    );
  });

  test.each([["zstd"], ["lz4"], ["zstd-body"]] as const)(
    "a chunk of %s, also where nothing lists its digest",
    async (codec) => {
      const folder = await dataset(temp("chunk"), { codec });
      changeManifest(folder, (manifest) => ({
        ...manifest,
        shards: manifest.shards.map(({ sha256: _, ...shard }) => shard),
      }));
      expect((await verify(folder)).failedShards).toBe(0);
      const [path] = (await verify(folder)).shards.map((shard) => shard.path);
      // Somewhere in the data.
      change(path!, (bytes) =>
        bytes.fill(0x5a, Math.floor(bytes.length * 0.4), Math.floor(bytes.length * 0.4) + 64),
      );
      const report = await verify(folder);
      expect(codes(report)[0]).toEqual(["BAD_CHUNK"]);
      expect(report.failedShards).toBe(1);
    },
  );

  test("a manifest that lists other bounds, counts, nulls or columns", async () => {
    const folder = await dataset(temp("lies"));
    const path = join(folder, "dataset.json");
    const good = readFileSync(path, "utf8");
    const withShard = (
      edit: (shard: Record<string, unknown> & { columns: Record<string, object> }) => object,
    ) =>
      changeManifest(folder, (manifest) => ({
        ...manifest,
        shards: manifest.shards.map((shard, i) => (i === 1 ? edit(shard as never) : shard)),
      }));
    for (const [what, value] of [
      ["min", -5],
      ["max", "Infinity"],
      ["nulls", 1],
    ] as const) {
      withShard((shard) => ({
        ...shard,
        columns: { ...shard.columns, half: { ...shard.columns.half, [what]: value } },
      }));
      const report = await verify(folder);
      expect(codes(report).slice(0, 2)).toEqual([[], ["DIGEST_MISMATCH"]]);
      expect(report.shards[1]!.problems[0]!.message).toMatch(
        new RegExp(`column "half" has ${what} [\\d.]+, and dataset\\.json lists ${value}`),
      );
      writeFileSync(path, good);
    }
    changeManifest(folder, (manifest) => {
      const [a, b, ...rest] = manifest.shards;
      return {
        ...manifest,
        shards: [{ ...a!, samples: a!.samples + 1 }, { ...b!, samples: b!.samples - 1 }, ...rest],
      };
    });
    expect(codes(await verify(folder)).slice(0, 2)).toEqual([["FILE_CHANGED"], ["FILE_CHANGED"]]);
    writeFileSync(path, good.replace('"dtype": "F64"', '"dtype": "F32"'));
    expect(codes(await verify(folder))[0]).toEqual(["SCHEMA_MISMATCH"]);
    writeFileSync(path, "{");
    expect((await rejection(() => verify(folder))).code).toBe("BAD_MANIFEST");
  });

  test("offsets that decrease, codes outside their dictionary, text that is no UTF-8", async () => {
    const folder = temp("values");
    const golden = join(import.meta.dir, "../../datasets/prose");
    cpSync(golden, folder, { recursive: true });
    rmSync(join(folder, "dataset.json"));
    const shard = join(folder, "prose-00001.arrow");
    const clean = readFileSync(shard);
    // The first text of the shard is there as it is.
    change(shard, (bytes) => bytes.writeUInt8(0xff, bytes.indexOf("the ")));
    const text = await verify(shard);
    expect(codes(text)).toEqual([["BAD_INPUT"]]);
    expect(text.manifest).toBe(false);
    writeFileSync(shard, clean);
    const ints = new Int32Array(clean.buffer.slice(clean.byteOffset, clean.byteOffset + (clean.length & ~3)));
    const run = ints.findIndex(
      (value, i) =>
        value === 0 &&
        i > 500 &&
        [1, 2, 3, 4].every((k) => ints[i + k]! > ints[i + k - 1]! + 20 && ints[i + k]! < 10_000),
    );
    expect(run).toBeGreaterThan(0);
    change(shard, (bytes) => bytes.writeInt32LE(-7, 4 * (run + 2)));
    expect(codes(await verify(shard))).toEqual([["BAD_OFFSETS"]]);
  });

  test("cancelled, and nothing there", async () => {
    const failure = await rejection(() => verify(join(DATASETS, "prose"), { signal: AbortSignal.abort() }));
    expect(failure.code).toBe("CANCELLED");
    expect((await rejection(() => verify(temp("nowhere")))).code).toBe("SOURCE_NOT_FOUND");
  });
});

/** A file of one tensor that compresses badly, of several blocks of LZ4. */
function tensorFile(folder: string): string {
  const values = new Uint8Array(9 * 2 ** 20);
  for (let i = 0, state = 1; i < values.length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    values[i] = state >>> 24;
  }
  const header = Buffer.from(`{"x":{"dtype":"U8","shape":[9,1048576],"data_offsets":[0,${values.length}]}}`);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(header.length));
  const path = join(folder, "a.safetensors");
  mkdirSync(folder, { recursive: true });
  writeFileSync(path, Buffer.concat([length, header, values]));
  return path;
}

function compress(command: string[], path: string, ending: string): string {
  const { exitCode, stdout, stderr } = Bun.spawnSync(command, { stdin: Bun.file(path) });
  if (exitCode !== 0) throw new Error(String(stderr));
  writeFileSync(path + ending, stdout);
  return path + ending;
}

test.skipIf(Bun.which("zstd") === null)("a file of the zstd command without random access", async () => {
  const folder = temp("piped");
  const path = compress(["zstd", "-c"], tensorFile(folder), ".zst");
  expect(codes(await verify(path))).toEqual([[]]);
  change(path, (bytes) => {
    bytes[5_000_000]! ^= 1;
  });
  expect(codes(await verify(path))).toEqual([["BAD_CHUNK"]]);
});

test.skipIf(Bun.which("lz4") === null).each([[[]], [["-BX"]], [["--no-frame-crc", "-BX"]]])(
  "a file of the lz4 command, by its own checksums (%p)",
  async (options) => {
    const folder = temp("frames");
    const path = compress(["lz4", "-c", ...options], tensorFile(folder), ".lz4");
    expect(codes(await verify(path))).toEqual([[]]);
    change(path, (bytes) => {
      bytes[5_000_000]! ^= 1;
    });
    expect(codes(await verify(path))).toEqual([["BAD_CHUNK"]]);
  },
);
