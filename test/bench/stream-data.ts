/** The files of the benchmark of compressed shards, made once. */
import { existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { ContainerOptions } from "../../src/codec/container.ts";
import { encodeHeader } from "../../src/format/safetensors-header.ts";
import { containerAt } from "../unit/codec/container-at.ts";
import { DATA_FOLDER } from "./data.ts";

/** Elements of 4 bytes a row. */
export const ROW_ELEMENTS = 1024;
export const ROW_BYTES = ROW_ELEMENTS * 4;
export const DATA_BYTES = 192 * 2 ** 20;
const NUM_ROWS = DATA_BYTES / ROW_BYTES;

function randomNumbers(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

/** Token ids as text gives them: words of one to six ids, a few of them most of the time. */
function tokens(): Int32Array<ArrayBuffer> {
  const random = randomNumbers(3);
  const below = (limit: number) => Math.floor(Math.exp(random() * Math.log(limit)));
  const words = Array.from({ length: 20_000 }, () =>
    Array.from({ length: 1 + Math.floor(random() * 6) }, () => below(32_000)),
  );
  const ids = new Int32Array(DATA_BYTES / 4);
  for (let i = 0; i < ids.length; ) for (const id of words[below(words.length)]!) ids[i++] = id;
  return ids;
}

/** Weights: normally distributed, of the precision of bfloat16. */
function floats(): Float32Array<ArrayBuffer> {
  const random = randomNumbers(5);
  const values = new Float32Array(DATA_BYTES / 4);
  for (let i = 0; i < values.length; i += 2) {
    const radius = 0.02 * Math.sqrt(-2 * Math.log(1 - random()));
    const angle = 2 * Math.PI * random();
    values[i] = radius * Math.cos(angle);
    values[i + 1] = radius * Math.sin(angle);
  }
  const bits = new Uint32Array(values.buffer);
  for (let i = 0; i < bits.length; i++) bits[i]! &= 0xffff0000;
  return values;
}

/** A safetensors file of rows `x`; its path. */
export function plainShard(kind: "tokens" | "floats"): string {
  mkdirSync(DATA_FOLDER, { recursive: true });
  const path = join(DATA_FOLDER, `stream-${kind}.safetensors`);
  if (existsSync(path) && statSync(path).size > DATA_BYTES) return path;
  const dtype = kind === "tokens" ? "I32" : "F32";
  const { header } = encodeHeader([
    { name: "x", dtype, shape: [NUM_ROWS, ROW_ELEMENTS], byteLength: DATA_BYTES },
  ]);
  const values = kind === "tokens" ? tokens() : floats();
  writeFileSync(path, Buffer.concat([header, new Uint8Array(values.buffer)]));
  return path;
}

/** The container of a plain shard; its path. */
export async function container(kind: "tokens" | "floats", options: ContainerOptions): Promise<string> {
  const plain = plainShard(kind);
  const path = `${plain}.${options.codec === "zstd" ? "zst" : "lz4"}`;
  if (existsSync(path) && statSync(path).mtimeMs >= statSync(plain).mtimeMs) return path;
  const writer = await containerAt(path, options);
  await writer.write(readFileSync(plain));
  await writer.finish();
  return path;
}
