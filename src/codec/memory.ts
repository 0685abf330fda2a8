/** Views of memory that is named by address. */
import { type Pointer, ptr, toArrayBuffer } from "bun:ffi";

const WINDOW = 2 ** 30;
/** Windows start at multiples of this, so that memory which lies together shares one. */
const STEP = 2 ** 29;
/** One for what is read, one for what is written, and one besides. */
const MAX_WINDOWS = 3;

/** Memory from address `base` on. */
export interface Window {
  readonly base: number;
  readonly bytes: Uint8Array<ArrayBuffer>;
}

/**
 * Views over windows of a gibibyte that are kept, as making a view of a chunk each time costs more in garbage collection
 * than decoding a small one. A window shows addresses, mapped or not: only those that a caller owns are ever touched.
 *
 * The collector takes a window for memory of the thread's own, and waits until there is as much garbage: a thread that
 * leaves much else behind wants its windows `exact`, as long as what is asked for and not kept.
 */
export class Windows {
  readonly #windows: Window[] = [];
  readonly #exact: boolean;

  constructor({ exact = false }: { readonly exact?: boolean } = {}) {
    this.#exact = exact;
  }

  /** A view of `byteLength` bytes at `address`, for use before the memory's owner ends it. */
  view(address: number, byteLength: number): Uint8Array<ArrayBuffer> {
    const { base, bytes } = this.around(address, byteLength);
    return bytes.subarray(address - base, address - base + byteLength);
  }

  /** The window that shows `byteLength` bytes at `address`: for a few of them, without a view being made. */
  around(address: number, byteLength: number): Window {
    if (this.#exact) return { base: address, bytes: bytesAt(address, byteLength) };
    for (const window of this.#windows) {
      const start = address - window.base;
      if (start >= 0 && start + byteLength <= window.bytes.length) return window;
    }
    const base = Math.max(4096, Math.floor(address / STEP) * STEP);
    const length = Math.max(WINDOW, address - base + byteLength);
    const window = { base, bytes: bytesAt(base, length) };
    if (this.#windows.unshift(window) > MAX_WINDOWS) this.#windows.pop();
    return window;
  }
}

function bytesAt(address: number, byteLength: number): Uint8Array<ArrayBuffer> {
  // An empty buffer has no address.
  if (byteLength === 0) return new Uint8Array(0);
  return new Uint8Array(toArrayBuffer(address as Pointer, 0, byteLength)) as Uint8Array<ArrayBuffer>;
}

/** Address of memory that does not move: a view's of a buffer of its own. */
export function addressOf(bytes: Uint8Array): number {
  // Small arrays move when their buffer is first asked for.
  return bytes.buffer.byteLength === 0 ? 0 : Number(ptr(bytes));
}
