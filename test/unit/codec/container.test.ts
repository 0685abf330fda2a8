/** Containers as they are written: what is in them, and that nothing else changes it. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openCompressPool } from "../../../src/codec/compress-pool.ts";
import type { ContainerOptions } from "../../../src/codec/container.ts";
import { openDecoder } from "../../../src/codec/open.ts";
import { HeadraceError } from "../../../src/errors.ts";
import { describeContainer, type SeekableContainer } from "../../../src/format/container.ts";
import { encodeHeader } from "../../../src/format/safetensors-header.ts";
import { temporaryPath } from "../../../src/pack/files.ts";
import type { DType } from "../../../src/types.ts";
import { containerAt } from "./container-at.ts";
import { decodeGuarded, texture } from "./memory.ts";

let folder = "";
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "headrace-container-"));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

async function write(name: string, bytes: Uint8Array, options: ContainerOptions, step = 10_007) {
  const path = join(folder, name);
  const writer = await containerAt(path, options);
  for (let at = 0; at < bytes.length; at += step) await writer.write(bytes.subarray(at, at + step));
  const end = await writer.finish();
  const file = new Uint8Array(readFileSync(path));
  const sha256 = new Bun.CryptoHasher("sha256").update(file).digest("hex");
  expect(end.byteLength).toBe(bytes.length);
  expect(end.file).toMatchObject({ fileBytes: file.length, sha256 });
  return { path, file };
}

function describeFile(path: string, file: Uint8Array): SeekableContainer {
  const container = describeContainer((at, length) => file.subarray(at, at + length), file.length, path);
  if (!container.seekable) throw new Error(container.wholeReason);
  return container;
}

/** All chunks, each by itself, in an order that is not the file's. */
function decodeAll(path: string, file: Uint8Array): Uint8Array {
  const { table } = describeFile(path, file);
  const decoder = openDecoder();
  const result = new Uint8Array(table.byteLength);
  for (let k = 0; k < table.numChunks; k++) {
    const i = table.numChunks - 1 - k;
    const chunk = file.subarray(table.fileOffset[i]!, table.fileOffset[i]! + table.fileLength[i]!);
    const length = table.starts[i + 1]! - table.starts[i]!;
    const extras = { planes: table.planes?.[i], checksum: table.checksums?.[i] };
    const { bytes, error } = decodeGuarded(decoder, table.codec[i]!, chunk, length, extras);
    if (error !== undefined) throw error;
    result.set(bytes, table.starts[i]!);
  }
  decoder.close();
  return result;
}

const SPECS: [string, DType, number[]][] = [
  ["a.bf16", "BF16", [300, 101]],
  ["b.f32", "F32", [7, 1001]],
  ["c.f32", "F32", [5]],
  ["d.f16", "F16", [3]],
  ["e.ids", "I32", [4000]],
  ["f.bytes", "U8", [3]],
];

/** A safetensors file of several types, padded so that data starts at a page. */
function weights(): Uint8Array {
  const widths: Record<string, number> = { BF16: 2, F16: 2, F32: 4, I32: 4, U8: 1 };
  const specs = SPECS.map(([name, dtype, shape]) => {
    const byteLength = shape.reduce((product, n) => product * n, widths[dtype]!);
    return { name, dtype, shape, byteLength };
  });
  const { header, dataByteLength } = encodeHeader(specs, {}, { alignment: 4096 });
  const file = new Uint8Array(header.length + dataByteLength);
  file.set(texture(file.length, 5));
  file.set(header);
  return file;
}

describe.each([
  ["t.arrow.zst", { codec: "zstd" }],
  ["t.arrow.lz4", { codec: "lz4" }],
  ["t.safetensors.lz4", { codec: "lz4", level: 9, checksum: false }],
  ["t.safetensors.zst", { codec: "zstd", level: 1, chunkBytes: 4096 }],
  ["t.safetensors.bp.zst", { codec: "zstd", planes: true, chunkBytes: 8192 }],
] as [string, ContainerOptions][])("%s with %j", (name, options) => {
  test("gives back what was written, chunk by chunk", async () => {
    const bytes = weights();
    const { path, file } = await write(name, bytes, options);
    expect(Buffer.compare(decodeAll(path, file), bytes)).toBe(0);
    const { table, inner, codec, hasTable } = describeFile(path, file);
    expect([inner, codec, hasTable]).toEqual([name.split(".")[1]!, options.codec, true] as never);
    expect(table.maxLength).toBeLessThanOrEqual(options.chunkBytes ?? 2 ** 20);
    expect(table.checksums !== undefined).toBe(options.codec === "lz4" && options.checksum !== false);
    expect(existsSync(temporaryPath(path))).toBe(false);
  });

  test("is the same whatever the threads and the pieces", async () => {
    const bytes = weights();
    const { file } = await write(name, bytes, { ...options, threads: 1 }, 1_000_000);
    for (const [threads, step] of [
      [3, 77_777],
      [2, 4095],
    ] as const) {
      expect(Buffer.compare((await write(name, bytes, { ...options, threads }, step)).file, file)).toBe(0);
    }
  });
});

test("planes follow the tensors' types", async () => {
  const bytes = weights();
  const { path, file } = await write("p.safetensors.bp.zst", bytes, {
    codec: "zstd",
    planes: true,
    chunkBytes: 65_536,
  });
  const { table } = describeFile(path, file);
  const chunks = Array.from({ length: table.numChunks }, (_, i) => [table.starts[i]!, table.planes![i]!]);
  // Written by falling size of elements; types of one width that lie together are one stretch.
  const f32 = 4096 + (7 * 1001 + 5) * 4;
  const i32 = f32 + 4000 * 4;
  const bf16 = i32 + 300 * 101 * 2 + 3 * 2;
  expect(chunks).toEqual([
    [0, 1],
    [4096, 4],
    [f32, 1],
    [i32, 2],
    [bf16, 1],
  ]);
});

test("byte planes need a safetensors file that is whole", async () => {
  const codes: [Uint8Array, string][] = [
    [texture(5000).fill(255, 0, 8), "HEADER_TOO_LARGE"],
    [new TextEncoder().encode("\u0003\0\0\0\0\0\0\0abc"), "HEADER_NOT_JSON"],
    [weights().subarray(0, 3000), "DATA_INCOMPLETE"],
    [weights().subarray(0, 7), "DATA_INCOMPLETE"],
    [new Uint8Array([...weights(), 1]), "DATA_INCOMPLETE"],
  ];
  for (const [bytes, code] of codes) {
    const path = join(folder, "bad.safetensors.bp.zst");
    const writer = await containerAt(path, { codec: "zstd", planes: true });
    const work = (async () => {
      for (let at = 0; at < bytes.length; at += 1000) await writer.write(bytes.subarray(at, at + 1000));
      await writer.finish();
    })();
    expect(await codeOf(work)).toBe(code);
    await writer.abort();
    expect(existsSync(path) || existsSync(temporaryPath(path))).toBe(false);
  }
});

test("options out of their bounds are refused", async () => {
  const path = join(folder, "options.arrow.zst");
  for (const options of [
    { codec: "gzip" },
    { codec: "zstd", level: 0 },
    { codec: "lz4", level: 13 },
    { codec: "zstd", chunkBytes: 1024 },
    { codec: "zstd", chunkBytes: 4098 },
    { codec: "zstd", chunkBytes: 2 ** 30 + 4 },
    { codec: "zstd", threads: 0 },
    { codec: "lz4", planes: true },
  ]) {
    expect(await codeOf(containerAt(path, options as ContainerOptions))).toBe("BAD_OPTION");
  }
  expect(existsSync(temporaryPath(path))).toBe(false);
});

test("abort leaves nothing, also with chunks under way, and ends the writer", async () => {
  const path = join(folder, "aborted.arrow.lz4");
  const writer = await containerAt(path, { codec: "lz4", chunkBytes: 4096 });
  await writer.write(texture(20_000));
  await writer.abort();
  await writer.abort();
  expect(readdirSync(folder).filter((name) => name.includes("aborted"))).toEqual([]);
  expect(await codeOf(writer.write(texture(10)))).toBe("CLOSED");
});

test("nothing written is no container, and a folder that is not there is IO_ERROR", async () => {
  const empty = await containerAt(join(folder, "empty.arrow.zst"), { codec: "zstd" });
  expect(await codeOf(empty.finish())).toBe("BAD_OPTION");
  await empty.abort();
  expect(await codeOf(containerAt(join(folder, "no/where.zst"), { codec: "zstd" }))).toBe("IO_ERROR");
});

test("a name that is taken by a folder is told", async () => {
  const taken = join(folder, "taken.arrow.zst");
  mkdirSync(taken);
  const writer = await containerAt(taken, { codec: "zstd" });
  await writer.write(texture(10));
  expect(await codeOf(writer.finish())).toBe("IO_ERROR");
  await writer.abort();
  expect(existsSync(temporaryPath(taken))).toBe(false);
});

test("a thread that dies fails what waits for it and all that comes after", async () => {
  const pool = openCompressPool({ codec: "zstd", level: 99, checksum: true }, 2);
  const work = () => {
    const buffer = new ArrayBuffer(8);
    return pool.run({ buffer, byteLength: 8, planes: 1 }, [buffer]);
  };
  const first = work();
  const second = work();
  expect(await codeOf(first)).toBe("DEVICE_FAILED");
  expect(await codeOf(second)).toBe("DEVICE_FAILED");
  expect(await codeOf(work())).toBe("DEVICE_FAILED");
  pool.close();
});

test("a container leaves nothing of what its threads took", async () => {
  const bytes = texture(2 ** 19);
  const writeSome = async (count: number) => {
    for (let i = 0; i < count; i++) {
      const path = join(folder, "many.bin.zst");
      const writer = await containerAt(path, { codec: "zstd", level: 19, threads: 1 });
      await writer.write(bytes);
      await writer.finish();
    }
    Bun.gc(true);
    // Threads end after the container is finished.
    await Bun.sleep(100);
    return process.memoryUsage.rss();
  };
  const before = await writeSome(2);
  // A context of level 19 takes 8 MiB and more.
  expect((await writeSome(12)) - before).toBeLessThan(40 * 2 ** 20);
});

async function codeOf(work: Promise<unknown>): Promise<string> {
  const error = await work.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(HeadraceError);
  expect((error as Error).message).not.toContain("\n");
  return (error as HeadraceError).code;
}
