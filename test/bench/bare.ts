/** The limits that the loader is held against: bare loops over the same bytes, with nothing in between. */
import { dlopen, type Pointer, toArrayBuffer } from "bun:ffi";
import { closeSync, openSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";

const LIBC = process.platform === "darwin" ? "libSystem.B.dylib" : "libc.so.6";
const libc = dlopen(LIBC, {
  // void *mmap(void *, size_t, int, int, int, off_t);
  mmap: { args: ["ptr", "usize", "i32", "i32", "i32", "i64"], returns: "ptr" },
  // int munmap(void *, size_t);
  munmap: { args: ["ptr", "usize"], returns: "i32" },
  // int mincore(void *, size_t, unsigned char *);
  mincore: { args: ["ptr", "usize", "ptr"], returns: "i32" },
}).symbols;
/** Linux alone has it. */
const advice =
  process.platform === "linux"
    ? dlopen(LIBC, {
        // int posix_fadvise(int, off_t, off_t, int);
        posix_fadvise: { args: ["i32", "i64", "i64", "i32"], returns: "i32" },
      }).symbols
    : undefined;

const PROT_READ = 1;
const PROT_READ_WRITE = 3;
const MAP_SHARED = 1;
const MAP_PRIVATE_ANONYMOUS = process.platform === "darwin" ? 0x1002 : 0x22;
const POSIX_FADV_DONTNEED = 4;

/** A file mapped whole; at most 4 GiB. */
export class BareMapping {
  readonly bytes: Uint8Array;
  readonly address: number;

  constructor(path: string) {
    const byteLength = statSync(path).size;
    const fd = openSync(path, "r");
    this.address = Number(libc.mmap(null, byteLength, PROT_READ, MAP_SHARED, fd, 0));
    closeSync(fd);
    this.bytes = new Uint8Array(toArrayBuffer(this.address as Pointer, 0, byteLength));
  }

  /** Share of the pages that are in memory, asked of the system. */
  residency(): number {
    const pages = Math.ceil(this.bytes.length / 4096);
    const vector = new Uint8Array(pages);
    if (libc.mincore(this.address as Pointer, this.bytes.length, vector) !== 0) return Number.NaN;
    let resident = 0;
    for (const page of vector) resident += page & 1;
    return resident / pages;
  }

  close(): void {
    const { length } = this.bytes;
    (this.bytes.buffer as ArrayBuffer).transfer(0);
    libc.munmap(this.address as Pointer, length);
  }
}

/** Zeroed memory of its own, touched once. */
export function touchedMemory(byteLength: number): { address: number; bytes: Uint8Array } {
  const address = Number(libc.mmap(null, byteLength, PROT_READ_WRITE, MAP_PRIVATE_ANONYMOUS, -1, 0));
  const bytes = new Uint8Array(toArrayBuffer(address as Pointer, 0, byteLength));
  for (let at = 0; at < byteLength; at += 4096) bytes[at] = 1;
  return { address, bytes };
}

/** Adds up every 8 bytes as float64, four at a time. */
export function sum(bytes: Uint8Array): number {
  const values = new Float64Array(bytes.buffer, bytes.byteOffset, bytes.byteLength >>> 3);
  let [a, b, c, d] = [0, 0, 0, 0];
  const end = values.length & ~3;
  for (let i = 0; i < end; i += 4) {
    a += values[i]!;
    b += values[i + 1]!;
    c += values[i + 2]!;
    d += values[i + 3]!;
  }
  for (let i = end; i < values.length; i++) a += values[i]!;
  return a + b + c + d;
}

/** Shards of a folder, in order. */
export function shardsOf(folder: string): string[] {
  return readdirSync(folder)
    .filter((name) => name.endsWith(".safetensors"))
    .sort()
    .map((name) => join(folder, name));
}

/** Takes files out of the page cache; the share that stayed, 0 where the drop worked. */
export function dropCache(paths: readonly string[]): number {
  for (const path of paths) {
    const fd = openSync(path, "r");
    advice?.posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    closeSync(fd);
  }
  try {
    writeFileSync("/proc/sys/vm/drop_caches", "1");
  } catch {
    // Not root, or not Linux: posix_fadvise alone must have done it; the caller looks at the residency.
  }
  return residencyOf(paths);
}

/** Share of the files' pages that are in memory. */
export function residencyOf(paths: readonly string[]): number {
  let total = 0;
  for (const path of paths) {
    const mapping = new BareMapping(path);
    total += mapping.residency();
    mapping.close();
  }
  return total / paths.length;
}

/** Brings files into the page cache. */
export function warm(paths: readonly string[]): void {
  for (const path of paths) {
    const mapping = new BareMapping(path);
    sum(mapping.bytes);
    mapping.close();
  }
}

/** One setting of a sweep of parallel `pread`. */
export interface SweepSetting {
  readonly lanes: number;
  readonly pieceBytes: number;
}

/** Workers that pread whole files into a fixed ring of memory, and nothing else. */
export class PreadSweep {
  readonly #workers: Worker[] = [];
  readonly #control = new Int32Array(new SharedArrayBuffer(64));
  readonly #memory: { readonly address: number; readonly byteLength: number };

  constructor(memory: { readonly address: number; readonly byteLength: number }) {
    this.#memory = memory;
  }

  /** Reads `paths` once; bytes a second. */
  async run(paths: readonly string[], setting: SweepSetting): Promise<number> {
    while (this.#workers.length < setting.lanes) {
      this.#workers.push(new Worker(new URL("./pread-worker.ts", import.meta.url).href));
    }
    const files = paths.map((path) => ({ fd: openSync(path, "r"), byteLength: statSync(path).size }));
    this.#control.fill(0);
    const started = Bun.nanoseconds();
    await Promise.all(
      this.#workers.slice(0, setting.lanes).map(
        (worker) =>
          new Promise<void>((resolve, reject) => {
            worker.onmessage = (event) =>
              event.data === "done" ? resolve() : reject(new Error(String(event.data)));
            worker.postMessage({ files, ...setting, memory: this.#memory, control: this.#control.buffer });
          }),
      ),
    );
    const elapsed = (Bun.nanoseconds() - started) / 1e9;
    for (const { fd } of files) closeSync(fd);
    return files.reduce((total, file) => total + file.byteLength, 0) / elapsed;
  }

  close(): void {
    for (const worker of this.#workers) worker.terminate();
  }
}

/** Installed versions of a package, for result files. */
export function packageVersion(name: string): string {
  const path = join(import.meta.dir, "../../node_modules", name, "package.json");
  return (JSON.parse(readFileSync(path, "utf8")) as { version: string }).version;
}
