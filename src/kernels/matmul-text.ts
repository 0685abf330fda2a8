/** The matrix product's kernel text. */

/** How a dispatch is cut up. */
export interface Tile {
  readonly name: string;
  /** Threadgroups for so many rows, and the outputs of each part. */
  groups(rows: number, outputs: readonly number[]): number;
}

/** One thread an output. */
const PLAIN: Tile = {
  name: "plain",
  groups: (rows, outputs) => Math.ceil((rows * outputs.reduce((sum, one) => sum + one, 0)) / 256),
};

export function tileOf(_maxRows: number): Tile {
  return PLAIN;
}

export function matmulText(_tile: Tile): string {
  return TEXT;
}

const TEXT = `
enum Type : uint32_t { F32, F16, BF16 };

HR_FUNCTION_CONSTANT(0, uint32_t, TYPE);
HR_FUNCTION_CONSTANT(1, bool, GATED);
HR_FUNCTION_CONSTANT(2, bool, BIAS);
HR_FUNCTION_CONSTANT(3, bool, ACCUMULATE);

struct MatmulConstants { uint32_t inner; uint32_t n0; uint32_t n1; uint32_t n2; uint32_t countAt; uint32_t maxRows; };

HR_FN float element(const HR_DEVICE uint8_t *at, uint64_t index) {
  if (TYPE == F32) return HR_FLOAT_OF(hr_load<uint32_t>(at + 4u * index));
  uint16_t bits = hr_load<uint16_t>(at + 2u * index);
  if (TYPE == BF16) return HR_FLOAT_OF(uint32_t(bits) << 16);
  hr_half value;
  value.bits = bits;
  return hr_float(value);
}

HR_FN float dot(const HR_DEVICE float *x, const HR_DEVICE uint8_t *w, uint32_t n, uint32_t inner) {
  float sum = 0.0f;
  for (uint32_t k = 0; k < inner; k++) sum = HR_FMA(x[k], element(w, uint64_t(n) * inner + k), sum);
  return sum;
}

HR_KERNEL(matmul, HR_IN(0, float, x), HR_IN(1, uint8_t, w0), HR_IN(2, uint8_t, w1), HR_IN(3, uint8_t, w2),
          HR_IN(4, uint8_t, b0), HR_IN(5, uint8_t, b1), HR_IN(6, uint8_t, b2), HR_IN(7, uint32_t, info),
          HR_OUT(8, float, y), HR_CONSTANTS(9, MatmulConstants, c)) {
  uint32_t count = info[c.countAt] < c.maxRows ? info[c.countAt] : c.maxRows;
  uint32_t width = GATED ? c.n0 : c.n0 + c.n1 + c.n2;
  uint32_t row = hr_thread / width, n = hr_thread % width;
  if (row >= count) return;
  const HR_DEVICE float *from = x + uint64_t(row) * c.inner;
  HR_DEVICE float *to = y + uint64_t(row) * width + n;
  if (GATED) {
    float gate = dot(from, w0, n, c.inner), up = dot(from, w1, n, c.inner);
    if (BIAS) gate += element(b0, n);
    if (BIAS) up += element(b1, n);
    *to = gate / (1.0f + hr_exp(-gate)) * up;
    return;
  }
  const HR_DEVICE uint8_t *w = n < c.n0 ? w0 : n < c.n0 + c.n1 ? w1 : w2;
  const HR_DEVICE uint8_t *b = n < c.n0 ? b0 : n < c.n0 + c.n1 ? b1 : b2;
  uint32_t at = n < c.n0 ? n : n < c.n0 + c.n1 ? n - c.n0 : n - c.n0 - c.n1;
  float sum = dot(from, w, at, c.inner);
  if (BIAS) sum += element(b, at);
  *to = ACCUMULATE ? *to + sum : sum;
}
`;
