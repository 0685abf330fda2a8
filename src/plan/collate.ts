/** Where the parts of a batch lie in a segment. Pure integers. */
import { HeadraceError } from "../errors.ts";

/** Hands out sections of a segment one after another. */
export class SegmentLayout {
  readonly #alignment: number;
  #end = 0;

  /** `alignment` in bytes, a power of two: where sections begin. */
  constructor(alignment: number) {
    this.#alignment = alignment;
  }

  /** Bytes from the segment's start to the end of the last section. */
  get byteLength(): number {
    return this.#end;
  }

  clear(): void {
    this.#end = 0;
  }

  /** Reserves `byteLength` bytes and returns the offset of the first. Throws `BATCH_TOO_LARGE` where
   * offsets would no longer be exact. */
  section(byteLength: number): number {
    const start = Math.ceil(this.#end / this.#alignment) * this.#alignment;
    const end = start + byteLength;
    if (!Number.isSafeInteger(end)) {
      throw new HeadraceError("BATCH_TOO_LARGE", `a batch of ${end} bytes is beyond what can be counted`);
    }
    this.#end = end;
    return start;
  }
}

/** The common length of padded samples: the longest, rounded up to a multiple of `padTo`; at least `padTo`. */
export function paddedLength(longest: number, padTo: number): number {
  return Math.max(1, Math.ceil(longest / padTo)) * padTo;
}
