/** One value again and again, wherever a section of a batch holds nothing else. */
import { typedView } from "../format/dtype.ts";
import type { SegmentLayout } from "../plan/collate.ts";
import type { DType, TypedArray } from "../types.ts";
import type { Target } from "./target.ts";

/** Bytes that one request copies at most: a multiple of every element, and little for each column to keep. */
const PATTERN_BYTES = 64 * 1024;

/**
 * Pads a section. What the host can write it writes. Of memory apart it keeps one run of the value as a pattern, which
 * the queue copies to each gap: only padding is uploaded, and nothing has to wait until it is there.
 */
export class Padding {
  readonly #dtype: DType;
  /** Number or bigint, as the view of a `dtype` takes it. */
  readonly #element: never;
  #scratch = 0;
  #patternBytes = 0;
  #patternAt = 0;
  #section = 0;
  #values: TypedArray | undefined;
  #target: Target | undefined;

  constructor(dtype: DType, element: number | bigint) {
    this.#dtype = dtype;
    this.#element = element as never;
  }

  /** Reserves what padding takes of which no gap is over `longest` bytes. */
  measure(longest: number, layout: SegmentLayout): void {
    this.#patternBytes = layout.apart ? Math.min(longest, PATTERN_BYTES) : 0;
    this.#scratch = layout.apart ? layout.scratch(this.#patternBytes) : 0;
  }

  /** Gaps are counted from offset `section` of the target's device memory, of which `byteLength` bytes may be
   * padded. */
  begin(target: Target, section: number, byteLength: number): void {
    this.#target = target;
    this.#section = section;
    if (target.apart) {
      this.#patternAt = target.scratchOf(this.#scratch);
      typedView(this.#dtype, target.host(), this.#patternAt, this.#patternBytes).fill(this.#element);
    } else this.#values = typedView(this.#dtype, target.host(), section, byteLength);
  }

  /** Pads bytes `[from, to)` of the section, whole elements. */
  fill(from: number, to: number): void {
    if (this.#values !== undefined) {
      const { BYTES_PER_ELEMENT: width } = this.#values;
      this.#values.fill(this.#element, from / width, to / width);
      return;
    }
    const pattern = this.#patternBytes;
    const { gather } = this.#target!;
    for (let at = from; at < to; at += pattern) {
      gather.upload(this.#patternAt, this.#section + at, Math.min(pattern, to - at));
    }
  }

  /** Lets go of the batch's memory. */
  end(): void {
    this.#values = undefined;
    this.#target = undefined;
  }
}
