/** Compressed files with tables of their chunks, made for tests of what decodes them. */
import { writeFileSync } from "node:fs";
import { openCompressor } from "../../../src/codec/open.ts";
import { ChunkCodec } from "../../../src/format/chunks.ts";
import type { ChunkTable } from "../../../src/types.ts";

/** How a chunk is stored, and how long it is. */
export interface MadeChunk {
  readonly codec: keyof typeof ChunkCodec;
  readonly byteLength: number;
}

export interface MadeFile {
  readonly path: string;
  readonly table: ChunkTable;
  /** The logical bytes. */
  readonly bytes: Uint8Array;
}

/** Bytes that compress about two to one, and differ everywhere. */
export function compressible(byteLength: number, seed: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(new ArrayBuffer(byteLength));
  let state = seed + 1;
  for (let i = 0; i < byteLength; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    bytes[i] = (i & 3) < 2 ? state >>> 24 : (i >>> 12) & 0xff;
  }
  return bytes;
}

/** Writes chunks one behind another with gaps between them. `lz4Block` chunks are not made here. */
export function makeChunkFile(path: string, chunks: readonly MadeChunk[], seed = 1): MadeFile {
  const byteLength = chunks.reduce((sum, chunk) => sum + chunk.byteLength, 0);
  const bytes = compressible(byteLength, seed);
  const compressors = { zstd: openCompressor("zstd"), lz4Frame: openCompressor("lz4") };
  const starts = [0];
  const fileOffset: number[] = [];
  const parts: Uint8Array[] = [];
  let at = 0;
  for (const { codec, byteLength: length } of chunks) {
    const start = starts.at(-1)!;
    const plain = bytes.subarray(start, start + length);
    const stored = codec === "zstd" || codec === "lz4Frame" ? compressors[codec].frame(plain) : plain;
    const gap = new Uint8Array(parts.length % 7).fill(0xee);
    parts.push(gap, stored);
    fileOffset.push(at + gap.length);
    at += gap.length + stored.length;
    starts.push(start + length);
  }
  writeFileSync(path, Buffer.concat(parts));
  const fileLength = parts.filter((_, i) => i % 2 === 1).map((part) => part.length);
  const table: ChunkTable = {
    byteLength,
    numChunks: chunks.length,
    starts: Float64Array.from(starts),
    fileOffset: Float64Array.from(fileOffset),
    fileLength: Float64Array.from(fileLength),
    codec: Uint8Array.from(chunks, ({ codec }) => ChunkCodec[codec]),
    maxLength: Math.max(...chunks.map((chunk) => chunk.byteLength)),
    maxFileLength: Math.max(...fileLength),
  };
  for (const compressor of Object.values(compressors)) compressor.close();
  return { path, table, bytes };
}
