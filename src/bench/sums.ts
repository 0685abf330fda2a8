/**
 * What proves that every byte was consumed: a sum over samples that does not depend on their order.
 *
 * Each sample's bytes give a number that depends on which sample it is (its key), and the numbers are added up. A
 * sample that is missing, doubled, damaged or in another's place changes the sum, whatever order samples came in. There
 * are three such sums, since not everyone who reads can do the same quickly:
 *
 * - `xxh3`: XXH3 (64 bits, seeded with the key) of the sample's bytes, modulo 2^64. For memory that the host sees.
 * - `mix`: of a kernel, for memory that a GPU alone sees; see row-sum.ts.
 * - `words`: the little-endian 64-bit words of all samples, modulo 2^64: what readers in other languages add up with
 *   one call. It knows no keys. Absent where a sample is no whole number of words.
 */

const MASK = (1n << 64n) - 1n;

/** The known sums of a dataset, in hex. */
export interface KnownSums {
  readonly xxh3: string;
  readonly mix?: string | undefined;
  readonly words?: string | undefined;
}

/** Adds samples up by XXH3. */
export class HostSum {
  #total = 0n;

  /** `key` is a whole number from 0, a sample's own. */
  add(key: number, bytes: Uint8Array): void {
    this.#total += Bun.hash.xxHash3(bytes, BigInt(key));
  }

  /** Adds `numRows` rows of `rowBytes` bytes, of which row `i` has the key `keyOf(i)`. */
  addRows(bytes: Uint8Array, numRows: number, rowBytes: number, keyOf: (row: number) => number): void {
    for (let row = 0, at = 0; row < numRows; row++, at += rowBytes) {
      this.#total += Bun.hash.xxHash3(bytes.subarray(at, at + rowBytes), BigInt(keyOf(row)));
    }
    this.#total &= MASK;
  }

  get hex(): string {
    return hex64(this.#total & MASK);
  }
}

/** Adds up 64-bit words. */
export class WordSum {
  #total = 0n;
  #whole = true;

  /** `bytes` should be a whole number of words, at a multiple of 4 of its memory. */
  add(bytes: Uint8Array): void {
    if (bytes.length % 8 !== 0 || bytes.byteOffset % 4 !== 0) this.#whole = false;
    if (!this.#whole) return;
    const halves = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
    // Sums of 2^20 halves stay exact in a double.
    for (let at = 0; at < halves.length; at += 2 ** 21) {
      const end = Math.min(halves.length, at + 2 ** 21);
      let low = 0;
      let high = 0;
      for (let i = at; i < end; i += 2) {
        low += halves[i]!;
        high += halves[i + 1]!;
      }
      this.#total = (this.#total + BigInt(low) + (BigInt(high) << 32n)) & MASK;
    }
  }

  /** Undefined where something was no whole number of words. */
  get hex(): string | undefined {
    return this.#whole ? hex64(this.#total) : undefined;
  }
}

function hex64(value: bigint): string {
  return value.toString(16).padStart(16, "0");
}
