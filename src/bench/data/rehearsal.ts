/**
 * The small dataset that the process of a trial reads first, so that what it measures is no start of threads and no
 * compilation: of the same kind and in the same formats as the measured one, in files of its own.
 */
import { copyFileSync, existsSync, mkdirSync, renameSync, rmSync, statSync } from "node:fs";
import { extname, join } from "node:path";
import { HeadraceError, openDataset, openDevice } from "../../index.ts";
import { seedFor } from "../random.ts";
import type { PreparedData, PrepareOptions } from "./forms.ts";
import type { DataKind } from "./kinds.ts";
import { type DataSource, prepareData } from "./prepare.ts";

/** Beside the measured datasets, so that no file is of both. */
const FOLDER = "rehearsal";
/** Shards of one's own that are this many times larger than what is wanted stand for nothing short. */
const MOST = 4;

/**
 * About `byteLength` bytes like those of `source`, which was prepared as `data`, in the same formats. Made data is made
 * again from another seed; of a dataset of one's own the smallest shards are copied (a link would share their pages in
 * memory), or where these are too large, or are read otherwise without the rest, data of the same view is made. Throws
 * what {@link prepareData} throws.
 */
export async function prepareRehearsal(
  source: DataSource,
  data: PreparedData,
  byteLength: number,
  options: PrepareOptions,
): Promise<PreparedData> {
  const folder = join(options.folder, FOLDER);
  mkdirSync(folder, { recursive: true });
  const formats = options.formats.filter(({ name }) => typeof data.forms.get(name) === "object");
  const own = { ...options, folder, formats };
  if ("kind" in source) {
    const seed = seedFor(source.seed, FOLDER);
    return await prepareData({ kind: source.kind, byteLength, seed }, own);
  }
  const { copies, kind } = await shortOf(source.own, byteLength, folder);
  if (copies !== undefined) return await prepareData({ own: copies }, own);
  return await prepareData({ kind, byteLength, seed: seedFor(0, FOLDER) }, own);
}

/** A folder with copies of the smallest shards of `source`, absent where these are no fair short form of it; and the
 * kind of data that comes nearest. */
async function shortOf(
  source: string,
  byteLength: number,
  into: string,
): Promise<{ readonly copies?: string; readonly kind: DataKind }> {
  const device = openDevice("host", { lanes: 1 });
  try {
    using dataset = openDataset(source, device, { strategy: "read" });
    const { view, schema, shardPaths, fingerprint } = dataset;
    const ragged = schema.columns.some((column) => column.ragged);
    const kind = view === "tensors" ? "weights" : ragged ? "tokens" : "embeddings";
    const { paths, total } = smallest(shardPaths, byteLength);
    if (total > MOST * byteLength) return { kind };
    const copies = join(into, `shards-${fingerprint.slice(0, 16)}-${byteLength}`);
    copyShards(paths, copies);
    try {
      using short = openDataset(copies, device, { strategy: "read" });
      const names = (one: typeof schema) => one.columns.map(({ name }) => name).join("\0");
      const alike = short.view === view && (view === "tensors" || names(short.schema) === names(schema));
      return alike ? { copies, kind } : { kind };
    } catch {
      // A shard may need what lies beside it.
      return { kind };
    }
  } finally {
    await device.close();
  }
}

/** Shards from the smallest on, until they have `byteLength` bytes together. */
function smallest(shards: readonly string[], byteLength: number) {
  const bySize = shards.map((path) => ({ path, size: statSync(path).size }));
  bySize.sort((a, b) => a.size - b.size);
  const paths: string[] = [];
  let total = 0;
  for (const { path, size } of bySize) {
    if (total >= byteLength) break;
    paths.push(path);
    total += size;
  }
  return { paths, total };
}

/** Whole or not at all. Throws `DISK_FULL` and `IO_ERROR`. */
function copyShards(paths: readonly string[], folder: string): void {
  if (existsSync(folder)) return;
  const temporary = `${folder}.part`;
  try {
    rmSync(temporary, { recursive: true, force: true });
    mkdirSync(temporary);
    // Shards of several folders may have the same name.
    for (const [i, path] of paths.entries()) {
      copyFileSync(path, join(temporary, `shard-${String(i).padStart(5, "0")}${extname(path)}`));
    }
    renameSync(temporary, folder);
  } catch (cause) {
    rmSync(temporary, { recursive: true, force: true });
    const { code } = cause as { code?: string };
    const full = code === "ENOSPC" || code === "EDQUOT";
    const message = `${folder}: shards cannot be copied there (${code}); free some space, or leave the rehearsal out`;
    throw new HeadraceError(full ? "DISK_FULL" : "IO_ERROR", message, { cause });
  }
}
