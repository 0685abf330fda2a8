/** Packs a source into shards: opens it, passes its rows through what was asked for, writes them, and says what came of it. */
import { basename, join } from "node:path";
import { HeadraceError } from "../errors.ts";
import { encodeManifest, MANIFEST_VERSION, type Manifest } from "../format/manifest.ts";
import { DISK, type FileOps } from "../loader/writeback/files.ts";
import { storageOf } from "./codecs.ts";
import { batchBytes, schemaOf } from "./columns.ts";
import { PlainSink } from "./files.ts";
import { OutFolder } from "./folder.ts";
import {
  checkPackOptions,
  DEFAULT_SHARD_BYTES,
  type PackFormat,
  type PackOptions,
  type PackReport,
} from "./options.ts";
import { Rebatcher } from "./rebatch.ts";
import type { PackBatch, PackField, RowSource } from "./rows.ts";
import { RowsWriter, type ShardTarget, type WrittenShard } from "./rows-writer.ts";
import { checkFields } from "./shard-files.ts";
import { openSource } from "./sources/open.ts";
import { type Applied, castColumns, renameColumns, selectColumns, type Transform } from "./transforms.ts";

/** Bytes of a record batch, about. */
const BATCH_BYTES = 2 * 2 ** 20;
const MAX_BATCH_ROWS = 2 ** 20;
export const MANIFEST_NAME = "dataset.json";

/**
 * Packs `source` (a file, several, a folder or a glob: JSONL, CSV and what else `openSource` knows) into shards of
 * safetensors or Arrow in the folder `options.out`, with a `dataset.json` that is written last.
 *
 * The same input gives the same bytes, whatever the number of Workers; memory does not grow with the source. Where it
 * fails or is cancelled, nothing of what it wrote stays. Throws `BAD_OPTION`, `UNKNOWN_COLUMN`, `SOURCE_NOT_FOUND`,
 * `UNKNOWN_FORMAT`, `BAD_INPUT`, `UNSUPPORTED_TYPE`, `OTHER_JOB` for a folder that is not empty, `DISK_FULL`, `IO_ERROR`,
 * `CANCELLED`.
 */
export function pack(source: string | readonly string[], options: PackOptions): Promise<PackReport> {
  return packWith(DISK, source, options);
}

/** @internal {@link pack} over file operations that tests can make fail. */
export async function packWith(
  ops: FileOps,
  source: string | readonly string[],
  options: PackOptions,
): Promise<PackReport> {
  checkPackOptions(options);
  const started = performance.now();
  try {
    options.signal?.throwIfAborted();
    const opened = await openSource(source, options);
    const report = await packRows(ops, opened.rows, opened.name, options);
    return { ...report, seconds: (performance.now() - started) / 1000 };
  } catch (error) {
    if (options.signal?.aborted !== true) throw error;
    throw new HeadraceError(
      "CANCELLED",
      `${options.out}: packing was cancelled; nothing of it was left there`,
      {
        cause: error,
      },
    );
  }
}

async function packRows(
  ops: FileOps,
  source: RowSource,
  sourceName: string,
  options: PackOptions,
): Promise<Omit<PackReport, "seconds">> {
  const format: PackFormat = options.to ?? "arrow";
  const steps: Applied[] = [];
  let folder: OutFolder | undefined;
  let writer: RowsWriter | undefined;
  try {
    const fields = applyAll(source.fields, transformsOf(options), steps);
    checkFields(fields, format);
    const target: ShardTarget = {
      folder: options.out,
      name: options.name ?? sourceName,
      format,
      shardBytes: options.shardBytes ?? DEFAULT_SHARD_BYTES,
      ops,
      ...storageOf(format, options),
    };
    folder = await OutFolder.open(ops, target, options.overwrite ?? false);
    writer = new RowsWriter(fields, target);
    await writeRows(source, steps, fields, writer, options);
    await writer.finish();
    const manifest = manifestOf(fields, format, writer.shards, options);
    await writeManifest(ops, options.out, manifest);
    return reportOf(source, format, writer.shards, options);
  } catch (error) {
    await writer?.abort();
    await folder?.remove(writer?.shards.map(({ path }) => path) ?? []);
    throw error;
  } finally {
    for (const step of steps) await step.close?.();
    await source.close();
  }
}

/** What happens to rows on their way, in order. */
function transformsOf({ columns, casts, rename }: PackOptions): Transform[] {
  const transforms: Transform[] = [];
  if (columns !== undefined) transforms.push(selectColumns(columns));
  if (casts !== undefined && Object.keys(casts).length > 0) transforms.push(castColumns(casts));
  if (rename !== undefined && Object.keys(rename).length > 0) transforms.push(renameColumns(rename));
  return transforms;
}

function applyAll(
  fields: readonly PackField[],
  transforms: readonly Transform[],
  steps: Applied[],
): readonly PackField[] {
  let current = fields;
  for (const transform of transforms) {
    const step = transform(current);
    steps.push(step);
    current = step.fields;
  }
  return current;
}

async function writeRows(
  source: RowSource,
  steps: readonly Applied[],
  fields: readonly PackField[],
  writer: RowsWriter,
  { rowsPerBatch, limit = Number.POSITIVE_INFINITY, signal, onProgress }: PackOptions,
): Promise<void> {
  let rebatcher: Rebatcher | undefined;
  let rows = 0;
  let sourceBytes = 0;
  for await (const read of source.batches(signal)) {
    signal?.throwIfAborted();
    let batch = read.numRows > limit - rows ? firstRows(read, limit - rows) : read;
    rows += batch.numRows;
    sourceBytes = batch.sourceBytes;
    for (const step of steps) batch = await step.apply(batch);
    if (batch.numRows > 0) {
      rebatcher ??= new Rebatcher(
        fields,
        rowsPerBatch ?? batchRows(batchBytes(fields, batch) / batch.numRows),
      );
      for (const full of rebatcher.add(batch)) await writer.add(full);
    }
    onProgress?.({ sourceBytes, totalBytes: source.byteLength, samples: rows, shards: writer.shards.length });
    if (rows >= limit) break;
  }
  const last = rebatcher?.end(sourceBytes);
  if (last !== undefined) await writer.add(last);
}

/** So many rows that a batch holds about 2 MiB: a power of two. */
function batchRows(rowBytes: number): number {
  const rows = BATCH_BYTES / Math.max(rowBytes, 1);
  return Math.min(Math.max(2 ** Math.round(Math.log2(rows)), 1), MAX_BATCH_ROWS);
}

function firstRows({ columns, sourceBytes }: PackBatch, numRows: number): PackBatch {
  const cut = columns.map((column) => {
    if (column.validity === undefined) return column;
    const validity = column.validity.subarray(0, numRows);
    return {
      ...column,
      validity,
      nullCount: validity.reduce((nulls, present) => nulls + (present === 0 ? 1 : 0), 0),
    };
  });
  return { numRows, columns: cut, sourceBytes };
}

function manifestOf(
  fields: readonly PackField[],
  format: PackFormat,
  shards: readonly WrittenShard[],
  options: PackOptions,
): Manifest {
  return {
    headrace: MANIFEST_VERSION,
    view: "rows",
    samples: shards.reduce((total, { samples }) => total + samples, 0),
    schema: schemaOf(fields, format),
    shards: shards.map(({ path, samples, bytes, sha256, columns }) => ({
      path,
      samples,
      bytes,
      sha256,
      columns,
    })),
    packed: packedBy(format, options),
  };
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
  const { columns, rename, casts, tokenizer, textColumn, tokensColumn, limit, schema, badRows, delimiter } =
    options;
  const all = {
    format,
    codec,
    level,
    chunkBytes,
    planes,
    shardBytes,
    rowsPerBatch,
    columns,
    rename,
    casts,
    tokenizer: tokenizer === undefined ? undefined : basename(tokenizer),
    textColumn,
    tokensColumn,
    limit,
    schema,
    badRows,
    delimiter,
  };
  return Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined));
}

/** Durable before it has its name. */
export async function writeManifest(ops: FileOps, folder: string, manifest: Manifest): Promise<void> {
  const sink = await PlainSink.open(join(folder, MANIFEST_NAME), ops);
  try {
    await sink.write(new TextEncoder().encode(encodeManifest(manifest)));
    await sink.finish();
  } catch (error) {
    await sink.abort();
    throw error;
  }
}

function reportOf(
  source: RowSource,
  format: PackFormat,
  shards: readonly WrittenShard[],
  { out, codec = "none" }: PackOptions,
): Omit<PackReport, "seconds"> {
  const sum = (of: (shard: WrittenShard) => number) => shards.reduce((total, shard) => total + of(shard), 0);
  return {
    out,
    view: "rows",
    format,
    codec,
    samples: sum(({ samples }) => samples),
    skippedRows: source.skippedRows ?? 0,
    shards: shards.map(({ columns: _, ...shard }) => shard),
    sourceBytes: source.byteLength,
    logicalBytes: sum(({ logicalBytes }) => logicalBytes),
    bytes: sum(({ bytes }) => bytes),
  };
}
