/**
 * Which copies the JavaScript thread makes itself. Waking a lane and hearing back from it takes about as
 * long as copying a mebibyte, so small submissions are faster at once. A copy out of a mapping may wait for
 * a disk, though, which is seen by the time that it took: then lanes take the next ones.
 */

/** A copy is slow when it takes longer than this, and longer than memory ever takes for its bytes. */
const SLOW_MS = 0.5;
const SLOW_BYTES_PER_MS = 1e6;
/** Submissions that go to the lanes after a slow one. */
const PENALTY = 64;

export class InlineCopies {
  readonly #maxBytes: number;
  #penalty = 0;

  /** Submissions of copies up to `maxBytes` in all qualify. */
  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  /** Whether to copy `bytes` on the calling thread now; then report to {@link InlineCopies.took}. */
  allow(bytes: number): boolean {
    if (bytes > this.#maxBytes) return false;
    if (this.#penalty === 0) return true;
    this.#penalty--;
    return false;
  }

  took(bytes: number, ms: number): void {
    if (ms > SLOW_MS + bytes / SLOW_BYTES_PER_MS) this.#penalty = PENALTY;
  }
}
