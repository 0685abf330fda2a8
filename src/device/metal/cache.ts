/**
 * The derived cache of compressed shards: MTLIO files that this Mac made of shards, each beside a small JSON
 * file (its sidecar) that says of which bytes it was made. Either may be deleted at any time; the user's own
 * folders are never written to.
 */
import { realpathSync, rmSync } from "node:fs";
import { basename, join } from "node:path";
import { HeadraceError } from "../../errors.ts";
import { nodeError } from "../common/errors.ts";
import {
  attemptInCache,
  cacheError,
  openCacheFolder,
  sweepPartials,
  userCacheFolder,
} from "./cache-folder.ts";
import { lockForm } from "./cache-lock.ts";
import {
  checkSignal,
  checkUnchanged,
  type NotCached,
  not,
  readSidecar,
  SIDECAR_VERSION,
  type Sidecar,
  type Stamp,
  type Stat,
  sameTimes,
  stampOf,
  stampOfForm,
  statOf,
  statText,
  writeSidecar,
} from "./sidecar.ts";

export { userCacheFolder } from "./cache-folder.ts";
export type { NotCached } from "./sidecar.ts";

export const DEFAULT_CHUNK_BYTES = 65536;

/** What is cached: which file, and how it is compressed. */
export interface CacheKey {
  readonly path: string;
  readonly codec: string;
  /** Bytes that are compressed at a time; default 64 KiB. */
  readonly chunkBytes?: number | undefined;
  /** Default: `headrace/streams` in the user's cache folder. */
  readonly cacheFolder?: string | undefined;
}

/** A valid compressed form of a file. */
export interface Cached {
  readonly compressedPath: string;
  /** Bytes of the content, which is the file's. */
  readonly byteLength: number;
}

/** {@link Cached}, and whether the call made it. */
export interface Ensured extends Cached {
  readonly made: boolean;
}

/** Where a form lies, whether or not it exists. */
export interface CachePlace {
  readonly source: string;
  readonly folder: string;
  readonly compressedPath: string;
  readonly sidecarPath: string;
}

/** Writes the compressed form of `source` to `target`, whole or not at all; resolves to the source's bytes. */
export type Compress = (source: string, target: string, codec: string, chunkBytes: number) => Promise<number>;

export interface CreateOptions {
  /** For the sidecar: program and version. */
  readonly createdBy?: string;
  readonly signal?: AbortSignal;
}

/** Throws `SOURCE_NOT_FOUND`, `SOURCE_UNREADABLE` or `IO_ERROR` where the file is not there. */
export function cachePlace(key: CacheKey): CachePlace {
  const source = sourceOf(key.path);
  const hash = new Bun.CryptoHasher("sha256").update(source).digest("hex").slice(0, 24);
  // The start of the name is for people; the hash tells files apart.
  const name = basename(source)
    .replace(/[^\w.-]/g, "_")
    .slice(0, 100);
  const folder = key.cacheFolder ?? userCacheFolder();
  const compressedPath = join(folder, `${name}-${hash}.${chunkOf(key)}.${key.codec}`);
  return { source, folder, compressedPath, sidecarPath: `${compressedPath}.json` };
}

/** Tells by lengths and times alone whether there is a valid form; reads no data. Throws as {@link cachePlace}. */
export function findCached(key: CacheKey): Cached | NotCached {
  const place = cachePlace(key);
  const found = sidecarOf(place, key);
  if ("reason" in found) return found;
  const now = statOf(place.source);
  if (now.byteLength !== found.byteLength) {
    return not("length", `${place.source} has ${now.byteLength} bytes and had ${found.byteLength}`);
  }
  if (!sameTimes(now, found)) return timesDiffer(place.source, now, found);
  const form = formStat(place);
  if ("reason" in form) return form;
  if (!sameTimes(form, found.compressed)) return timesDiffer(place.compressedPath, form, found.compressed);
  return { compressedPath: place.compressedPath, byteLength: found.byteLength };
}

/**
 * {@link findCached}, which where only times tell a file from the one that the sidecar speaks of, be it the
 * source or the form, also compares the digests of all its bytes; where they are the same, the sidecar takes the
 * new times.
 */
export async function checkCached(key: CacheKey, signal?: AbortSignal): Promise<Cached | NotCached> {
  const found = findCached(key);
  if (!("reason" in found) || found.reason !== "times") return found;
  const place = cachePlace(key);
  const known = sidecarOf(place, key);
  if ("reason" in known) return known;
  const source = sameTimes(statOf(place.source), known) ? known : await stampOf(place.source, signal);
  if (source.sha256 !== known.sha256) return digestsDiffer(place.source, source, known);
  const compressed = await checkedForm(place, known.compressed, signal);
  if ("reason" in compressed) return compressed;
  const { byteLength, mtimeMs, ctimeMs } = source;
  // Hashing the form takes a while too.
  checkUnchanged(place.source, source);
  await saveSidecar(place, { ...known, byteLength, mtimeMs, ctimeMs, compressed });
  return { compressedPath: place.compressedPath, byteLength };
}

/**
 * Makes the compressed form of a file, in place of any that is there. Throws what `compress` does, `CANCELLED`,
 * `FILE_CHANGED` where the file changes meanwhile, and for the cache folder `DISK_FULL` and `IO_ERROR`; then no
 * form is left.
 */
export async function createCached(
  key: CacheKey,
  compress: Compress,
  options: CreateOptions = {},
): Promise<Cached> {
  const { signal } = options;
  const place = cachePlace(key);
  openCacheFolder(place.folder);
  sweepPartials(place.folder);
  const source = await stampOf(place.source, signal);
  // Without its sidecar a form is none, so that an old sidecar never stands beside a new form.
  dropCached(place);
  try {
    await compressInto(place, key, compress, source.byteLength);
    checkSignal(place.source, signal);
    const compressed = await newForm(place, signal);
    checkUnchanged(place.source, source);
    await saveSidecar(place, {
      version: SIDECAR_VERSION,
      source: place.source,
      ...source,
      codec: key.codec,
      chunkBytes: chunkOf(key),
      compressed,
      createdBy: options.createdBy ?? "headrace",
    });
    return { compressedPath: place.compressedPath, byteLength: source.byteLength };
  } catch (error) {
    dropQuietly(place);
    throw error;
  }
}

/**
 * {@link checkCached}, and {@link createCached} where that finds none. Where another process, or another call in this
 * one, is making the form, waits for it and takes it; where that failed or was killed, makes it after all.
 */
export async function ensureCached(
  key: CacheKey,
  compress: Compress,
  options: CreateOptions = {},
): Promise<Ensured> {
  const { signal } = options;
  const found = await checkCached(key, signal);
  if (!("reason" in found)) return { ...found, made: false };
  const { folder, compressedPath, source } = cachePlace(key);
  openCacheFolder(folder);
  using _lock = await lockForm({ compressedPath, folder, source, signal });
  const meanwhile = findCached(key);
  if (!("reason" in meanwhile)) return { ...meanwhile, made: false };
  return { ...(await createCached(key, compress, options)), made: true };
}

function chunkOf(key: CacheKey): number {
  return key.chunkBytes ?? DEFAULT_CHUNK_BYTES;
}

function sourceOf(path: string): string {
  try {
    return realpathSync(path);
  } catch (cause) {
    throw nodeError(`${path}: finding the file`, cause);
  }
}

function sidecarOf({ source, sidecarPath, compressedPath }: CachePlace, key: CacheKey): Sidecar | NotCached {
  return readSidecar(sidecarPath, compressedPath, { source, codec: key.codec, chunkBytes: chunkOf(key) });
}

function timesDiffer(path: string, now: Stat, then: Stat): NotCached {
  return not("times", `${path}: ${statText(now)}; the sidecar has ${statText(then)}`);
}

function digestsDiffer(path: string, now: Stamp, then: Stamp): NotCached {
  return not("digest", `${path} has sha256 ${now.sha256} and had ${then.sha256}`);
}

/** A form may be deleted at any time, so that one that is gone is no failure. */
function formStat({ compressedPath }: CachePlace): Stat | NotCached {
  try {
    return statOf(compressedPath);
  } catch (error) {
    return not("unreadable", (error as Error).message);
  }
}

/** The form's stamp as it is now, if it has the bytes that it was made with. */
async function checkedForm(
  place: CachePlace,
  known: Stamp,
  signal: AbortSignal | undefined,
): Promise<Stamp | NotCached> {
  const now = formStat(place);
  if ("reason" in now || sameTimes(now, known)) return "reason" in now ? now : known;
  try {
    const stamp = await stampOf(place.compressedPath, signal);
    return stamp.sha256 === known.sha256 ? stamp : digestsDiffer(place.compressedPath, stamp, known);
  } catch (error) {
    if (error instanceof HeadraceError && error.code === "CANCELLED") throw error;
    return not("unreadable", (error as Error).message);
  }
}

async function compressInto(
  place: CachePlace,
  key: CacheKey,
  compress: Compress,
  expected: number,
): Promise<void> {
  let byteLength: number;
  try {
    byteLength = await compress(place.source, place.compressedPath, key.codec, chunkOf(key));
  } catch (error) {
    throw isOfPartial(error) ? cacheError(place.folder, "", error) : error;
  }
  if (byteLength === expected) return;
  throw new HeadraceError(
    "FILE_CHANGED",
    `${place.source}: ${byteLength} bytes were compressed of ${expected}; try again`,
  );
}

/** Whether the library failed with its partial file, which lies in the cache folder, and not with the source. */
function isOfPartial(error: unknown): boolean {
  if (!(error instanceof HeadraceError) || !error.message.includes(".partial")) return false;
  return error.code === "SOURCE_UNREADABLE" || error.code === "SOURCE_NOT_FOUND";
}

/** Of the form under its own name: the rename to it sets the ctime. */
async function newForm(place: CachePlace, signal: AbortSignal | undefined): Promise<Stamp> {
  try {
    return await stampOfForm(place.compressedPath, signal);
  } catch (error) {
    const { code } = error as HeadraceError;
    throw code === "CANCELLED" || code === "FILE_CHANGED" ? error : cacheError(place.folder, "", error);
  }
}

async function saveSidecar({ folder, sidecarPath }: CachePlace, value: Sidecar): Promise<void> {
  try {
    await writeSidecar(sidecarPath, value);
  } catch (cause) {
    throw cacheError(folder, `writing ${sidecarPath}`, cause);
  }
}

/** Removes a form, the sidecar first. */
function dropCached({ folder, sidecarPath, compressedPath }: CachePlace): void {
  for (const path of [sidecarPath, compressedPath]) {
    attemptInCache(folder, `removing ${path}`, () => rmSync(path, { force: true }));
  }
}

/** After a failure, which says more than that its leavings cannot be removed. */
function dropQuietly(place: CachePlace): void {
  try {
    dropCached(place);
  } catch {
    // Without its sidecar what is left is no form.
  }
}
