/** Files without random access, decoded once: linked frames, frames of unknown length, and what must not be. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import {
  closeSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createZstdCompress, zstdCompressSync } from "node:zlib";
import type { CodecName } from "../../../src/codec/codec.ts";
import { encodeLz4Block, lz4Bound } from "../../../src/codec/lz4-block.ts";
import { decodeWhole, type WholeOptions } from "../../../src/codec/whole.ts";
import { decodeFile, type WholeWork } from "../../../src/codec/whole-file.ts";
import { HeadraceError } from "../../../src/errors.ts";
import { describeContainer } from "../../../src/format/container.ts";
import { XxHash32 } from "../../../src/format/xxhash.ts";
import { compressFrame, zstdWithoutLength } from "./frames.ts";
import { lz4Flushed, lz4Legacy } from "./lz4-by-hand.ts";
import { NO_LIBRARIES, texture } from "./memory.ts";

let folder = "";
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "headrace-whole-"));
  mkdirSync(join(folder, "spill"));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** A frame whose header has no length. */
async function streamed(bytes: Uint8Array): Promise<Uint8Array> {
  const stream = createZstdCompress();
  stream.end(bytes);
  return new Uint8Array(Buffer.concat(await Array.fromAsync(stream)));
}

/** A linked LZ4 frame of blocks of 64 KiB without a length, with a checksum; each block repeats the one before by matches
 * of `distance`. */
function linked(first: Uint8Array, repeats: number): { frame: Uint8Array; bytes: Uint8Array } {
  const head = Uint8Array.of(0x04, 0x22, 0x4d, 0x18, 0x44, 0x40, 0);
  head[6] = (new XxHash32().update(head.subarray(4, 6)).digest() >>> 8) & 0xff;
  const block = new Uint8Array(lz4Bound(first.length));
  const length = encodeLz4Block(first, block);
  const match = first.length - 5;
  const more = Array.from({ length: Math.floor((match - 19) / 255) }, () => 255);
  // No literals, a match as far back as the block is long, then its last five bytes as they are.
  const repeat = [
    0x0f,
    first.length & 255,
    first.length >>> 8,
    ...more,
    (match - 19) % 255,
    0x50,
    ...first.subarray(-5),
  ];
  const sized = (bytes: ArrayLike<number>) => [
    new Uint8Array(Uint32Array.of(bytes.length).buffer),
    Uint8Array.from(bytes),
  ];
  const bytes = new Uint8Array(Buffer.concat(Array.from({ length: repeats + 1 }, () => first)));
  const hash = Uint32Array.of(0, Bun.hash.xxHash32(bytes, 0));
  const blocks = Array.from({ length: repeats }, () => sized(repeat)).flat();
  return {
    bytes,
    frame: new Uint8Array(
      Buffer.concat([head, ...sized(block.subarray(0, length)), ...blocks, new Uint8Array(hash.buffer)]),
    ),
  };
}

function put(name: string, bytes: Uint8Array): string {
  const path = join(folder, name);
  writeFileSync(path, bytes);
  return path;
}

const decodeByWorker = (path: string, codec: CodecName, more: Partial<WholeOptions> = {}) =>
  decodeWhole(path, { codec, folder: join(folder, "spill"), ...more });

/** The same without a Worker and without libraries. */
async function decodeHere(
  path: string,
  codec: CodecName,
  { maxBytes = 2 ** 30, checksums = true }: Partial<WholeOptions>,
) {
  const result = join(folder, "decoded");
  const [source, target] = [openSync(path, "r"), openSync(result, "w")];
  try {
    const work = { codec, source, sourceLength: statSync(path).size, target, checksums, limit: maxBytes };
    const byteLength = await decodeFileWithout(work);
    return { path: result, byteLength, [Symbol.dispose]() {} };
  } catch (error) {
    throw error instanceof HeadraceError ? error.within(path) : error;
  } finally {
    closeSync(source);
    closeSync(target);
  }
}

async function decodeFileWithout(work: WholeWork): Promise<number> {
  const before = { ...process.env };
  Object.assign(process.env, NO_LIBRARIES);
  try {
    return await decodeFile(work);
  } finally {
    for (const name of Object.keys(NO_LIBRARIES)) {
      if (before[name] === undefined) delete process.env[name];
      else process.env[name] = before[name];
    }
  }
}

async function failureOf(work: Promise<unknown>, path: string) {
  const error = await work.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(HeadraceError);
  expect((error as Error).message).toContain(path);
  expect(readdirSync(join(folder, "spill"))).toEqual([]);
  return error as HeadraceError;
}

describe.each([
  ["the system's libraries", {}],
  ["what stands in for them", NO_LIBRARIES],
] as [string, Record<string, string>][])("by %s", (_, variables) => {
  /** On this thread where variables are to count: Workers have the environment that the process started with. */
  const decode = (path: string, codec: CodecName, more: Partial<WholeOptions> = {}) =>
    variables === NO_LIBRARIES ? decodeHere(path, codec, more) : decodeByWorker(path, codec, more);
  const failure = (path: string, codec: CodecName, more: Partial<WholeOptions> = {}) =>
    failureOf(decode(path, codec, more), path);

  test("zstd of unknown length, of several frames", async () => {
    const [a, b] = [texture(3_000_000), texture(70_000, 2)];
    const path = put("a.arrow.zst", Buffer.concat([await streamed(a), compressFrame("zstd", 1, b)]));
    using whole = await decode(path, "zstd");
    expect(whole.byteLength).toBe(3_070_000);
    expect(Buffer.compare(readFileSync(whole.path), Buffer.concat([a, b]))).toBe(0);
    expect(readdirSync(join(folder, "spill"))).toEqual([]);
  });

  test("linked LZ4 of unknown length", async () => {
    const { frame, bytes } = linked(texture(60_000), 40);
    const path = put("a.arrow.lz4", frame);
    const described = describeContainer((at, n) => frame.subarray(at, at + n), frame.length, path);
    expect(described).toMatchObject({ seekable: false });
    using whole = await decode(path, "lz4");
    expect(Buffer.compare(readFileSync(whole.path), bytes)).toBe(0);
  });

  test("LZ4 of blocks that were flushed, of the old form, and linked ones in one file", async () => {
    const parts = [texture(65_536), texture(90, 2), texture(65_536, 3), texture(5, 4)];
    const { frame, bytes } = linked(texture(60_000), 4);
    const legacy = lz4Legacy([new Uint8Array(2 ** 23), texture(77)]);
    const file = Buffer.concat([
      legacy,
      frame,
      lz4Flushed(parts, { checksums: true }),
      legacy,
      lz4Flushed(parts),
    ]);
    const old = Buffer.concat([new Uint8Array(2 ** 23), texture(77)]);
    const content = Buffer.concat([old, bytes, ...parts, old, ...parts]);
    using whole = await decode(put("mixed.arrow.lz4", file), "lz4");
    expect(Buffer.compare(readFileSync(whole.path), content)).toBe(0);
  });

  test("a linked frame of LZ4 sees nothing of the frame before it", async () => {
    const { frame } = linked(texture(60_000), 1);
    const firstBlock = 4 + new DataView(frame.buffer).getUint32(7, true);
    const headless = Buffer.concat([frame.subarray(0, 7), frame.subarray(7 + firstBlock)]);
    const path = put("history.arrow.lz4", Buffer.concat([frame, headless]));
    const error = await failure(path, "lz4", { checksums: false });
    expect([error.code, error.message]).toEqual(["BAD_CHUNK", expect.stringContaining("is corrupt")]);
  });

  test.each(["zstd", "lz4"] as const)(
    "many tiny frames of %s cost no more than their bytes",
    async (codec) => {
      const bytes = texture(1000);
      const frame = codec === "zstd" ? zstdWithoutLength(zstdCompressSync(bytes)) : lz4Flushed([bytes]);
      const count = 50_000;
      const path = put(`tiny.arrow.${codec}`, Buffer.concat(Array(count).fill(frame)));
      const started = performance.now();
      using whole = await decode(path, codec);
      // A mebibyte read for each would take ten times as long, or memory of several.
      expect(performance.now() - started).toBeLessThan(3000);
      expect(Buffer.compare(readFileSync(whole.path), Buffer.concat(Array(count).fill(bytes)))).toBe(0);
    },
  );

  test("corrupt and cut files are BAD_CHUNK", async () => {
    const zstd = await streamed(texture(400_000));
    expect((await failure(put("cut.arrow.zst", zstd.subarray(0, 100_000)), "zstd")).code).toBe("BAD_CHUNK");
    expect((await failure(put("cut2.arrow.zst", zstd.subarray(0, zstd.length - 1)), "zstd")).code).toBe(
      "BAD_CHUNK",
    );
    expect((await failure(put("tail.arrow.zst", Buffer.concat([zstd, texture(9)])), "zstd")).code).toBe(
      "BAD_CHUNK",
    );
    const { frame } = linked(texture(60_000), 3);
    expect((await failure(put("cut.arrow.lz4", frame.subarray(0, frame.length - 2)), "lz4")).code).toBe(
      "BAD_CHUNK",
    );
    frame[frame.length - 1]! ^= 1;
    expect((await failure(put("sum.arrow.lz4", frame), "lz4")).message).toContain("checksum");
    using whole = await decode(put("sum.arrow.lz4", frame), "lz4", { checksums: false });
    expect(whole.byteLength).toBe(240_000);
  });

  test("a bomb ends at the limit, before the disk is full", async () => {
    const path = put("bomb.arrow.zst", await streamed(new Uint8Array(50_000_000)));
    const error = await failure(path, "zstd", { maxBytes: 5_000_000 });
    expect(error.code).toBe("DISK_FULL");
    expect(error.message).toContain("only 5000000 may be taken");
    const declared = put("declared.arrow.zst", compressFrame("zstd", 1, new Uint8Array(6_000_000)));
    expect((await failure(declared, "zstd", { maxBytes: 5_000_000 })).message).toContain("6000000 bytes");
  });
});

const failure = (path: string, more: Partial<WholeOptions> = {}) =>
  failureOf(decodeByWorker(path, "zstd", more), path);

test("files that are not there, folders that are not, and signals", async () => {
  expect((await failure(join(folder, "none.arrow.zst"))).code).toBe("SOURCE_NOT_FOUND");
  const path = put("b.arrow.zst", await streamed(texture(5_000_000)));
  const nowhere = decodeWhole(path, { codec: "zstd", folder: join(folder, "no") });
  expect(nowhere).rejects.toMatchObject({ code: "IO_ERROR" });
  expect((await failure(path, { signal: AbortSignal.abort() })).code).toBe("CANCELLED");
  const controller = new AbortController();
  const late = failure(path, { signal: controller.signal });
  controller.abort();
  expect((await late).code).toBe("CANCELLED");
});

/** Runs a command with a disk of 1 MiB at a folder, which nobody else sees. */
const onSmallDisk = (at: string) => [
  "unshare",
  "-rm",
  "sh",
  "-c",
  `mount -t tmpfs -o size=1m none '${at}' && exec "$0" "$@"`,
];
const hasSmallDisk = () =>
  Bun.which("unshare") !== null &&
  Bun.spawnSync([...onSmallDisk(join(folder, "spill")), "true"]).exitCode === 0;

test("a disk that is full is DISK_FULL, also where it seemed to have room", async () => {
  if (!hasSmallDisk()) return console.log("skipped: no disk can be mounted here");
  const spill = join(folder, "spill");
  const path = put("full.arrow.zst", await streamed(texture(5_000_000)));
  const script = put(
    "full.ts",
    Buffer.from(`import { decodeWhole } from ${JSON.stringify(join(import.meta.dir, "../../../src/codec/whole.ts"))};
      const error = await decodeWhole(${JSON.stringify(path)}, { codec: "zstd", folder: ${JSON.stringify(spill)}, maxBytes: 1e9 })
        .catch((error) => error);
      process.stdout.write(error.code + " " + error.message);`),
  );
  const { stdout } = Bun.spawnSync([...onSmallDisk(spill), process.execPath, script]);
  expect(stdout.toString()).toBe(
    `DISK_FULL ${path} (decoded in ${spill}): the disk is full (ENOSPC); free some space`,
  );
});

test("a window past 128 MiB is refused", async () => {
  // A window of 256 MiB, no length; one segment of a byte more than 128 MiB.
  const frame = Uint8Array.of(0x28, 0xb5, 0x2f, 0xfd, 0, 18 << 3, 1, 0, 0);
  const segment = Uint8Array.of(0x28, 0xb5, 0x2f, 0xfd, 0xa0, 1, 0, 0, 8, 1, 0, 0);
  for (const [bytes, length] of [
    [frame, "268435456"],
    [segment, "134217729"],
  ] as const) {
    const error = await failure(put("long.arrow.zst", bytes));
    expect(error.code).toBe("UNSUPPORTED_COMPRESSION");
    expect(error.message).toContain(length);
  }
});
