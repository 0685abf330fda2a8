/**
 * The index of a model in several safetensors files (`*.safetensors.index.json`): which file holds which
 * tensor.
 */
import { HeadraceError } from "../errors.ts";
import type { ShardDescription } from "../types.ts";
import { decodeUtf8, JsonReader, quoted } from "./json.ts";
import { checkShardPath } from "./paths.ts";

/** Bytes of an index file, at most. The largest seen in public has 60 MB and 500,000 tensors. */
export const MAX_INDEX_BYTES = 250_000_000;

/** Files that an index may name, at most. */
export const MAX_INDEX_SHARDS = 10_000;

/** What an index file says, checked in itself but not yet against the files it names. */
export interface SafetensorsIndex {
  /** Bytes of all tensors together, where the index says so. */
  readonly totalSize?: number;
  /** Relative paths of the files, each once, in code-unit order. */
  readonly shards: readonly string[];
  /** File of each tensor, by the tensor's name. */
  readonly shardOf: ReadonlyMap<string, string>;
}

/**
 * Parses the text of an index file: `{"metadata": {"total_size": n}, "weight_map": {tensor: file}}`.
 *
 * Other keys are passed over. File names are relative and stay below the index's folder. Throws `BAD_INDEX`
 * where the text is too large, is not JSON, has a key twice, or says something else; `UNSAFE_PATH` for a file
 * name that leads elsewhere.
 */
export function parseSafetensorsIndex(source: string | Uint8Array): SafetensorsIndex {
  if (source.length > MAX_INDEX_BYTES) {
    throw bad(`the index has ${source.length} bytes of at most ${MAX_INDEX_BYTES}`);
  }
  const text = typeof source === "string" ? source : decodeUtf8(source);
  if (text === undefined) throw bad(`the index's ${source.length} bytes are not valid UTF-8`);
  const reader = new JsonReader(text, { what: "index", syntax: "BAD_INDEX", duplicate: "BAD_INDEX" });
  let totalSize: number | undefined;
  let weights: WeightMap | undefined;
  if (reader.peek() !== "object") throw bad("the index must be an object with a weight_map");
  reader.readObject((key) => {
    if (key === "metadata") totalSize = readTotalSize(reader);
    else if (key === "weight_map") weights = readWeightMap(reader);
    else reader.skipValue();
  });
  reader.end();
  if (weights === undefined) throw bad("the index has no weight_map");
  const { shards, shardOf } = weights;
  return { shards, shardOf, ...(totalSize === undefined ? {} : { totalSize }) };
}

/**
 * Checks an index against its files: `descriptions` has each of `index.shards`, by that name.
 *
 * Every tensor must lie in the file that the index names and in no other, the files must hold no tensor that
 * the index does not name (readers that follow the index alone would drop it in silence), and `totalSize`
 * must be the bytes of all tensors. Page padding does not count. Throws `BAD_INDEX` naming tensor and file.
 */
export function checkIndexAgainst(
  index: SafetensorsIndex,
  descriptions: ReadonlyMap<string, ShardDescription>,
): void {
  const placed = new Set<string>();
  let total = 0;
  for (const shard of index.shards) {
    const description = descriptions.get(shard);
    if (description === undefined) throw bad(`shard ${quoted(shard)} was not opened`);
    for (const { name, range } of description.tensors ?? []) {
      checkPlace(index, name, shard);
      placed.add(name);
      total += range.end - range.start;
    }
  }
  if (placed.size !== index.shardOf.size) throw missing(index, placed);
  if (index.totalSize !== undefined && index.totalSize !== total) {
    throw bad(
      `the index says total_size ${index.totalSize}, but the tensors of its ${index.shards.length} shards ` +
        `take ${total} bytes`,
    );
  }
}

interface WeightMap {
  readonly shards: readonly string[];
  readonly shardOf: ReadonlyMap<string, string>;
}

function readTotalSize(reader: JsonReader): number | undefined {
  let totalSize: number | undefined;
  if (reader.peek() !== "object") {
    // Some writers leave `"metadata": null`.
    if (reader.peek() !== "null")
      throw bad(`the index's metadata must be an object, not ${reader.excerpt()}`);
    reader.skipValue();
    return undefined;
  }
  reader.readObject((key) => {
    if (key !== "total_size") return reader.skipValue();
    const found = reader.excerpt();
    // `1024.0` is the same size, and some writers divide.
    const value = reader.peek() === "number" ? reader.readNumber() : Number.NaN;
    if (!Number.isSafeInteger(value) || value < 0) {
      throw bad(`the index's total_size must be a whole number of bytes, not ${found}`);
    }
    totalSize = value;
  });
  return totalSize;
}

function readWeightMap(reader: JsonReader): WeightMap {
  const shardOf = new Map<string, string>();
  // One string a file, however many tensors name it.
  const shards = new Map<string, string>();
  if (reader.peek() !== "object") throw bad("the index's weight_map must be an object");
  reader.readObject((tensor) => {
    if (reader.peek() !== "string") {
      throw bad(`the index maps tensor ${quoted(tensor)} to ${reader.excerpt()}, which is not a file name`);
    }
    const name = reader.readString();
    let shard = shards.get(name);
    if (shard === undefined) {
      checkShardPath(name);
      if (shards.size === MAX_INDEX_SHARDS) throw bad(`the index names more than ${MAX_INDEX_SHARDS} files`);
      shards.set(name, name);
      shard = name;
    }
    shardOf.set(tensor, shard);
  });
  return { shards: [...shards.keys()].sort(), shardOf };
}

function checkPlace(index: SafetensorsIndex, tensor: string, shard: string): void {
  const mapped = index.shardOf.get(tensor);
  if (mapped === shard) return;
  throw bad(
    mapped === undefined
      ? `shard ${quoted(shard)} holds tensor ${quoted(tensor)}, which the index does not name`
      : `tensor ${quoted(tensor)} lies in shard ${quoted(shard)}, but the index places it in ${quoted(mapped)}`,
  );
}

function missing(index: SafetensorsIndex, placed: ReadonlySet<string>): HeadraceError {
  for (const [tensor, shard] of index.shardOf) {
    if (!placed.has(tensor)) {
      return bad(
        `the index places tensor ${quoted(tensor)} in shard ${quoted(shard)}, which has no such tensor`,
      );
    }
  }
  return bad("the index and its shards disagree");
}

function bad(message: string): HeadraceError {
  return new HeadraceError("BAD_INDEX", message);
}
