/** Failures of writing what a benchmark leaves. */
import { HeadraceError } from "../index.ts";

const REASONS: Readonly<Record<string, string>> = {
  EACCES: "no permission",
  EEXIST: "a file is there, and no folder",
  ENOENT: "no such folder",
  ENOTDIR: "a part of it is a file, and no folder",
  EPERM: "no permission",
  EROFS: "its file system is read-only",
  ENOSPC: "no space is left",
  EDQUOT: "the quota is used up",
};

/** `cause` as `DISK_FULL` or `IO_ERROR` of `path`, with what to do; what is no failure of the system's stays as it is. */
export function writeFailure(path: string, cause: unknown, hint: string): unknown {
  const { code, syscall } = cause as NodeJS.ErrnoException;
  if (cause instanceof HeadraceError || code === undefined || syscall === undefined) return cause;
  const text = `${path}: cannot be written: ${REASONS[code] ?? code}; ${hint}`;
  return new HeadraceError(code === "ENOSPC" || code === "EDQUOT" ? "DISK_FULL" : "IO_ERROR", text, {
    cause,
  });
}
