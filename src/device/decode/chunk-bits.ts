/** Some of the chunks of a file, at one bit each: a file may have a hundred million. */
export class ChunkBits {
  readonly #numChunks: number;
  #bits: Uint8Array | undefined;

  /** None at first, for which no memory is taken. */
  constructor(numChunks: number) {
    this.#numChunks = numChunks;
  }

  /** `chunk` is an integer in `[0, numChunks)`. */
  add(chunk: number): void {
    this.#bits ??= new Uint8Array(Math.ceil(this.#numChunks / 8));
    this.#bits[chunk >>> 3]! |= 1 << (chunk & 7);
  }

  /** Returns whether it was there. */
  delete(chunk: number): boolean {
    const bits = this.#bits;
    const bit = 1 << (chunk & 7);
    if (bits === undefined || (bits[chunk >>> 3]! & bit) === 0) return false;
    bits[chunk >>> 3]! &= ~bit;
    return true;
  }

  clear(): void {
    this.#bits = undefined;
  }
}
