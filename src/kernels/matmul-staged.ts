/** The matrix product's tile of many rows, staged in threadgroup memory. */
import { TILE_KERNEL_TEXT, TILE_PLACE_TEXT } from "./matmul-tile.ts";

/** Behind an enum of TILE_ROWS, TILE_OUTPUTS and OUTPUTS (of a thread). */
export const MATMUL_STAGED_TEXT = `
/* Products that are staged at once, and what they lie apart by in threadgroup memory: in quads, and one for which there
 * is no use but that lanes then store to different banks. */
enum Stage : uint32_t { DEPTH = 16, STRIDE = 17 };

/* Elements [k, k + 4) of a row of x, zeros behind its end. */
HR_FN hr_float4 quad_of_x(const HR_DEVICE float *row, uint32_t k, uint32_t inner, bool wide) {
  if (wide && k < inner) return *reinterpret_cast<const HR_DEVICE hr_float4 *>(row + k);
  hr_float4 quad;
  quad.x = k < inner ? row[k] : 0.0f;
  quad.y = k + 1u < inner ? row[k + 1u] : 0.0f;
  quad.z = k + 2u < inner ? row[k + 2u] : 0.0f;
  quad.w = k + 3u < inner ? row[k + 3u] : 0.0f;
  return quad;
}

HR_FN hr_float4 quad_of_weights(const HR_DEVICE uint8_t *row, uint32_t k, uint32_t inner, bool wide) {
  hr_float4 quad;
  if (wide && k < inner && TYPE == F32) {
    hr_uint4 words = hr_load<hr_uint4>(row + 4u * k);
    quad.x = HR_FLOAT_OF(words.x);
    quad.y = HR_FLOAT_OF(words.y);
    quad.z = HR_FLOAT_OF(words.z);
    quad.w = HR_FLOAT_OF(words.w);
  } else if (wide && k < inner) {
    uint64_t words = hr_load<uint64_t>(row + 2u * k);
    quad.x = low_of(uint32_t(words));
    quad.y = high_of(uint32_t(words));
    quad.z = low_of(uint32_t(words >> 32));
    quad.w = high_of(uint32_t(words >> 32));
  } else {
    quad.x = k < inner ? element(row, k) : 0.0f;
    quad.y = k + 1u < inner ? element(row, k + 1u) : 0.0f;
    quad.z = k + 2u < inner ? element(row, k + 2u) : 0.0f;
    quad.w = k + 3u < inner ? element(row, k + 3u) : 0.0f;
  }
  return quad;
}

/* Stores a quad of a row's elements to as many places, one a product. */
HR_FN void stage(HR_GROUP hr_float4 *staged, hr_float4 quad, uint32_t row, uint32_t k) {
  HR_GROUP float *to = reinterpret_cast<HR_GROUP float *>(staged) + row;
  to[k * STRIDE * 4u] = quad.x;
  to[(k + 1u) * STRIDE * 4u] = quad.y;
  to[(k + 2u) * STRIDE * 4u] = quad.z;
  to[(k + 3u) * STRIDE * 4u] = quad.w;
}

struct Sums { float of[4][4]; };

HR_FN void add_products(HR_THREAD Sums &sums, hr_float4 x, hr_float4 w) {
  float xs[4] = {x.x, x.y, x.z, x.w}, ws[4] = {w.x, w.y, w.z, w.w};
  HR_UNROLL
  for (uint32_t row = 0; row < 4u; row++) {
    HR_UNROLL
    for (uint32_t i = 0; i < 4u; i++) sums.of[row][i] = HR_FMA(xs[row], ws[i], sums.of[row][i]);
  }
}

/* Adds what a section came to, and starts the next. */
HR_FN void flush(HR_THREAD Sums &totals, HR_THREAD Sums &sums) {
  HR_UNROLL
  for (uint32_t row = 0; row < 4u; row++) {
    HR_UNROLL
    for (uint32_t i = 0; i < 4u; i++) {
      totals.of[row][i] += sums.of[row][i];
      sums.of[row][i] = 0.0f;
    }
  }
}

${TILE_KERNEL_TEXT}
  HR_SHARED(hr_float4, stagedX, DEPTH * STRIDE);
  HR_SHARED(hr_float4, stagedW, DEPTH * STRIDE);
${TILE_PLACE_TEXT}
  bool wide = is_wide(x, w, c.inner) && (!GATED || is_wide(x, w1, c.inner));

  /* What this thread loads: four products of a row of x, and of a row of weights. Of a gated tile, every other pair of
   * rows is what the pair before it opens. Rows that are not there repeat the last one. */
  uint32_t line = hr_local / 4u, ahead = hr_local % 4u * 4u;
  uint32_t row = firstRow + line < count ? firstRow + line : count - 1u;
  uint32_t n = part.first + (GATED ? line / 4u * 2u + line % 2u : line);
  const HR_DEVICE float *fromX = x + uint64_t(row) * c.inner;
  const HR_DEVICE uint8_t *fromW = (GATED && line % 4u >= 2u ? w1 : w) +
      uint64_t(n < part.outputs ? n : part.outputs - 1u) * c.inner * (TYPE == F32 ? 4u : 2u);

  uint32_t across = hr_local % 16u, down = hr_local / 16u;
  Sums sums, totals;
  HR_UNROLL
  for (uint32_t i = 0; i < 16u; i++) sums.of[i / 4u][i % 4u] = totals.of[i / 4u][i % 4u] = 0.0f;
  uint32_t length = (c.inner + 63u) / 64u * 8u, boundary = length;
  hr_float4 nextX = quad_of_x(fromX, ahead, c.inner, wide), nextW = quad_of_weights(fromW, ahead, c.inner, wide);
  for (uint32_t k = 0; k < c.inner; k += DEPTH) {
    stage(stagedX, nextX, line, ahead);
    stage(stagedW, nextW, line, ahead);
    HR_BARRIER();
    nextX = quad_of_x(fromX, k + DEPTH + ahead, c.inner, wide);
    nextW = quad_of_weights(fromW, k + DEPTH + ahead, c.inner, wide);
    for (uint32_t eight = 0; eight < DEPTH; eight += 8u) {
      HR_UNROLL
      for (uint32_t i = 0; i < 8u; i++) {
        add_products(sums, stagedX[(eight + i) * STRIDE + down], stagedW[(eight + i) * STRIDE + across]);
      }
      if (k + eight + 8u == boundary) {
        flush(totals, sums);
        boundary += length;
      }
    }
    HR_BARRIER();
  }
  flush(totals, sums);

  uint32_t width = GATED ? c.n0 : c.n0 + c.n1 + c.n2;
  for (uint32_t i = 0; i < 4u; i++) {
    row = firstRow + 4u * down + i;
    if (row >= count) return;
    for (uint32_t j = 0; j < OUTPUTS; j++) {
      n = part.first + across * OUTPUTS + j;
      if (n >= part.outputs) continue;
      HR_DEVICE float *to = y + uint64_t(row) * width + part.before + n;
      finish(to, totals.of[i][j], GATED ? totals.of[i][(j + 2u) & 3u] : 0.0f, bias, b1, n);
    }
  }
}
`;
