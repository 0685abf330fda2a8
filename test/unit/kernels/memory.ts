/** Memory for kernels under test, between pages that nobody may touch: a read outside of it ends the process. */
import { dlopen, type Pointer, toArrayBuffer } from "bun:ffi";
import type { DeviceBuffer, KernelSource, Pipeline } from "../../../src/device/device.ts";
import { MAP_PRIVATE, openLibc, PROT_READ, PROT_WRITE } from "../../../src/device/host/libc.ts";
import type { DispatchCall } from "../../../src/device/requests.ts";
import type { RunKernel } from "./cxx.ts";

const libc = openLibc();
const { mprotect } = dlopen(libc.platform.libraries[0]!, {
  // int mprotect(void *addr, size_t len, int prot);
  mprotect: { args: ["ptr", "usize", "i32"], returns: "i32" },
}).symbols;

/** A buffer of `byteLength` bytes that fills `fill`, and ends where the guard begins; or begins where it ends. */
export class Guarded implements DeviceBuffer {
  readonly byteLength: number;
  readonly storage = "shared";
  readonly hostAddress: number;
  readonly bytes: Uint8Array<ArrayBuffer>;
  closed = false;
  readonly #base: number;
  readonly #mapped: number;

  constructor(byteLength: number, fill = 0, side: "end" | "start" = "end") {
    const page = libc.pageSize;
    const inner = Math.max(1, Math.ceil(byteLength / page)) * page;
    this.#mapped = inner + 2 * page;
    const base = libc.mmap(
      this.#mapped,
      PROT_READ | PROT_WRITE,
      MAP_PRIVATE | libc.platform.MAP_ANONYMOUS,
      -1,
      0,
    );
    if (typeof base !== "number") throw new Error("no memory for the test");
    this.#base = base;
    for (const guard of [base, base + page + inner]) {
      if (mprotect(guard as Pointer, page, 0) !== 0) throw new Error("mprotect failed");
    }
    this.byteLength = byteLength;
    this.hostAddress = base + page + (side === "end" ? inner - byteLength : 0);
    this.bytes = new Uint8Array(this.view(0, byteLength)).fill(fill);
  }

  get gpuAddress(): number {
    return this.hostAddress;
  }

  get nativeObject(): number {
    return 0;
  }

  view(byteOffset: number, byteLength: number): ArrayBuffer {
    if (byteLength === 0) return new ArrayBuffer(0);
    return toArrayBuffer((this.hostAddress + byteOffset) as Pointer, 0, byteLength);
  }

  advise(): void {}

  close(): void {
    if (this.closed) return;
    this.closed = true;
    this.bytes.buffer.transfer(0);
    libc.munmap(this.#base, this.#mapped);
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

/** Stands for whatever pipeline a builder is given. */
export const PIPELINE: Pipeline = { name: "kernel", close: () => {}, [Symbol.dispose]: () => {} };

/** Runs a dispatch as C++. */
export function runCxx(run: RunKernel, call: DispatchCall): void {
  const addresses = call.buffers.map(({ buffer, offset }) => buffer.gpuAddress + offset);
  run(addresses, call.constants, call.threads);
}

/** Runs a dispatch by the kernel's host form, as the host device does. */
export function runHost(source: KernelSource, call: DispatchCall): void {
  const views = call.buffers.map(
    ({ buffer, offset }) => new Uint8Array(buffer.view(offset, buffer.byteLength - offset)),
  );
  source.host!(views, call.constants, call.threads);
  for (const view of views) view.buffer.transfer(0);
}

/** Bytes without a pattern that a fault could fit into, the same for the same seed. */
export function noise(byteLength: number, seed = 1): Uint8Array {
  const bytes = new Uint8Array(byteLength);
  let state = seed | 1;
  for (let i = 0; i < byteLength; i++) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    bytes[i] = state;
  }
  return bytes;
}
