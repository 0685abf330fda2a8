/**
 * The derived cache of compressed shards: MTLIO files that this Mac made of shards, each beside a small JSON
 * file (its sidecar) that says of which bytes it was made. Either may be deleted at any time; the user's own
 * folders are never written to.
 */
import { randomUUID } from "node:crypto";
import { mkdirSync, readFileSync, realpathSync, rmSync, statSync } from "node:fs";
import { open, rename, rm } from "node:fs/promises";
import { homedir } from "node:os";
import { basename, join } from "node:path";
import * as v from "valibot";
import { HeadraceError } from "../../errors.ts";
import { nodeError } from "../common/errors.ts";

/** The only version of sidecars; others are made anew. */
export const SIDECAR_VERSION = 1;
export const DEFAULT_CHUNK_BYTES = 65536;
/** Bytes that are hashed between two looks at the signal. */
const HASH_BYTES = 4 * 1024 * 1024;
const MAX_SIDECAR_BYTES = 64 * 1024;

const count = v.pipe(v.number(), v.safeInteger(), v.minValue(0));
const text = v.pipe(v.string(), v.nonEmpty());
const sidecar = v.object({
  version: v.literal(SIDECAR_VERSION),
  /** Absolute, links resolved. */
  source: text,
  byteLength: count,
  mtimeMs: v.pipe(v.number(), v.finite()),
  sha256: v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/, "not a sha256 in hex")),
  codec: text,
  chunkBytes: v.pipe(count, v.minValue(1)),
  /** Of the compressed file, so that a sidecar never speaks for another one. */
  compressedLength: v.pipe(count, v.minValue(1)),
  createdBy: v.string(),
});

/** What a sidecar says. */
export type Sidecar = v.InferOutput<typeof sidecar>;

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

/** Why there is no valid form. Only `mtime` may turn out to be valid all the same: see {@link checkCached}. */
export interface NotCached {
  readonly reason: "absent" | "unreadable" | "other" | "length" | "mtime" | "digest";
  /** For people, with the numbers. */
  readonly message: string;
}

/** Where a form lies, whether or not it exists. */
export interface CachePlace {
  readonly source: string;
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

/** The folder for caches of this user and system. */
export function userCacheFolder(
  platform: string = process.platform,
  environment: Readonly<Record<string, string | undefined>> = process.env,
  home: string = homedir(),
): string {
  const given = environment.XDG_CACHE_HOME;
  if (given?.startsWith("/")) return join(given, "headrace", "streams");
  const caches = platform === "darwin" ? join(home, "Library", "Caches") : join(home, ".cache");
  return join(caches, "headrace", "streams");
}

/** Throws `SOURCE_NOT_FOUND`, `SOURCE_UNREADABLE` or `IO_ERROR` where the file is not there. */
export function cachePlace(key: CacheKey): CachePlace {
  const source = attempt(`${key.path}: finding the file`, () => realpathSync(key.path));
  const hash = new Bun.CryptoHasher("sha256").update(source).digest("hex").slice(0, 24);
  // The start of the name is for people; the hash tells files apart.
  const name = basename(source)
    .replace(/[^\w.-]/g, "_")
    .slice(0, 100);
  const folder = key.cacheFolder ?? userCacheFolder();
  const compressedPath = join(folder, `${name}-${hash}.${chunkOf(key)}.${key.codec}`);
  return { source, compressedPath, sidecarPath: `${compressedPath}.json` };
}

/** Tells by lengths and times alone whether there is a valid form; reads no data. Throws as {@link cachePlace}. */
export function findCached(key: CacheKey): Cached | NotCached {
  const place = cachePlace(key);
  const found = readSidecar(place, key);
  if ("reason" in found) return found;
  const now = statOf(place.source);
  if (now.byteLength !== found.byteLength) {
    return not("length", `${place.source} has ${now.byteLength} bytes and had ${found.byteLength}`);
  }
  if (now.mtimeMs !== found.mtimeMs) {
    return not(
      "mtime",
      `${place.source} was written at ${now.mtimeMs} ms and the form is of ${found.mtimeMs} ms`,
    );
  }
  return { compressedPath: place.compressedPath, byteLength: found.byteLength };
}

/**
 * {@link findCached}, which for a file that only its time tells from the one that was compressed also compares
 * the digests of all bytes; where they are the same, the sidecar takes the new time.
 */
export async function checkCached(key: CacheKey, signal?: AbortSignal): Promise<Cached | NotCached> {
  const found = findCached(key);
  if (!("reason" in found) || found.reason !== "mtime") return found;
  const place = cachePlace(key);
  const before = statOf(place.source);
  const digest = await digestOf(place.source, signal);
  const known = readSidecar(place, key);
  if ("reason" in known) return known;
  if (digest !== known.sha256) {
    return not("digest", `${place.source} has sha256 ${digest} and had ${known.sha256}`);
  }
  checkUnchanged(place.source, before);
  await writeSidecar(place.sidecarPath, { ...known, mtimeMs: before.mtimeMs });
  return { compressedPath: place.compressedPath, byteLength: known.byteLength };
}

/**
 * Makes the compressed form of a file, in place of any that is there. Throws what `compress` does, `CANCELLED`,
 * `FILE_CHANGED` where the file changes meanwhile, `DISK_FULL`, `IO_ERROR`; then no form is left.
 */
export async function createCached(
  key: CacheKey,
  compress: Compress,
  options: CreateOptions = {},
): Promise<Cached> {
  const { signal } = options;
  const place = cachePlace(key);
  const chunkBytes = chunkOf(key);
  const folder = key.cacheFolder ?? userCacheFolder();
  attempt(`${folder}: making the cache folder`, () => mkdirSync(folder, { recursive: true }));
  const before = statOf(place.source);
  const sha256 = await digestOf(place.source, signal);
  checkUnchanged(place.source, before);
  // Without its sidecar a form is none, so that an old sidecar never stands beside a new form.
  dropCached(place);
  try {
    const byteLength = await compress(place.source, place.compressedPath, key.codec, chunkBytes);
    checkSignal(place.source, signal);
    checkUnchanged(place.source, before);
    if (byteLength !== before.byteLength) {
      throw new HeadraceError(
        "FILE_CHANGED",
        `${place.source}: ${byteLength} bytes were compressed of ${before.byteLength}; try again`,
      );
    }
    await writeSidecar(place.sidecarPath, {
      version: SIDECAR_VERSION,
      source: place.source,
      byteLength,
      mtimeMs: before.mtimeMs,
      sha256,
      codec: key.codec,
      chunkBytes,
      compressedLength: statOf(place.compressedPath).byteLength,
      createdBy: options.createdBy ?? "headrace",
    });
    return { compressedPath: place.compressedPath, byteLength };
  } catch (error) {
    dropCached(place);
    throw error;
  }
}

/** {@link checkCached}, and {@link createCached} where that finds none. */
export async function ensureCached(
  key: CacheKey,
  compress: Compress,
  options: CreateOptions = {},
): Promise<Cached> {
  const found = await checkCached(key, options.signal);
  return "reason" in found ? createCached(key, compress, options) : found;
}

function chunkOf(key: CacheKey): number {
  return key.chunkBytes ?? DEFAULT_CHUNK_BYTES;
}

function not(reason: NotCached["reason"], message: string): NotCached {
  return { reason, message };
}

function attempt<T>(what: string, work: () => T): T {
  try {
    return work();
  } catch (cause) {
    throw nodeError(what, cause);
  }
}

interface Stat {
  readonly byteLength: number;
  readonly mtimeMs: number;
}

function statOf(path: string): Stat {
  const { size, mtimeMs } = attempt(`${path}: finding length and time`, () => statSync(path));
  return { byteLength: size, mtimeMs };
}

function checkUnchanged(path: string, before: Stat): void {
  const now = statOf(path);
  if (now.byteLength === before.byteLength && now.mtimeMs === before.mtimeMs) return;
  throw new HeadraceError(
    "FILE_CHANGED",
    `${path}: changed while its compressed form was made or checked: ${before.byteLength} bytes of ${before.mtimeMs} ms, now ${now.byteLength} of ${now.mtimeMs} ms; try again`,
  );
}

function checkSignal(path: string, signal: AbortSignal | undefined): void {
  if (signal?.aborted === true) {
    throw new HeadraceError("CANCELLED", `${path}: compressing was cancelled`, { cause: signal.reason });
  }
}

/** The sidecar, if it and the form that it speaks for are whole and meant for `key`. */
function readSidecar(place: CachePlace, key: CacheKey): Sidecar | NotCached {
  let value: unknown;
  let compressedLength: number;
  try {
    const { size } = statSync(place.sidecarPath);
    if (size > MAX_SIDECAR_BYTES) {
      return not("unreadable", `${place.sidecarPath}: ${size} bytes, over ${MAX_SIDECAR_BYTES}`);
    }
    value = JSON.parse(readFileSync(place.sidecarPath, "utf8"));
    compressedLength = statSync(place.compressedPath).size;
  } catch (cause) {
    const isAbsent = (cause as { code?: unknown }).code === "ENOENT";
    const message = `${place.compressedPath}: ${(cause as Error).message}`;
    return not(isAbsent ? "absent" : "unreadable", message);
  }
  const parsed = v.safeParse(sidecar, value, { abortEarly: true });
  if (!parsed.success) {
    const [issue] = parsed.issues;
    return not("unreadable", `${place.sidecarPath}: ${v.getDotPath(issue) ?? "the file"}: ${issue.message}`);
  }
  const found = parsed.output;
  if (found.source !== place.source || found.codec !== key.codec || found.chunkBytes !== chunkOf(key)) {
    return not(
      "other",
      `${place.sidecarPath} is of ${found.source}, ${found.codec}, ${found.chunkBytes} bytes a chunk`,
    );
  }
  if (found.compressedLength !== compressedLength) {
    return not(
      "unreadable",
      `${place.compressedPath} has ${compressedLength} bytes and was made with ${found.compressedLength}`,
    );
  }
  return found;
}

async function digestOf(path: string, signal: AbortSignal | undefined): Promise<string> {
  const hasher = new Bun.CryptoHasher("sha256");
  try {
    const file = await open(path, "r");
    try {
      const room = new Uint8Array(HASH_BYTES);
      for (;;) {
        checkSignal(path, signal);
        const { bytesRead } = await file.read(room, 0, room.length, null);
        if (bytesRead === 0) break;
        hasher.update(room.subarray(0, bytesRead));
      }
    } finally {
      await file.close();
    }
  } catch (cause) {
    throw cause instanceof HeadraceError ? cause : nodeError(`${path}: reading it for its digest`, cause);
  }
  return hasher.digest("hex");
}

async function writeSidecar(path: string, value: Sidecar): Promise<void> {
  const partial = `${path}.${randomUUID()}.partial`;
  try {
    const file = await open(partial, "wx");
    try {
      await file.writeFile(`${JSON.stringify(value, undefined, 2)}\n`);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(partial, path);
  } catch (cause) {
    await rm(partial, { force: true });
    throw nodeError(`${path}: writing it`, cause);
  }
}

/** Removes a form, the sidecar first. */
function dropCached(place: CachePlace): void {
  for (const path of [place.sidecarPath, place.compressedPath]) {
    attempt(`${path}: removing it`, () => rmSync(path, { force: true }));
  }
}
