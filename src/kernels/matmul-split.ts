/** The matrix product's tiles in which each simdgroup has a section of the inner length. */

import { FINISH_TILE_TEXT, TILE_KERNEL_TEXT, TILE_PLACE_TEXT } from "./matmul-tile.ts";

/** Behind an enum of SECTIONS, LANE_ROWS, LANE_OUTPUTS, ROWS, OUTPUTS, WEIGHTS, AHEAD, TILE_ROWS, TILE_OUTPUTS and TILE_WEIGHTS. */
export const MATMUL_SPLIT_TEXT = `${FINISH_TILE_TEXT}
/* Of a lane: its rows of x, its weights, and the sums of their products. Of a gated output, the weights that the gate
 * opens stand OUTPUTS behind the gate's. */
struct Sources { const HR_DEVICE float *x[ROWS]; const HR_DEVICE uint8_t *w[WEIGHTS]; };
struct Sums { float of[ROWS][WEIGHTS]; };
struct Four { float of[4]; };
/* Eight weights as they lie in memory; the second half is there for F32 alone. */
struct Packed { hr_uint4 first; hr_uint4 second; };

HR_FN Packed packed_at(const HR_DEVICE uint8_t *w, uint32_t k) {
  Packed packed;
  const HR_DEVICE uint8_t *at = w + uint64_t(k) * (TYPE == F32 ? 4u : 2u);
  packed.first = hr_load<hr_uint4>(at);
  if (TYPE == F32) packed.second = hr_load<hr_uint4>(at + 16);
  return packed;
}

HR_FN Four four_of(HR_THREAD const Packed &packed, uint32_t second) {
  hr_uint4 a = second == 0u ? packed.first : packed.second, b = packed.first;
  if (TYPE == F32) return {{HR_FLOAT_OF(a.x), HR_FLOAT_OF(a.y), HR_FLOAT_OF(a.z), HR_FLOAT_OF(a.w)}};
  uint32_t one = second == 0u ? b.x : b.z, other = second == 0u ? b.y : b.w;
  return {{low_of(one), high_of(one), low_of(other), high_of(other)}};
}

HR_FN Four four_at(const HR_DEVICE float *x, uint32_t k) {
  hr_float4 a = *reinterpret_cast<const HR_DEVICE hr_float4 *>(x + k);
  return {{a.x, a.y, a.z, a.w}};
}

HR_FN void add_products(HR_THREAD float *sum, HR_THREAD const Four &x, HR_THREAD const Four &w) {
  HR_UNROLL
  for (uint32_t i = 0; i < 4u; i++) *sum = HR_FMA(x.of[i], w.of[i], *sum);
}

HR_FN void add_eight(HR_THREAD Sums &sums, HR_THREAD const Sources &from, HR_THREAD const Packed *packed, uint32_t k) {
  HR_UNROLL
  for (uint32_t second = 0; second < 2u; second++) {
    Four x[ROWS];
    HR_UNROLL
    for (uint32_t row = 0; row < ROWS; row++) x[row] = four_at(from.x[row], k + 4u * second);
    HR_UNROLL
    for (uint32_t i = 0; i < WEIGHTS; i++) {
      Four w = four_of(packed[i], second);
      HR_UNROLL
      for (uint32_t row = 0; row < ROWS; row++) add_products(&sums.of[row][i], x[row], w);
    }
  }
}

/* Adds the products [k, end), where all loads are aligned. */
HR_FN void add_wide(HR_THREAD Sums &sums, HR_THREAD const Sources &from, uint32_t k, uint32_t end) {
  for (; k + 8u * AHEAD <= end; k += 8u * AHEAD) {
    Packed packed[AHEAD][WEIGHTS];
    HR_UNROLL
    for (uint32_t ahead = 0; ahead < AHEAD; ahead++) {
      HR_UNROLL
      for (uint32_t i = 0; i < WEIGHTS; i++) packed[ahead][i] = packed_at(from.w[i], k + 8u * ahead);
    }
    HR_UNROLL
    for (uint32_t ahead = 0; ahead < AHEAD; ahead++) add_eight(sums, from, packed[ahead], k + 8u * ahead);
  }
  for (; k < end; k += 8u) {
    Packed packed[WEIGHTS];
    HR_UNROLL
    for (uint32_t i = 0; i < WEIGHTS; i++) packed[i] = packed_at(from.w[i], k);
    add_eight(sums, from, packed, k);
  }
}

/* The same for any alignment and length: what is behind \`end\` counts as zeros. */
HR_FN void add_narrow(HR_THREAD Sums &sums, HR_THREAD const Sources &from, uint32_t k, uint32_t end) {
  for (; k < end; k += 4u) {
    HR_UNROLL
    for (uint32_t i = 0; i < WEIGHTS; i++) {
      Four w;
      HR_UNROLL
      for (uint32_t j = 0; j < 4u; j++) w.of[j] = k + j < end ? element(from.w[i], k + j) : 0.0f;
      HR_UNROLL
      for (uint32_t row = 0; row < ROWS; row++) {
        Four x;
        HR_UNROLL
        for (uint32_t j = 0; j < 4u; j++) x.of[j] = k + j < end ? from.x[row][k + j] : 0.0f;
        add_products(&sums.of[row][i], x, w);
      }
    }
  }
}

${TILE_KERNEL_TEXT}
  HR_SHARED(float, partial, SECTIONS * TILE_ROWS * TILE_WEIGHTS);
${TILE_PLACE_TEXT}
  uint32_t section = hr_local / HR_SIMD_WIDTH, lane = hr_local % HR_SIMD_WIDTH;
  uint32_t laneRow = lane / LANE_OUTPUTS * ROWS, laneOutput = lane % LANE_OUTPUTS;

  /* Lanes without a row or an output of their own repeat the last one's. */
  Sources from;
  Sums sums;
  HR_UNROLL
  for (uint32_t row = 0; row < ROWS; row++) {
    uint32_t at = firstRow + laneRow + row;
    from.x[row] = x + uint64_t(at < count ? at : count - 1u) * c.inner;
    HR_UNROLL
    for (uint32_t i = 0; i < WEIGHTS; i++) sums.of[row][i] = 0.0f;
  }
  HR_UNROLL
  for (uint32_t i = 0; i < WEIGHTS; i++) {
    uint32_t n = part.first + i % OUTPUTS * LANE_OUTPUTS + laneOutput;
    uint64_t at = uint64_t(n < part.outputs ? n : part.outputs - 1u) * c.inner * (TYPE == F32 ? 4u : 2u);
    from.w[i] = (i < OUTPUTS ? w : w1) + at;
  }
  uint32_t length = (c.inner + 63u) / 64u * 8u;
  uint32_t start = section * length, end = start + length < c.inner ? start + length : c.inner;
  if (is_wide(x, w, c.inner) && (!GATED || is_wide(x, w1, c.inner))) add_wide(sums, from, start, end);
  else add_narrow(sums, from, start, end);

  HR_UNROLL
  for (uint32_t row = 0; row < ROWS; row++) {
    HR_UNROLL
    for (uint32_t i = 0; i < WEIGHTS; i++) {
      uint32_t at = (section * TILE_ROWS + laneRow + row) * TILE_WEIGHTS + i * LANE_OUTPUTS + laneOutput;
      partial[at] = sums.of[row][i];
    }
  }
  HR_BARRIER();
  finish_tile(partial, y, bias, b1, firstRow, count, part, c, hr_local);
}
`;
