/**
 * Which blocks of the KV cache each slot's sequence has. All blocks hold the same number of tokens; a slot's blocks are
 * those of its tokens in order, wherever they lie. Pure: knows numbers, no memory.
 */
import { HeadraceError } from "../../errors.ts";

export interface BlockPoolOptions {
  readonly numBlocks: number;
  /** Tokens of one block. */
  readonly blockTokens: number;
  readonly slots: number;
  /** Blocks that one slot can have. */
  readonly maxBlocksPerSlot: number;
  /** Where the table lies, `slots * maxBlocksPerSlot` words; memory of its own without. */
  readonly table?: Uint32Array | undefined;
}

/** Hands blocks to slots and takes them back. Nothing moves, and freeing costs as much as taking. */
export class BlockPool {
  readonly numBlocks: number;
  readonly blockTokens: number;
  readonly maxBlocksPerSlot: number;
  /** `[slots, maxBlocksPerSlot]`: the number of each block of a slot. What lies past a slot's blocks has no meaning. */
  readonly table: Uint32Array;
  /** A stack. */
  readonly #free: Uint32Array;
  #numFree: number;
  readonly #counts: Uint32Array;
  /** Words of `table` that have changed since they were last looked at. */
  #changedStart = Number.MAX_SAFE_INTEGER;
  #changedEnd = 0;

  constructor({ numBlocks, blockTokens, slots, maxBlocksPerSlot, table }: BlockPoolOptions) {
    this.numBlocks = numBlocks;
    this.blockTokens = blockTokens;
    this.maxBlocksPerSlot = maxBlocksPerSlot;
    this.table = table ?? new Uint32Array(slots * maxBlocksPerSlot);
    this.#counts = new Uint32Array(slots);
    this.#free = new Uint32Array(numBlocks);
    for (let i = 0; i < numBlocks; i++) this.#free[i] = numBlocks - 1 - i;
    this.#numFree = numBlocks;
  }

  get numFree(): number {
    return this.#numFree;
  }

  /** Tokens that the slot's blocks hold. */
  tokensOf(slot: number): number {
    return this.#counts[slot]! * this.blockTokens;
  }

  /** The slot's blocks in order. A copy. */
  blocksOf(slot: number): number[] {
    const start = slot * this.maxBlocksPerSlot;
    return [...this.table.subarray(start, start + this.#counts[slot]!)];
  }

  /**
   * Makes the slot's blocks hold `tokens` tokens; it keeps what it has. False, and nothing changed, where too few blocks
   * are free. Throws `OUT_OF_RANGE` for more tokens than one slot can ever hold.
   */
  reserve(slot: number, tokens: number): boolean {
    const wanted = Math.ceil(tokens / this.blockTokens);
    const has = this.#counts[slot]!;
    if (wanted <= has) return true;
    if (wanted > this.maxBlocksPerSlot) {
      const most = this.maxBlocksPerSlot * this.blockTokens;
      throw new HeadraceError("OUT_OF_RANGE", `slot ${slot}: ${tokens} tokens are more than its ${most}`);
    }
    if (wanted - has > this.#numFree) return false;
    const start = slot * this.maxBlocksPerSlot;
    for (let i = has; i < wanted; i++) this.table[start + i] = this.#free[--this.#numFree]!;
    this.#counts[slot] = wanted;
    this.#changedStart = Math.min(this.#changedStart, start + has);
    this.#changedEnd = Math.max(this.#changedEnd, start + wanted);
    return true;
  }

  /** Takes all blocks of the slot back. */
  release(slot: number): void {
    const start = slot * this.maxBlocksPerSlot;
    // The first block comes back last, so that it is the first to go out again: memory that was touched is used first.
    for (let i = this.#counts[slot]! - 1; i >= 0; i--) this.#free[this.#numFree++] = this.table[start + i]!;
    this.#counts[slot] = 0;
  }

  /** Calls `use` with the range `[start, end)` of {@link BlockPool.table}'s words that have changed since the last call;
   * not where none have. */
  takeChanges(use: (start: number, end: number) => void): void {
    if (this.#changedStart >= this.#changedEnd) return;
    use(this.#changedStart, this.#changedEnd);
    this.#changedStart = Number.MAX_SAFE_INTEGER;
    this.#changedEnd = 0;
  }
}
