/**
 * Hostile compressed files: describing one gives a sound table or a HeadraceError, decoding its chunks gives bytes or
 * `BAD_CHUNK`, and neither touches memory that is not theirs. `HEADRACE_FUZZ_RUNS` sets the number of files; a failure
 * prints its seed. Files that once did harm are kept in `crashers/containers` and read on every run.
 */
import { afterAll, describe, expect, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { zstdCompressSync } from "node:zlib";
import fc from "fast-check";
import type { CodecName } from "../../src/codec/codec.ts";
import { openCompressor, openDecoder } from "../../src/codec/open.ts";
import { HeadraceError } from "../../src/errors.ts";
import { describeContainer } from "../../src/format/container.ts";
import { encodePlaneTable } from "../../src/format/plane-table.ts";
import { encodeSeekTable } from "../../src/format/seek-table.ts";
import { zstdWithoutLength } from "../unit/codec/frames.ts";
import { decodeGuarded, NO_LIBRARIES, texture, withVariables } from "../unit/codec/memory.ts";

const RUNS = Number(process.env.HEADRACE_FUZZ_RUNS ?? 2000);
const CRASHERS = join(import.meta.dir, "crashers/containers");
/** Chunks longer than this are described and not decoded here. */
const MAX_DECODED = 2 ** 22;

const decoders = [
  openDecoder(),
  withVariables(NO_LIBRARIES, () => openDecoder()),
  openDecoder({ checksums: false }),
];
const compressors = { zstd: openCompressor("zstd"), lz4: openCompressor("lz4") };
afterAll(() => {
  for (const one of [...decoders, ...Object.values(compressors)]) one.close();
});

/** The code that describing and decoding gives, `ok` or `whole`. */
function outcome(file: Uint8Array, name: string): string {
  const started = performance.now();
  const code = codeOf(() => describeAndDecode(file, name));
  expect(performance.now() - started).toBeLessThan(2000);
  return code;
}

function codeOf(work: () => string): string {
  try {
    return work();
  } catch (error) {
    if (!(error instanceof HeadraceError)) throw error;
    expect(error.message).not.toMatch(/[\n\r]/);
    expect(error.message.length).toBeLessThan(1000);
    return error.code;
  }
}

function describeAndDecode(file: Uint8Array, name: string): string {
  const described = describeContainer(
    (at, length) => {
      expect(at >= 0 && length >= 0 && at + length <= file.length).toBe(true);
      return file.subarray(at, at + length);
    },
    file.length,
    name,
  );
  if (!described.seekable) return "whole";
  const { table } = described;
  expect(table.starts[0]).toBe(0);
  expect(table.starts[table.numChunks]).toBe(table.byteLength);
  let fileEnd = 0;
  let failure: HeadraceError | undefined;
  for (let i = 0; i < table.numChunks; i++) {
    const offset = table.fileOffset[i]!;
    const fileLength = table.fileLength[i]!;
    const length = table.starts[i + 1]! - table.starts[i]!;
    expect(offset >= fileEnd && length > 0 && fileLength > 0).toBe(true);
    expect(length <= table.maxLength && fileLength <= table.maxFileLength).toBe(true);
    fileEnd = offset + fileLength;
    expect(fileEnd).toBeLessThanOrEqual(file.length);
    if (length > MAX_DECODED) continue;
    const extras = { planes: table.planes?.[i], checksum: table.checksums?.[i] };
    for (const decoder of decoders) {
      const chunk = file.subarray(offset, fileEnd);
      const { error } = decodeGuarded(decoder, table.codec[i]!, chunk, length, extras);
      if (error !== undefined) expect(error.code).toBe("BAD_CHUNK");
      failure ??= error;
    }
  }
  if (failure !== undefined) throw failure;
  return "ok";
}

interface Made {
  readonly file: Uint8Array;
  readonly name: string;
}

/** Valid files of all forms: with and without a table, with checksums, planes, skippable frames, frames without a length. */
const valid: fc.Arbitrary<Made> = fc
  .record({
    codec: fc.constantFrom<CodecName>("zstd", "lz4"),
    lengths: fc.array(fc.integer({ min: 1, max: 600 }), { minLength: 1, maxLength: 4 }),
    table: fc.boolean(),
    checksums: fc.boolean(),
    planes: fc.boolean(),
    unsized: fc.boolean(),
  })
  .map(({ codec, lengths, table, checksums, planes, unsized }) => {
    const withPlanes = planes && codec === "zstd" && table;
    const contents = lengths.map((length, i) => texture(withPlanes ? length * 4 : length, i + 1));
    const frames: Uint8Array[] = contents.map((bytes) =>
      unsized && codec === "zstd"
        ? zstdWithoutLength(zstdCompressSync(bytes))
        : compressors[codec].frame(bytes),
    );
    const sums = contents.map((bytes) =>
      codec === "lz4" ? Bun.hash.crc32(bytes) : Number(Bun.hash.xxHash64(bytes, 0n) & 0xffffffffn),
    );
    const listed = contents.map(({ length }) => length);
    if (withPlanes) {
      frames.push(encodePlaneTable(Uint8Array.from(lengths, (_, i) => [1, 2, 4][i % 3]!)));
      listed.push(0);
      sums.push(0);
    }
    if (table) {
      frames.push(
        encodeSeekTable(codec, {
          fileLength: Uint32Array.from(frames, ({ length }) => length),
          length: Uint32Array.from(listed),
          checksums: checksums ? Uint32Array.from(sums) : undefined,
        }),
      );
    }
    const ending = codec === "zstd" ? "zst" : "lz4";
    return { file: new Uint8Array(Buffer.concat(frames)), name: `a.safetensors.${ending}` };
  });

/** Numbers that lengths and counts are changed to. */
const WORDS = [
  0, 1, 2, 0x7f, 0xff, 0x7fff, 0xffff, 0x7fffffff, 0x80000000, 0xffffffff, 0x184d2a5e, 0x40000001,
];

const edit = fc.record({
  // From either end: tables are at the back, headers in front.
  place: fc.integer({ min: -120, max: 120 }),
  kind: fc.constantFrom("byte", "word", "cut", "insert", "drop"),
  value: fc.nat(255),
  word: fc.constantFrom(...WORDS),
});

const mutant = fc
  .tuple(valid, fc.array(edit, { minLength: 1, maxLength: 3 }))
  .map(([{ file, name }, edits]) => {
    let bytes = file;
    for (const { place, kind, value, word } of edits) {
      const at =
        (((place < 0 ? bytes.length + place : place) % bytes.length) + bytes.length) % bytes.length || 0;
      const changed = bytes.slice();
      if (kind === "byte") changed[at] = value;
      if (kind === "word" && at + 4 <= changed.length) new DataView(changed.buffer).setUint32(at, word, true);
      if (kind === "cut") bytes = changed.subarray(0, at);
      else if (kind === "insert")
        bytes = Uint8Array.of(...changed.subarray(0, at), value, ...changed.subarray(at));
      else if (kind === "drop")
        bytes = Uint8Array.of(...changed.subarray(0, at), ...changed.subarray(at + 1));
      else bytes = changed;
      if (bytes.length === 0) return { file: bytes, name };
    }
    return { file: bytes, name };
  });

describe("kept crashers", () => {
  const names = readdirSync(CRASHERS).filter((name) => /\.(zst|lz4)$/.test(name));
  expect(names.length).toBeGreaterThan(0);
  for (const name of names) {
    // A name is `CODE.what-it-is.arrow.zst`.
    test(name, () => expect(outcome(readFileSync(join(CRASHERS, name)), name)).toBe(name.split(".")[0]!));
  }
});

describe("fuzz", () => {
  test("valid files are read", () => {
    fc.assert(
      fc.property(valid, ({ file, name }) => expect(["ok", "whole"]).toContain(outcome(file, name))),
      { numRuns: Math.ceil(RUNS / 10) },
    );
  });

  test("mutated files", () => {
    const seen = new Map<string, number>();
    fc.assert(
      fc.property(mutant, ({ file, name }) => {
        const code = outcome(file, name);
        seen.set(code, (seen.get(code) ?? 0) + 1);
      }),
      { numRuns: RUNS },
    );
    if (RUNS >= 1000) {
      expect([...seen.keys()]).toEqual(
        expect.arrayContaining(["ok", "BAD_CHUNK", "UNKNOWN_FORMAT", "whole"]),
      );
    }
  });

  test("random bytes behind a magic", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 120 }), fc.boolean(), (bytes, zstd) => {
        const magic = zstd ? [0x28, 0xb5, 0x2f, 0xfd] : [0x04, 0x22, 0x4d, 0x18];
        outcome(Uint8Array.of(...magic, ...bytes), zstd ? "a.arrow.zst" : "a.arrow.lz4");
      }),
      { numRuns: RUNS },
    );
  });
});
