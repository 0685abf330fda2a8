/** Which of a dataset's samples an epoch is made of, and the order over them alone. */
import { HeadraceError } from "../errors.ts";
import { checkInteger, checkRoom, checkSpan } from "./check.ts";

/** One epoch's order, whatever it is made of: positions `[0, numSamples)` onto sample indices, each once. */
export interface SampleOrder {
  readonly numSamples: number;
  /** Whether position and sample index are the same number everywhere. */
  readonly sequential: boolean;
  /** The sample at `position`. Throws `OUT_OF_RANGE`. */
  at(position: number): number;
  /** Writes the samples at positions `[start, start + count)` to the front of `out`. Throws `OUT_OF_RANGE`. */
  fill(out: Float64Array, start: number, count: number): void;
}

/** A pair `[start, end)` of sample indices. */
export type SampleRange = readonly [start: number, end: number];

/**
 * The samples in `ranges`, numbered from 0 in ascending order.
 *
 * `ranges` are sorted and do not overlap; they may touch, and may be empty. Throws `BAD_OPTION` where they are not, or
 * leave `[0, datasetSamples)`. Memory: 16 bytes a range.
 */
export class Selection {
  /** Samples in all ranges together. */
  readonly numSamples: number;
  readonly #starts: Float64Array;
  /** Samples before each range, and at the end their number. */
  readonly #before: Float64Array;
  #last = 0;

  constructor(ranges: readonly SampleRange[], datasetSamples: number) {
    const starts: number[] = [];
    const before: number[] = [];
    let selected = 0;
    let previousEnd = 0;
    ranges.forEach(([start, end], i) => {
      checkInteger(`the start of ranges[${i}]`, start, 0);
      checkInteger(`the end of ranges[${i}]`, end, start);
      if (start < previousEnd) {
        throw new HeadraceError(
          "BAD_OPTION",
          `ranges[${i}] is [${start}, ${end}) and begins before ${previousEnd}, where the one before it ends; sort and merge them`,
        );
      }
      if (end > datasetSamples) {
        throw new HeadraceError(
          "BAD_OPTION",
          `ranges[${i}] is [${start}, ${end}), and the dataset has ${datasetSamples} samples`,
        );
      }
      previousEnd = end;
      if (end === start) return;
      starts.push(start);
      before.push(selected);
      selected += end - start;
    });
    before.push(selected);
    this.numSamples = selected;
    this.#starts = Float64Array.from(starts);
    this.#before = Float64Array.from(before);
  }

  /** The sample of number `position`, which must be an integer in `[0, numSamples)`. */
  at(position: number): number {
    const range = this.#rangeOf(position);
    return this.#starts[range]! + (position - this.#before[range]!);
  }

  /** Replaces the first `count` of `numbers` by the samples they stand for. */
  translate(numbers: Float64Array, count: number): void {
    for (let i = 0; i < count; i++) numbers[i] = this.at(numbers[i]!);
  }

  /** Writes samples number `[start, start + count)` to the front of `out`, run by run. */
  fill(out: Float64Array, start: number, count: number): void {
    if (count === 0) return;
    let range = this.#rangeOf(start);
    let position = start;
    for (let i = 0; i < count; range++) {
      const end = Math.min(this.#before[range + 1]!, start + count);
      const shift = this.#starts[range]! - this.#before[range]!;
      for (; position < end; i++, position++) out[i] = position + shift;
    }
  }

  #rangeOf(position: number): number {
    const before = this.#before;
    const last = this.#last;
    if (position >= before[last]! && position < before[last + 1]!) return last;
    let low = 0;
    let high = this.#starts.length;
    while (high - low > 1) {
      const middle = (low + high) >>> 1;
      if (position < before[middle]!) high = middle;
      else low = middle;
    }
    this.#last = low;
    return low;
  }
}

/** `order`, an order of `selection.numSamples` samples, over the selection instead of the whole dataset. */
export class SelectedOrder implements SampleOrder {
  readonly numSamples: number;
  readonly sequential = false;
  readonly #order: SampleOrder;
  readonly #selection: Selection;

  constructor(order: SampleOrder, selection: Selection) {
    this.numSamples = selection.numSamples;
    this.#order = order;
    this.#selection = selection;
  }

  at(position: number): number {
    return this.#selection.at(this.#order.at(position));
  }

  fill(out: Float64Array, start: number, count: number): void {
    checkSpan("positions", start, count, this.numSamples);
    checkRoom(count, out.length);
    if (this.#order.sequential) {
      this.#selection.fill(out, start, count);
      return;
    }
    this.#order.fill(out, start, count);
    this.#selection.translate(out, count);
  }
}
