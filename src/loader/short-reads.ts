/** Short reads for memory that the host does not see. */
import { grownFloat64, grownInt32 } from "../plan/grow.ts";
import type { PieceList } from "../plan/read.ts";
import type { ReadPlan } from "../plan/read-plan.ts";
import { eachRun } from "./runs.ts";

/** Bytes of the longest: about what a link moves in the time in which one more copy is started. */
const SHORT_BYTES = 128 * 1024;
/** Fewer may go each by itself, without waiting for one another. */
const LEAST_READS = 16;

/**
 * Finds the reads of a plan that would each be a copy to the device of their own, which costs more than their bytes, and
 * places them side by side in staging memory, in the order in which they were asked for: that is mostly the order of
 * their targets, so that few copies bring them all. Reused from batch to batch.
 */
export class ShortReads {
  /** Of each read: where it lies in the staging memory, -1 for one that goes straight to its target. */
  #places = new Float64Array(64);
  /** Of each piece: its read if that is a short one, else -1. */
  #readOf = new Int32Array(64);
  /** In the order of their places; valid up to `#length`. */
  #reads = new Int32Array(64);
  #length = 0;
  #numShort = 0;
  #shortBytes = 0;

  /** Places the short reads of `plan`, which was made of `pieces`, unless they are few, or `hasRoom` denies the bytes of
   * staging memory that they take. Returns these bytes, 0 where none is placed. */
  place(pieces: PieceList, plan: ReadPlan, hasRoom: (byteLength: number) => boolean): number {
    this.#length = 0;
    this.#places = grownFloat64(this.#places, plan.length);
    this.#places.fill(-1, 0, plan.length);
    this.#find(pieces, plan);
    if (this.#numShort < LEAST_READS || !hasRoom(this.#shortBytes)) return 0;
    this.#reads = grownInt32(this.#reads, plan.length);
    let byteLength = 0;
    for (let piece = 0; piece < pieces.length; piece++) {
      const read = this.#readOf[piece]!;
      if (read < 0 || this.#places[read]! >= 0) continue;
      this.#places[read] = byteLength;
      this.#reads[this.#length++] = read;
      byteLength += plan.byteLength[read]!;
    }
    return byteLength;
  }

  /** Where a read lies, counted from the first; -1 for one that is not placed here. */
  placeOf(read: number): number {
    return this.#places[read]!;
  }

  /** Calls `take` for each range that lies together in both: where, its place in the target, and bytes. */
  eachRange(plan: ReadPlan, take: (from: number, to: number, byteLength: number) => void): void {
    const reads = this.#reads;
    const targetOf = (index: number) => plan.targetOffset[reads[index]!]!;
    eachRun(this.#length, targetOf, (index) => plan.byteLength[reads[index]!]!, take);
  }

  #find(pieces: PieceList, plan: ReadPlan): void {
    this.#readOf = grownInt32(this.#readOf, pieces.length);
    this.#readOf.fill(-1, 0, pieces.length);
    this.#numShort = 0;
    this.#shortBytes = 0;
    for (let read = 0; read < plan.length; read++) {
      if (plan.direct[read] !== 1 || plan.byteLength[read]! > SHORT_BYTES) continue;
      this.#numShort++;
      this.#shortBytes += plan.byteLength[read]!;
      const first = plan.firstPiece[read]!;
      for (let k = first; k < first + plan.numPieces[read]!; k++) this.#readOf[plan.order[k]!] = read;
    }
  }
}
