/** Packs a source into shards: opens it, passes its rows through what was asked for, writes them, and says what came of it. */
import { HeadraceError } from "../errors.ts";
import { DISK, type FileOps } from "../loader/writeback/files.ts";
import { openStorage, type Storage } from "./codecs.ts";
import { batchBytes, schemaOf } from "./columns.ts";
import { checkApart, leftText, OutFolder } from "./folder.ts";
import { checkMtlio, isMtlioCodec } from "./mtlio.ts";
import {
  checkPackOptions,
  DEFAULT_SHARD_BYTES,
  type PackFormat,
  type PackOptions,
  type PackReport,
} from "./options.ts";
import { Rebatcher } from "./rebatch.ts";
import { prepareStreams, reportOf, writeManifest } from "./report.ts";
import type { PackBatch, PackField, RowSource } from "./rows.ts";
import { RowsWriter, type ShardTarget } from "./rows-writer.ts";
import { SchemaUse } from "./schema-use.ts";
import { checkFields } from "./shard-files.ts";
import { sizesOf } from "./sizes.ts";
import { openSource } from "./sources/open.ts";
import { SourceWatch } from "./sources/watch.ts";
import { tokenizeColumn } from "./tokenize.ts";
import {
  type Applied,
  castColumns,
  checkSourceNames,
  renameColumns,
  selectColumns,
  type Transform,
} from "./transforms.ts";
import { writeTensors } from "./write-tensors.ts";

/** Bytes of a record batch, about. */
const BATCH_BYTES = 2 * 2 ** 20;
const MAX_BATCH_ROWS = 2 ** 20;

/**
 * Packs `source` (a file, several, a folder or a glob: JSONL, CSV and what else `openSource` knows) into shards of
 * safetensors or Arrow in the folder `options.out`, with a `dataset.json` that is written last.
 *
 * The same input gives the same bytes, whatever the number of Workers; memory does not grow with the source. Where it
 * fails or is cancelled, the folder is as it was before: what `overwrite` replaces goes when the new files are whole. Throws `BAD_OPTION`, `UNKNOWN_COLUMN`, `SOURCE_NOT_FOUND`,
 * `UNKNOWN_FORMAT`, `BAD_INPUT`, `FILE_CHANGED` for a file of the source that is written to meanwhile, `UNSUPPORTED_TYPE`, `OTHER_JOB` for a folder that is not empty, `BUSY` for one that another run packs to, `DISK_FULL`, `IO_ERROR`,
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
  const { codec, signal, chunkBytes } = options;
  const watch = new SourceWatch();
  try {
    signal?.throwIfAborted();
    if (codec !== undefined && isMtlioCodec(codec)) await checkMtlio(codec, { chunkBytes });
    checkApart(typeof source === "string" ? [source] : source, options.out);
    const opened = await openSource(source, options, watch);
    const place = placeOf(source);
    const report =
      "tensors" in opened.source
        ? await writeTensors(ops, opened.source, { place, watch }, options)
        : await packRows(ops, opened.source, { name: opened.name, place, watch }, options);
    return { ...report, seconds: (performance.now() - started) / 1000 };
  } catch (error) {
    if (signal?.aborted !== true) throw watch.explain(error);
    const text = `${options.out}: packing was cancelled; the folder is as it was`;
    throw new HeadraceError("CANCELLED", text, { cause: error });
  } finally {
    watch.close();
  }
}

/** What is known of a source beside its rows. */
interface SourceFacts {
  /** What it is called in names of shards. */
  readonly name: string;
  /** What it is called in messages. */
  readonly place: string;
  /** Of its files. */
  readonly watch: SourceWatch;
}

function placeOf(source: string | readonly string[]): string {
  if (typeof source === "string") return source;
  return source.length === 1 ? source[0]! : `${source[0]} and ${source.length - 1} more`;
}

async function packRows(
  ops: FileOps,
  source: RowSource,
  { name: sourceName, place, watch }: SourceFacts,
  options: PackOptions,
): Promise<Omit<PackReport, "seconds">> {
  const format: PackFormat = options.to ?? "arrow";
  const steps: Applied[] = [];
  let storage: Storage | undefined;
  let folder: OutFolder | undefined;
  let writer: RowsWriter | undefined;
  try {
    checkSourceNames(source.fields, options, place);
    const fields = applyAll(source.fields, transformsOf(options, place), steps);
    checkFields(fields, format);
    const { shardBytes = DEFAULT_SHARD_BYTES, overwrite = false } = options;
    const sizes = sizesOf(fields, format, shardBytes);
    storage = openStorage(format, options);
    const name = options.name ?? sourceName;
    folder = await OutFolder.open(ops, { folder: options.out, name }, overwrite);
    const target: ShardTarget = { folder: folder.work, name, format, shardBytes, sizes, ops, storage };
    writer = new RowsWriter(fields, target);
    const use = new SchemaUse(source.fields, options.schema);
    const sourceBytes = await writeRows(source, steps, fields, writer, target, use, options);
    await writer.finish();
    const { shards } = writer;
    options.signal?.throwIfAborted();
    const listed = shards.map(({ logicalBytes: _, ...shard }) => shard);
    await writeManifest(
      ops,
      folder.work,
      options,
      { view: "rows", schema: schemaOf(fields, format), shards: listed },
      format,
    );
    watch.check();
    await folder.place(shards.map(({ path }) => path));
    const streamBytes = await prepareStreams(shards, options);
    const warnings = [
      ...use.warnings(),
      ...(source.warnings?.() ?? []),
      ...leftText(options.out, await folder.publish()),
    ];
    const read = { sourceBytes, skippedRows: source.skippedRows ?? 0 };
    return reportOf(read, "rows", format, shards, streamBytes, warnings, options);
  } catch (error) {
    await writer?.abort();
    await folder?.remove();
    throw error;
  } finally {
    for (const step of steps) await step.close?.();
    storage?.close();
    await source.close();
  }
}

/** What happens to rows on their way, in order. */
function transformsOf(options: PackOptions, place: string): Transform[] {
  const { columns, casts = {}, saturate, rename = {}, tokenizer, textColumn, tokensColumn } = options;
  const transforms: Transform[] = [];
  if (columns !== undefined) transforms.push(selectColumns(columns));
  if (Object.keys(casts).length > 0) transforms.push(castColumns(casts, saturate, place));
  if (tokenizer !== undefined) {
    const { keepText, maxTokens, addSpecial, threads } = options;
    const column = textColumn ?? "text";
    transforms.push(
      tokenizeColumn({
        tokenizer,
        column,
        output: tokensColumn,
        keep: keepText,
        maxLength: maxTokens,
        addSpecial,
        threads,
      }),
    );
  }
  if (Object.keys(rename).length > 0) transforms.push(renameColumns(rename));
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

/** Returns the bytes of the source that were read. */
async function writeRows(
  source: RowSource,
  steps: readonly Applied[],
  fields: readonly PackField[],
  writer: RowsWriter,
  target: ShardTarget,
  use: SchemaUse,
  { rowsPerBatch, limit = Number.POSITIVE_INFINITY, signal, onProgress }: PackOptions,
): Promise<number> {
  let rebatcher: Rebatcher | undefined;
  let rows = 0;
  let sourceBytes = 0;
  for await (const read of source.batches(signal)) {
    signal?.throwIfAborted();
    let batch = read.numRows > limit - rows ? firstRows(read, limit - rows) : read;
    rows += batch.numRows;
    use.add(batch);
    sourceBytes = batch.sourceBytes;
    for (const step of steps) batch = await step.apply(batch);
    if (batch.numRows > 0) {
      rebatcher ??= new Rebatcher(
        fields,
        rowsPerBatch ?? batchRows(batchBytes(fields, batch) / batch.numRows, target.shardBytes),
        target,
      );
      for (const full of rebatcher.add(batch)) {
        signal?.throwIfAborted();
        await writer.add(full);
      }
    }
    onProgress?.({ sourceBytes, totalBytes: source.byteLength, samples: rows, shards: writer.shards.length });
    if (rows >= limit) break;
  }
  const last = rebatcher?.end(sourceBytes);
  if (last !== undefined) await writer.add(last);
  return sourceBytes;
}

/** So many rows that a batch holds about 2 MiB, or an eighth of a shard, which then is nearly full: a power of two. */
function batchRows(rowBytes: number, shardBytes: number): number {
  const rows = Math.min(BATCH_BYTES, shardBytes / 8) / Math.max(rowBytes, 1);
  return Math.min(Math.max(2 ** Math.round(Math.log2(rows)), 1), MAX_BATCH_ROWS);
}

function firstRows({ columns, ...batch }: PackBatch, numRows: number): PackBatch {
  const cut = columns.map((column) => {
    if (column.validity === undefined) return column;
    const validity = column.validity.subarray(0, numRows);
    return {
      ...column,
      validity,
      nullCount: validity.reduce((nulls, present) => nulls + (present === 0 ? 1 : 0), 0),
    };
  });
  return { ...batch, numRows, columns: cut };
}
