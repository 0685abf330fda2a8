/** The data of the loader's benchmarks, made once into a folder outside the repository. */
import { closeSync, ftruncateSync, mkdirSync, openSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { encodeHeader } from "../../src/format/safetensors-header.ts";
import { encodeManifest, type Manifest, saveText } from "../../src/index.ts";
import { hasBytes } from "./harness.ts";

/** Bytes of one row: 768 float32 values, an embedding of common size. */
export const ROW_BYTES = 3072;
const PIECE_ROWS = 4096;

/** Where data goes; `HEADRACE_BENCH_DIR` names another place. */
export const DATA_FOLDER = process.env.HEADRACE_BENCH_DIR ?? join(tmpdir(), "headrace-bench");

/** `numShards` safetensors files of about 1 GiB of float32 rows of 3 KiB; the folder's path. */
export function rowShards(numShards: number): string {
  const folder = join(DATA_FOLDER, `rows-${numShards}`);
  mkdirSync(folder, { recursive: true });
  const numRows = Math.floor(2 ** 30 / ROW_BYTES);
  for (let shard = 0; shard < numShards; shard++) {
    writeRows(join(folder, `rows-${shard}.safetensors`), numRows, shard + 1);
  }
  return folder;
}

function writeRows(path: string, numRows: number, seed: number): void {
  const { header } = encodeHeader([
    { name: "x", dtype: "F32", shape: [numRows, ROW_BYTES / 4], byteLength: numRows * ROW_BYTES },
  ]);
  if (hasBytes(path, header.length + numRows * ROW_BYTES)) return;
  const fd = openSync(path, "w");
  writeSync(fd, header);
  const words = new Uint32Array((PIECE_ROWS * ROW_BYTES) / 4);
  let state = seed;
  for (let row = 0; row < numRows; row += PIECE_ROWS) {
    for (let i = 0; i < words.length; i++) {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      words[i] = 0x3f800000 | (state >>> 9);
    }
    writeWhole(fd, new Uint8Array(words.buffer, 0, Math.min(PIECE_ROWS, numRows - row) * ROW_BYTES));
  }
  closeSync(fd);
}

function writeWhole(fd: number, bytes: Uint8Array): void {
  for (let at = 0; at < bytes.length; ) at += writeSync(fd, bytes, at);
}

/** One safetensors file of ragged int32 tokens, 40 to 480 a row, as prose has them. */
export function tokenShard(numRows: number): string {
  mkdirSync(DATA_FOLDER, { recursive: true });
  const path = join(DATA_FOLDER, `tokens-${numRows}.safetensors`);
  const offsets = new Int32Array(numRows + 1);
  let state = 7;
  for (let row = 0; row < numRows; row++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    offsets[row + 1] = offsets[row]! + 40 + (state % 441);
  }
  const total = offsets[numRows]!;
  const { header, order, dataOffsets } = encodeHeader([
    { name: "tokens", dtype: "I32", shape: [total], byteLength: total * 4 },
    { name: "tokens.offsets", dtype: "I32", shape: [numRows + 1], byteLength: (numRows + 1) * 4 },
  ]);
  const fd = openSync(path, "w");
  writeSync(fd, header);
  const parts = [Int32Array.from({ length: total }, (_, i) => i % 50_000), offsets];
  for (const index of order) {
    if (dataOffsets[index]!.end > dataOffsets[index]!.start)
      writeWhole(fd, new Uint8Array(parts[index]!.buffer));
  }
  closeSync(fd);
  return path;
}

/** `numShards` shards of 1 GiB that are holes but for their headers; the folder's path. */
export function sparseShards(numShards: number): string {
  const folder = join(DATA_FOLDER, `sparse-${numShards}`);
  mkdirSync(folder, { recursive: true });
  const numRows = Math.floor(2 ** 30 / ROW_BYTES);
  for (let shard = 0; shard < numShards; shard++) {
    writeSparse(join(folder, `sparse-${shard}.safetensors`), "x", numRows, ROW_BYTES / 4);
  }
  return folder;
}

function writeSparse(path: string, name: string, numRows: number, rowElements: number): number {
  const byteLength = numRows * rowElements * 4;
  const { header } = encodeHeader([{ name, dtype: "F32", shape: [numRows, rowElements], byteLength }]);
  if (!hasBytes(path, header.length + byteLength)) {
    const fd = openSync(path, "w");
    writeSync(fd, header);
    ftruncateSync(fd, header.length + byteLength);
    closeSync(fd);
  }
  return header.length + byteLength;
}

/** A manifest over `numShards` sparse shards of `rowsPerShard` rows of 64 bytes; the folder's path. */
export function sparseManifest(numShards: number, rowsPerShard: number): string {
  const folder = join(DATA_FOLDER, `manifest-${numShards}x${rowsPerShard}`);
  mkdirSync(folder, { recursive: true });
  const shards = Array.from({ length: numShards }, (_, i) => {
    const path = `part-${String(i).padStart(5, "0")}.safetensors`;
    return { path, samples: rowsPerShard, bytes: writeSparse(join(folder, path), "x", rowsPerShard, 16) };
  });
  const manifest: Manifest = {
    headrace: 1,
    view: "rows",
    samples: numShards * rowsPerShard,
    schema: {
      columns: [{ name: "x", dtype: "F32", shape: [16], ragged: false, logical: "number", nullable: false }],
    },
    shards,
  };
  saveText(join(folder, "dataset.json"), encodeManifest(manifest));
  return folder;
}
