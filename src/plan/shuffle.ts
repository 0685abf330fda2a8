/**
 * The order of an epoch: which sample stands at which position.
 *
 * It depends on the number of samples, the seed, the epoch and the block options alone. Ranks and worlds
 * only divide it. Nothing is stored, so any position of any epoch can be asked first.
 */
import { checkInteger, checkRoom, checkSpan } from "./check.ts";
import { deriveKey } from "./mix.ts";
import { Permutation } from "./permutation.ts";

/** Blocks in a window where the options do not say. */
const DEFAULT_WINDOW_BLOCKS = 64;
/** Bounds the table of the current window: 512 KiB. */
const MAX_WINDOW_BLOCKS = 65536;

/** The uses that a seed is put to, each with keys of its own. Never renumber. */
const STREAM = { samples: 0, blocks: 1, window: 2 } as const;

export interface OrderOptions {
  /** 0 to 2^53 - 1. */
  readonly numSamples: number;
  /** Integer, 0 to 2^53 - 1; `undefined` for the order in which samples are stored. */
  readonly seed: number | undefined;
  /** Integer, 0 to 2^53 - 1. Without a seed all epochs are alike. */
  readonly epoch: number;
  /** Consecutive samples that stay near each other, at least 1; absent for one shuffle of all samples. */
  readonly blockSize?: number | undefined;
  /** Blocks whose samples are mixed, 1 to 65,536; 64 by default. Nothing without `blockSize`. */
  readonly windowBlocks?: number | undefined;
}

/**
 * One epoch's order: a bijection of positions `[0, numSamples)` onto sample indices.
 *
 * Without `blockSize` it is one {@link Permutation} of all samples. With it, blocks of `blockSize`
 * consecutive samples are shuffled first, the short block at the end of the data among them, then the
 * samples inside each window of `windowBlocks` blocks: while a window lasts, only that many contiguous
 * stretches of the data are touched.
 *
 * Throws `BAD_OPTION` for options outside their bounds.
 */
export class Order {
  readonly numSamples: number;
  readonly sequential: boolean;
  readonly #samples: Permutation | undefined;
  readonly #blocks: BlockOrder | undefined;

  constructor(options: OrderOptions) {
    const { numSamples, seed, epoch, blockSize, windowBlocks = DEFAULT_WINDOW_BLOCKS } = options;
    checkInteger("numSamples", numSamples, 0);
    checkInteger("epoch", epoch, 0);
    if (seed !== undefined) checkInteger("seed", seed, 0);
    if (blockSize !== undefined) {
      checkInteger("blockSize", blockSize, 1);
      checkInteger("windowBlocks", windowBlocks, 1, MAX_WINDOW_BLOCKS);
    }
    this.numSamples = numSamples;
    this.sequential = seed === undefined;
    if (seed === undefined) return;
    if (blockSize === undefined) {
      this.#samples = new Permutation(numSamples, deriveKey(seed, epoch, STREAM.samples, 0));
    } else {
      this.#blocks = new BlockOrder(numSamples, seed, epoch, blockSize, windowBlocks);
    }
  }

  /** The sample at `position`. Throws `OUT_OF_RANGE` unless that is an integer in `[0, numSamples)`. */
  at(position: number): number {
    if (this.#samples !== undefined) return this.#samples.at(position);
    checkSpan("positions", position, 1, this.numSamples);
    return this.#blocks === undefined ? position : this.#blocks.at(position);
  }

  /** Writes the samples at positions `[start, start + count)` to the front of `out`, which stays the
   * caller's. Throws `OUT_OF_RANGE` where the positions leave the epoch or `out` is too short. */
  fill(out: Float64Array, start: number, count: number): void {
    if (this.#samples !== undefined) {
      this.#samples.fill(out, start, count);
      return;
    }
    checkSpan("positions", start, count, this.numSamples);
    checkRoom(count, out.length);
    const blocks = this.#blocks;
    if (blocks === undefined) {
      for (let i = 0; i < count; i++) out[i] = start + i;
    } else {
      for (let i = 0; i < count; i++) out[i] = blocks.at(start + i);
    }
  }
}

/**
 * The order in block mode.
 *
 * A *place* is where a block stands after the shuffle of blocks. Every place holds `size` samples but one,
 * which holds the short block; what lies behind that is shifted by what the short block lacks. The window
 * asked last is remembered, which changes nothing but speed.
 */
class BlockOrder {
  readonly #seed: number;
  readonly #epoch: number;
  readonly #numSamples: number;
  readonly #size: number;
  readonly #numBlocks: number;
  readonly #windowBlocks: number;
  readonly #blocks: Permutation;
  /** Samples of the last block of the data, 1 to `size`, and the place where the shuffle puts it. */
  readonly #lastSize: number;
  readonly #lastPlace: number;

  #start = 0;
  #end = 0;
  #firstPlace = 0;
  #inside: Permutation | undefined;
  /** First sample of the block at each place of the window; -1 until it is asked for. */
  readonly #base: Float64Array;

  constructor(numSamples: number, seed: number, epoch: number, blockSize: number, windowBlocks: number) {
    this.#seed = seed;
    this.#epoch = epoch;
    this.#numSamples = numSamples;
    this.#size = Math.max(1, Math.min(blockSize, numSamples));
    const full = Math.floor(numSamples / this.#size);
    const left = numSamples - full * this.#size;
    this.#numBlocks = left > 0 ? full + 1 : full;
    this.#lastSize = left > 0 ? left : this.#size;
    this.#windowBlocks = Math.max(1, Math.min(windowBlocks, this.#numBlocks));
    this.#blocks = new Permutation(this.#numBlocks, deriveKey(seed, epoch, STREAM.blocks, 0));
    this.#lastPlace = this.#numBlocks > 0 ? this.#blocks.inverse(this.#numBlocks - 1) : 0;
    this.#base = new Float64Array(this.#windowBlocks);
  }

  /** `position` must be checked. */
  at(position: number): number {
    if (position < this.#start || position >= this.#end) this.#enter(position);
    const size = this.#size;
    const shuffled = this.#inside!.at(position - this.#start);
    let place = Math.floor(shuffled / size);
    let row = shuffled - place * size;
    const last = this.#lastPlace - this.#firstPlace;
    if (place >= last && last >= 0) {
      const intoLast = shuffled - last * size;
      if (intoLast < this.#lastSize) {
        place = last;
        row = intoLast;
      } else {
        const behind = intoLast - this.#lastSize;
        place = last + 1 + Math.floor(behind / size);
        row = behind % size;
      }
    }
    let base = this.#base[place]!;
    if (base < 0) {
      base = this.#blocks.at(this.#firstPlace + place) * size;
      this.#base[place] = base;
    }
    return base + row;
  }

  /** Makes the window that holds `position` the current one. */
  #enter(position: number): void {
    const windowSize = this.#windowBlocks * this.#size;
    const lastWindow = Math.floor(this.#lastPlace / this.#windowBlocks);
    const lastWindowStart = lastWindow * windowSize;
    let window = lastWindow;
    let start = lastWindowStart;
    if (position < lastWindowStart) {
      window = Math.floor(position / windowSize);
      start = window * windowSize;
    } else {
      // The window of the short block, counted without passing 2^53 when it is the only one.
      const places = this.#placesOf(lastWindow);
      const end = lastWindowStart + (places - 1) * this.#size + this.#lastSize;
      if (position >= end) {
        const further = Math.floor((position - end) / windowSize);
        window = lastWindow + 1 + further;
        start = end + further * windowSize;
      }
    }
    const places = this.#placesOf(window);
    const holdsLast = window === lastWindow;
    const length = holdsLast ? (places - 1) * this.#size + this.#lastSize : places * this.#size;
    this.#start = start;
    this.#end = Math.min(start + length, this.#numSamples);
    this.#firstPlace = window * this.#windowBlocks;
    this.#base.fill(-1);
    this.#inside = new Permutation(length, deriveKey(this.#seed, this.#epoch, STREAM.window, window));
  }

  #placesOf(window: number): number {
    return Math.min(this.#windowBlocks, this.#numBlocks - window * this.#windowBlocks);
  }
}
