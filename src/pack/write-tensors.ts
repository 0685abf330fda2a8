/** Tensors into safetensors shards: what `pack` does with sources that are no rows. */
import { basename } from "node:path";
import { HeadraceError } from "../errors.ts";
import { DTYPES } from "../format/dtype.ts";
import type { FileOps } from "../loader/writeback/files.ts";
import type { DType } from "../types.ts";
import { openStorage, type Storage } from "./codecs.ts";
import { leftText, OutFolder } from "./folder.ts";
import { DEFAULT_SHARD_BYTES, type PackOptions, type PackReport } from "./options.ts";
import { prepareStreams, reportOf, writeManifest } from "./report.ts";
import type { TensorSource } from "./rows.ts";
import type { SourceWatch } from "./sources/watch.ts";
import { castTensors, indexName, packTensors } from "./tensors.ts";

/** What shards of tensors are called, as other tools want it. */
const NAME = "model";
/** Options that are about rows. */
const OF_ROWS = [
  "rename",
  "tokenizer",
  "textColumn",
  "tokensColumn",
  "keepText",
  "maxTokens",
  "addSpecial",
  "limit",
  "rowsPerBatch",
] as const;

/** Packs `source`, which messages call `place` and whose files `watch` knows, and closes it. Throws `FILE_CHANGED`,
 * `BAD_OPTION` for options that are about rows, and what writing throws. */
export async function writeTensors(
  ops: FileOps,
  source: TensorSource,
  { place, watch }: { readonly place: string; readonly watch: SourceWatch },
  options: PackOptions,
): Promise<Omit<PackReport, "seconds">> {
  let storage: Storage | undefined;
  let folder: OutFolder | undefined;
  const { out, name = NAME, shardBytes = DEFAULT_SHARD_BYTES, signal, onProgress } = options;
  const tensors = source.tensors.length;
  try {
    checkTensorOptions(options);
    const cast =
      options.casts === undefined
        ? source
        : castTensors(source, dtypeCasts(options.casts), options.saturate, place);
    const opened = openStorage("safetensors", options);
    storage = opened;
    folder = await OutFolder.open(ops, { folder: out, name }, options.overwrite ?? false);
    const total = cast.tensors.reduce((sum, { byteLength }) => sum + byteLength, 0);
    const shards = await packTensors(cast, folder.work, {
      shardBytes,
      name,
      ending: opened.ending,
      openSink: (path) => opened.openSink(path, ops),
      signal,
      onProgress: (bytes, done) =>
        onProgress?.({
          sourceBytes: bytes,
          totalBytes: total,
          samples: Math.floor((tensors * bytes) / Math.max(total, 1)),
          shards: done,
        }),
    });
    const listed = shards.map(({ path, samples, bytes, sha256 }) => ({ path, samples, bytes, sha256 }));
    await writeManifest(
      ops,
      folder.work,
      options,
      { view: "tensors", schema: { columns: [] }, shards: listed },
      "safetensors",
    );
    signal?.throwIfAborted();
    watch.check();
    const beside = [indexName(name), ...(source.files ?? []).map((file) => basename(file))];
    await folder.place([...shards.map(({ path }) => path), ...beside]);
    const streamBytes = await prepareStreams(shards, options);
    const warnings = leftText(out, await folder.publish());
    const read = { sourceBytes: source.byteLength, skippedRows: 0 };
    return reportOf(read, "tensors", "safetensors", shards, streamBytes, warnings, options);
  } catch (error) {
    await folder?.remove();
    throw error;
  } finally {
    storage?.close();
    await source.close();
  }
}

function checkTensorOptions(options: PackOptions): void {
  if (options.to === "arrow")
    throw new HeadraceError(
      "BAD_OPTION",
      "to is arrow, and the source holds tensors that are no rows; pack to safetensors",
    );
  for (const name of OF_ROWS) {
    if (options[name] !== undefined)
      throw new HeadraceError(
        "BAD_OPTION",
        `${name} is for rows, and the source holds tensors that are no rows`,
      );
  }
}

/** Casts by dtype; names of columns mean nothing here. */
function dtypeCasts(casts: NonNullable<PackOptions["casts"]>): Partial<Record<DType, DType>> {
  const entries = Object.entries(casts).map(([from, to]) => {
    const dtype = from.toUpperCase() as DType;
    if (DTYPES.includes(dtype)) return [dtype, to] as const;
    throw new HeadraceError(
      "BAD_OPTION",
      `casts: ${JSON.stringify(from)} is no dtype; tensors are cast by dtype, such as F32=BF16`,
    );
  });
  return Object.fromEntries(entries);
}
