/** Vectors of device memory that are lent out and come back. */
import type { DeviceBuffer } from "../../device/device.ts";
import type { RequestList } from "../../device/requests.ts";
import { HeadraceError } from "../../errors.ts";
import type { DeviceVector } from "../engine.ts";
import { type BufferSet, SharedBlock } from "./memory.ts";

interface Waiting {
  readonly count: number;
  readonly resolve: () => void;
  readonly reject: (error: HeadraceError) => void;
}

/** A bounded number of vectors. One caller waits at a time. */
export class VectorRing {
  readonly numVectors: number;
  /** Elements of each. */
  readonly length: number;
  readonly #block: SharedBlock;
  readonly #floats: Float32Array;
  readonly #free: number[];
  #waiting: Waiting | undefined;
  #closed = false;

  /** Its memory is that of `buffers`. */
  constructor(buffers: BufferSet, numVectors: number, length: number) {
    this.numVectors = numVectors;
    this.length = length;
    this.#block = new SharedBlock(buffers, numVectors * length * 4);
    this.#floats = new Float32Array(this.#block.memory, 0, numVectors * length);
    this.#free = Array.from({ length: numVectors }, (_, index) => numVectors - 1 - index);
  }

  /** Where kernels write them: `[numVectors, length]`. */
  get device(): DeviceBuffer {
    return this.#block.device;
  }

  /** Vectors that are not lent out. */
  get numFree(): number {
    return this.#free.length;
  }

  /** Waits until `count` vectors are free, at most all there are, and takes them. Throws `CLOSED` where the ring is closed first. */
  async take(count: number): Promise<number[]> {
    if (this.#free.length < count) {
      if (this.#closed) throw closedError();
      await new Promise<void>((resolve, reject) => {
        this.#waiting = { count, resolve, reject };
      });
    }
    return this.#free.splice(this.#free.length - count, count);
  }

  /** Asks for vectors that kernels wrote to be brought where the host sees them. */
  download(list: RequestList, indices: readonly number[]): void {
    const bytes = this.length * 4;
    for (const index of indices) this.#block.download(list, index * bytes, (index + 1) * bytes);
  }

  /** Whether all elements are finite numbers. */
  isFinite(index: number): boolean {
    const end = (index + 1) * this.length;
    for (let i = index * this.length; i < end; i++) if (!Number.isFinite(this.#floats[i]!)) return false;
    return true;
  }

  /** Lends vector `index`, until its `release`. */
  lend(index: number): DeviceVector {
    let isLent = true;
    return {
      buffer: this.#block.host,
      byteOffset: index * this.length * 4,
      length: this.length,
      release: () => {
        if (isLent) this.give(index);
        isLent = false;
      },
    };
  }

  /** Takes vector `index` back. */
  give(index: number): void {
    this.#free.push(index);
    const waiting = this.#waiting;
    if (waiting === undefined || this.#free.length < waiting.count) return;
    this.#waiting = undefined;
    waiting.resolve();
  }

  /** Ends waiting, now and later. */
  close(): void {
    this.#closed = true;
    this.#waiting?.reject(closedError());
    this.#waiting = undefined;
  }
}

function closedError(): HeadraceError {
  return new HeadraceError("CLOSED", "the engine was closed while it waited for vectors to be released");
}
