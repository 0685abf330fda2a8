/** What the system keeps of a file in memory: whether reading it needs the disk. */
import type { Syscalls } from "./syscalls.ts";

/** Places of a file that are looked at, and bytes of each: enough to tell a warm file from a cold one without
 * asking for millions of pages. */
const SAMPLES = 64;
const SAMPLE_BYTES = 32 * 1024;

/** Bytes that the system is asked about at once where every page counts. */
const ALL_BYTES = 256 * 1024 * 1024;

/** Part of the first `byteLength` bytes of `fd` that is in memory, 0 to 1, by samples unless `exact`; undefined where the
 * system does not say. Linux tells this to those alone who may write the file or own it, and answers 1 to others. */
export function residentPart(
  syscalls: Syscalls,
  fd: number,
  byteLength: number,
  exact: boolean,
): number | undefined {
  if (byteLength === 0) return undefined;
  const { pageSize } = syscalls;
  const address = syscalls.mapFile(fd, 0, byteLength);
  if (address < 0) return undefined;
  try {
    const sample = exact ? ALL_BYTES : SAMPLE_BYTES;
    const stride = exact ? sample : Math.max(sample, Math.ceil(byteLength / SAMPLES / pageSize) * pageSize);
    let resident = 0;
    let pages = 0;
    for (let at = 0; at < byteLength; at += stride) {
      const length = Math.min(sample, byteLength - at);
      const found = syscalls.residentPages(address + at, length);
      if (found < 0) return undefined;
      resident += found;
      pages += Math.ceil(length / pageSize);
    }
    return resident / pages;
  } finally {
    syscalls.unmap(address, byteLength);
  }
}

/** Has the system drop its clean pages of the first `byteLength` bytes of `fd`, as far as it lets itself be
 * told: by advice on Linux, by invalidating a mapping on macOS. */
export function forgetResident(syscalls: Syscalls, fd: number, byteLength: number): void {
  if (byteLength === 0 || syscalls.giveUp(fd)) return;
  const address = syscalls.mapFile(fd, 0, byteLength);
  if (address < 0) return;
  syscalls.invalidate(address, byteLength);
  syscalls.unmap(address, byteLength);
}
