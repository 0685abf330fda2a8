/** Where a compressed shard's bytes are: a table of chunks, each of which is decoded as a whole. */

import type { ChunkTable } from "../types.ts";

/** How the bytes of a chunk are stored: as they are, as one zstd frame, as one LZ4 frame, or as one block of an LZ4
 * frame, whose size and checksum are not part of the chunk. */
export const ChunkCodec = { stored: 0, zstd: 1, lz4Frame: 2, lz4Block: 3 } as const;

/** Index of the chunk that holds logical byte `offset`, which lies in `[0, byteLength)`. */
export function chunkAt(table: ChunkTable, offset: number): number {
  const { starts } = table;
  let low = 0;
  let high = table.numChunks - 1;
  while (low < high) {
    const middle = (low + high + 1) >>> 1;
    if (starts[middle]! <= offset) low = middle;
    else high = middle - 1;
  }
  return low;
}

/** How the chunks of a table are compressed, for people: `zstd`, `lz4`, `zstd in byte planes`; `stored` for none. */
export function codecNames({ codec, planes }: ChunkTable): string {
  const used = new Set<string>();
  codec.forEach((number, i) => {
    const name = NAMES[number];
    if (name !== undefined) used.add((planes?.[i] ?? 1) > 1 ? `${name} in byte planes` : name);
  });
  return [...used].sort().join(" and ") || "stored";
}

const NAMES: Readonly<Record<number, string>> = {
  [ChunkCodec.zstd]: "zstd",
  [ChunkCodec.lz4Frame]: "lz4",
  [ChunkCodec.lz4Block]: "lz4",
};
