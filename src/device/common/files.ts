/** Paths and files as every device checks them before it opens one. */
import { type Stats, statSync } from "node:fs";
import { HeadraceError } from "../../errors.ts";
import type { FileMode } from "../device.ts";
import { nodeError } from "./errors.ts";

const MODES: readonly FileMode[] = ["read", "write", "stream"];

/** Throws `BAD_OPTION` for what can be no path or mode. */
export function checkOpening(path: string, mode: FileMode): void {
  if (typeof path !== "string" || path.length === 0 || path.includes("\0")) {
    throw new HeadraceError("BAD_OPTION", `path ${JSON.stringify(path)} cannot name a file`);
  }
  if (!MODES.includes(mode)) {
    throw new HeadraceError("BAD_OPTION", `mode ${mode} is none of ${MODES.join(", ")}`);
  }
}

/** What is at `path`, or undefined where nothing is and `mayBeAbsent`. Throws the error of `what`. */
export function statOrUndefined(what: string, path: string, mayBeAbsent: boolean): Stats | undefined {
  try {
    return statSync(path);
  } catch (error) {
    const absent = (error as { code?: unknown }).code === "ENOENT";
    if (mayBeAbsent && absent) return undefined;
    throw nodeError(what, error);
  }
}

/** Throws `SOURCE_UNREADABLE` for what is no regular file, and says what it is. */
export function assertRegular(path: string, stats: Stats): void {
  if (stats.isFile()) return;
  const kind = stats.isDirectory()
    ? "a directory"
    : stats.isFIFO()
      ? "a pipe"
      : stats.isSocket()
        ? "a socket"
        : stats.isCharacterDevice() || stats.isBlockDevice()
          ? "a device"
          : "of an unknown kind";
  throw new HeadraceError("SOURCE_UNREADABLE", `${path}: is ${kind}, and only regular files can be opened`);
}

/** The failure of a read that met the end of the file. */
export function shortReadError(
  path: string,
  byteOffset: number,
  expected: number,
  actual: number,
): HeadraceError {
  return new HeadraceError(
    "SHORT_READ",
    `${path}: bytes [${byteOffset}, ${byteOffset + expected}) were asked for and the file ended after ${actual} of ${expected}; it is truncated or has shrunk`,
  );
}

/** The failure of using a file that was longer once. */
export function shrunkError(path: string, now: number, before: number): HeadraceError {
  return new HeadraceError(
    "FILE_CHANGED",
    `${path}: has ${now} bytes now and had ${before} when it was opened; open it again`,
  );
}
