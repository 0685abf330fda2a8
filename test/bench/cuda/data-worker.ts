/** One Worker of a team: fills ranges of files, and sums up what is in them. */
import { closeSync, openSync, readSync, writeSync } from "node:fs";
import { addChecksum, checksumOf } from "../../../src/kernels/checksum.ts";

export type DataTask =
  | {
      /** `fill` writes numbers that depend on file and offset alone; `sum` answers the two sums of a part of a
       * tensor. */
      readonly op: "fill" | "sum";
      readonly path: string;
      readonly offset: number;
      readonly byteLength: number;
      /** Of the part in its tensor. */
      readonly position: number;
    }
  | {
      /** Answers the checksums of batches `[first, end)` of `batchSize` rows, whose numbers are `ids`. */
      readonly op: "batches";
      readonly path: string;
      /** Of row 0 in the file. */
      readonly offset: number;
      readonly rowBytes: number;
      readonly ids: Float64Array<SharedArrayBuffer>;
      readonly batchSize: number;
      readonly first: number;
      readonly end: number;
    };

declare const self: Worker;

const PIECE = 8 * 2 ** 20;

self.onmessage = ({ data }: MessageEvent<DataTask>) => {
  try {
    self.postMessage({ answer: run(data) });
  } catch (error) {
    self.postMessage({ error: error instanceof Error ? error.message : String(error) });
  }
};

function run(task: DataTask): Uint32Array | string[] | null {
  const fd = openSync(task.path, task.op === "fill" ? "r+" : "r");
  try {
    if (task.op === "batches") return batches(fd, task);
    if (task.op === "sum") return sum(fd, task.offset, task.byteLength, task.position);
    fill(fd, task.path, task.offset, task.byteLength);
    return null;
  } finally {
    closeSync(fd);
  }
}

/** Floats from 1 to 2, or pairs of bfloat16, by a linear congruential generator that each piece begins anew. */
function fill(fd: number, path: string, offset: number, byteLength: number): void {
  const words = new Uint32Array(Math.min(PIECE, Math.ceil(byteLength / 4) * 4) / 4);
  const seed = Bun.hash.crc32(path.slice(path.lastIndexOf("/") + 1));
  for (let at = 0; at < byteLength; at += PIECE) {
    let state = (seed ^ Math.imul(offset + at, 0x9e3779b1)) >>> 0;
    for (let i = 0; i < words.length; i++) {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      words[i] = 0x3f800000 | (state >>> 9);
    }
    const bytes = new Uint8Array(words.buffer, 0, Math.min(PIECE, byteLength - at));
    for (let done = 0; done < bytes.length; ) {
      done += writeSync(fd, bytes, done, bytes.length - done, offset + at + done);
    }
  }
}

function sum(fd: number, offset: number, byteLength: number, position: number): Uint32Array {
  const sums = new Uint32Array(2);
  const piece = new Uint8Array(Math.min(PIECE, byteLength));
  for (let at = 0; at < byteLength; at += PIECE) {
    const bytes = piece.subarray(0, Math.min(PIECE, byteLength - at));
    addChecksum(sums, readWhole(fd, bytes, offset + at), position + at);
  }
  return sums;
}

function batches(fd: number, task: Extract<DataTask, { op: "batches" }>): string[] {
  const { ids, batchSize, rowBytes } = task;
  const batch = new Uint8Array(batchSize * rowBytes);
  const sums: string[] = [];
  for (let index = task.first; index < task.end; index++) {
    const count = Math.min(batchSize, ids.length - index * batchSize);
    for (let row = 0; row < count; row++) {
      const into = batch.subarray(row * rowBytes, (row + 1) * rowBytes);
      readWhole(fd, into, task.offset + ids[index * batchSize + row]! * rowBytes);
    }
    sums.push(checksumOf(batch.subarray(0, count * rowBytes)));
  }
  return sums;
}

function readWhole(fd: number, into: Uint8Array, offset: number): Uint8Array {
  for (let done = 0; done < into.length; ) {
    const count = readSync(fd, into, done, into.length - done, offset + done);
    if (count === 0) throw new Error(`the file ends at ${offset + done}`);
    done += count;
  }
  return into;
}
