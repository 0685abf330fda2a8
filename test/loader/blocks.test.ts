/** The blocks in which small columns are read: what is asked of the file, and what is kept. */
import { describe, expect, test } from "bun:test";
import { BlockCache, type BlockSource } from "../../src/loader/blocks.ts";
import type { ChunkTable } from "../../src/types.ts";

const KIB = 1024;
const BLOCK = 4 * KIB;
/** Blocks that are kept, each of which counts with 512 bytes more than it has. */
const MOST_BLOCKS = Math.floor((32 * KIB * KIB) / (BLOCK + 512));

/** A file of `byteLength` bytes, or one of chunks of those lengths; notes what is read of it. */
function sourceOf(lengths: number | readonly number[]) {
  const starts = [0];
  for (const length of [lengths].flat()) starts.push(starts.at(-1)! + length);
  const byteLength = starts.at(-1)!;
  const reads: [number, number][] = [];
  const table = { byteLength, numChunks: starts.length - 1, starts: Float64Array.from(starts) } as ChunkTable;
  const source: BlockSource = {
    byteLength,
    ...(typeof lengths === "number" ? {} : { table }),
    readSync(byteOffset, length) {
      reads.push([byteOffset, byteOffset + length]);
      return Uint8Array.from({ length }, (_, i) => byteAt(byteOffset + i));
    },
  };
  return { source, reads };
}

/** A file of that many blocks of zeros; counts what is read of it. */
function zeros(numBlocks: number) {
  const counted = { reads: 0 };
  const source: BlockSource = {
    byteLength: numBlocks * BLOCK,
    readSync(_, length) {
      counted.reads++;
      return new Uint8Array(length);
    },
  };
  return { source, counted };
}

const byteAt = (offset: number) => (offset * 31 + (offset >>> 8)) & 0xff;

function expectBytes(bytes: Uint8Array, start: number, length: number): void {
  expect([...bytes]).toEqual(Array.from({ length }, (_, i) => byteAt(start + i)));
}

describe("blocks", () => {
  test("of a plain file lie on a grid, and its last is shorter", () => {
    const { source, reads } = sourceOf(11 * KIB);
    const cache = new BlockCache();
    for (const at of [5000, 6000, 8184]) expectBytes(cache.read(source, 0, at, 8), at, 8);
    expectBytes(cache.read(source, 0, 11 * KIB - 4, 4), 11 * KIB - 4, 4);
    expect(reads).toEqual([
      [BLOCK, 2 * BLOCK],
      [2 * BLOCK, 11 * KIB],
    ]);
  });

  test("never reach into another chunk", () => {
    const lengths = [2052, 3_000_000, 2052, 6 * KIB, 500];
    const { source, reads } = sourceOf(lengths);
    const cache = new BlockCache();
    const starts = [0, 2052, 3_002_052, 3_004_104, 3_004_104 + 6 * KIB];
    for (const at of [starts[2]! + 2048, starts[0]! + 4, starts[2]! + 8, starts[4]! + 496]) {
      expectBytes(cache.read(source, 0, at, 4), at, 4);
    }
    // A longer chunk has blocks of its own, counted from its start.
    expectBytes(cache.read(source, 0, starts[3]! + 5000, 8), starts[3]! + 5000, 8);
    expect(reads).toEqual([
      [starts[2]!, starts[3]!],
      [0, 2052],
      [starts[4]!, starts[4]! + 500],
      [starts[3]! + BLOCK, starts[4]!],
    ]);
  });

  test("do not hold what goes over their ends: that is read as it is wanted", () => {
    const { source, reads } = sourceOf([1000, 1000]);
    const cache = new BlockCache();
    expectBytes(cache.read(source, 0, 990, 20), 990, 20);
    expect(reads).toEqual([[990, 1010]]);
    expect(cache.read(source, 0, 2000, 0)).toHaveLength(0);
  });

  test("of many small chunks are all kept, up to 32 MiB; those that are used outlive those that are not", () => {
    const { source, reads } = sourceOf(Array(4000).fill(1000));
    const cache = new BlockCache();
    for (let round = 0; round < 2; round++)
      for (let chunk = 0; chunk < 4000; chunk++) cache.read(source, 0, chunk * 1000, 4);
    expect(reads).toHaveLength(4000);
    const count = 2 * MOST_BLOCKS;
    const { source: long, counted } = zeros(count);
    for (let block = 0; block < count; block++) {
      cache.read(source, 0, 7000, 4);
      cache.read(long, 1, block * BLOCK, 4);
    }
    expect([reads.length, counted.reads]).toEqual([4000, count]);
    cache.read(source, 0, 9000, 4);
    cache.read(long, 1, 0, 4);
    expect([reads.length, counted.reads]).toEqual([4001, count + 1]);
  });

  test("are forgotten with their file", () => {
    const one = sourceOf(1000);
    const other = sourceOf(1000);
    const cache = new BlockCache();
    const readBoth = () => {
      cache.read(one.source, 1, 0, 4);
      cache.read(other.source, 2, 0, 4);
    };
    readBoth();
    cache.drop(1);
    cache.drop(3);
    readBoth();
    expect([one.reads.length, other.reads.length]).toEqual([2, 1]);
  });
});

test("blocks that are wanted again and again leave no others behind", () => {
  const cache = new BlockCache();
  const hot = zeros(MOST_BLOCKS);
  const cold = zeros(50);
  const readHot = () => {
    for (let block = 0; block < MOST_BLOCKS; block++) cache.read(hot.source, 0, block * BLOCK, 1);
  };
  readHot();
  for (let block = 0; block < 50; block++) {
    readHot();
    cache.read(cold.source, 1, block * BLOCK, 1);
  }
  for (let block = 0; block < 49; block++) cache.read(cold.source, 1, block * BLOCK, 1);
  // They were not kept, beside as many as are kept at most.
  expect(cold.counted.reads).toBe(50 + 49);
});
