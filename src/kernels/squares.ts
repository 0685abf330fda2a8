/**
 * The sum of a row's squares, in an order that the row's length fixes.
 *
 * 256 lanes take groups of four elements in turn, so that element `i` is of lane `floor(i / 4) mod 256`; each adds its
 * squares from left to right. Lanes of the same number modulo 32 are added from the lowest on, and then these 32 sums.
 */

const LANES = 256;
const SUMS = 32;

/** Comes before a text that uses `sum_of_squares`. `partial` is threadgroup memory for 256 floats; all threads of the
 * threadgroup get the sum. */
export const SQUARES_TEXT = `
HR_FN float sum_of_squares(const HR_DEVICE float *x, HR_GROUP float *partial, uint32_t length, uint32_t lane,
                           uint32_t lanes) {
  bool isWide = (length & 3u) == 0u && (HR_ADDRESS(x) & 15u) == 0u;
  for (uint32_t own = lane; own < 256u; own += lanes) {
    float sum = 0.0f;
    for (uint32_t at = own * 4u; at < length; at += 1024u) {
      if (isWide) {
        hr_uint4 quad = hr_load<hr_uint4>((const HR_DEVICE uint8_t *)(x + at));
        float a = HR_FLOAT_OF(quad.x), b = HR_FLOAT_OF(quad.y), c = HR_FLOAT_OF(quad.z), d = HR_FLOAT_OF(quad.w);
        sum = sum + a * a;
        sum = sum + b * b;
        sum = sum + c * c;
        sum = sum + d * d;
      } else {
        for (uint32_t i = at; i < at + 4u && i < length; i++) sum = sum + x[i] * x[i];
      }
    }
    partial[own] = sum;
  }
  HR_BARRIER();
  for (uint32_t own = lane; own < 32u; own += lanes) {
    float sum = partial[own];
    for (uint32_t other = own + 32u; other < 256u; other += 32u) sum = sum + partial[other];
    partial[own] = sum;
  }
  HR_BARRIER();
  float sum = partial[0];
  for (uint32_t i = 1; i < 32u; i++) sum = sum + partial[i];
  return sum;
}
`;

/** The host's form. It keeps memory for its sums. */
export class SquareSummer {
  readonly #partial = new Float32Array(LANES);

  /** The sum over `x[start, start + length)`. */
  sum(x: Float32Array, start: number, length: number): number {
    const partial = this.#partial;
    // Lanes without an element would add zeros.
    const lanes = Math.min(LANES, Math.ceil(length / 4));
    const end = start + length;
    const { fround } = Math;
    for (let lane = 0; lane < lanes; lane++) {
      let sum = 0;
      let at = start + lane * 4;
      for (; at + 4 <= end; at += LANES * 4) {
        const a = x[at]!;
        const b = x[at + 1]!;
        const c = x[at + 2]!;
        const d = x[at + 3]!;
        sum = fround(sum + fround(a * a));
        sum = fround(sum + fround(b * b));
        sum = fround(sum + fround(c * c));
        sum = fround(sum + fround(d * d));
      }
      for (; at < end; at++) sum = fround(sum + fround(x[at]! * x[at]!));
      partial[lane] = sum;
    }
    let total = 0;
    for (let first = 0; first < Math.min(SUMS, lanes); first++) {
      let sum = partial[first]!;
      for (let lane = first + SUMS; lane < lanes; lane += SUMS) sum = fround(sum + partial[lane]!);
      total = fround(total + sum);
    }
    return total;
  }
}
