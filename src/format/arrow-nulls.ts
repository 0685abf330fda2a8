/** Compares validity bitmaps: whether null elements lie in null rows alone. */
import type { ByteRange, ByteReader } from "../types.ts";

/** A bitmap, 1 = present, and what reads it. */
export interface BitmapPlace {
  readonly read: ByteReader;
  readonly range: ByteRange;
}

/** Bytes read at a time. */
const CHUNK_LENGTH = 256 * 1024;

/** A bitmap in a file, read a chunk at a time; asked for rising positions. */
class Bitmap {
  readonly #read: ByteReader;
  readonly #range: ByteRange;
  #chunk: Uint8Array = new Uint8Array();
  #chunkStart = 0;

  constructor({ read, range }: BitmapPlace) {
    this.#read = read;
    this.#range = range;
  }

  isSet(index: number): boolean {
    const byte = Math.floor(index / 8);
    return ((this.byte(byte) >> (index % 8)) & 1) === 1;
  }

  byte(index: number): number {
    if (index < this.#chunkStart || index >= this.#chunkStart + this.#chunk.length) {
      const length = Math.min(CHUNK_LENGTH, this.#range.end - this.#range.start - index);
      this.#chunk = this.#read(this.#range.start + index, length);
      this.#chunkStart = index;
    }
    return this.#chunk[index - this.#chunkStart] ?? 0;
  }

  /** Cleared bits of `[start, end)`. */
  countNulls(start: number, end: number): number {
    let count = 0;
    let at = start;
    while (at < end) {
      if (at % 8 === 0 && end - at >= 8) {
        count += 8 - popcount(this.byte(at / 8));
        at += 8;
      } else count += this.isSet(at++) ? 0 : 1;
    }
    return count;
  }
}

/**
 * How many null elements lie in null rows, where each of `numRows` rows has `elementsPerRow` elements. Both
 * bitmaps hold as many bits. Reads them in small pieces.
 */
export function nullsUnderNullRows(
  rows: BitmapPlace,
  elements: BitmapPlace,
  numRows: number,
  elementsPerRow: number,
): number {
  const rowBits = new Bitmap(rows);
  const elementBits = new Bitmap(elements);
  let count = 0;
  for (let row = 0; row < numRows; row++) {
    // Whole bytes of rows that are present, the most frequent case.
    if (row % 8 === 0 && rowBits.byte(row / 8) === 0xff) row += 7;
    else if (!rowBits.isSet(row))
      count += elementBits.countNulls(row * elementsPerRow, (row + 1) * elementsPerRow);
  }
  return count;
}

function popcount(byte: number): number {
  let bits = byte - ((byte >> 1) & 0x55);
  bits = (bits & 0x33) + ((bits >> 2) & 0x33);
  return (bits + (bits >> 4)) & 0x0f;
}
