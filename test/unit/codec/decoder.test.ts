/** Chunks decoded by the system's libraries and by what stands in for them: what they give, and what they refuse. */
import { describe, expect, test } from "bun:test";
import { zstdCompressSync } from "node:zlib";
import fc from "fast-check";
import type { CodecName, Decoder } from "../../../src/codec/codec.ts";
import { decodeLz4Block, encodeLz4Block, lz4Bound } from "../../../src/codec/lz4-block.ts";
import { addressOf } from "../../../src/codec/memory.ts";
import { openCompressor, openDecoder } from "../../../src/codec/open.ts";
import { Planes } from "../../../src/codec/planes.ts";
import { ChunkCodec } from "../../../src/format/chunks.ts";
import { measureLz4Block } from "../../../src/format/lz4-frames.ts";
import { XxHash32, xxHash32OfFew } from "../../../src/format/xxhash.ts";
import { failureOf } from "../failure.ts";
import { compressFrame, zstdWithoutLength } from "./frames.ts";
import { decodeGuarded, NO_LIBRARIES, texture, withVariables } from "./memory.ts";

const KINDS: Record<CodecName, number> = { zstd: ChunkCodec.zstd, lz4: ChunkCodec.lz4Frame };
const withLibraries = openDecoder();
const without = withVariables(NO_LIBRARIES, () => openDecoder());
const ways: [string, Decoder, Record<string, string>][] = [
  ["the system's libraries", withLibraries, {}],
  ["what stands in for them", without, NO_LIBRARIES],
];
const contents = fc
  .tuple(fc.integer({ min: 1, max: 300_000 }), fc.integer({ min: 1, max: 2 ** 31 }))
  .map(([length, seed]) => texture(length, seed));

test("facts say what decodes", () => {
  expect(without.facts.zstd).toContain("HEADRACE_ZSTD_LIBRARY is none");
  expect(without.facts.lz4).toContain("HEADRACE_LZ4_LIBRARY is none");
  const odd = { HEADRACE_ZSTD_LIBRARY: "/nowhere/libzstd.so", HEADRACE_LZ4_LIBRARY: "libm.so.6" };
  const decoder = withVariables(odd, () => openDecoder());
  expect(decoder.facts.zstd).toContain("/nowhere/libzstd.so");
  expect(decoder.facts.lz4).toContain("libm.so.6");
  const frame = compressFrame("zstd", 3, texture(1000));
  expect(decodeGuarded(decoder, ChunkCodec.zstd, frame, 1000).bytes).toEqual(texture(1000));
});

describe.each(ways)("by %s", (_, decoder, variables) => {
  const compress = (codec: CodecName, level: number, bytes: Uint8Array) =>
    withVariables(variables, () => compressFrame(codec, level, bytes));

  test.each(["zstd", "lz4"] as const)("%s frames of both makers come back, between sentinels", (codec) => {
    fc.assert(
      fc.property(contents, fc.constantFrom(1, 3, 9), fc.boolean(), (bytes, level, own) => {
        const frame = own ? compress(codec, level, bytes) : compressFrame(codec, level, bytes);
        const { bytes: result, error } = decodeGuarded(decoder, KINDS[codec], frame, bytes.length);
        expect(error).toBeUndefined();
        expect(Buffer.compare(result, bytes)).toBe(0);
      }),
      { numRuns: 30 },
    );
  });

  test.each(["zstd", "lz4"] as const)("%s frames with a flipped bit, or cut off, are BAD_CHUNK", (codec) => {
    const bytes = texture(20_000, 7);
    const frame = compress(codec, 3, bytes);
    fc.assert(
      fc.property(fc.nat(frame.length * 8 - 1), fc.boolean(), (place, cut) => {
        const changed = frame.slice(0, cut ? place >>> 3 : frame.length);
        if (!cut) changed[place >>> 3]! ^= 1 << (place & 7);
        if (changed.length === 0) return;
        const { bytes: result, error } = decodeGuarded(decoder, KINDS[codec], changed, bytes.length);
        // Some bits mean nothing: what comes is right then.
        if (error === undefined) expect(!cut && Buffer.compare(result, bytes) === 0).toBe(true);
        else expect(error.code).toBe("BAD_CHUNK");
      }),
      { numRuns: 300 },
    );
  });

  test.each(["zstd", "lz4"] as const)("%s frames of another length than declared are BAD_CHUNK", (codec) => {
    const bytes = texture(10_000);
    const frame = compress(codec, 1, bytes);
    for (const length of [1, 9_999, 10_001, 20_000]) {
      const { error } = decodeGuarded(decoder, KINDS[codec], frame, length);
      expect(error?.code).toBe("BAD_CHUNK");
      expect(error?.message).toContain(`${frame.length} bytes that should decompress to ${length} do not`);
    }
  });

  test("a frame that does not say its length is bounded all the same", () => {
    const bomb = zstdCompressSync(new Uint8Array(50_000_000));
    const headless = zstdWithoutLength(bomb);
    expect(decodeGuarded(decoder, ChunkCodec.zstd, headless, 1000).error?.code).toBe("BAD_CHUNK");
    const small = zstdWithoutLength(zstdCompressSync(texture(3000)));
    expect(decodeGuarded(decoder, ChunkCodec.zstd, small, 3000).bytes).toEqual(texture(3000));
  });

  test("blocks by themselves, stored bytes, and kinds that are none", () => {
    const bytes = texture(5000);
    const block = new Uint8Array(lz4Bound(5000));
    const length = encodeLz4Block(bytes, block);
    const chunk = block.subarray(0, length);
    expect(length).toBeLessThan(5000);
    expect(decodeGuarded(decoder, ChunkCodec.lz4Block, chunk, 5000).bytes).toEqual(bytes);
    expect(decodeGuarded(decoder, ChunkCodec.lz4Block, chunk, 5001).error?.code).toBe("BAD_CHUNK");
    expect(decodeGuarded(decoder, ChunkCodec.lz4Block, chunk, 4999).error?.code).toBe("BAD_CHUNK");
    expect(decodeGuarded(decoder, ChunkCodec.stored, bytes, 5000).bytes).toEqual(bytes);
    expect(decodeGuarded(decoder, ChunkCodec.stored, bytes, 4999).error?.code).toBe("BAD_CHUNK");
    expect(decodeGuarded(decoder, 9, bytes, 5000).error?.message).toContain("no codec has the number 9");
  });

  test("random bytes as LZ4 blocks stay inside their target", () => {
    fc.assert(
      fc.property(
        fc.uint8Array({ minLength: 1, maxLength: 80 }),
        fc.integer({ min: 1, max: 400 }),
        (chunk, length) => {
          const one = decodeGuarded(decoder, ChunkCodec.lz4Block, chunk, length);
          if (one.error === undefined) expect(measureLz4Block(chunk, length)).toBe(length);
          else expect(one.error.code).toBe("BAD_CHUNK");
        },
      ),
      { numRuns: 2000 },
    );
  });

  test.each([2, 4])("planes of %i bytes are joined", (planes) => {
    const bytes = texture(planes * 50_003, 3);
    const split = new Planes().split(bytes, planes).slice();
    for (let i = 0; i < bytes.length; i += 997) {
      expect(split[(i % planes) * 50_003 + Math.floor(i / planes)]).toBe(bytes[i]!);
    }
    const frame = compress("zstd", 3, split);
    const { bytes: result, error } = decodeGuarded(decoder, ChunkCodec.zstd, frame, bytes.length, { planes });
    expect(error).toBeUndefined();
    expect(Buffer.compare(result, bytes)).toBe(0);
  });

  test("the table's checksum is verified", () => {
    const bytes = texture(3000);
    const zstd = Number(Bun.hash.xxHash64(bytes, 0n) & 0xffffffffn);
    for (const [codec, checksum] of [
      ["zstd", zstd],
      ["lz4", Bun.hash.crc32(bytes)],
    ] as const) {
      const frame = compress(codec, 1, bytes);
      expect(decodeGuarded(decoder, KINDS[codec], frame, 3000, { checksum }).error).toBeUndefined();
      const wrong = { checksum: checksum ^ 1 };
      expect(decodeGuarded(decoder, KINDS[codec], frame, 3000, wrong).error?.message).toContain("checksum");
    }
  });
});

test("checksums can be passed over", () => {
  const decoder = openDecoder({ checksums: false });
  for (const codec of ["zstd", "lz4"] as const) {
    const frame = compressFrame(codec, 1, texture(3000));
    frame[frame.length - 1]! ^= 1;
    expect(decodeGuarded(withLibraries, KINDS[codec], frame, 3000).error?.message).toContain("checksum");
    const { bytes, error } = decodeGuarded(decoder, KINDS[codec], frame, 3000, { checksum: 1 });
    expect(error).toBeUndefined();
    expect(bytes).toEqual(texture(3000));
  }
});

test("our own decoder of blocks writes nowhere else, and gives what liblz4 gives where both take a block", () => {
  const edits = fc.array(fc.tuple(fc.nat(200), fc.nat(255)), { maxLength: 3 });
  let numAgreed = 0;
  fc.assert(
    fc.property(fc.integer({ min: 20, max: 300 }), edits, fc.nat(40), (length, changes, less) => {
      const block = new Uint8Array(lz4Bound(length));
      const chunk = block.subarray(0, encodeLz4Block(texture(length, length), block));
      for (const [at, value] of changes) chunk[at % chunk.length] = value;
      const end = 50 + length - (less % length);
      const target = new Uint8Array(1000).fill(0xa7);
      const given = decodeLz4Block(chunk, target, 50, end);
      const outside = [...target.subarray(0, 50), ...target.subarray(end)];
      expect(outside.every((byte) => byte === 0xa7)).toBe(true);
      expect(given).toBeLessThanOrEqual(end - 50);
      if (given <= 0) return;
      const { bytes, error } = decodeGuarded(withLibraries, ChunkCodec.lz4Block, chunk, given);
      if (error !== undefined) return;
      numAgreed++;
      expect(Buffer.compare(target.subarray(50, 50 + given), bytes)).toBe(0);
    }),
    { numRuns: 2000 },
  );
  expect(numAgreed).toBeGreaterThan(50);
});

test("a match before the block's start is refused", () => {
  // Four literals, then eight bytes from 5 back; one literal.
  const chunk = Uint8Array.of(0x44, 1, 2, 3, 4, 5, 0, 0x50, 9, 9, 9, 9, 9);
  for (const decoder of [withLibraries, without]) {
    expect(decodeGuarded(decoder, ChunkCodec.lz4Block, chunk, 17).error?.code).toBe("BAD_CHUNK");
    chunk[5] = 4;
    expect(decodeGuarded(decoder, ChunkCodec.lz4Block, chunk, 17).error).toBeUndefined();
    chunk[5] = 5;
  }
});

test("planes that there is no memory for are no fault of the chunk", () => {
  const frame = compressFrame("zstd", 3, texture(1000));
  const source = Uint8Array.from(frame);
  const length = 2 ** 33;
  const error = withLibraries.decode(ChunkCodec.zstd, addressOf(source), source.length, 4096, length, {
    planes: 2,
  });
  expect(error?.code).toBe("OUT_OF_MEMORY");
  expect(error?.message).toContain("byte planes");
});

test("the same bytes give the same frame, and levels are checked", () => {
  for (const codec of ["zstd", "lz4"] as const) {
    const compressor = openCompressor(codec, { level: 4 });
    const first = compressor.frame(texture(9000));
    compressor.frame(texture(500, 2));
    expect(compressor.frame(texture(9000))).toEqual(first);
    expect(first).toEqual(compressFrame(codec, 4, texture(9000)));
    compressor.close();
    for (const level of [0, 1.5, 20]) {
      const error = failureOf(() => openCompressor(codec, { level }));
      expect(error.code).toBe("BAD_OPTION");
      expect(error.message).toContain(`level ${level} of ${codec}`);
    }
  }
});

test("bytes that cannot be shortened are stored, and a frame may be empty", () => {
  const noise = crypto.getRandomValues(new Uint8Array(60_000));
  const frame = compressFrame("lz4", 1, noise);
  expect(frame.length).toBeLessThan(60_050);
  expect(decodeGuarded(withLibraries, ChunkCodec.lz4Frame, frame, 60_000).bytes).toEqual(noise);
  for (const codec of ["zstd", "lz4"] as const) {
    expect(compressFrame(codec, undefined, new Uint8Array(0)).length).toBeGreaterThan(8);
  }
});

test("XXH32 in pieces is that of the whole", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), fc.array(fc.nat(200), { maxLength: 4 }), (bytes, cuts) => {
      const hash = new XxHash32();
      let at = 0;
      for (const cut of [...cuts.sort((a, b) => a - b), bytes.length]) {
        hash.update(bytes.subarray(at, Math.max(at, cut)));
        at = Math.min(bytes.length, Math.max(at, cut));
      }
      expect(hash.digest()).toBe(Bun.hash.xxHash32(bytes, 0));
      const few = bytes.subarray(1, 16);
      expect(xxHash32OfFew(bytes, 1, few.length)).toBe(Bun.hash.xxHash32(few, 0));
    }),
    { numRuns: 300 },
  );
});

test("an LZ4 frame that is cut off between its parts says so, and nothing behind it is read", () => {
  const content = texture(300);
  const frame = compressFrame("lz4", 1, content);
  // After the header, and after the only block: a block's length should follow.
  for (const length of [15, frame.length - 8]) {
    const { error } = decodeGuarded(withLibraries, ChunkCodec.lz4Frame, frame.subarray(0, length), 300);
    expect(error?.message).toContain("it is cut off");
  }
});
