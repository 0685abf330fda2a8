/** Memory that C writes its answers to. */
import { HeadraceError } from "../../errors.ts";

/** One out-parameter of at most 8 bytes; little-endian, as all machines with CUDA are. */
export class OutCell {
  /** To be passed to the call. Over an explicit buffer, whose address never changes. */
  readonly bytes = new Uint8Array(new ArrayBuffer(8));
  readonly #view = new DataView(this.bytes.buffer);

  /** Sets all bytes to 0. Returns {@link OutCell.bytes}. */
  clear(): Uint8Array {
    this.#view.setUint32(0, 0, true);
    this.#view.setUint32(4, 0, true);
    return this.bytes;
  }

  /** An int. */
  get i32(): number {
    return this.#view.getInt32(0, true);
  }

  /** A float. */
  get f32(): number {
    return this.#view.getFloat32(0, true);
  }

  /** A size_t, a pointer or a CUdeviceptr. Throws `DEVICE_FAILED` for one past 2^53, which no system gives. */
  get u64(): number {
    const value = this.#view.getUint32(4, true) * 2 ** 32 + this.#view.getUint32(0, true);
    if (Number.isSafeInteger(value)) return value;
    throw new HeadraceError("DEVICE_FAILED", `the driver answered ${value}, which no number holds exactly`);
  }
}

const decoder = new TextDecoder();
const encoder = new TextEncoder();

/** The text that C has put into `bytes`, up to its end. */
export function textOf(bytes: Uint8Array): string {
  const end = bytes.indexOf(0);
  return decoder.decode(end < 0 ? bytes : bytes.subarray(0, end));
}

/** Text as C wants it. */
export function cText(text: string): Uint8Array {
  return encoder.encode(`${text}\0`);
}
