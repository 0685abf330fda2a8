/** From the system's errno to this library's codes. */
import { constants } from "node:os";
import { type ErrorCode, HeadraceError } from "../../errors.ts";

/** Errors that have a code of their own; all others are `IO_ERROR`. */
const CODES: Readonly<Record<string, ErrorCode>> = {
  ENOENT: "SOURCE_NOT_FOUND",
  ENOTDIR: "SOURCE_NOT_FOUND",
  EACCES: "SOURCE_UNREADABLE",
  EPERM: "SOURCE_UNREADABLE",
  EISDIR: "SOURCE_UNREADABLE",
  ELOOP: "SOURCE_UNREADABLE",
  ENAMETOOLONG: "SOURCE_UNREADABLE",
  ENXIO: "SOURCE_UNREADABLE",
  ENOSPC: "DISK_FULL",
  EDQUOT: "DISK_FULL",
  ENOMEM: "OUT_OF_MEMORY",
};

const REMEDIES: Readonly<Record<string, string>> = {
  EMFILE: "; close files or raise the limit (ulimit -n)",
  ENFILE: "; the system has no file descriptors left",
  ENOSPC: "; free some space and write again",
  EDQUOT: "; the disk quota is used up",
};

const NAMES: ReadonlyMap<number, string> = new Map(
  Object.entries(constants.errno).map(([name, errno]) => [errno, name]),
);

/** `EIO` for 5, and so on; `errno 4711` for an unknown one. */
export function errnoName(errno: number): string {
  return NAMES.get(errno) ?? `errno ${errno}`;
}

/** The error for a failed call; `what` says what was tried, with file and numbers. */
export function errnoError(what: string, errno: number): HeadraceError {
  return namedError(what, errnoName(errno));
}

/** The error for a failure that `node:fs` reported, whose `code` is an errno's name. */
export function nodeError(what: string, cause: unknown): HeadraceError {
  const name = (cause as { code?: unknown } | undefined)?.code;
  if (typeof name === "string") return namedError(what, name, cause);
  const message = cause instanceof Error ? cause.message : String(cause);
  return new HeadraceError("IO_ERROR", `${what}: ${message}`, { cause });
}

/** What came out of work that has nobody to throw to: whatever is not this library's own is `DEVICE_FAILED`. */
export function deviceError(error: unknown): HeadraceError {
  return error instanceof HeadraceError ? error : new HeadraceError("DEVICE_FAILED", String(error));
}

/** For a method called after `close`. */
export function closedError(what: string): HeadraceError {
  return new HeadraceError("CLOSED", `${what} is closed`);
}

function namedError(what: string, name: string, cause?: unknown): HeadraceError {
  const message = `${what}: ${name}${REMEDIES[name] ?? ""}`;
  return new HeadraceError(CODES[name] ?? "IO_ERROR", message, cause === undefined ? {} : { cause });
}
