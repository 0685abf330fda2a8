/// <reference path="../text.d.ts" />
/** The host's vector arithmetic: `simd.wat`, assembled, and a memory of its own for each who uses it. */
import { readFileSync } from "node:fs";
import path from "./simd.wasm" with { type: "file" };

/** The functions of `simd.wat`, where each is described. Places are byte offsets in the memory. */
interface SimdFunctions {
  readonly memory: WebAssembly.Memory;
  widenBfloats(from: number, to: number, count: number): void;
  widenHalves(from: number, to: number, count: number): void;
  dots(
    x: number,
    rows: number,
    w: number,
    weights: number,
    stride: number,
    out: number,
    outStride: number,
  ): void;
  gate(gates: number, opened: number, count: number): void;
  attend(
    scores: number,
    count: number,
    scale: number,
    state: number,
    sums: number,
    headBytes: number,
    values: number,
    block: number,
    skip: number,
  ): void;
}

const MODULE = new WebAssembly.Module(readFileSync(path));
const PAGE = 2 ** 16;

/** One memory and the functions over it. It grows to the most that was asked for, and ends with the garbage collector. */
export class Simd {
  readonly run: SimdFunctions;
  #bytes: Uint8Array;
  #floats: Float32Array;

  constructor() {
    this.run = new WebAssembly.Instance(MODULE).exports as unknown as SimdFunctions;
    this.#bytes = new Uint8Array(this.run.memory.buffer);
    this.#floats = new Float32Array(this.run.memory.buffer);
  }

  /** Makes the memory at least so long. Throws `RangeError` where there is no more. */
  reserve(byteLength: number): void {
    const missing = byteLength - this.#bytes.length;
    if (missing <= 0) return;
    this.run.memory.grow(Math.ceil(missing / PAGE));
    this.#bytes = new Uint8Array(this.run.memory.buffer);
    this.#floats = new Float32Array(this.run.memory.buffer);
  }

  /** All of the memory, until the next {@link Simd.reserve}. */
  get bytes(): Uint8Array {
    return this.#bytes;
  }

  /** The same as floats. */
  get floats(): Float32Array {
    return this.#floats;
  }

  /** Copies `count` rows of `rowBytes` bytes to `to`, `stride` bytes apart, with zeros between them. */
  copyRows(rows: Uint8Array, rowBytes: number, count: number, to: number, stride: number): void {
    if (rowBytes === stride) {
      this.#bytes.set(rows.subarray(0, rowBytes * count), to);
      return;
    }
    for (let row = 0; row < count; row++) {
      const at = to + row * stride;
      this.#bytes.set(rows.subarray(row * rowBytes, (row + 1) * rowBytes), at);
      this.#bytes.fill(0, at + rowBytes, at + stride);
    }
  }
}
