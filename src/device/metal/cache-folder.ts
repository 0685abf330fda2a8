/** The folder of compressed forms: where it is, whether it can be used, and what killed processes left in it. */
import { randomUUID } from "node:crypto";
import { closeSync, mkdirSync, openSync, readdirSync, rmSync, statSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { HeadraceError } from "../../errors.ts";
import { nodeError } from "../common/errors.ts";

/** A partial file that was not written to for so long has no process any more. */
const STALE_MS = 24 * 60 * 60 * 1000;
/** What this project and its library call files that are not whole yet; a folder that the user named may hold
 * others' files. */
const PARTIAL = /^\..*\.[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\.partial$/i;

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

/** Makes the folder and sees that files can be made in it. Throws `IO_ERROR`, `DISK_FULL`. */
export function openCacheFolder(folder: string): void {
  attemptInCache(folder, "creating the folder", () => mkdirSync(folder, { recursive: true }));
  const probe = join(folder, `.probe.${randomUUID()}.partial`);
  // Modes alone do not tell: root may pass them, and some file systems take no files.
  attemptInCache(folder, "creating a file there", () => closeSync(openSync(probe, "wx")));
  attemptInCache(folder, "removing a file there", () => rmSync(probe, { force: true }));
}

/** Removes what processes left that were killed. What cannot be removed does no harm but for its room. */
export function sweepPartials(folder: string, nowMs: number = Date.now()): void {
  for (const name of namesIn(folder)) {
    if (!PARTIAL.test(name)) continue;
    const path = join(folder, name);
    try {
      if (nowMs - statSync(path).mtimeMs > STALE_MS) rmSync(path, { force: true });
    } catch {
      // Another process swept it, or it is not ours to remove.
    }
  }
}

/** A failure of the cache folder must not look like one of the source: the remedy is another. */
export function cacheError(folder: string, what: string, cause: unknown): HeadraceError {
  const prefix = `the stream cache ${folder}`;
  const told =
    cause instanceof HeadraceError
      ? cause.within(what === "" ? prefix : `${prefix}: ${what}`)
      : nodeError(`${prefix}: ${what}`, cause);
  if (told.code === "DISK_FULL" || told.code === "OUT_OF_MEMORY") return told;
  const message = `${told.message}; name another folder (cacheFolder, --stream-cache)`;
  return new HeadraceError("IO_ERROR", message, { cause });
}

/** Runs what uses the cache folder alone. */
export function attemptInCache<T>(folder: string, what: string, work: () => T): T {
  try {
    return work();
  } catch (cause) {
    throw cacheError(folder, what, cause);
  }
}

function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}
