/**
 * One process at a time makes a form. The lock is the system's own (`flock`), on an empty file beside the form: it ends
 * with the process that holds it, however that ends, so that no lock is ever stale. Where the file system has no locks
 * each makes the form for itself: one of them may fail then, but what is there is a whole form or none, since forms and
 * sidecars are renamed into place, and a form without a sidecar that fits it is none.
 */
import { closeSync, fstatSync, openSync, rmSync, statSync } from "node:fs";
import { constants } from "node:os";
import { Syscalls } from "../host/syscalls.ts";
import { attemptInCache } from "./cache-folder.ts";
import { checkSignal } from "./sidecar.ts";

/** Between two looks at whether a lock is free, ms. */
const LOOK_EVERY_MS = 50;

export interface LockOptions {
  /** The form's file; the lock is beside it, in a folder that is there. */
  readonly compressedPath: string;
  readonly folder: string;
  /** For messages. */
  readonly source: string;
  readonly signal?: AbortSignal | undefined;
}

/** Holds the lock from when it resolves to when it is disposed. Throws `CANCELLED`, and for the cache folder
 * `IO_ERROR` and `DISK_FULL`. */
export async function lockForm({ compressedPath, folder, source, signal }: LockOptions): Promise<Disposable> {
  const syscalls = new Syscalls();
  const path = `${compressedPath}.lock`;
  for (;;) {
    checkSignal(source, signal);
    const fd = attemptInCache(folder, `opening ${path}`, () => openSync(path, "a"));
    const status = syscalls.tryLock(fd);
    if (status !== -constants.errno.EAGAIN && (status < 0 || isAt(path, fd))) return held(path, fd);
    closeSync(fd);
    if (status < 0) await Bun.sleep(LOOK_EVERY_MS);
  }
}

/** Whether the open file is still the one of that name: its last holder removes it. */
function isAt(path: string, fd: number): boolean {
  const now = statSync(path, { throwIfNoEntry: false });
  const own = fstatSync(fd);
  return now?.ino === own.ino && now.dev === own.dev;
}

function held(path: string, fd: number): Disposable {
  return {
    [Symbol.dispose]() {
      // While it is locked: whoever opened it before sees that it is gone, and opens a new one.
      rmSync(path, { force: true });
      closeSync(fd);
    },
  };
}
