/** What compressed files say of themselves, and what they may not. */
import { describe, expect, test } from "bun:test";
import { ChunkCodec } from "../../../src/format/chunks.ts";
import { describeContainer, MAX_FRAME_BYTES } from "../../../src/format/container.ts";
import { innerName, isContainerName, parseContainerName } from "../../../src/format/container-names.ts";
import { encodePlaneTable } from "../../../src/format/plane-table.ts";
import { encodeSeekTable } from "../../../src/format/seek-table.ts";
import { compressFrame } from "../codec/frames.ts";
import { texture } from "../codec/memory.ts";
import {
  container,
  describeBytes,
  ENDINGS,
  type Entry,
  failure,
  join,
  skippable,
  tableOf,
} from "./container-files.ts";

test("names", () => {
  expect(parseContainerName("d/x.safetensors.bp.zst")).toEqual({
    inner: "safetensors",
    codec: "zstd",
    planes: true,
    innerPath: "d/x.safetensors",
  });
  for (const ending of ["arrow", "arrows", "feather", "ipc"]) {
    expect(parseContainerName(`x.${ending}.lz4`)).toMatchObject({
      inner: "arrow",
      codec: "lz4",
      planes: false,
    });
  }
  expect(
    ["x.zst", "x.safetensors", "x.csv.zst", "x.arrow.gz", "x.arrow.zst.bak"].filter(isContainerName),
  ).toEqual([]);
  expect(innerName("x.arrow.lz4")).toBe("x.arrow");
  expect(innerName("x.parquet")).toBe("x.parquet");
});

describe.each(["zstd", "lz4"] as const)("%s", (codec) => {
  const name = ENDINGS[codec];

  test("a table of chunks is read without touching them", () => {
    const file = container(codec, [5000, 1, 70_000]);
    const reads: number[] = [];
    const described = describeContainer(
      (at, length) => {
        reads.push(length);
        return file.subarray(at, at + length);
      },
      file.length,
      name,
    );
    expect(described).toMatchObject({ seekable: true, hasTable: true, codec, inner: "arrow" });
    const table = tableOf(file, name);
    expect([...table.starts]).toEqual([0, 5000, 5001, 75_001]);
    expect(table.maxLength).toBe(70_000);
    expect(table.fileOffset[1]).toBe(table.fileLength[0]!);
    expect(Math.max(...reads)).toBeLessThanOrEqual(4096);
  });

  test("frames without a table are found one by one, skippable ones passed over", () => {
    const frames = [3000, 10, 40_000].map((length) => compressFrame(codec, 3, texture(length)));
    const file = join(skippable(texture(9)), frames[0]!, frames[1]!, skippable(texture(5000)), frames[2]!);
    const described = describeBytes(file, name);
    expect(described).toMatchObject({ seekable: true, hasTable: false });
    const table = tableOf(file, name);
    expect([...table.starts]).toEqual([0, 3000, 3010, 43_010]);
    for (const [i, frame] of frames.entries()) {
      const at = table.fileOffset[i]!;
      expect(file.subarray(at, at + table.fileLength[i]!)).toEqual(frame);
    }
  });

  test.each([
    [
      "a frame that is longer in the table",
      (e: Entry[]): unknown => e[0]!.fileLength++,
      /frames end at \d+, and the table itself/,
    ],
    [
      "one that is shorter",
      (e: Entry[]): unknown => e[1]!.fileLength--,
      /frames end at \d+, and the table itself/,
    ],
    ["one past the file", (e: Entry[]): unknown => (e[1]!.fileLength = 0xffffffff), /frames end at \d+/],
    ["one without bytes", (e: Entry[]): unknown => (e[0]!.fileLength = 0), /frame 0 of 2 has no bytes/],
    [
      "a chunk of over a gibibyte",
      (e: Entry[]): unknown => (e[1]!.length = 2 ** 30 + 1),
      /chunk 1 claims 1073741825 bytes of at most/,
    ],
    [
      "no content at all",
      (e: Entry[]): unknown => e.splice(0, 2, { ...e[0]!, length: 0 }, { ...e[1]!, length: 0 }),
      /that give nothing, and they are no such frame/,
    ],
    [
      "chunks that take far more than they give",
      (e: Entry[]): unknown => (e[1]!.length = 1),
      /chunk 1 takes \d+ bytes at \d+ for only 1/,
    ],
  ] as const)("a table with %s is BAD_CHUNK", (_, change, message) => {
    const [code, text] = failure(
      container(codec, [2000, 200_000], (entries) => void change(entries)),
      name,
    );
    expect(code).toBe("BAD_CHUNK");
    expect(text).toMatch(message);
  });

  test("a table that claims more than its bytes can become is BAD_CHUNK", () => {
    const file = container(codec, [64, 64], (entries) => {
      entries[0]!.length = 2 ** 29;
    });
    expect(failure(file, name)).toEqual(["BAD_CHUNK", expect.stringContaining("cannot become")]);
  });

  test("a table whose own frame lies is BAD_CHUNK", () => {
    const good = container(codec, [2000, 3000]);
    const size = 8 + 2 * 8 + 9;
    const at = good.length - size;
    const changed = (place: number, value: number) => {
      const file = good.slice();
      file[place] = value;
      return file;
    };
    expect(failure(changed(good.length - 7, 200), name)[1]).toContain("more than the file's");
    expect(failure(changed(good.length - 9, 1), name)[1]).toContain("need a skippable frame of 17 bytes");
    expect(failure(changed(good.length - 5, 0x7c), name)[1]).toContain("reserved");
    expect(failure(changed(at, 0x51), name)[1]).toContain("there is none");
    expect(failure(changed(at + 4, 9), name)[1]).toContain("there is none");
  });

  test("files that are cut off, or end in something else, are BAD_CHUNK", () => {
    const frame = compressFrame(codec, 1, texture(9000));
    for (const length of [5, 8, frame.length >> 1, frame.length - 1]) {
      expect(failure(frame.subarray(0, length), name)[0]).toBe("BAD_CHUNK");
    }
    expect(failure(join(frame, Uint8Array.of(1, 2, 3, 4, 5)), name)[1]).toContain(`is at ${frame.length}`);
    expect(failure(join(frame, Uint8Array.of(1)), name)[0]).toBe("BAD_CHUNK");
    expect(failure(join(frame, skippable(texture(20)).subarray(0, 20)), name)[0]).toBe("BAD_CHUNK");
  });

  test("frames without content are passed over, and alone they are BAD_CHUNK", () => {
    const empty = compressFrame(codec, 1, new Uint8Array(0));
    expect([...tableOf(join(empty, compressFrame(codec, 1, texture(70)), empty), name).starts]).toEqual([
      0, 70,
    ]);
    for (const file of [empty, join(skippable(texture(3)), empty), skippable(texture(3))])
      expect(failure(file, name)).toEqual(["BAD_CHUNK", expect.stringContaining("decompresses to nothing")]);
  });

  test("what is no such file is UNKNOWN_FORMAT", () => {
    expect(failure(new Uint8Array(0), name)[0]).toBe("UNKNOWN_FORMAT");
    expect(failure(texture(100), name)[0]).toBe("UNKNOWN_FORMAT");
    const other = compressFrame(codec === "zstd" ? "lz4" : "zstd", 1, texture(100));
    expect(failure(other, name)[1]).toContain(
      `does not begin as ${codec === "zstd" ? "a zstd" : "an LZ4"} file does`,
    );
    expect(failure(compressFrame(codec, 1, texture(100)), "a.zst")[0]).toBe("UNKNOWN_FORMAT");
  });
});

test("zstd frames that are too long or do not say their length make the file one piece", () => {
  const long = new Uint8Array(16);
  const view = new DataView(long.buffer);
  view.setUint32(0, 0xfd2fb528, true);
  // One segment, a length of four bytes.
  long[4] = 0xa0;
  view.setUint32(5, MAX_FRAME_BYTES + 1, true);
  const described = describeBytes(long, ENDINGS.zstd);
  expect(described).toMatchObject({ seekable: false, wholeReason: expect.stringContaining("in one piece") });
  // A window of a mebibyte and no length; a last block of one byte as it is.
  const unknown = Uint8Array.of(0x28, 0xb5, 0x2f, 0xfd, 0, 80, 9, 0, 0, 7);
  expect(describeBytes(unknown, ENDINGS.zstd)).toMatchObject({
    seekable: false,
    wholeReason: expect.stringContaining("does not say its length"),
  });
});

test("dictionaries are refused", () => {
  const zstd = Uint8Array.of(0x28, 0xb5, 0x2f, 0xfd, 0x21, 7, 5, 1, 0, 0);
  expect(failure(zstd, ENDINGS.zstd)).toEqual([
    "UNSUPPORTED_COMPRESSION",
    expect.stringContaining("dictionary"),
  ]);
});

test("a wrong checksum of an LZ4 frame's header is BAD_CHUNK", () => {
  const frame = compressFrame("lz4", 1, texture(100));
  frame[7]! ^= 1;
  expect(failure(frame, ENDINGS.lz4)[1]).toContain("checksum");
});

describe("planes", () => {
  const name = "a.safetensors.bp.zst";
  const withPlanes = (planes: number[], table = encodePlaneTable(Uint8Array.from(planes))) => {
    const frames = [4000, 6000].map((length) => compressFrame("zstd", 1, texture(length)));
    const all = [...frames, table];
    const seek = encodeSeekTable("zstd", {
      fileLength: Uint32Array.from(all, ({ length }) => length),
      length: Uint32Array.of(4000, 6000, 0),
      checksums: undefined,
    });
    return join(...all, seek);
  };

  test("are read, whatever the name says", () => {
    expect([...tableOf(withPlanes([1, 4]), name).planes!]).toEqual([1, 4]);
    expect([...tableOf(withPlanes([2, 1]), "a.safetensors.zst").planes!]).toEqual([2, 1]);
    expect([...tableOf(withPlanes([2, 1]), name).codec]).toEqual([ChunkCodec.zstd, ChunkCodec.zstd]);
  });

  test("that cannot be, or are missing, are BAD_CHUNK", () => {
    expect(failure(withPlanes([3, 1]), name)[1]).toContain("chunk 0 has 3 planes");
    expect(failure(withPlanes([1, 2], skippable(texture(5))), name)[1]).toContain("no table of them");
    expect(failure(container("zstd", [10]), name)[1]).toContain("no table of them");
    const together = join(compressFrame("zstd", 1, texture(100)), withPlanes([2, 1]));
    for (const file of [together, join(withPlanes([2, 1]), compressFrame("zstd", 1, texture(100)))])
      expect(failure(file, "a.arrow.zst")[0]).toBe("UNSUPPORTED_COMPRESSION");
    const lying = encodePlaneTable(Uint8Array.of(2, 2));
    lying[12] = 3;
    expect(failure(withPlanes([], lying), name)[1]).toContain("another number of chunks");
  });
});
