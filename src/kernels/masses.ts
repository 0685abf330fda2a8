/**
 * Probabilities as integers, so that their sums do not depend on an order: the mass of a token is `2^34 e^d`, rounded to
 * the nearest, where d <= 0 is how far its logit lies below the largest. Masses of up to 2^19 tokens add up to 2^53 at
 * most, which a double holds exactly too.
 *
 * The exponential and the logarithm are those of Cephes (Moshier), in F32 operations that are each rounded to the
 * nearest, so that all devices get the same bits: `d = n ln 2 + f` with an integer n and |f| <= ln(2) / 2, a polynomial
 * of f, and a shift by n.
 */

/** That of the likeliest token. */
export const WHOLE_MASS = 2 ** 34;
/** Masses of more could not be added. */
export const MAX_VOCAB = 2 ** 19;
/** Below it a mass is 0. */
const LEAST = -24.5;

/** Comes before a text that uses `mass_of` or `log_of`. */
export const MASSES_TEXT = `
HR_FN uint64_t mass_of(float d) {
  if (!(d >= -24.5f && d <= 0.0f)) return 0u;
  float n = d * 1.44269504f + 12582912.0f;
  n = n - 12582912.0f;
  float f = d - n * 0.693359375f;
  f = f - n * -2.12194440e-4f;
  float p = 1.9875691500e-4f * f + 1.3981999507e-3f;
  p = p * f + 8.3334519073e-3f;
  p = p * f + 4.1665795894e-2f;
  p = p * f + 1.6666665459e-1f;
  p = p * f + 5.0000001201e-1f;
  p = p * (f * f) + f;
  p = p + 1.0f;
  /* p has 24 bits: this is exact. */
  uint64_t mantissa = uint64_t(uint32_t(p * 16777216.0f));
  int32_t shift = 10 + int32_t(n);
  if (shift >= 0) return mantissa << uint32_t(shift);
  return (mantissa + (uint64_t(1u) << uint32_t(-shift - 1))) >> uint32_t(-shift);
}

/* The natural logarithm of a mass as part of the whole; it must not be 0. */
HR_FN float log_of(uint64_t mass) {
  uint32_t exponent = 0u;
  uint64_t rest = mass;
  for (uint32_t by = 32u; by > 0u; by /= 2u) {
    if ((rest >> by) == 0u) continue;
    rest >>= by;
    exponent += by;
  }
  uint64_t leading = exponent > 23u ? mass >> (exponent - 23u) : mass << (23u - exponent);
  float x = float(uint32_t(leading)) * 1.1920928955078125e-7f;
  float e = float(int32_t(exponent) - 34);
  if (x > 1.41421356f) {
    x = x * 0.5f;
    e = e + 1.0f;
  }
  float f = x - 1.0f, z = f * f;
  float y = 7.0376836292e-2f * f - 1.1514610310e-1f;
  y = y * f + 1.1676998740e-1f;
  y = y * f - 1.2420140846e-1f;
  y = y * f + 1.4249322787e-1f;
  y = y * f - 1.6668057665e-1f;
  y = y * f + 2.0000714765e-1f;
  y = y * f - 2.4999993993e-1f;
  y = y * f + 3.3333331174e-1f;
  y = y * f * z;
  y = y + e * -2.12194440e-4f;
  y = y - 0.5f * z;
  z = f + y;
  return z + e * 0.693359375f;
}
`;

const { fround } = Math;
const LOG2_E = fround(Math.LOG2E);
const LN2_HIGH = 0.693359375;
const LN2_LOW = fround(-2.1219444e-4);
const ROUNDER = 12582912;
const E0 = fround(1.98756915e-4);
const E1 = fround(1.3981999507e-3);
const E2 = fround(8.3334519073e-3);
const E3 = fround(4.1665795894e-2);
const E4 = fround(1.6666665459e-1);
const E5 = fround(5.0000001201e-1);
/** By the negative of n: what one unit of the polynomial's last place is worth. */
const UNITS = Float64Array.from({ length: 40 }, (_, n) => 2 ** (34 - n));

/** The mass of a token whose logit, an F32, lies `d` from the largest; 0 where that is no number from -24.5 to 0. */
export function massOf(d: number): number {
  if (!(d >= LEAST && d <= 0)) return 0;
  const n = fround(fround(fround(d * LOG2_E) + ROUNDER) - ROUNDER);
  let f = fround(d - fround(n * LN2_HIGH));
  f = fround(f - fround(n * LN2_LOW));
  let p = fround(fround(E0 * f) + E1);
  p = fround(fround(p * f) + E2);
  p = fround(fround(p * f) + E3);
  p = fround(fround(p * f) + E4);
  p = fround(fround(p * f) + E5);
  p = fround(fround(p * fround(f * f)) + f);
  return Math.floor(fround(p + 1) * UNITS[-n]! + 0.5);
}

const L = [
  7.0376836292e-2, -1.151461031e-1, 1.167699874e-1, -1.2420140846e-1, 1.4249322787e-1, -1.6668057665e-1,
  2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1,
].map(fround);
const ROOT_2 = fround(Math.SQRT2);

/** The natural logarithm of a mass, an integer from 1, as part of {@link WHOLE_MASS}; an F32. */
export function logOfMass(mass: number): number {
  let exponent = Math.floor(Math.log2(mass));
  if (2 ** exponent > mass) exponent--;
  else if (2 ** (exponent + 1) <= mass) exponent++;
  let x = Math.floor(mass / 2 ** (exponent - 23)) / 2 ** 23;
  let e = exponent - 34;
  if (x > ROOT_2) {
    x = fround(x * 0.5);
    e++;
  }
  const f = fround(x - 1);
  const z = fround(f * f);
  let y = L[0]!;
  for (let i = 1; i < L.length; i++) y = fround(fround(y * f) + L[i]!);
  y = fround(fround(y * f) * z);
  y = fround(y + fround(e * LN2_LOW));
  y = fround(y - fround(0.5 * z));
  return fround(fround(f + y) + fround(e * LN2_HIGH));
}
