/** Where the parts of a batch lie in a segment. Pure integers. */
import { HeadraceError } from "../errors.ts";

/**
 * Hands out sections of a segment one after another. Where the host's memory is the device's, all of them are one
 * row of sections that both see. Where it lies `apart`, the computed ones come first in both memories, at the same
 * offsets, so that one copy uploads them all; then, on the device, what is moved there; and on the host, scratch.
 */
export class SegmentLayout {
  readonly apart: boolean;
  readonly #alignment: number;
  /** Ends of what was handed out, each kind counted from where it begins. */
  #computed = 0;
  #moved = 0;
  #scratch = 0;

  /** `alignment` in bytes, a power of two: where sections begin. */
  constructor(alignment: number, apart = false) {
    this.#alignment = alignment;
    this.apart = apart;
  }

  /** Bytes of device memory from the segment's start to the end of the last section. */
  get byteLength(): number {
    return this.#moved === 0 ? this.#computed : this.movedStart + this.#moved;
  }

  /** Bytes of host memory: {@link SegmentLayout.byteLength} unless that lies apart. */
  get hostBytes(): number {
    if (!this.apart) return this.byteLength;
    return this.#scratch === 0 ? this.#computed : this.scratchStart + this.#scratch;
  }

  /** Bytes to upload, from the start of both memories; 0 unless they lie apart. */
  get computedBytes(): number {
    return this.#computed;
  }

  /** Device offset that {@link SegmentLayout.section} counts from. It grows with every computed section. */
  get movedStart(): number {
    return this.#aligned(this.#computed);
  }

  /** Host offset that {@link SegmentLayout.scratch} counts from; grows likewise. */
  get scratchStart(): number {
    return this.#aligned(this.#computed);
  }

  clear(): void {
    this.#computed = 0;
    this.#moved = 0;
    this.#scratch = 0;
  }

  /** Reserves `byteLength` bytes that are moved to the device and returns the offset of the first, from
   * {@link SegmentLayout.movedStart} on. Throws `BATCH_TOO_LARGE` where offsets would no longer be exact. */
  section(byteLength: number): number {
    const start = this.#aligned(this.#moved);
    this.#moved = start + byteLength;
    this.#check();
    return start;
  }

  /** Reserves bytes that the host writes and the device gets, at one offset in both. Throws likewise. */
  computed(byteLength: number): number {
    if (!this.apart) return this.section(byteLength);
    const start = this.#aligned(this.#computed);
    this.#computed = start + byteLength;
    this.#check();
    return start;
  }

  /** Reserves host memory that the device has no place of its own for, from {@link SegmentLayout.scratchStart} on;
   * for memory apart alone. Throws likewise. */
  scratch(byteLength: number): number {
    const start = this.#aligned(this.#scratch);
    this.#scratch = start + byteLength;
    this.#check();
    return start;
  }

  #aligned(offset: number): number {
    return Math.ceil(offset / this.#alignment) * this.#alignment;
  }

  #check(): void {
    const most = Math.max(this.byteLength, this.hostBytes);
    if (Number.isSafeInteger(most)) return;
    throw new HeadraceError("BATCH_TOO_LARGE", `a batch of ${most} bytes is beyond what can be counted`);
  }
}

/** The common length of padded samples: the longest, rounded up to a multiple of `padTo`; at least `padTo`. */
export function paddedLength(longest: number, padTo: number): number {
  return Math.max(1, Math.ceil(longest / padTo)) * padTo;
}
