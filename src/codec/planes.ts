/** Byte planes: all first bytes of a chunk's elements, then all second ones, and so on; by `planes.wat`, assembled. */
import { readFileSync } from "node:fs";
import { HeadraceError } from "../errors.ts";
import { addressOf } from "./memory.ts";
import path from "./planes.wasm" with { type: "file" };

/** The functions of `planes.wat`, where each is described. */
interface PlaneFunctions {
  readonly memory: WebAssembly.Memory;
  join2(planes: number, count: number, first: number, end: number, to: number): void;
  join4(planes: number, count: number, first: number, end: number, to: number): void;
  split2(from: number, count: number, planes: number): void;
  split4(from: number, count: number, planes: number): void;
}

const MODULE = new WebAssembly.Module(readFileSync(path));
const PAGE = 2 ** 16;
/** Bytes that are joined before they are copied, so that they are still in the core's cache. */
const PIECE = 2 ** 16;

/** A memory for planes, and what splits and joins them. It keeps the length of the longest chunk. */
export class Planes {
  readonly #run = new WebAssembly.Instance(MODULE).exports as unknown as PlaneFunctions;
  #bytes = new Uint8Array(this.#run.memory.buffer);

  /** Address of memory of `byteLength` bytes for the planes to join, until the next call. Throws `OUT_OF_MEMORY`. */
  reserve(byteLength: number): number {
    this.#grow(byteLength + PIECE);
    return addressOf(this.#bytes);
  }

  /** Joins the planes in the reserved memory, of elements of `width` bytes (2 or 4), to `target`, which they fill. */
  join(width: number, target: Uint8Array): void {
    const count = target.length / width;
    const out = this.#bytes.length - PIECE;
    const join = width === 2 ? this.#run.join2 : this.#run.join4;
    const step = PIECE / width;
    for (let first = 0; first < count; first += step) {
      const end = Math.min(first + step, count);
      join(0, count, first, end, out);
      target.set(this.#bytes.subarray(out, out + (end - first) * width), first * width);
    }
  }

  /** `bytes` with the elements' bytes split, until the next call; its length is a multiple of `width`. Throws
   * `OUT_OF_MEMORY`. */
  split(bytes: Uint8Array, width: number): Uint8Array<ArrayBuffer> {
    this.#grow(2 * bytes.length);
    this.#bytes.set(bytes);
    const split = width === 2 ? this.#run.split2 : this.#run.split4;
    split(0, bytes.length / width, bytes.length);
    return this.#bytes.subarray(bytes.length, 2 * bytes.length);
  }

  #grow(byteLength: number): void {
    const missing = byteLength - this.#bytes.length;
    if (missing <= 0) return;
    try {
      this.#run.memory.grow(Math.ceil(missing / PAGE));
    } catch (cause) {
      const text = `no memory of ${byteLength} bytes for the byte planes of a chunk`;
      throw new HeadraceError("OUT_OF_MEMORY", text, { cause });
    }
    this.#bytes = new Uint8Array(this.#run.memory.buffer);
  }
}
