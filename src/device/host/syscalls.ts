/**
 * System calls with their arguments checked and EINTR retried: what the rest of the device uses. Where a
 * call can fail, a negative result is `-errno`; no call throws for what the system answers.
 */
import { ptr } from "bun:ffi";
import { constants } from "node:os";
import { HeadraceError } from "../../errors.ts";
import { type Fault, type FaultCounters, withFaults } from "./faults.ts";
import {
  type Libc,
  LOCK_EX,
  LOCK_NB,
  MADV,
  MAP_PRIVATE,
  MAP_SHARED,
  openLibc,
  PROT_READ,
  PROT_WRITE,
  SEEK_END,
} from "./libc.ts";

/** Bytes that one `pread` or `pwrite` is asked for: macOS refuses 2 GiB and more. */
export const MAX_TRANSFER = 2 ** 30;

const MAX_ADDRESS = Number.MAX_SAFE_INTEGER;
const { EINTR, EINVAL, ENOSYS } = constants.errno;

/** Injected failures and their counters, which all threads of a device share. */
export interface FaultPlan {
  readonly faults: readonly Fault[];
  readonly counters: FaultCounters;
}

/** The calls of one thread. */
export class Syscalls {
  /** Bytes. */
  readonly pageSize: number;
  readonly #libc: Libc;

  /** Throws `DEVICE_UNAVAILABLE` where the C library cannot be bound. */
  constructor(plan?: FaultPlan) {
    const libc = openLibc();
    this.#libc = plan === undefined ? libc : withFaults(libc, plan.faults, plan.counters);
    this.pageSize = libc.pageSize;
  }

  /** Zeroed memory that takes no page before it is touched. Returns its address, or `-errno`. */
  mapAnonymous(length: number): number {
    check("mmap", "length", length, 1);
    const flags = MAP_PRIVATE | this.#libc.platform.MAP_ANONYMOUS;
    return this.#address(this.#libc.mmap(length, PROT_READ | PROT_WRITE, flags, -1, 0));
  }

  /** Shows `[offset, offset + length)` of a file, read-only; `offset` is a multiple of the page size.
   * Returns its address, or `-errno`. */
  mapFile(fd: number, offset: number, length: number): number {
    check("mmap", "fd", fd, 0);
    check("mmap", "offset", offset, 0);
    check("mmap", "length", length, 1);
    return this.#address(this.#libc.mmap(length, PROT_READ, MAP_SHARED, fd, offset));
  }

  /** Returns 0, or `-errno`. */
  unmap(address: number, length: number): number {
    check("munmap", "address", address, 1);
    check("munmap", "length", length, 1);
    return this.#libc.munmap(address, length) === 0 ? 0 : -this.#libc.errno();
  }

  /** `address` is a multiple of the page size. `huge` asks for large pages, on Linux. Returns 0, or `-errno`. */
  advise(address: number, length: number, advice: keyof typeof MADV): number {
    check("madvise", "address", address, 1);
    check("madvise", "length", length, 1);
    return this.#libc.madvise(address, length, MADV[advice]) === 0 ? 0 : -this.#libc.errno();
  }

  /** Has the system give memory that will be written to at once, which costs less than page by page: a hint, which some
   * systems do not take. `address` is a multiple of the page size. */
  provide(address: number, length: number): void {
    check("madvise", "address", address, 1);
    check("madvise", "length", length, 1);
    const advice = this.#libc.platform.MADV_POPULATE_WRITE;
    if (advice !== undefined) this.#libc.madvise(address, length, advice);
  }

  /** Brings the pages of a file mapping into memory, and waits for it where the system can (Linux 5.14).
   * Returns 0, or `-errno`. */
  populate(address: number, length: number): number {
    check("madvise", "address", address, 1);
    check("madvise", "length", length, 1);
    const advice = this.#libc.platform.MADV_POPULATE_READ;
    while (advice !== undefined) {
      if (this.#libc.madvise(address, length, advice) === 0) return 0;
      const errno = this.#libc.errno();
      if (errno === EINTR) continue;
      if (errno === EINVAL || errno === ENOSYS) break;
      return -errno;
    }
    return this.advise(address, length, "will-need");
  }

  /** How many pages of `[address, address + length)` are in memory, or `-errno`. */
  residentPages(address: number, length: number): number {
    check("mincore", "address", address, 1);
    check("mincore", "length", length, 1);
    const residency = new Uint8Array(new ArrayBuffer(Math.ceil(length / this.pageSize)));
    if (this.#libc.mincore(address, length, residency) !== 0) return -this.#libc.errno();
    let resident = 0;
    for (const page of residency) resident += page & 1;
    return resident;
  }

  /** Bytes read, 0 at the end of the file, or `-errno`; may be fewer than asked. */
  pread(fd: number, address: number, length: number, offset: number): number {
    check("pread", "fd", fd, 0);
    check("pread", "address", address, 1);
    check("pread", "length", length, 0);
    check("pread", "offset", offset, 0);
    const asked = Math.min(length, MAX_TRANSFER);
    for (;;) {
      const count = this.#libc.pread(fd, address, asked, offset);
      if (count >= 0) return count;
      const errno = this.#libc.errno();
      if (errno !== EINTR) return -errno;
    }
  }

  /** Has the kernel read ahead of {@link Syscalls.pread}, where it can be told; never fails. */
  readAhead(fd: number, offset: number, length: number): void {
    check("posix_fadvise", "fd", fd, 0);
    check("posix_fadvise", "offset", offset, 0);
    check("posix_fadvise", "length", length, 0);
    this.#libc.readAhead(fd, offset, length);
  }

  /** Lets go of the pages of a file mapping that are clean. Returns 0, or `-errno`. */
  invalidate(address: number, length: number): number {
    check("msync", "address", address, 1);
    check("msync", "length", length, 1);
    return this.#libc.invalidate(address, length) === 0 ? 0 : -this.#libc.errno();
  }

  /** Tells the kernel that a file will not be read again. Returns whether it can be told. */
  giveUp(fd: number): boolean {
    check("posix_fadvise", "fd", fd, 0);
    return this.#libc.giveUp(fd);
  }

  /** {@link Syscalls.pread} into `bytes` from `start` to its end. */
  preadInto(fd: number, bytes: Uint8Array<ArrayBuffer>, start: number, offset: number): number {
    const wanted = bytes.subarray(start);
    return wanted.length === 0 ? 0 : this.pread(fd, ptr(wanted), wanted.length, offset);
  }

  /** Bytes written, or `-errno`; may be fewer than asked. */
  pwrite(fd: number, address: number, length: number, offset: number): number {
    check("pwrite", "fd", fd, 0);
    check("pwrite", "address", address, 1);
    check("pwrite", "length", length, 0);
    check("pwrite", "offset", offset, 0);
    const asked = Math.min(length, MAX_TRANSFER);
    for (;;) {
      const count = this.#libc.pwrite(fd, address, asked, offset);
      if (count >= 0) return count;
      const errno = this.#libc.errno();
      if (errno !== EINTR) return -errno;
    }
  }

  /** Makes a file's data durable. Returns 0, or `-errno`. */
  sync(fd: number): number {
    check("fsync", "fd", fd, 0);
    for (;;) {
      if (this.#libc.sync(fd) === 0) return 0;
      const errno = this.#libc.errno();
      if (errno !== EINTR) return -errno;
    }
  }

  /** Bytes that the file has now, or `-errno`. */
  fileLength(fd: number): number {
    check("lseek", "fd", fd, 0);
    const length = this.#libc.lseek(fd, 0, SEEK_END);
    return length >= 0 ? length : -this.#libc.errno();
  }

  /** Locks an open file against others that lock it, without waiting. Returns 0, or `-errno`: `-EAGAIN` where another
   * opening of the file holds the lock. The lock ends when the file is closed, also by the end of the process. */
  tryLock(fd: number): number {
    check("flock", "fd", fd, 0);
    return this.#libc.flock(fd, LOCK_EX | LOCK_NB) === 0 ? 0 : -this.#libc.errno();
  }

  /** Copies between two ranges that do not overlap. */
  copy(target: number, source: number, length: number): void {
    if (!(target > 0 && source > 0 && length >= 0 && length <= MAX_ADDRESS)) {
      throw badArgument("memcpy", "address or length", Number.NaN);
    }
    this.#libc.memcpy(target, source, length);
  }

  #address(answer: number | bigint | null): number {
    return typeof answer === "number" && answer > 0 ? answer : -this.#libc.errno();
  }
}

/** A missing argument would reach C as a null pointer, and a fractional one truncated. */
function check(call: string, name: string, value: number, least: number): void {
  if (Number.isSafeInteger(value) && value >= least) return;
  throw badArgument(call, name, value);
}

function badArgument(call: string, name: string, value: number): HeadraceError {
  return new HeadraceError("DEVICE_FAILED", `${call}: ${name} ${value} is not one it may be called with`);
}
