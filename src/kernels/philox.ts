/**
 * Philox 4x32-10, the counter-based generator of random numbers of Salmon, Moraes, Dror and Shaw (Parallel random
 * numbers: as easy as 1, 2, 3; SC 2011): four words from a counter of four words and a key of two, without a state.
 */

const ROUNDS = 10;
const MULTIPLIER_0 = 0xd2511f53;
const MULTIPLIER_1 = 0xcd9e8d57;
const WEYL_0 = 0x9e3779b9;
const WEYL_1 = 0xbb67ae85;

/** Comes before a text that uses `philox`. */
export const PHILOX_TEXT = `
HR_FN hr_uint4 philox(hr_uint4 counter, uint32_t key0, uint32_t key1) {
  for (uint32_t round = 0; round < 10u; round++) {
    uint64_t left = uint64_t(counter.x) * 0xd2511f53u, right = uint64_t(counter.z) * 0xcd9e8d57u;
    counter.x = uint32_t(right >> 32) ^ counter.y ^ key0;
    counter.z = uint32_t(left >> 32) ^ counter.w ^ key1;
    counter.y = uint32_t(right);
    counter.w = uint32_t(left);
    key0 += 0x9e3779b9u;
    key1 += 0xbb67ae85u;
  }
  return counter;
}
`;

/** Replaces the four words of `counter` by the random ones that belong to them and the key. */
export function philox(counter: Uint32Array, key0: number, key1: number): void {
  let x = counter[0]!;
  let y = counter[1]!;
  let z = counter[2]!;
  let w = counter[3]!;
  for (let round = 0; round < ROUNDS; round++) {
    const left = highWord(x, MULTIPLIER_0) ^ w ^ key1;
    const leftLow = Math.imul(x, MULTIPLIER_0);
    x = highWord(z, MULTIPLIER_1) ^ y ^ key0;
    y = Math.imul(z, MULTIPLIER_1);
    z = left;
    w = leftLow;
    key0 = (key0 + WEYL_0) | 0;
    key1 = (key1 + WEYL_1) | 0;
  }
  counter[0] = x;
  counter[1] = y;
  counter[2] = z;
  counter[3] = w;
}

/** The upper word of a product of two. */
function highWord(a: number, b: number): number {
  const low = (a & 0xffff) * (b >>> 0);
  const high = (a >>> 16) * (b >>> 0);
  return Math.floor((high + Math.floor(low / 2 ** 16)) / 2 ** 16) | 0;
}
