/** Brings files out of memory, or into it, and proves it: right before a trial the system is asked what it has. */
import { closeSync, fsyncSync, openSync, readSync, writeFileSync } from "node:fs";
import { type Device, openDevice } from "../index.ts";

/** A file of which less than this part is in memory is out of it. */
const COLD_PART = 0.02;
/** One of which more than this part is in memory is in it. */
const WARM_PART = 0.98;
/** Bytes of a read that warms. */
const READ_BYTES = 4 * 2 ** 20;
const DROP_CACHES = "/proc/sys/vm/drop_caches";

/** What a trial may call itself. */
export interface Temperature {
  readonly temperature: "cold" | "warm";
  /** Part of the files that was in memory right before, of all their pages; absent where the
   * system does not tell. */
  readonly residency?: number | undefined;
}

/**
 * Makes `paths` cold or warm. Cold: what was written is made durable, the system is advised to drop the files (Linux:
 * `posix_fadvise`; macOS: `msync(MS_INVALIDATE)`), and where that was not enough told to drop all it may
 * (`drop_caches` as root, `purge` where sudo asks nothing). What is not proven cold counts as warm.
 */
export function prepareFiles(paths: readonly string[], wanted: "cold" | "warm"): Temperature {
  const device = openDevice("host", { lanes: 1 });
  try {
    if (wanted === "warm") {
      let residency = residencyOf(device, paths);
      if (residency === undefined || residency < WARM_PART) {
        for (const path of paths) readThrough(path);
        residency = residencyOf(device, paths);
      }
      return { temperature: "warm", residency };
    }
    drop(device, paths);
    let residency = residencyOf(device, paths);
    if (residency !== undefined && residency > COLD_PART && dropEverything()) {
      drop(device, paths);
      residency = residencyOf(device, paths);
    }
    const proven = residency !== undefined && residency <= COLD_PART;
    return { temperature: proven ? "cold" : "warm", residency };
  } finally {
    void device.close();
  }
}

function drop(device: Device, paths: readonly string[]): void {
  for (const path of paths) {
    const fd = openSync(path, "r");
    try {
      fsyncSync(fd);
    } finally {
      closeSync(fd);
    }
    using file = device.openFile(path);
    file.forgetResident?.();
  }
}

function residencyOf(device: Device, paths: readonly string[]): number | undefined {
  let bytes = 0;
  let resident = 0;
  for (const path of paths) {
    using file = device.openFile(path);
    const part = file.residentPart?.(true);
    if (part === undefined) return undefined;
    bytes += file.byteLength;
    resident += part * file.byteLength;
  }
  return bytes === 0 ? undefined : resident / bytes;
}

function readThrough(path: string): void {
  const buffer = new Uint8Array(READ_BYTES);
  const fd = openSync(path, "r");
  try {
    for (let at = 0, got = 1; got > 0; at += got) got = readSync(fd, buffer, 0, buffer.length, at);
  } finally {
    closeSync(fd);
  }
}

/** Has the system drop every clean page; false where it may not be told to. */
function dropEverything(): boolean {
  try {
    if (process.platform === "darwin") return Bun.spawnSync(["sudo", "-n", "purge"]).success;
    writeFileSync(DROP_CACHES, "1");
    return true;
  } catch {
    return false;
  }
}
