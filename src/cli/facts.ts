/** What `inspect` says of each shard. */
import { codecNames, type Dataset, type ShardDescription } from "../index.ts";

/** The page of Apple Silicon; data that starts on a multiple of it can be handed to any GPU as it is. */
const PAGE_BYTES = 16_384;

export interface ShardFacts {
  readonly path: string;
  readonly format: string;
  readonly bytes: number;
  readonly samples: number;
  /** Record batches; undefined for safetensors. */
  readonly groups: number | undefined;
  /** Largest power of two up to 16 KiB that all values start on a multiple of; undefined for compressed ones. */
  readonly alignment: number | undefined;
  /** How the shard is compressed, and what its chunks decode to; undefined for plain ones. */
  readonly compressed: Compressed | undefined;
  readonly metadata: Readonly<Record<string, string>>;
  /** safetensors alone. */
  readonly tensors: ShardDescription["tensors"];
}

export interface Compressed {
  readonly codecs: string;
  readonly bytes: number;
  readonly chunks: number;
  /** Of the longest chunk, decoded. */
  readonly chunkBytes: number;
  /** Bytes decoded for each byte that is decoded from. */
  readonly ratio: number;
  /** Frames of LZ4 whose checksums are not verified when their chunks are decoded; `verify` does it. */
  readonly unverifiedFrames: number;
}

/** Facts of all shards, each of which is opened. Throws what opening throws. */
export function factsOf(dataset: Dataset): ShardFacts[] {
  return dataset.shardPaths.map((path, i) => {
    const description = dataset.describe(i);
    const { tensors, rows } = description;
    return {
      path,
      format: description.format,
      bytes: description.byteLength,
      samples: dataset.index.countOf(i),
      groups: tensors === undefined ? rows?.groups.length : undefined,
      alignment: description.chunks === undefined ? alignmentOf(description) : undefined,
      compressed: compressedOf(description),
      metadata: description.metadata,
      tensors,
    };
  });
}

function compressedOf({ chunks }: ShardDescription): Compressed | undefined {
  if (chunks === undefined) return undefined;
  const { byteLength, numChunks, maxLength, fileLength } = chunks;
  const stored = fileLength.reduce((total, length) => total + length, 0);
  return {
    codecs: codecNames(chunks),
    bytes: byteLength,
    chunks: numChunks,
    chunkBytes: maxLength,
    ratio: stored === 0 ? 1 : byteLength / stored,
    unverifiedFrames: chunks.unverifiedFrames ?? 0,
  };
}

function alignmentOf({ tensors, rows }: ShardDescription): number {
  const starts =
    tensors?.map((tensor) => tensor.range.start) ??
    rows?.groups.flatMap((group) => group.columns.map((column) => column.values.start)) ??
    [];
  let alignment = PAGE_BYTES;
  for (const start of starts) while (start % alignment !== 0) alignment /= 2;
  return alignment;
}

/** Bytes (tensors view) or columns (rows view) by element type. */
export function dtypeMix(dataset: Dataset, shards: readonly ShardFacts[]): Record<string, number> {
  const mix: Record<string, number> = {};
  if (dataset.view === "rows") {
    for (const { dtype } of dataset.schema.columns) mix[dtype] = (mix[dtype] ?? 0) + 1;
    return mix;
  }
  for (const { dtype, range } of shards.flatMap((shard) => shard.tensors ?? [])) {
    mix[dtype] = (mix[dtype] ?? 0) + range.end - range.start;
  }
  return mix;
}
