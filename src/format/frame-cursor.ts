/** Small reads here and there of a file, of which those that lie together cost one call. */
import { HeadraceError } from "../errors.ts";
import type { ByteReader } from "../types.ts";

/** Bytes that are read at least, and at most where one read follows another, as with many tiny frames. */
const LEAST_AHEAD = 2 ** 12;
const MOST_AHEAD = 2 ** 18;

/** A file's bytes as numbers, little-endian. */
export class FrameCursor {
  readonly fileLength: number;
  readonly #read: ByteReader;
  #view: DataView = new DataView(new ArrayBuffer(0));
  #start = Number.NEGATIVE_INFINITY;
  #ahead = LEAST_AHEAD;

  constructor(read: ByteReader, fileLength: number) {
    this.#read = read;
    this.fileLength = fileLength;
  }

  u8(offset: number): number {
    return this.#at(offset, 1).getUint8(offset - this.#start);
  }

  u16(offset: number): number {
    return this.#at(offset, 2).getUint16(offset - this.#start, true);
  }

  u24(offset: number): number {
    return this.u16(offset) + this.u8(offset + 2) * 0x10000;
  }

  u32(offset: number): number {
    return this.#at(offset, 4).getUint32(offset - this.#start, true);
  }

  /** Throws `BAD_CHUNK` past 2^53. */
  u64(offset: number): number {
    const value = Number(this.#at(offset, 8).getBigUint64(offset - this.#start, true));
    if (Number.isSafeInteger(value)) return value;
    throw new HeadraceError("BAD_CHUNK", `a length of ${value} bytes at ${offset} is past 2^53`);
  }

  /** Some bytes of it, for the caller until the next call. */
  bytes(offset: number, byteLength: number): Uint8Array {
    const view = this.#at(offset, byteLength);
    return new Uint8Array(view.buffer, view.byteOffset + offset - this.#start, byteLength);
  }

  #at(offset: number, byteLength: number): DataView {
    if (offset >= this.#start && offset + byteLength <= this.#start + this.#view.byteLength)
      return this.#view;
    if (offset + byteLength > this.fileLength) {
      throw new HeadraceError(
        "BAD_CHUNK",
        `${byteLength} bytes at ${offset} are needed, but the file has only ${this.fileLength}: it is cut off`,
      );
    }
    const end = this.#start + this.#view.byteLength;
    // Also a little back: a frame's end is looked at before its blocks are.
    const follows = offset >= this.#start - LEAST_AHEAD && offset <= end + LEAST_AHEAD;
    this.#ahead = follows ? Math.min(2 * this.#ahead, MOST_AHEAD) : LEAST_AHEAD;
    const wanted = Math.min(Math.max(byteLength, this.#ahead), this.fileLength - offset);
    const bytes = this.#read(offset, wanted);
    if (bytes.length !== wanted) {
      throw new HeadraceError("SHORT_READ", `asked for ${wanted} bytes at ${offset}, got ${bytes.length}`);
    }
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    this.#start = offset;
    return this.#view;
  }
}
