/** Turns the byte ranges that a batch wants into fewer, longer reads. */
import { HeadraceError } from "../errors.ts";
import { checkInteger } from "./check.ts";
import { grownFloat64, grownInt32 } from "./grow.ts";
import { ReadPlan } from "./read-plan.ts";
import { isAfter, sortIndices } from "./sort.ts";

/** A storage device reads whole pages whatever is asked, so a shorter piece counts as this many bytes when
 * waste is weighed. */
const PAGE = 4096;

/** Bounds of what {@link planReads} may merge; all in bytes. */
export interface CoalesceOptions {
  /** Unwanted bytes between two pieces that are read along rather than asked around, at least 0; 16 KiB by
   * default. */
  readonly maxGap?: number | undefined;
  /** Longest merged read, at least 1; 32 MiB by default. A longer piece is one read all the same. */
  readonly maxRead?: number | undefined;
  /** Longest piece, or run of pieces that go straight to the target, that is staged and copied for the sake
   * of a merge, at least 0; 32 KiB by default, as copying more costs more than another read. */
  readonly maxCopy?: number | undefined;
  /** Most staging memory, at least 0; unbounded by default. With 0 every read goes straight to the target. */
  readonly maxStaging?: number | undefined;
}

/**
 * Byte ranges of files and where each goes. Entry i is `byteLength[i]` bytes at `fileOffset[i]` of file
 * number `file[i]`, for `targetOffset[i]` of the target; all in bytes. Entries are valid up to `length`, the
 * arrays are replaced when they grow. Filling it checks nothing.
 */
export class PieceList {
  file = new Int32Array(64);
  fileOffset = new Float64Array(64);
  byteLength = new Float64Array(64);
  targetOffset = new Float64Array(64);
  length = 0;

  clear(): void {
    this.length = 0;
  }

  push(file: number, fileOffset: number, byteLength: number, targetOffset: number): void {
    const at = this.length++;
    if (at === this.file.length) this.#grow();
    this.file[at] = file;
    this.fileOffset[at] = fileOffset;
    this.byteLength[at] = byteLength;
    this.targetOffset[at] = targetOffset;
  }

  #grow(): void {
    this.file = grownInt32(this.file, this.length);
    this.fileOffset = grownFloat64(this.fileOffset, this.length);
    this.byteLength = grownFloat64(this.byteLength, this.length);
    this.targetOffset = grownFloat64(this.targetOffset, this.length);
  }
}

/**
 * Plans the reads for `pieces` into `plan`, which it overwrites and returns.
 *
 * Pieces are taken by file and offset (sorted only if they are not yet). A piece joins the read before it
 * where all of this holds: same file; the gap between them is at most `maxGap`; the read stays within
 * `maxRead`; and the read is either still *direct*, its pieces following one another without a gap in file
 * and target alike, or it may be staged: no piece is over `maxCopy`, staging memory is left, and the gaps of
 * the read add up to no more than its pieces do (each counted as a page of 4 KiB at least). Direct reads go
 * straight to the target, staged ones are copied from there piece by piece.
 *
 * Pieces may overlap or repeat in the file, but not in the target. Empty pieces are dropped. `pieces` is
 * borrowed for the call. Time: O(n) for sorted pieces, else O(n log n).
 *
 * Throws `BAD_OPTION` for options outside their bounds, `OUT_OF_RANGE` for a piece whose bounds are no safe
 * integers.
 */
export function planReads(
  pieces: PieceList,
  options: CoalesceOptions = {},
  plan: ReadPlan = new ReadPlan(),
): ReadPlan {
  const { maxGap = 16 * 1024, maxRead = 32 * 1024 * 1024, maxCopy = 32 * 1024 } = options;
  const { maxStaging = Number.MAX_SAFE_INTEGER } = options;
  checkInteger("maxGap", maxGap, 0);
  checkInteger("maxRead", maxRead, 1);
  checkInteger("maxCopy", maxCopy, 0);
  checkInteger("maxStaging", maxStaging, 0);
  const numPieces = orderPieces(pieces, plan);
  const merger = new Merger(plan, maxGap, maxRead, maxCopy, maxStaging);
  for (let k = 0; k < numPieces; k++) {
    const piece = plan.order[k]!;
    const file = pieces.file[piece]!;
    const offset = pieces.fileOffset[piece]!;
    const length = pieces.byteLength[piece]!;
    const target = pieces.targetOffset[piece]!;
    if (!merger.join(file, offset, length, target)) {
      merger.flush(k);
      merger.begin(k, file, offset, length, target);
    }
  }
  merger.flush(numPieces);
  return plan;
}

/** Writes the pieces that are not empty to `plan.order`, sorted, and returns how many there are. */
function orderPieces(pieces: PieceList, plan: ReadPlan): number {
  plan.clear(pieces.length);
  const { file, fileOffset } = pieces;
  const order = plan.order;
  let count = 0;
  let sorted = true;
  for (let i = 0; i < pieces.length; i++) {
    checkPiece(pieces, i);
    if (pieces.byteLength[i] === 0) continue;
    if (sorted && count > 0 && isAfter(order[count - 1]!, i, file, fileOffset)) sorted = false;
    order[count++] = i;
  }
  if (!sorted) {
    plan.scratch = grownInt32(plan.scratch, count);
    sortIndices(order, plan.scratch, count, file, fileOffset);
  }
  return count;
}

function checkPiece(pieces: PieceList, i: number): void {
  const offset = pieces.fileOffset[i]!;
  const length = pieces.byteLength[i]!;
  const target = pieces.targetOffset[i]!;
  const file = pieces.file[i]!;
  const whole = Number.isSafeInteger(offset) && Number.isSafeInteger(length) && Number.isSafeInteger(target);
  const most = Number.MAX_SAFE_INTEGER - length;
  if (whole && file >= 0 && length >= 0 && offset >= 0 && target >= 0 && offset <= most && target <= most)
    return;
  throw new HeadraceError(
    "OUT_OF_RANGE",
    `piece ${i}: ${length} bytes at ${offset} of file ${file} for ${target} are not all in [0, 2^53)`,
  );
}

/** The read being built, and the decision whether a piece joins it. */
class Merger {
  readonly #plan: ReadPlan;
  readonly #maxGap: number;
  readonly #maxRead: number;
  readonly #maxCopy: number;
  readonly #maxStaging: number;
  #file = -1;
  #firstPiece = 0;
  #start = 0;
  #end = 0;
  #target = 0;
  #direct = true;
  /** Bytes that no piece wants, and what the pieces are worth against them. */
  #waste = 0;
  #worth = 0;

  constructor(plan: ReadPlan, maxGap: number, maxRead: number, maxCopy: number, maxStaging: number) {
    this.#plan = plan;
    this.#maxGap = maxGap;
    this.#maxRead = maxRead;
    this.#maxCopy = maxCopy;
    this.#maxStaging = maxStaging;
  }

  begin(firstPiece: number, file: number, offset: number, length: number, target: number): void {
    this.#firstPiece = firstPiece;
    this.#file = file;
    this.#start = offset;
    this.#end = offset + length;
    this.#target = target;
    this.#direct = true;
    this.#waste = 0;
    this.#worth = Math.max(length, PAGE);
  }

  /** Takes the piece into the read, or returns false and changes nothing. */
  join(file: number, offset: number, length: number, target: number): boolean {
    if (file !== this.#file) return false;
    const gap = offset - this.#end;
    if (gap > this.#maxGap) return false;
    const end = Math.max(this.#end, offset + length);
    if (end > this.#end && end - this.#start > this.#maxRead) return false;
    const direct = this.#direct && gap === 0 && target - this.#target === offset - this.#start;
    const waste = this.#waste + Math.max(0, gap);
    const worth = this.#worth + Math.max(length, PAGE);
    if (!direct) {
      if (length > this.#maxCopy || (this.#direct && this.#end - this.#start > this.#maxCopy)) return false;
      if (waste > worth || end - this.#start > this.#maxStaging - this.#plan.stagingBytes) return false;
    }
    this.#end = end;
    this.#direct = direct;
    this.#waste = waste;
    this.#worth = worth;
    return true;
  }

  /** Writes the read, if there is one, to the plan; its pieces end before `endPiece`. */
  flush(endPiece: number): void {
    if (this.#file < 0) return;
    const plan = this.#plan;
    const length = this.#end - this.#start;
    const target = this.#direct ? this.#target : plan.stagingBytes;
    const numPieces = endPiece - this.#firstPiece;
    plan.push(this.#file, this.#start, length, target, this.#direct, this.#firstPiece, numPieces);
    if (!this.#direct) plan.stagingBytes += length;
    this.#file = -1;
  }
}
