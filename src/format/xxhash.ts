/** XXH32 (xxHash 0.1.1, seed 0) of bytes that come piece by piece, which the runtime's own takes in one piece alone, and
 * of a few bytes, for which a call of the runtime's own costs more than the hash. */

const PRIME_1 = 0x9e3779b1;
const PRIME_2 = 0x85ebca77;
const PRIME_3 = 0xc2b2ae3d;
const PRIME_4 = 0x27d4eb2f;
const PRIME_5 = 0x165667b1;
const STRIPE = 16;

const rotate = (value: number, bits: number) => (value << bits) | (value >>> (32 - bits));
const round = (lane: number, word: number) =>
  Math.imul(rotate((lane + Math.imul(word, PRIME_2)) | 0, 13), PRIME_1);

export class XxHash32 {
  #a = (PRIME_1 + PRIME_2) | 0;
  #b = PRIME_2 | 0;
  #c = 0;
  #d = -PRIME_1 | 0;
  /** Bytes that do not fill a stripe yet. */
  readonly #rest = new Uint8Array(STRIPE);
  #numRest = 0;
  #length = 0;

  update(bytes: Uint8Array): this {
    this.#length += bytes.length;
    let at = 0;
    if (this.#numRest > 0) {
      at = Math.min(bytes.length, STRIPE - this.#numRest);
      this.#rest.set(bytes.subarray(0, at), this.#numRest);
      this.#numRest += at;
      if (this.#numRest < STRIPE) return this;
      this.#take(this.#rest);
      this.#numRest = 0;
    }
    const whole = bytes.length - ((bytes.length - at) % STRIPE);
    this.#take(bytes.subarray(at, whole));
    this.#rest.set(bytes.subarray(whole));
    this.#numRest = bytes.length - whole;
    return this;
  }

  /** Of all bytes so far, as an unsigned integer. */
  digest(): number {
    let hash =
      this.#length >= STRIPE
        ? rotate(this.#a, 1) + rotate(this.#b, 7) + rotate(this.#c, 12) + rotate(this.#d, 18)
        : PRIME_5;
    hash = (hash + (this.#length % 2 ** 32)) | 0;
    return finish(hash, this.#rest, 0, this.#numRest);
  }

  /** Whole stripes. */
  #take(bytes: Uint8Array): void {
    let [a, b, c, d] = [this.#a, this.#b, this.#c, this.#d];
    for (let at = 0; at < bytes.length; at += STRIPE) {
      a = round(a, wordAt(bytes, at));
      b = round(b, wordAt(bytes, at + 4));
      c = round(c, wordAt(bytes, at + 8));
      d = round(d, wordAt(bytes, at + 12));
    }
    [this.#a, this.#b, this.#c, this.#d] = [a, b, c, d];
  }
}

/** Of `bytes[from, from + length)`, fewer than 16, as an unsigned integer. */
export function xxHash32OfFew(bytes: Uint8Array, from: number, length: number): number {
  return finish((PRIME_5 + length) | 0, bytes, from, length);
}

/** Takes what does not fill a stripe, and mixes. */
function finish(start: number, bytes: Uint8Array, from: number, length: number): number {
  let hash = start;
  const end = from + length;
  let at = from;
  for (; at + 4 <= end; at += 4) {
    hash = Math.imul(rotate((hash + Math.imul(wordAt(bytes, at), PRIME_3)) | 0, 17), PRIME_4);
  }
  for (; at < end; at++) {
    hash = Math.imul(rotate((hash + Math.imul(bytes[at]!, PRIME_5)) | 0, 11), PRIME_1);
  }
  hash = Math.imul(hash ^ (hash >>> 15), PRIME_2);
  hash = Math.imul(hash ^ (hash >>> 13), PRIME_3);
  return (hash ^ (hash >>> 16)) >>> 0;
}

function wordAt(bytes: Uint8Array, at: number): number {
  return bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24);
}
