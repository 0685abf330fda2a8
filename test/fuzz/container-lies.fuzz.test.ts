/**
 * Compressed files whose tables and headers lie, that are cut off anywhere, or that are bombs. What is decoded chunk by
 * chunk is what decoding from the start to the end gives, or one of them ends by code; memory and time are bounded.
 * `HEADRACE_FUZZ_RUNS` sets the number of files; a failure prints its seed.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import {
  closeSync,
  ftruncateSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { openDecoder } from "../../src/codec/open.ts";
import { decodeFile } from "../../src/codec/whole-file.ts";
import { HeadraceError } from "../../src/errors.ts";
import { describeContainer } from "../../src/format/container.ts";
import { compressFrame } from "../unit/codec/frames.ts";
import { lz4Flushed, lz4Legacy } from "../unit/codec/lz4-by-hand.ts";
import { decodeGuarded, NO_LIBRARIES, texture, withVariables } from "../unit/codec/memory.ts";
import { claiming, lying, type Made } from "./container-lies.ts";

const RUNS = Number(process.env.HEADRACE_FUZZ_RUNS ?? 1000);
/** Bytes that are decoded at all. */
const LIMIT = 2 ** 22;
const CODES = ["BAD_CHUNK", "UNKNOWN_FORMAT", "UNSUPPORTED_COMPRESSION", "DISK_FULL"];

const decoders = [openDecoder(), withVariables(NO_LIBRARIES, () => openDecoder())];
let folder = "";
let target = 0;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "headrace-lies-"));
  target = openSync(join(folder, "decoded"), "w+");
});
afterAll(() => {
  closeSync(target);
  rmSync(folder, { recursive: true, force: true });
  for (const one of decoders) one.close();
});

type Outcome = { readonly bytes: Uint8Array } | { readonly code: string };

function failed(error: unknown): Outcome {
  if (!(error instanceof HeadraceError)) throw error;
  expect(CODES).toContain(error.code);
  expect(error.message).not.toMatch(/[\n\r]/);
  return { code: error.code };
}

/** All chunks, each by itself; undefined where the file has none, or they are too long for here. */
function byChunks({ file, codec }: Made): Outcome | undefined {
  try {
    const read = (at: number, length: number) => {
      expect(at >= 0 && length >= 0 && at + length <= file.length).toBe(true);
      return file.subarray(at, at + length);
    };
    const described = describeContainer(read, file.length, `a.arrow.${codec === "zstd" ? "zst" : "lz4"}`);
    if (!described.seekable || described.table.byteLength > LIMIT) return undefined;
    const { table } = described;
    const bytes = new Uint8Array(table.byteLength);
    for (let i = 0; i < table.numChunks; i++) {
      const [start, end] = [table.starts[i]!, table.starts[i + 1]!];
      const at = table.fileOffset[i]!;
      const chunk = file.subarray(at, at + table.fileLength[i]!);
      const extras = { checksum: table.checksums?.[i] };
      const [one, other] = decoders.map((decoder) =>
        decodeGuarded(decoder, table.codec[i]!, chunk, end - start, extras),
      );
      const error = one!.error ?? other!.error;
      if (error !== undefined) throw error;
      expect(Buffer.compare(one!.bytes, other!.bytes)).toBe(0);
      bytes.set(one!.bytes, start);
    }
    return { bytes };
  } catch (error) {
    return failed(error);
  }
}

async function asWhole({ file, codec }: Made): Promise<Outcome> {
  const path = join(folder, "source");
  writeFileSync(path, file);
  ftruncateSync(target, 0);
  const source = openSync(path, "r");
  try {
    const work = { codec, source, sourceLength: file.length, target, checksums: true, limit: LIMIT };
    const byteLength = await decodeFile(work);
    const bytes = new Uint8Array(readFileSync(join(folder, "decoded")));
    expect(bytes.length).toBe(byteLength);
    return { bytes };
  } catch (error) {
    return failed(error);
  } finally {
    closeSync(source);
  }
}

const seen = new Map<string, number>();

async function check(made: Made): Promise<void> {
  const started = performance.now();
  const [chunks, whole] = [byChunks(made), await asWhole(made)];
  expect(performance.now() - started).toBeLessThan(2000);
  const note = (way: string, outcome: Outcome | undefined) => {
    const what = outcome === undefined ? "none" : "code" in outcome ? outcome.code : "ok";
    seen.set(`${way} ${what}`, (seen.get(`${way} ${what}`) ?? 0) + 1);
  };
  note("chunks", chunks);
  note("whole", whole);
  const { content } = made;
  for (const outcome of [chunks, whole]) {
    if (outcome === undefined || content === undefined) continue;
    if ("bytes" in outcome) expect(Buffer.compare(outcome.bytes, content)).toBe(0);
    // An empty file is none, but what it decompresses to is known.
    else expect([content.length, outcome.code]).toEqual([0, "BAD_CHUNK"]);
  }
  if (chunks === undefined || !("bytes" in chunks)) return;
  if (!("bytes" in whole)) throw new Error(`chunks are fine, and the whole is ${whole.code}`);
  expect(Buffer.compare(chunks.bytes, whole.bytes)).toBe(0);
}

const run = (files: fc.Arbitrary<Made>) => fc.assert(fc.asyncProperty(files, check), { numRuns: RUNS });

test("tables that lie, in files put together", async () => {
  seen.clear();
  await run(lying);
  if (process.env.HEADRACE_FUZZ_RUNS !== undefined) console.log(Object.fromEntries(seen));
  if (RUNS < 500) return;
  for (const one of ["chunks ok", "chunks BAD_CHUNK", "chunks none", "whole ok"])
    expect(seen.get(one) ?? 0).toBeGreaterThan(9);
});

test("frames that claim another length than they have", async () => {
  seen.clear();
  await run(claiming);
  if (RUNS < 500) return;
  for (const one of ["chunks ok", "chunks BAD_CHUNK", "whole BAD_CHUNK"])
    expect(seen.get(one) ?? 0).toBeGreaterThan(0);
});

describe("files that are cut off at any byte", () => {
  const zstd = (length: number) => compressFrame("zstd", 1, texture(length));
  const files: [string, Made][] = [
    [
      "zstd",
      {
        codec: "zstd",
        file: new Uint8Array(Buffer.concat([zstd(300), zstd(0), zstd(40)])),
        content: undefined,
      },
    ],
    [
      "lz4",
      {
        codec: "lz4",
        file: lz4Flushed([texture(100), texture(200)], { checksums: true }),
        content: undefined,
      },
    ],
    ["lz4 -l", { codec: "lz4", file: lz4Legacy([texture(300)]), content: undefined }],
  ];
  test.each(files)("%s", async (_, { codec, file }) => {
    for (let length = 0; length < file.length; length++) {
      await check({ codec, file: file.slice(0, length), content: undefined });
    }
  });
});

test("bombs are decoded in little memory, and are no more than what may be taken", async () => {
  // A mebibyte of blocks that repeat one byte 128 Ki times, of no known length: 32 GiB.
  const block = Uint8Array.of(2 + ((2 ** 17) << 3), (2 ** 17) >>> 5, (2 ** 17) >>> 13, 0);
  const blocks = Buffer.concat(Array(2 ** 18).fill(block));
  const zstd = Buffer.concat([Uint8Array.of(0x28, 0xb5, 0x2f, 0xfd, 0, 10 << 3), blocks]);
  // Frames of 4 MiB of zeros, each of 16 KiB.
  const lz4 = Buffer.concat(Array(64).fill(lz4Flushed([new Uint8Array(2 ** 22)], { blockId: 7 })));
  for (const [codec, file] of [
    ["zstd", zstd],
    ["lz4", lz4],
  ] as const) {
    Bun.gc(true);
    const before = process.memoryUsage.rss();
    expect(await asWhole({ codec, file: new Uint8Array(file), content: undefined })).toEqual({
      code: "DISK_FULL",
    });
    expect(process.memoryUsage.rss() - before).toBeLessThan(64 * 2 ** 20);
  }
});
