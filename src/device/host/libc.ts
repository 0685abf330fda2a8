/**
 * The C library as it is: raw calls, found at run time, nothing compiled. {@link Syscalls} checks arguments
 * and results; nothing else may call these. Only functions with a fixed argument list are bound, because
 * Apple arm64 passes the arguments of variadic ones (`open`, `fcntl`) in another way.
 */
import { dlopen, type FFIFunction, FFIType, type Pointer, read } from "bun:ffi";
import { HeadraceError } from "../../errors.ts";

/** What differs between the systems. All other constants used here are the same on both. */
interface Platform {
  /** Tried in order. */
  readonly libraries: readonly string[];
  /** Returns the address of the calling thread's errno. */
  readonly errnoLocation: string;
  /** Makes data and length durable. */
  readonly syncData: string;
  /** Tells the kernel what will be read, or not again; macOS has it in a variadic call alone. */
  readonly advice: "posix_fadvise" | undefined;
  readonly MAP_ANONYMOUS: number;
  /** Faults pages of a file mapping in and reports failure, where the system can. */
  readonly MADV_POPULATE_READ: number | undefined;
  /** The same for writing to memory. */
  readonly MADV_POPULATE_WRITE: number | undefined;
}

const MUSL_ARCH: Readonly<Record<string, string>> = { x64: "x86_64", arm64: "aarch64" };

const PLATFORMS: Readonly<Record<string, Platform>> = {
  linux: {
    libraries: ["libc.so.6", `libc.musl-${MUSL_ARCH[process.arch] ?? process.arch}.so.1`],
    errnoLocation: "__errno_location",
    syncData: "fdatasync",
    advice: "posix_fadvise",
    MAP_ANONYMOUS: 0x20,
    MADV_POPULATE_READ: 22,
    MADV_POPULATE_WRITE: 23,
  },
  darwin: {
    libraries: ["libSystem.B.dylib"],
    errnoLocation: "__error",
    syncData: "fsync",
    advice: undefined,
    MAP_ANONYMOUS: 0x1000,
    MADV_POPULATE_READ: undefined,
    MADV_POPULATE_WRITE: undefined,
  },
};

export const PROT_READ = 1;
export const PROT_WRITE = 2;
export const MAP_SHARED = 1;
export const MAP_PRIVATE = 2;
export const SEEK_END = 2;
/** The same on Linux and macOS. */
export const LOCK_EX = 2;
export const LOCK_NB = 4;
const POSIX_FADV_WILLNEED = 3;
const POSIX_FADV_DONTNEED = 4;
const MS_INVALIDATE = 2;
export const MADV = { random: 1, sequential: 2, "will-need": 3, "dont-need": 4, huge: 14 } as const;

/** One thread's raw calls. Failures are -1 with {@link Libc.errno} set, as in C. */
export interface Libc {
  readonly platform: Platform;
  readonly pageSize: number;
  /** Of the calling thread's last failed call. */
  errno(): number;
  /** MAP_FAILED arrives as a bigint (2^64 - 1). */
  mmap(length: number, protection: number, flags: number, fd: number, offset: number): number | bigint | null;
  munmap(address: number, length: number): number;
  madvise(address: number, length: number, advice: number): number;
  mincore(address: number, length: number, residency: Uint8Array): number;
  /** Invalidates the pages of a file mapping: macOS then gives up those that are clean. */
  invalidate(address: number, length: number): number;
  pread(fd: number, address: number, length: number, offset: number): number;
  pwrite(fd: number, address: number, length: number, offset: number): number;
  sync(fd: number): number;
  /** A hint, where there is one. */
  readAhead(fd: number, offset: number, length: number): void;
  /** A hint that clean pages of the whole file may go. Returns whether there is such a hint. */
  giveUp(fd: number): boolean;
  lseek(fd: number, offset: number, whence: number): number;
  dup(fd: number): number;
  /** Locks an open file as a whole; the lock goes with the last descriptor of that opening. */
  flock(fd: number, operation: number): number;
  memcpy(target: number, source: number, length: number): void;
}

/** Binds the C library for the calling thread. Throws `DEVICE_UNAVAILABLE` where there is none. */
export function openLibc(): Libc {
  const platform = PLATFORMS[process.platform];
  if (platform === undefined) {
    throw new HeadraceError(
      "DEVICE_UNAVAILABLE",
      `host device: needs Linux or macOS, and this is ${process.platform}`,
    );
  }
  const symbols = bind(platform);
  const errnoAddress = symbols.errnoLocation() as Pointer;
  return {
    platform,
    pageSize: symbols.getpagesize(),
    errno: () => read.i32(errnoAddress, 0),
    mmap: (length, protection, flags, fd, offset) =>
      symbols.mmap(null, length, protection, flags, fd, offset),
    munmap: (address, length) => symbols.munmap(address as Pointer, length),
    madvise: (address, length, advice) => symbols.madvise(address as Pointer, length, advice),
    mincore: (address, length, residency) => symbols.mincore(address as Pointer, length, residency),
    invalidate: (address, length) => symbols.msync(address as Pointer, length, MS_INVALIDATE),
    pread: (fd, address, length, offset) => Number(symbols.pread(fd, address as Pointer, length, offset)),
    pwrite: (fd, address, length, offset) => Number(symbols.pwrite(fd, address as Pointer, length, offset)),
    sync: (fd) => symbols.syncData(fd),
    readAhead: (fd, offset, length) => symbols.fadvise?.(fd, offset, length, POSIX_FADV_WILLNEED),
    giveUp: (fd) => symbols.fadvise?.(fd, 0, 0, POSIX_FADV_DONTNEED) !== undefined,
    lseek: (fd, offset, whence) => Number(symbols.lseek(fd, offset, whence)),
    dup: (fd) => symbols.dup(fd),
    flock: (fd, operation) => symbols.flock(fd, operation),
    memcpy: (target, source, length) => symbols.memcpy(target as Pointer, source as Pointer, length),
  };
}

/** The C line above each entry is its declaration. */
const SYMBOLS = {
  // int getpagesize(void);
  getpagesize: { args: [], returns: "i32" },
  // void *mmap(void *addr, size_t length, int prot, int flags, int fd, off_t offset);
  mmap: { args: ["ptr", "usize", "i32", "i32", "i32", "i64"], returns: "ptr" },
  // int munmap(void *addr, size_t length);
  munmap: { args: ["ptr", "usize"], returns: "i32" },
  // int madvise(void *addr, size_t length, int advice);
  madvise: { args: ["ptr", "usize", "i32"], returns: "i32" },
  // int mincore(void *addr, size_t length, unsigned char *vec);
  mincore: { args: ["ptr", "usize", "ptr"], returns: "i32" },
  // int msync(void *addr, size_t length, int flags);
  msync: { args: ["ptr", "usize", "i32"], returns: "i32" },
  // ssize_t pread(int fd, void *buf, size_t count, off_t offset);
  pread: { args: ["i32", "ptr", "usize", "i64"], returns: FFIType.i64_fast },
  // ssize_t pwrite(int fd, const void *buf, size_t count, off_t offset);
  pwrite: { args: ["i32", "ptr", "usize", "i64"], returns: FFIType.i64_fast },
  // off_t lseek(int fd, off_t offset, int whence);
  lseek: { args: ["i32", "i64", "i32"], returns: FFIType.i64_fast },
  // int dup(int oldfd);
  dup: { args: ["i32"], returns: "i32" },
  // int flock(int fd, int operation);
  flock: { args: ["i32", "i32"], returns: "i32" },
  // void *memcpy(void *dest, const void *src, size_t n);
  memcpy: { args: ["ptr", "ptr", "usize"], returns: "void" },
} as const satisfies Record<string, FFIFunction>;

type Fadvise = (fd: number, offset: number, length: number, advice: number) => number;
const FADVISE: FFIFunction = { args: ["i32", "i64", "i64", "i32"], returns: "i32" };

function bind(platform: Platform) {
  const failures: string[] = [];
  for (const library of platform.libraries) {
    try {
      const symbols = dlopen(library, SYMBOLS).symbols;
      const named: Record<string, unknown> = dlopen(library, {
        // int *__errno_location(void);  int *__error(void);
        [platform.errnoLocation]: { args: [], returns: "ptr" } as FFIFunction,
        // int fdatasync(int fd);  int fsync(int fd);
        [platform.syncData]: { args: ["i32"], returns: "i32" } as FFIFunction,
        // int posix_fadvise(int fd, off_t offset, off_t len, int advice);
        ...(platform.advice === undefined ? {} : { [platform.advice]: FADVISE }),
      }).symbols;
      const errnoLocation = named[platform.errnoLocation] as () => number;
      const syncData = named[platform.syncData] as (fd: number) => number;
      const fadvise = named[platform.advice ?? ""] as Fadvise | undefined;
      return { ...symbols, errnoLocation, syncData, fadvise };
    } catch (error) {
      failures.push(`${library}: ${error instanceof Error ? error.message : String(error)}`);
    }
  }
  throw new HeadraceError(
    "DEVICE_UNAVAILABLE",
    `host device: no C library could be opened (${failures.join("; ")})`,
  );
}
