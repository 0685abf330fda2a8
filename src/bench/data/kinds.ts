/** Data that looks like what people load, made from a seed: shard after shard, each in memory by itself. */
import { HeadraceError } from "../../index.ts";
import { Random, seedFor } from "../random.ts";
import { tokensOf } from "./tokens.ts";
import { weightsOf } from "./weights.ts";

/** What can be made. */
export const DATA_KINDS = ["weights", "tokens", "images", "embeddings"] as const;

export type DataKind = (typeof DATA_KINDS)[number];

/** One shard: rows of one column, or tensors, which are rows of different lengths. */
export interface ShardData {
  readonly numRows: number;
  readonly column: string;
  readonly dtype: "BF16" | "I32" | "U8" | "F32";
  readonly elementBytes: number;
  /** All rows, back to back. */
  readonly values: Uint8Array;
  /** Ragged: `numRows + 1` counts of elements. */
  readonly offsets?: Int32Array | undefined;
  /** Fixed: dimensions of a row. */
  readonly shape?: readonly number[] | undefined;
  /** Rows that are tensors: in the order in which safetensors places them. */
  readonly tensors?: readonly { readonly name: string; readonly shape: readonly number[] }[] | undefined;
}

/** Throws `BAD_OPTION` where `name` is no kind of data. */
export function checkKind(name: string): DataKind {
  const kind = DATA_KINDS.find((one) => one === name);
  if (kind !== undefined) return kind;
  throw new HeadraceError("BAD_OPTION", `data: ${name} is none of ${DATA_KINDS.join(", ")}`);
}

/** Bytes of a shard of `byteLength` bytes of data: four shards or so, none beyond 512 MiB. */
function shardBytesFor(byteLength: number): number {
  return Math.min(512 * 2 ** 20, Math.max(2 ** 20, Math.ceil(byteLength / 4)));
}

/** Makes about `byteLength` bytes of `kind`. The same arguments give the same bytes. */
export function* makeShards(kind: DataKind, byteLength: number, seed: number): Generator<ShardData> {
  const own = seedFor(seed, kind);
  const shardBytes = shardBytesFor(byteLength);
  switch (kind) {
    case "weights":
      return yield* weightsOf(byteLength, shardBytes, own);
    case "tokens":
      return yield* tokensOf(byteLength, shardBytes, own);
    case "images":
      return yield* rowsOf(byteLength, shardBytes, IMAGE, new Random(own));
    case "embeddings":
      return yield* rowsOf(byteLength, shardBytes, EMBEDDING, new Random(own));
  }
}

/** Rows of one length. */
interface Fixed {
  readonly column: string;
  readonly dtype: "U8" | "F32";
  readonly elementBytes: number;
  readonly shape: readonly number[];
  readonly fill: (row: Uint8Array, random: Random) => void;
}

const IMAGE: Fixed = {
  column: "image",
  dtype: "U8",
  elementBytes: 1,
  shape: [3, 224, 224],
  fill: fillImage,
};
const EMBEDDING: Fixed = {
  column: "embedding",
  dtype: "F32",
  elementBytes: 4,
  shape: [768],
  fill: fillEmbedding,
};

function* rowsOf(byteLength: number, shardBytes: number, fixed: Fixed, random: Random): Generator<ShardData> {
  const { column, dtype, elementBytes, shape, fill } = fixed;
  const rowBytes = shape.reduce((product, length) => product * length, elementBytes);
  let left = Math.max(1, Math.round(byteLength / rowBytes));
  const perShard = Math.max(1, Math.floor(shardBytes / rowBytes));
  for (; left > 0; left -= perShard) {
    const numRows = Math.min(left, perShard);
    const values = new Uint8Array(numRows * rowBytes);
    for (let at = 0; at < values.length; at += rowBytes) fill(values.subarray(at, at + rowBytes), random);
    yield { numRows, column, dtype, elementBytes, values, shape };
  }
}

/** Soft shapes with some noise, as photographs have: neighbours are alike. */
function fillImage(row: Uint8Array, random: Random): void {
  const side = 224;
  for (let plane = 0; plane < 3; plane++) {
    const base = plane * side * side;
    const slope = [random.below(256), random.below(5) - 2, random.below(5) - 2] as const;
    for (let y = 0, at = base; y < side; y++) {
      let noise = random.u32();
      for (let x = 0; x < side; x++, at++) {
        if ((x & 7) === 0) noise = random.u32();
        const above = y === 0 ? slope[0] : row[at - side]!;
        const left = x === 0 ? above : row[at - 1]!;
        row[at] = ((above + left) >> 1) + slope[1 + (y & 1)]! + ((noise >>> ((x & 7) * 4)) & 7) - 3;
      }
    }
  }
}

/** A direction: normal values of length 1 together. */
function fillEmbedding(row: Uint8Array, random: Random): void {
  const values = new Float32Array(row.buffer, row.byteOffset, row.length / 4);
  let squares = 0;
  for (let i = 0; i < values.length; i += 2) {
    const radius = Math.sqrt(-2 * Math.log(1 - random.unit()));
    const angle = 2 * Math.PI * random.unit();
    values[i] = radius * Math.cos(angle);
    values[i + 1] = radius * Math.sin(angle);
    squares += radius * radius;
  }
  const scale = 1 / Math.sqrt(squares);
  for (let i = 0; i < values.length; i++) values[i]! *= scale;
}
