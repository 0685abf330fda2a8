/** Compressed files that other writers make: blocks of any length, frames of the old form, files put together. */
import { describe, expect, test } from "bun:test";
import { describeContainer, MAX_TABLES } from "../../../src/format/container.ts";
import { MAX_MEASURED_BYTES } from "../../../src/format/lz4-lengths.ts";
import { encodeSeekTable } from "../../../src/format/seek-table.ts";
import { compressFrame } from "../codec/frames.ts";
import { lz4Flushed, lz4Legacy } from "../codec/lz4-by-hand.ts";
import { texture } from "../codec/memory.ts";
import { failureOf } from "../failure.ts";
import { container, describeBytes, ENDINGS, failure, join, skippable, tableOf } from "./container-files.ts";

const emptyTable = (codec: "zstd" | "lz4") =>
  encodeSeekTable(codec, { fileLength: new Uint32Array(), length: new Uint32Array(), checksums: undefined });

describe("LZ4 blocks", () => {
  const name = ENDINGS.lz4;
  const full = texture(2 ** 16, 1);
  const starts = (parts: Uint8Array[]) => {
    let end = 0;
    return [0, ...parts.map(({ length }) => (end += length))];
  };

  test.each([
    ["in the middle", [full, texture(100, 2), full, texture(9, 3)]],
    ["in front", [texture(5, 2), full, full]],
    ["everywhere", [texture(5, 2), texture(6, 3), texture(70, 4), texture(8, 5)]],
  ])("that are short %s are found with their lengths", (_, parts) => {
    expect([...tableOf(lz4Flushed(parts), name).starts]).toEqual(starts(parts));
    const contentLength = starts(parts).at(-1)!;
    expect([...tableOf(lz4Flushed(parts, { contentLength }), name).starts]).toEqual(starts(parts));
    const { unverifiedFrames } = tableOf(lz4Flushed(parts, { checksums: true }), name);
    expect(unverifiedFrames).toBe(1);
  });

  test("that are empty have no chunk", () => {
    const parts = [new Uint8Array(0), full, new Uint8Array(0), texture(7)];
    expect([...tableOf(lz4Flushed(parts), name).starts]).toEqual([0, 2 ** 16, 2 ** 16 + 7]);
  });

  test("that are not what the frame says of itself are BAD_CHUNK", () => {
    const parts = [full, texture(100, 2), full];
    for (const contentLength of [1, 2 * 2 ** 16, 2 ** 40]) {
      const [code, text] = failure(lz4Flushed(parts, { contentLength }), name);
      expect([code, text]).toEqual(["BAD_CHUNK", expect.stringContaining(`claims ${contentLength}`)]);
    }
    // As long as if all were full.
    expect(failure(lz4Flushed(parts, { contentLength: 3 * 2 ** 16 }), name)[0]).toBe("BAD_CHUNK");
  });

  test("that are malformed are BAD_CHUNK", () => {
    const file = lz4Flushed([full, texture(100, 2), full]);
    // Of the first block's first sequence, far more literals than it has.
    file.fill(0xff, 11, 2000);
    expect(failure(file, name)).toEqual(["BAD_CHUNK", expect.stringContaining("malformed")]);
  });

  /** The bytes of long frames that are nowhere in memory: `count` times `block`, `odd` in their middle. */
  function longFrame(block: Uint8Array, count: number, odd: Uint8Array, numFrames = 1) {
    const sized = (bytes: Uint8Array) => join(new Uint8Array(Uint32Array.of(bytes.length).buffer), bytes);
    const header = lz4Flushed([]).subarray(0, 7);
    const [half, piece] = [count >> 1, sized(block)];
    const middle = 7 + half * piece.length;
    const after = middle + sized(odd).length;
    const end = after + half * piece.length;
    /** What lies at `at` and behind, as far as the piece goes. */
    const from = (at: number): Uint8Array => {
      if (at < 7) return header.subarray(at);
      if (at < middle) return piece.subarray((at - 7) % piece.length);
      if (at < after) return sized(odd).subarray(at - middle);
      return at < end ? piece.subarray((at - after) % piece.length) : new Uint8Array(end + 4 - at);
    };
    let numRead = 0;
    const read = (start: number, length: number) => {
      numRead += length;
      const bytes = new Uint8Array(length);
      for (let at = 0; at < length; ) {
        const some = from((start + at) % (end + 4)).subarray(0, length - at);
        bytes.set(some, at);
        at += some.length;
      }
      return bytes;
    };
    const described = describeContainer(read, numFrames * (end + 4), name);
    return { described, read: () => numRead };
  }

  /** A block of nearly its whole length that gives `length` bytes: literals, then one match. */
  function longBlock(length: number): Uint8Array {
    const [literals, last] = [60_000, 5];
    const rest = length - literals - last;
    const run = (value: number) => [...Array(Math.floor(value / 255)).fill(255), value % 255];
    const match = run(rest - 19);
    return Uint8Array.from([
      0xff,
      ...run(literals - 15),
      ...texture(literals),
      1,
      0,
      ...match,
      0x50,
      1,
      2,
      3,
      4,
      5,
    ]);
  }

  test("of a long frame are measured up to a bound, the shortest first", () => {
    const block = longBlock(2 ** 16);
    const count = 2 * Math.ceil(MAX_MEASURED_BYTES / block.length);
    const regular = longFrame(block, count, block);
    expect(regular.described).toMatchObject({ seekable: true, table: { numChunks: count + 1 } });
    expect(regular.read()).toBeLessThan(MAX_MEASURED_BYTES * 1.5);
    const two = longFrame(block, count, block, 2);
    expect(two.described).toMatchObject({ seekable: true, table: { numChunks: 2 * (count + 1) } });
    // The other frame's headers and last block.
    expect(two.read() - regular.read()).toBeLessThan(MAX_MEASURED_BYTES / 4);
    const { described } = longFrame(block, count, longBlock(2 ** 16 - 255));
    expect(described).toMatchObject({
      seekable: false,
      wholeReason: "the frame at 0 has blocks of unknown length",
    });
  });

  test("that end a frame each are measured up to the same bound, and past it the file is decoded as a whole", () => {
    const block = longBlock(2 ** 16);
    // How many are in front of it.
    for (const count of [0, 2]) {
      const within = Math.floor(MAX_MEASURED_BYTES / 2 / block.length);
      const known = longFrame(block, count, block, within);
      expect(known.described).toMatchObject({ seekable: true, table: { numChunks: within * (count + 1) } });
      const over = longFrame(block, count, block, 4 * within);
      expect(over.described).toMatchObject({
        seekable: false,
        wholeReason: expect.stringMatching(/^the frame at [1-9]\d* has blocks of unknown length$/),
      });
      expect(over.read()).toBeLessThan(MAX_MEASURED_BYTES * 1.5);
    }
  });

  test("that are stored as they are cost none of it", () => {
    const block = longBlock(2 ** 16);
    const [header, end] = [lz4Flushed([]).subarray(0, 7), new Uint8Array(4)];
    const frame = join(header, new Uint8Array(Uint32Array.of(block.length).buffer), block, end);
    // More than other blocks than the last may take.
    const numFrames = Math.ceil((MAX_MEASURED_BYTES * 0.6) / block.length);
    const stored = lz4Flushed([texture(5), texture(6), texture(7)]);
    const { starts } = tableOf(join(...Array<Uint8Array>(numFrames).fill(frame), stored), name);
    const before = numFrames * 2 ** 16;
    expect([...starts.slice(numFrames)]).toEqual([before, before + 5, before + 11, before + 18]);
  });

  test("of the old form are read, up to the next frame or the end", () => {
    const parts = [new Uint8Array(2 ** 23), texture(500)];
    const legacy = lz4Legacy(parts);
    expect([...tableOf(legacy, name).starts]).toEqual([0, 2 ** 23, 2 ** 23 + 500]);
    const more = join(
      skippable(texture(5)),
      legacy,
      lz4Legacy([texture(9)]),
      compressFrame("lz4", 1, texture(30)),
    );
    expect([...tableOf(more, name).starts].slice(2)).toEqual([2 ** 23 + 500, 2 ** 23 + 509, 2 ** 23 + 539]);
    expect(failure(join(legacy, Uint8Array.of(0, 0, 0, 0)), name)[1]).toContain("claims 0 bytes");
    expect(failure(legacy.subarray(0, -1), name)[1]).toContain("it is cut off");
    expect(failure(legacy.subarray(0, 4), name)[1]).toContain("decompresses to nothing");
  });

  test("more of them than a table may have in memory are decoded as a whole", () => {
    // Each is one byte, stored as it is.
    const numBlocks = 2 ** 21 + 2;
    const file = new Uint8Array(7 + 5 * numBlocks + 4);
    file.set(lz4Flushed([]).subarray(0, 7));
    for (let i = 0; i < numBlocks; i++) file.set([1, 0, 0, 0x80, 7], 7 + 5 * i);
    expect(describeBytes(file, name)).toMatchObject({
      seekable: false,
      wholeReason: "it has more than 2097152 chunks and no table of them",
    });
  });
});

describe.each(["zstd", "lz4"] as const)("%s files put together", (codec) => {
  const name = ENDINGS[codec];
  const lengths = (file: Uint8Array) => {
    const { starts, numChunks } = tableOf(file, name);
    return Array.from({ length: numChunks }, (_, i) => starts[i + 1]! - starts[i]!);
  };
  const plain = (length: number) => compressFrame(codec, 1, texture(length));

  test("with a table each keep all chunks", () => {
    const file = join(container(codec, [5000, 10]), container(codec, [300]), container(codec, [7, 8]));
    expect(lengths(file)).toEqual([5000, 10, 300, 7, 8]);
    expect(describeBytes(file, name)).toMatchObject({ hasTable: true });
    const { fileOffset, fileLength } = tableOf(file, name);
    expect(file.subarray(fileOffset[2]!, fileOffset[2]! + fileLength[2]!)).toEqual(plain(300));
  });

  test("with a table in the middle, or only at the end, keep all chunks", () => {
    expect(lengths(join(container(codec, [5000, 10]), plain(40)))).toEqual([5000, 10, 40]);
    expect(lengths(join(plain(40), skippable(texture(9)), container(codec, [5000, 10])))).toEqual([
      40, 5000, 10,
    ]);
    expect(lengths(join(container(codec, [6]), plain(40), container(codec, [5])))).toEqual([6, 40, 5]);
    expect(describeBytes(join(plain(40), container(codec, [5])), name)).toMatchObject({ hasTable: false });
    expect(lengths(join(plain(40), emptyTable(codec)))).toEqual([40]);
  });

  test("with a table of nothing each are read while they are few, and more are BAD_CHUNK at once", () => {
    const table = emptyTable(codec);
    const frame = plain(40);
    /** A file of `numTables` of them behind the frame, and how often it was read. */
    const described = (numTables: number) => {
      const file = join(frame, new Uint8Array(Buffer.alloc(numTables * table.length, table)));
      let numReads = 0;
      const read = (at: number, length: number) => {
        numReads++;
        return file.subarray(at, at + length);
      };
      const describe = () => describeContainer(read, file.length, name);
      return { describe, numReads: () => numReads };
    };
    expect(described(MAX_TABLES).describe()).toMatchObject({ seekable: true, table: { numChunks: 1 } });
    for (const more of [1, 9 * MAX_TABLES]) {
      const { describe, numReads } = described(MAX_TABLES + more);
      expect(failureOf(describe)).toMatchObject({
        code: "BAD_CHUNK",
        message: `${name}: it has more than 65536 tables of chunks; decompress it and compress it again in one piece`,
      });
      expect(numReads()).toBeLessThan(4 * MAX_TABLES);
    }
  });

  test("of which one is cut off are BAD_CHUNK", () => {
    const first = container(codec, [5000, 10]);
    for (const cut of [1, 9, 20, first.length - 20]) {
      const [code, text] = failure(join(first.subarray(0, first.length - cut), container(codec, [7])), name);
      expect(code).toBe("BAD_CHUNK");
      expect(text).toContain("no file of its own before them");
    }
  });
});
