/** The reads that bring what was asked for, as flat numbers. */
import { grownFloat64, grownInt32, grownUint8 } from "./grow.ts";

/**
 * Reads that together bring every piece. Read i takes `byteLength[i]` bytes at `fileOffset[i]` of file
 * number `file[i]` to `targetOffset[i]`, which counts from the start of the target where `direct[i]` is 1,
 * and from the start of the staging memory where it is 0.
 *
 * A staged read serves the pieces numbered `order[k]` for k in
 * `[firstPiece[i], firstPiece[i] + numPieces[i])`, each of which then lies in the staging memory at
 * `targetOffset[i] + (fileOffset of the piece - fileOffset[i])` and has to be copied from there.
 * Entries are valid up to `length`.
 */
export class ReadPlan {
  file = new Int32Array(64);
  fileOffset = new Float64Array(64);
  byteLength = new Float64Array(64);
  targetOffset = new Float64Array(64);
  direct = new Uint8Array(64);
  firstPiece = new Int32Array(64);
  numPieces = new Int32Array(64);
  length = 0;
  /** Pieces that are not empty, by file and offset; valid up to the last read's last piece. */
  order = new Int32Array(64);
  /** Bytes of staging memory that the staged reads fill. */
  stagingBytes = 0;
  /** Memory for sorting, of no meaning afterwards. */
  scratch = new Int32Array(0);

  /** Empties the plan and makes room to order `numPieces` pieces. */
  clear(numPieces: number): void {
    this.length = 0;
    this.stagingBytes = 0;
    this.order = grownInt32(this.order, numPieces);
  }

  push(
    file: number,
    fileOffset: number,
    byteLength: number,
    targetOffset: number,
    direct: boolean,
    firstPiece: number,
    numPieces: number,
  ): void {
    const at = this.length++;
    if (at === this.file.length) this.#grow();
    this.file[at] = file;
    this.fileOffset[at] = fileOffset;
    this.byteLength[at] = byteLength;
    this.targetOffset[at] = targetOffset;
    this.direct[at] = direct ? 1 : 0;
    this.firstPiece[at] = firstPiece;
    this.numPieces[at] = numPieces;
  }

  #grow(): void {
    this.file = grownInt32(this.file, this.length);
    this.fileOffset = grownFloat64(this.fileOffset, this.length);
    this.byteLength = grownFloat64(this.byteLength, this.length);
    this.targetOffset = grownFloat64(this.targetOffset, this.length);
    this.direct = grownUint8(this.direct, this.length);
    this.firstPiece = grownInt32(this.firstPiece, this.length);
    this.numPieces = grownInt32(this.numPieces, this.length);
  }
}
