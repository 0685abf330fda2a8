/** Whether files stay as they are while they are packed. */
import { type BigIntStats, closeSync, fstatSync, openSync, statSync } from "node:fs";
import { HeadraceError } from "../../errors.ts";

/** Errors of what is written or was asked for, which no change of the source explains. */
const NOT_OF_THE_SOURCE = new Set([
  "CANCELLED",
  "BAD_OPTION",
  "BUSY",
  "OTHER_JOB",
  "DISK_FULL",
  "FILE_CHANGED",
]);

/** How a source goes on with its files once they are open. */
export interface WatchOptions {
  /** Whether the source keeps each open for as long as it is read: one that is replaced by another is then read as it was.
   * Else it is opened again by its path, and may not be replaced. */
  readonly held: boolean;
}

interface Watched {
  readonly path: string;
  /** As it was before the source opened it. */
  readonly before: BigIntStats;
  /** The watch's own, where the source holds the file. */
  readonly descriptor: number | undefined;
}

/**
 * Remembers device, inode, length and times of a source's files from before they are read, and says whether they have
 * changed. What changes within one tick of the file system's clock (some milliseconds) and keeps its length is not seen.
 * Owns descriptors; {@link SourceWatch.close} ends them.
 */
export class SourceWatch {
  readonly #files = new Map<string, Watched>();

  /** Watches files that the source will open. What is no regular file, or cannot be opened, is the source's to refuse. */
  add(paths: readonly string[], { held }: WatchOptions): void {
    for (const path of paths) {
      if (this.#files.has(path)) continue;
      // A pipe would block the opening.
      if (statOf(path)?.isFile() !== true) continue;
      const descriptor = held ? openOrUndefined(path) : undefined;
      const before = descriptor === undefined ? statOf(path) : fstatSync(descriptor, { bigint: true });
      if (before !== undefined) this.#files.set(path, { path, before, descriptor });
    }
  }

  /** To be called when the source has opened its files. Throws `FILE_CHANGED` where one of them is not the watched one. */
  opened(): void {
    for (const { path, before, descriptor } of this.#files.values()) {
      const now = descriptor === undefined ? before : statOf(path);
      if (now === undefined || !isSame(before, now)) throw replaced(path, before, now);
    }
  }

  /** Throws `FILE_CHANGED` naming the first file that has changed: what it was, and what it is. */
  check(): void {
    for (const { path, before, descriptor } of this.#files.values()) {
      const now = descriptor === undefined ? statOf(path) : fstatSync(descriptor, { bigint: true });
      if (now === undefined || !isSame(before, now)) throw replaced(path, before, now);
      if (isWritten(path, before, now)) {
        const text = `${path}: changed while it was packed: it had ${stateText(before)}, and has ${stateText(now)}${
          before.mtimeNs === now.mtimeNs ? `; its time of change moved to ${timeText(now.ctimeNs)}` : ""
        }`;
        throw new HeadraceError("FILE_CHANGED", `${text}; pack it again when nobody writes to it`);
      }
    }
  }

  /** What to throw for `error`: `FILE_CHANGED` where a file has changed, since that explains what was wrong with it. */
  explain(error: unknown): unknown {
    if (error instanceof HeadraceError && NOT_OF_THE_SOURCE.has(error.code)) return error;
    try {
      this.check();
      return error;
    } catch (change) {
      if (!(change instanceof HeadraceError)) return error;
      return new HeadraceError(change.code, change.message, { cause: error });
    }
  }

  close(): void {
    for (const { descriptor } of this.#files.values()) if (descriptor !== undefined) closeSync(descriptor);
    this.#files.clear();
  }
}

function openOrUndefined(path: string): number | undefined {
  try {
    return openSync(path, "r");
  } catch {
    return undefined;
  }
}

function statOf(path: string): BigIntStats | undefined {
  try {
    return statSync(path, { bigint: true });
  } catch {
    return undefined;
  }
}

function isSame(a: BigIntStats, b: BigIntStats): boolean {
  return a.dev === b.dev && a.ino === b.ino;
}

/** Whether the file was written to. A new name, link, mode or owner also moves the time of change, and is no writing. */
function isWritten(path: string, before: BigIntStats, now: BigIntStats): boolean {
  if (before.size !== now.size || before.mtimeNs !== now.mtimeNs) return true;
  if (before.ctimeNs === now.ctimeNs) return false;
  const named = statOf(path);
  const attributes = ["nlink", "mode", "uid", "gid"] as const;
  return named !== undefined && isSame(named, now) && attributes.every((name) => before[name] === now[name]);
}

function replaced(path: string, before: BigIntStats, now: BigIntStats | undefined): HeadraceError {
  const what = now === undefined ? "is gone" : `was replaced by another file with ${stateText(now)}`;
  const text = `${path}: ${what} while it was packed: it had ${stateText(before)}; pack it again`;
  return new HeadraceError("FILE_CHANGED", text);
}

function stateText({ size, mtimeNs }: BigIntStats): string {
  return `${size} bytes written at ${timeText(mtimeNs)}`;
}

/** In UTC, to the nanosecond. */
function timeText(ns: bigint): string {
  const seconds = ns / 1_000_000_000n;
  const rest = String(ns % 1_000_000_000n).padStart(9, "0");
  return `${new Date(Number(seconds) * 1000).toISOString().slice(0, 19)}.${rest}Z`;
}
