/** Compressed files between this library and the commands of zstd and LZ4: ours read by them, theirs read by us. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { CodecName } from "../../src/codec/codec.ts";
import type { ContainerOptions } from "../../src/codec/container.ts";
import { openDecoder } from "../../src/codec/open.ts";
import { decodeWhole } from "../../src/codec/whole.ts";
import { describeContainer } from "../../src/format/container.ts";
import { containerAt } from "../unit/codec/container-at.ts";
import { decodeGuarded, texture } from "../unit/codec/memory.ts";
import { failureOf } from "../unit/failure.ts";

function has(command: string): boolean {
  if (Bun.which(command) !== null) return true;
  console.log(`skipped: there is no command ${command} here`);
  return false;
}

const CONTENT = texture(1_500_000, 11);
let folder = "";
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "headrace-golden-"));
  writeFileSync(join(folder, "a.arrow"), CONTENT);
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function run(command: string[], stdin?: Uint8Array): Uint8Array {
  const { exitCode, stdout, stderr } = Bun.spawnSync(command, { cwd: folder, stdin: stdin ?? "ignore" });
  if (exitCode !== 0) throw new Error(`${command.join(" ")}: ${stderr}`);
  return new Uint8Array(stdout);
}

async function ours(name: string, options: ContainerOptions): Promise<string> {
  const path = join(folder, name);
  const writer = await containerAt(path, options);
  await writer.write(CONTENT);
  await writer.finish();
  return path;
}

/** How we read a file: the number of its chunks, after all of them gave `CONTENT`; or why it has to be one piece. */
async function read(path: string, content: Uint8Array = CONTENT): Promise<number | string> {
  const file = new Uint8Array(readFileSync(path));
  const described = describeContainer((at, length) => file.subarray(at, at + length), file.length, path);
  if (!described.seekable) {
    using whole = await decodeWhole(path, { codec: described.codec, folder });
    expect(Buffer.compare(readFileSync(whole.path), content)).toBe(0);
    return described.wholeReason;
  }
  const { table } = described;
  expect(table.byteLength).toBe(content.length);
  const decoder = openDecoder();
  for (let i = 0; i < table.numChunks; i++) {
    const start = table.starts[i]!;
    const chunk = file.subarray(table.fileOffset[i]!, table.fileOffset[i]! + table.fileLength[i]!);
    const length = table.starts[i + 1]! - start;
    const { bytes, error } = decodeGuarded(decoder, table.codec[i]!, chunk, length);
    if (error !== undefined) throw error;
    expect(Buffer.compare(bytes, content.subarray(start, start + length))).toBe(0);
  }
  decoder.close();
  return table.numChunks;
}

/** Writes what a command gives for `a.arrow`, and reads it. */
function theirs(codec: CodecName, command: string[], stdin?: Uint8Array): Promise<number | string> {
  const path = join(folder, `theirs.arrow.${codec === "zstd" ? "zst" : "lz4"}`);
  writeFileSync(path, run(command, stdin));
  return read(path);
}

describe.skipIf(!has("zstd"))("zstd", () => {
  test.each([1, 3, 12])("its command gives back what we wrote at level %i", async (level) => {
    const path = await ours("ours.arrow.zst", { codec: "zstd", level, chunkBytes: 100_000 });
    run(["zstd", "-t", path]);
    expect(Buffer.compare(run(["zstd", "-dc", path]), CONTENT)).toBe(0);
    expect(await read(path)).toBe(15);
  });

  test("it notices a bit that we changed", async () => {
    const path = await ours("flipped.arrow.zst", { codec: "zstd" });
    const file = readFileSync(path);
    file[9000]! ^= 4;
    writeFileSync(path, file);
    expect(() => run(["zstd", "-t", path])).toThrow();
    expect(read(path)).rejects.toMatchObject({ code: "BAD_CHUNK" });
  });

  test.each([
    ["of one frame", ["zstd", "-c", "a.arrow"], 1],
    ["of one frame without a checksum", ["zstd", "-c", "--no-check", "-19", "a.arrow"], 1],
    ["with a long window", ["zstd", "-c", "--long=27", "a.arrow"], 1],
    ["in the fast form", ["zstd", "-c", "--fast=5", "-T2", "a.arrow"], 1],
  ])("we read its files %s", async (_, command, chunks) => {
    expect(await theirs("zstd", command)).toBe(chunks);
  });

  test("we read frames that were put together, with and without lengths", async () => {
    const half = CONTENT.subarray(0, 700_000);
    const rest = CONTENT.subarray(700_000);
    writeFileSync(join(folder, "half"), half);
    const path = join(folder, "cat.arrow.zst");
    const sized = run(["zstd", "-c", "half"]);
    writeFileSync(join(folder, "rest"), rest);
    writeFileSync(path, Buffer.concat([sized, run(["zstd", "-c", "rest"])]));
    expect(await read(path)).toBe(2);
    writeFileSync(path, Buffer.concat([sized, run(["zstd", "-c"], rest)]));
    expect(await read(path)).toContain("does not say its length");
  });

  test("we read what it made of a pipe, as a whole", async () => {
    expect(await theirs("zstd", ["zstd", "-c"], CONTENT)).toContain("the frame at 0 does not say its length");
  });

  test("dictionaries are refused", () => {
    writeFileSync(join(folder, "dictionary"), CONTENT.subarray(0, 4096));
    const file = run(["zstd", "-c", "-D", "dictionary", "a.arrow"]);
    const describeIt = () =>
      describeContainer((at, n) => file.subarray(at, at + n), file.length, "d.arrow.zst");
    // One of raw content has no number, and shows when it is missing.
    const described = describeIt();
    expect(described.seekable && described.table.numChunks).toBe(1);
    const decoded = decodeGuarded(openDecoder(), 1, file, CONTENT.length);
    expect(decoded.error?.code).toBe("BAD_CHUNK");
    const samples = Array.from({ length: 300 }, (_, i) => {
      writeFileSync(join(folder, `s${i}`), texture(400, i % 7));
      return `s${i}`;
    });
    run(["zstd", "-q", "--train", ...samples, "--maxdict=2048", "-o", "trained"]);
    const trained = run(["zstd", "-c", "-D", "trained", "a.arrow"]);
    const error = failureOf(() =>
      describeContainer((at, n) => trained.subarray(at, at + n), trained.length, "d.arrow.zst"),
    );
    expect(error.code).toBe("UNSUPPORTED_COMPRESSION");
  });
});

describe.skipIf(!has("pzstd"))("pzstd", () => {
  test("we read its frames between skippable ones", async () => {
    expect(await theirs("zstd", ["pzstd", "-p", "2", "-c", "a.arrow"])).toContain(
      "the frame at 12 does not say",
    );
  });
});

describe.skipIf(!has("lz4"))("lz4", () => {
  test.each([1, 3, 9])("its command gives back what we wrote at level %i", async (level) => {
    const path = await ours("ours.arrow.lz4", { codec: "lz4", level, chunkBytes: 100_000 });
    run(["lz4", "-t", path]);
    expect(Buffer.compare(run(["lz4", "-dc", path]), CONTENT)).toBe(0);
    expect(await read(path)).toBe(15);
  });

  test("chunks of several blocks", async () => {
    const path = await ours("blocks.arrow.lz4", { codec: "lz4", chunkBytes: 2 ** 23 });
    expect(Buffer.compare(run(["lz4", "-dc", path]), CONTENT)).toBe(0);
    expect(await read(path)).toBe(1);
  });

  test.each([
    ["with its own settings", ["lz4", "-c", "a.arrow"], 1],
    ["of small blocks", ["lz4", "-c", "-B4", "-BI", "a.arrow"], 23],
    ["of blocks with checksums", ["lz4", "-c", "-B5", "-BI", "-BX", "--no-frame-crc", "a.arrow"], 6],
    ["that says its length", ["lz4", "-c", "-B5", "-BI", "--content-size", "a.arrow"], 6],
    ["of linked blocks that says its length", ["lz4", "-c", "-B4", "-BD", "--content-size", "a.arrow"], 1],
    ["of level 12", ["lz4", "-c", "-12", "-B4", "-BI", "a.arrow"], 23],
  ])("we read a file %s", async (_, command, chunks) => {
    expect(await theirs("lz4", command)).toBe(chunks);
  });

  test("we read linked blocks of unknown length, as a whole", async () => {
    const reason = await theirs("lz4", ["lz4", "-c", "-B4", "-BD", "a.arrow"]);
    expect(reason).toContain("the linked frame at 0 does not say its length");
  });

  test("we read its frames of the old form, and what a pipe gave", async () => {
    expect(await theirs("lz4", ["lz4", "-l", "-c", "a.arrow"])).toBe(1);
    expect(await theirs("lz4", ["lz4", "-l", "-c"], CONTENT)).toBe(1);
    expect(await theirs("lz4", ["lz4", "-B4", "-c"], CONTENT)).toBe(23);
  });

  test("what needs a dictionary fails", async () => {
    writeFileSync(join(folder, "dictionary"), CONTENT.subarray(0, 4096));
    // The command writes no number of a dictionary, so that only its absence shows.
    expect(theirs("lz4", ["lz4", "-c", "-D", "dictionary", "a.arrow"])).rejects.toMatchObject({
      code: "BAD_CHUNK",
    });
  });
});
