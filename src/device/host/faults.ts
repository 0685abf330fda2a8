/** Failures of system calls, described as data, so that tests meet what disks do once in years. */
import { constants } from "node:os";
import { HeadraceError } from "../../errors.ts";
import type { Libc } from "./libc.ts";

const CALLS = ["pread", "pwrite", "sync", "lseek", "mmap", "munmap", "madvise"] as const;

/** One failure. With neither `errno` nor `short` the call is only delayed. */
export interface Fault {
  readonly call: (typeof CALLS)[number];
  /** First of the device's calls of that kind to fail, counted from 1 over all threads. */
  readonly nth: number;
  /** How many calls fail from there on; 1 unless given. */
  readonly times?: number;
  /** The call fails with this errno: `EIO`, `EINTR`, … */
  readonly errno?: string;
  /** `pread` and `pwrite` move at most this many bytes; with 0 the file seems to end. */
  readonly short?: number;
  /** The call blocks this long first. */
  readonly delayMs?: number;
}

/** Calls counted so far, one number a fault, shared by all threads. */
export type FaultCounters = Int32Array<SharedArrayBuffer>;

/** Throws `BAD_OPTION` unless every fault can be injected. */
export function createFaultCounters(faults: readonly Fault[]): FaultCounters {
  for (const fault of faults) {
    if (!CALLS.includes(fault.call)) throw bad(`call ${fault.call} is none of ${CALLS.join(", ")}`);
    if (!Number.isSafeInteger(fault.nth) || fault.nth < 1) throw bad(`nth ${fault.nth} is not 1 or more`);
    if (fault.errno !== undefined) errnoNumber(fault.errno);
  }
  return new Int32Array(new SharedArrayBuffer(Math.max(1, faults.length) * 4));
}

/** The same calls, failing where `faults` says so. */
export function withFaults(libc: Libc, faults: readonly Fault[], counters: FaultCounters): Libc {
  let forcedErrno = 0;
  const sleeper = new Int32Array(new SharedArrayBuffer(4));

  /** The fault that this call meets, with its delay already served. */
  function meet(call: Fault["call"]): Fault | undefined {
    forcedErrno = 0;
    let met: Fault | undefined;
    for (let i = 0; i < faults.length; i++) {
      const fault = faults[i]!;
      if (fault.call !== call) continue;
      const count = Atomics.add(counters, i, 1) + 1;
      if (count >= fault.nth && count < fault.nth + (fault.times ?? 1)) met ??= fault;
    }
    if (met?.delayMs !== undefined) Atomics.wait(sleeper, 0, 0, met.delayMs);
    if (met?.errno !== undefined) forcedErrno = errnoNumber(met.errno);
    return met;
  }

  /** Runs `call` with the number of bytes that the fault leaves it. */
  function transfer(name: "pread" | "pwrite", length: number, call: (length: number) => number): number {
    const fault = meet(name);
    if (forcedErrno !== 0) return -1;
    if (fault?.short === undefined) return call(length);
    return fault.short === 0 ? 0 : call(Math.min(length, fault.short));
  }

  function failing(name: Fault["call"], call: () => number): number {
    meet(name);
    return forcedErrno !== 0 ? -1 : call();
  }

  return {
    ...libc,
    errno: () => (forcedErrno !== 0 ? forcedErrno : libc.errno()),
    pread: (fd, address, length, offset) =>
      transfer("pread", length, (count) => libc.pread(fd, address, count, offset)),
    pwrite: (fd, address, length, offset) =>
      transfer("pwrite", length, (count) => libc.pwrite(fd, address, count, offset)),
    sync: (fd) => failing("sync", () => libc.sync(fd)),
    lseek: (fd, offset, whence) => failing("lseek", () => libc.lseek(fd, offset, whence)),
    munmap: (address, length) => failing("munmap", () => libc.munmap(address, length)),
    madvise: (address, length, advice) => failing("madvise", () => libc.madvise(address, length, advice)),
    mmap: (length, protection, flags, fd, offset) => {
      meet("mmap");
      return forcedErrno !== 0 ? null : libc.mmap(length, protection, flags, fd, offset);
    },
  };
}

function errnoNumber(name: string): number {
  const errno = (constants.errno as Readonly<Record<string, number>>)[name];
  if (errno === undefined) throw bad(`errno ${name} is not one of this system`);
  return errno;
}

function bad(message: string): HeadraceError {
  return new HeadraceError("BAD_OPTION", `faults: ${message}`);
}
