/** Byte planes: all first bytes of a chunk's elements, then all second ones, and so on. */
import { addressOf } from "./memory.ts";

/** `bytes` with the bytes of its elements of `width` (2 or 4) split: its length is a multiple of it. */
export function splitPlanes(bytes: Uint8Array, width: number): Uint8Array<ArrayBuffer> {
  const count = bytes.length / width;
  const out = new Uint8Array(bytes.length);
  for (let i = 0; i < count; i++) for (let k = 0; k < width; k++) out[k * count + i] = bytes[i * width + k]!;
  return out;
}

/** Memory for planes, and what joins them. */
export class PlaneJoiner {
  #bytes = new Uint8Array(0);

  /** Address of memory of so many bytes, until the next call. */
  reserve(byteLength: number): number {
    if (this.#bytes.length < byteLength) this.#bytes = new Uint8Array(new ArrayBuffer(byteLength));
    return addressOf(this.#bytes);
  }

  /** Joins the planes in the reserved memory to `target`, whose length is a multiple of `width`. */
  join(width: number, target: Uint8Array): void {
    const count = target.length / width;
    const planes = this.#bytes;
    for (let i = 0; i < count; i++)
      for (let k = 0; k < width; k++) target[i * width + k] = planes[k * count + i]!;
  }
}
