/**
 * What the machine can do with nothing in between: copies from pinned memory, registration of file mappings by threads.
 * Straight over the driver, in a context of its own.
 */
import { closeSync, openSync, statSync } from "node:fs";
import { OutCell, textOf } from "../../../src/device/cuda/cells.ts";
import { type CudaDriver, initDriver, openDriver } from "../../../src/device/cuda/driver.ts";
import { checkResult } from "../../../src/device/cuda/errors.ts";
import { openLibc } from "../../../src/device/host/libc.ts";
import { type SweepSetting, touchedMemory } from "../bare.ts";
import type { RegisterJob } from "./register-worker.ts";
import type { UploadJob } from "./upload-worker.ts";

const MIB = 2 ** 20;
const CTX_BLOCKING_SYNC = 4;
const STREAM_NON_BLOCKING = 1;
const HOST_REGISTER_PORTABLE = 1;
const PROT_READ = 1;
const MAP_SHARED = 1;

/** Pieces of {@link BareGpu.link}. */
export const LINK_PIECE = 16 * MIB;
const PINNED_BYTES = 256 * MIB;

/** One setting of a sweep of registration. */
export interface RegisterSetting {
  readonly threads: number;
  readonly windowBytes: number;
}

/** A GPU with a context, a stream and pinned memory, and nothing else. Close it. */
export class BareGpu {
  readonly name: string;
  /** Pinned and touched. */
  readonly pinned: { readonly address: number; readonly byteLength: number };
  readonly #driver: CudaDriver;
  readonly #context: number;
  readonly #stream: number;
  readonly #target: number;
  readonly #libc = openLibc();
  readonly #registering: Worker[] = [];
  readonly #uploading: Worker[] = [];

  /** `pinnedBytes` in host and in device memory. Throws `DEVICE_UNAVAILABLE`. */
  constructor(ordinal = 0, pinnedBytes = PINNED_BYTES) {
    this.#driver = openDriver();
    initDriver(this.#driver);
    const { symbols } = this.#driver;
    const device = this.#answer("cuDeviceGet", (out) => symbols.cuDeviceGet(out, ordinal)).i32;
    const name = new Uint8Array(new ArrayBuffer(256));
    this.#check("cuDeviceGetName", symbols.cuDeviceGetName(name, name.length, device));
    this.name = textOf(name);
    this.#context = this.#answer("cuCtxCreate", (out) =>
      symbols.cuCtxCreate_v2(out, CTX_BLOCKING_SYNC, device),
    ).u64;
    this.#stream = this.#answer("cuStreamCreate", (out) =>
      symbols.cuStreamCreate(out, STREAM_NON_BLOCKING),
    ).u64;
    this.#target = this.#answer("cuMemAlloc", (out) => symbols.cuMemAlloc_v2(out, pinnedBytes)).u64;
    const { address } = touchedMemory(pinnedBytes);
    this.pinned = { address, byteLength: pinnedBytes };
    this.#check(
      "cuMemHostRegister",
      symbols.cuMemHostRegister_v2(address, pinnedBytes, HOST_REGISTER_PORTABLE),
    );
  }

  /** GPUs that the driver counts. Throws `DEVICE_UNAVAILABLE`. */
  static count(): number {
    const driver = openDriver();
    initDriver(driver);
    const count = new OutCell();
    checkResult(driver, "cuDeviceGetCount", driver.symbols.cuDeviceGetCount(count.bytes));
    return count.i32;
  }

  /** Copies `byteLength` bytes from pinned memory to the device, in pieces that all are asked for at once; GB/s. */
  link(byteLength: number): number {
    const { symbols } = this.#driver;
    symbols.cuCtxSetCurrent(this.#context);
    const { address } = this.pinned;
    const started = Bun.nanoseconds();
    for (let at = 0; at < byteLength; ) {
      const place = at % this.pinned.byteLength;
      const length = Math.min(LINK_PIECE, byteLength - at, this.pinned.byteLength - place);
      const status = symbols.cuMemcpyHtoDAsync_v2(
        this.#target + place,
        address + place,
        length,
        this.#stream,
      );
      this.#check("cuMemcpyHtoDAsync", status);
      at += length;
    }
    this.#check("cuStreamSynchronize", symbols.cuStreamSynchronize(this.#stream));
    return byteLength / (Bun.nanoseconds() - started);
  }

  /** Maps `paths` anew and registers them by windows, taken in turn by the threads; GB/s of that alone. */
  async register(paths: readonly string[], setting: RegisterSetting): Promise<number> {
    await this.#start(this.#registering, "./register-worker.ts", setting.threads);
    const mappings = paths.map((path) => this.#map(path));
    const started = Bun.nanoseconds();
    await this.#run({ ...setting, mappings, undo: false });
    const elapsed = Bun.nanoseconds() - started;
    await this.#run({ ...setting, mappings, undo: true });
    for (const { address, byteLength } of mappings) this.#libc.munmap(address, byteLength);
    return mappings.reduce((total, { byteLength }) => total + byteLength, 0) / elapsed;
  }

  /** Whether two pieces for each lane fit into the pinned memory. */
  hasRoom({ lanes, pieceBytes }: SweepSetting): boolean {
    return 2 * lanes * pieceBytes <= this.pinned.byteLength;
  }

  /** Reads `paths` into pinned memory and copies what is read to the device, both at once and all by the same threads,
   * two pieces each; GB/s. */
  async readAndUpload(paths: readonly string[], { lanes, pieceBytes }: SweepSetting): Promise<number> {
    await this.#start(this.#uploading, "./upload-worker.ts", lanes);
    const files = paths.map((path) => ({ fd: openSync(path, "r"), byteLength: statSync(path).size }));
    const next = new Int32Array(new SharedArrayBuffer(4));
    const shared = { files, pieceBytes, stream: this.#stream, next };
    const started = Bun.nanoseconds();
    await Promise.all(
      this.#uploading.slice(0, lanes).map((worker, lane) => {
        const place = 2 * lane * pieceBytes;
        const own = { address: this.pinned.address + place, target: this.#target + place };
        return this.#ask(worker, { ...shared, ...own } satisfies UploadJob);
      }),
    );
    const { symbols } = this.#driver;
    symbols.cuCtxSetCurrent(this.#context);
    this.#check("cuStreamSynchronize", symbols.cuStreamSynchronize(this.#stream));
    const elapsed = Bun.nanoseconds() - started;
    for (const { fd } of files) closeSync(fd);
    return files.reduce((total, { byteLength }) => total + byteLength, 0) / elapsed;
  }

  close(): void {
    const { symbols } = this.#driver;
    for (const worker of [...this.#registering, ...this.#uploading]) worker.terminate();
    symbols.cuCtxSetCurrent(this.#context);
    symbols.cuMemHostUnregister(this.pinned.address);
    this.#libc.munmap(this.pinned.address, this.pinned.byteLength);
    symbols.cuMemFree_v2(this.#target);
    symbols.cuStreamDestroy_v2(this.#stream);
    symbols.cuCtxDestroy_v2(this.#context);
  }

  #map(path: string): { address: number; byteLength: number } {
    const byteLength = statSync(path).size;
    const fd = openSync(path, "r");
    const address = this.#libc.mmap(byteLength, PROT_READ, MAP_SHARED, fd, 0);
    closeSync(fd);
    if (typeof address !== "number") throw new Error(`${path}: cannot be mapped`);
    return { address, byteLength };
  }

  async #start(workers: Worker[], file: string, count: number): Promise<void> {
    while (workers.length < count) {
      const worker = new Worker(new URL(file, import.meta.url).href);
      workers.push(worker);
      await this.#ask(worker, { context: this.#context });
    }
  }

  async #run(job: RegisterSetting & { mappings: RegisterJob["mappings"]; undo: boolean }): Promise<void> {
    const { mappings, windowBytes, undo } = job;
    const next = new Int32Array(new SharedArrayBuffer(4));
    const message: RegisterJob = { mappings, windowBytes, undo, next };
    await Promise.all(this.#registering.slice(0, job.threads).map((worker) => this.#ask(worker, message)));
  }

  #ask(worker: Worker, message: unknown): Promise<void> {
    return new Promise((resolve, reject) => {
      worker.onmessage = ({ data }) => (data === "" ? resolve() : reject(new Error(String(data))));
      worker.onerror = (event) => reject(new Error(event.message));
      worker.postMessage(message);
    });
  }

  #answer(what: string, call: (out: Uint8Array) => number): OutCell {
    const out = new OutCell();
    this.#check(what, call(out.bytes));
    return out;
  }

  #check(what: string, status: number): void {
    checkResult(this.#driver, what, status);
  }
}
