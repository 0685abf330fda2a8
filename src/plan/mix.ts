/**
 * Integer mixing: how a seed and an epoch become the key of a permutation.
 *
 * Changing anything here changes every shuffled order there is; the golden vectors in the tests stand guard.
 */

/** 2^32 over the golden ratio, the step of SplitMix. */
const GOLDEN = 0x9e3779b9;

/** The key of a permutation: two integers of 32 bits. */
export type Key = readonly [number, number];

/**
 * A bijection of the 32-bit integers in which every input bit flips about half of the output bits: the
 * finaliser of MurmurHash3 (Appleby, public domain). Takes any integer modulo 2^32, gives a signed one.
 */
export function mix32(value: number): number {
  let h = value ^ (value >>> 16);
  h = Math.imul(h, 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return h ^ (h >>> 16);
}

/**
 * The key for one use of a seed: `stream` tells uses apart, `index` the members of one use.
 *
 * Each argument (safe integer, 0 or more) is absorbed as two 32-bit words, low word first, into a state of
 * two words `(a, b)`: `a = mix32((a + GOLDEN) ^ word)`, then `b = mix32((b ^ a) + GOLDEN)`. For a given word
 * that is a bijection of the state, so two different inputs meet only by chance, about once in 2^64. It is
 * SplitMix's way (Steele, Lea, Flood 2014: a constant step, then a mix) on 32-bit halves, which JavaScript
 * multiplies fast. Not for cryptography.
 */
export function deriveKey(seed: number, epoch: number, stream: number, index: number): Key {
  let a = 0x243f6a88;
  let b = 0x85a308d3 | 0;
  const absorb = (word: number): void => {
    a = mix32((a + GOLDEN) ^ word);
    b = mix32((b ^ a) + GOLDEN);
  };
  for (const value of [seed, epoch, stream, index]) {
    absorb((value % 2 ** 32) | 0);
    absorb(Math.floor(value / 2 ** 32));
  }
  return [mix32(a ^ b) >>> 0, b >>> 0];
}
