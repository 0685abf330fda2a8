/** What is said of a run that is over: `dataset.json` for readers, a report for the caller. */
import { basename, join } from "node:path";
import { encodeManifest, MANIFEST_FILE, MANIFEST_VERSION, type Manifest } from "../format/manifest.ts";
import type { FileOps } from "../loader/writeback/files.ts";
import { PlainSink } from "./files.ts";
import { isMtlioCodec, prepareMtlio } from "./mtlio.ts";
import {
  DEFAULT_SHARD_BYTES,
  type PackedShard,
  type PackFormat,
  type PackOptions,
  type PackReport,
} from "./options.ts";

/** Writes the manifest into `folder`: durable before it has its name. Throws `DISK_FULL`, `IO_ERROR`. */
export async function writeManifest(
  ops: FileOps,
  folder: string,
  options: PackOptions,
  { view, schema, shards }: Pick<Manifest, "view" | "schema" | "shards">,
  format: PackFormat,
): Promise<void> {
  const samples = shards.reduce((total, shard) => total + shard.samples, 0);
  const packed = packedBy(format, options);
  const manifest: Manifest = { headrace: MANIFEST_VERSION, view, samples, schema, shards, packed };
  const sink = await PlainSink.open(join(folder, MANIFEST_FILE), ops);
  try {
    await sink.write(new TextEncoder().encode(encodeManifest(manifest)));
    await sink.finish();
  } catch (error) {
    await sink.abort();
    throw error;
  }
}

/** The options that decide what shards hold. */
function packedBy(format: PackFormat, options: PackOptions): Record<string, unknown> {
  const {
    codec = "none",
    level,
    chunkBytes,
    planes,
    shardBytes = DEFAULT_SHARD_BYTES,
    rowsPerBatch,
  } = options;
  const { columns, rename, casts, saturate, limit, schema, badRows, delimiter } = options;
  const { textColumn, tokensColumn, keepText, maxTokens, addSpecial } = options;
  // A path says something of the machine, and its last part of the tokenizer.
  const tokenizer = options.tokenizer === undefined ? undefined : basename(options.tokenizer);
  const storage = { format, codec, level, chunkBytes, planes, shardBytes, rowsPerBatch };
  const rows = { columns, rename, casts, saturate, limit, schema, badRows, delimiter };
  const tokens = { tokenizer, textColumn, tokensColumn, keepText, maxTokens, addSpecial };
  const all = Object.entries({ ...storage, ...rows, ...tokens });
  return Object.fromEntries(all.filter(([, value]) => value !== undefined));
}

/** Makes what MTLIO reads of the shards, where a codec of its is asked for; returns its bytes. */
export async function prepareStreams(
  shards: readonly PackedShard[],
  { codec, out, chunkBytes, signal }: PackOptions,
): Promise<number | undefined> {
  if (codec === undefined || !isMtlioCodec(codec)) return undefined;
  const paths = shards.map(({ path }) => join(out, path));
  return (await prepareMtlio(paths, codec, { chunkBytes, signal })).streamBytes;
}

export function reportOf(
  read: { readonly sourceBytes: number; readonly skippedRows: number },
  view: PackReport["view"],
  format: PackFormat,
  shards: readonly PackedShard[],
  streamBytes: number | undefined,
  warnings: readonly string[],
  { out, codec = "none" }: PackOptions,
): Omit<PackReport, "seconds"> {
  const sum = (of: (shard: PackedShard) => number) => shards.reduce((total, shard) => total + of(shard), 0);
  return {
    out,
    view,
    format,
    codec,
    samples: sum(({ samples }) => samples),
    skippedRows: read.skippedRows,
    shards: shards.map(({ path, samples, logicalBytes, bytes, sha256 }) => ({
      path,
      samples,
      logicalBytes,
      bytes,
      sha256,
    })),
    sourceBytes: read.sourceBytes,
    logicalBytes: sum(({ logicalBytes }) => logicalBytes),
    bytes: sum(({ bytes }) => bytes),
    ...(streamBytes === undefined ? {} : { streamBytes }),
    warnings,
  };
}
