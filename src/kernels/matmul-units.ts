/**
 * The matrix product's tiles for matrix units, which multiply bfloats and add floats.
 *
 * An F32 is the sum of three BF16s, exactly: its upper half, that of the rest, and the rest of that. So a product with BF16
 * weights is three products, all of them exact, and what is left to round is their sum.
 *
 * **Order of a sum.** The inner length is cut into 8 sections of \`32 * ceil(inner / 256)\` products. A section is added up
 * from 0 in steps of 32, in each two times those of 16: the products of the least parts, of the middle ones, and of the
 * first, each by one use of the unit. Then the sections are added in order, from 0, and then comes the bias. Both tiles do that.
 */
import { FINISH_TILE_TEXT, TILE_KERNEL_TEXT, TILE_PLACE_TEXT } from "./matmul-tile.ts";

const COMMON = `
/* Four elements of two rows of x, 8 apart, in three parts: as the unit wants them, but for which column is called which.
 * Of 32 columns thread q of four has those from 8q on, so that its loads are wide: at first the four from 8q on, which
 * the unit takes for columns 2q, 2q + 1, 2q + 8 and 2q + 9, and then the four behind them. */
struct Parts { uint32_t of[3][4]; };
struct Eight { hr_float4 four[2]; };
struct Rows { Eight first; Eight second; };

HR_FN Eight eight_of(const HR_DEVICE float *at) {
  const HR_DEVICE hr_float4 *from = reinterpret_cast<const HR_DEVICE hr_float4 *>(at);
  return {{from[0], from[1]}};
}

HR_FN void split(HR_THREAD Parts &parts, float low, float high, uint32_t at) {
  HR_UNROLL
  for (uint32_t part = 0; part < 3u; part++) {
    parts.of[part][at] = hr_upper_halves(low, high);
    low = low - HR_FLOAT_OF(HR_BITS_OF(low) & 0xffff0000u);
    high = high - HR_FLOAT_OF(HR_BITS_OF(high) & 0xffff0000u);
  }
}

HR_FN Parts parts_of(hr_float4 first, hr_float4 second) {
  Parts parts;
  split(parts, first.x, first.y, 0u);
  split(parts, second.x, second.y, 1u);
  split(parts, first.z, first.w, 2u);
  split(parts, second.z, second.w, 3u);
  return parts;
}

/* Of a thread: its rows of x and of weights, and its sums. */
struct Sources { const HR_DEVICE float *x[ROW_TILES][2]; const HR_DEVICE uint8_t *w[WEIGHT_TILES]; };
struct Sums { float of[ROW_TILES][WEIGHT_TILES][4]; };
struct Loaded { Rows x[ROW_TILES]; hr_uint4 w[WEIGHT_TILES]; };

HR_FN Loaded load_step(HR_THREAD const Sources &from, uint32_t k) {
  Loaded loaded;
  HR_UNROLL
  for (uint32_t i = 0; i < WEIGHT_TILES; i++) loaded.w[i] = hr_load<hr_uint4>(from.w[i] + 2u * k);
  HR_UNROLL
  for (uint32_t i = 0; i < ROW_TILES; i++) {
    loaded.x[i].first = eight_of(from.x[i][0] + k);
    loaded.x[i].second = eight_of(from.x[i][1] + k);
  }
  return loaded;
}

HR_FN void add_step(HR_THREAD Sums &sums, HR_THREAD const Loaded &loaded, uint32_t lane) {
  HR_UNROLL
  for (uint32_t second = 0; second < 2u; second++) {
    HR_UNROLL
    for (uint32_t row = 0; row < ROW_TILES; row++) {
      Parts parts = parts_of(loaded.x[row].first.four[second], loaded.x[row].second.four[second]);
      HR_UNROLL
      for (uint32_t part = 3u; part > 0u; part--) {
        HR_UNROLL
        for (uint32_t i = 0; i < WEIGHT_TILES; i++) {
          hr_uint4 all = loaded.w[i];
          uint32_t w[2] = {second == 0u ? all.x : all.z, second == 0u ? all.y : all.w};
          hr_multiply_tiles(sums.of[row][i], parts.of[part - 1u], w, lane);
        }
      }
    }
  }
}

HR_FN void clear(HR_THREAD Sums &sums) {
  HR_UNROLL
  for (uint32_t i = 0; i < ROW_TILES * WEIGHT_TILES * 4u; i++) {
    sums.of[i / 4u / WEIGHT_TILES][i / 4u % WEIGHT_TILES][i % 4u] = 0.0f;
  }
}

/* Rows and outputs that are not there repeat the last ones. */
HR_FN Sources sources_of(const HR_DEVICE float *x, const HR_DEVICE uint8_t *w, const HR_DEVICE uint8_t *opened,
                         uint32_t firstRow, uint32_t count, uint32_t first, uint32_t outputs, uint32_t inner,
                         uint32_t lane) {
  Sources from;
  uint32_t own = lane % 4u * 8u;
  HR_UNROLL
  for (uint32_t i = 0; i < 2u * ROW_TILES; i++) {
    uint32_t row = firstRow + 8u * i + lane / 4u;
    from.x[i / 2u][i % 2u] = x + uint64_t(row < count ? row : count - 1u) * inner + own;
  }
  HR_UNROLL
  for (uint32_t i = 0; i < WEIGHT_TILES; i++) {
    uint32_t n = first + i % OUTPUT_TILES * 8u + lane / 4u;
    from.w[i] = (i < OUTPUT_TILES ? w : opened) + (uint64_t(n < outputs ? n : outputs - 1u) * inner + own) * 2u;
  }
  return from;
}
`;

const PLACE = `${TILE_PLACE_TEXT}
  uint32_t simdgroup = hr_local / HR_SIMD_WIDTH, lane = hr_local % HR_SIMD_WIDTH;
  uint32_t length = (c.inner + 255u) / 256u * 32u;
  Sums sums;
  clear(sums);
`;

/** Each simdgroup has a section. Behind an enum of SECTIONS, ROW_TILES (1), OUTPUT_TILES, WEIGHT_TILES, TILE_ROWS,
 * TILE_OUTPUTS and TILE_WEIGHTS. */
export const UNITS_SPLIT_TEXT = `${FINISH_TILE_TEXT}${COMMON}${TILE_KERNEL_TEXT}
  HR_SHARED(float, partial, SECTIONS * TILE_ROWS * TILE_WEIGHTS);
${PLACE}
  Sources from = sources_of(x, w, w1, firstRow, count, part.first, part.outputs, c.inner, lane);
  uint32_t start = simdgroup * length, end = start + length < c.inner ? start + length : c.inner;
  /* The loads of a step are under way while the one before it is added. All threads of a simdgroup go through together. */
  if (start < end) {
    Loaded next = load_step(from, start);
    for (uint32_t k = start; k < end; k += 32u) {
      Loaded now = next;
      if (k + 32u < end) next = load_step(from, k + 32u);
      add_step(sums, now, lane);
    }
  }
  HR_UNROLL
  for (uint32_t i = 0; i < WEIGHT_TILES * 4u; i++) {
    uint32_t row = i % 4u / 2u * 8u + lane / 4u, column = i / 4u * 8u + lane % 4u * 2u + i % 2u;
    partial[(simdgroup * TILE_ROWS + row) * TILE_WEIGHTS + column] = sums.of[0][i / 4u][i % 4u];
  }
  HR_BARRIER();
  finish_tile(partial, y, bias, b1, firstRow, count, part, c, hr_local);
}
`;

/** Each simdgroup has rows and outputs of its own, DOWN of them one below the other, and takes one section after
 * another. Behind an enum of SECTIONS, ROW_TILES, OUTPUT_TILES, WEIGHT_TILES, TILE_ROWS, TILE_OUTPUTS and DOWN. */
export const UNITS_WIDE_TEXT = `${COMMON}${TILE_KERNEL_TEXT}${PLACE}
  uint32_t ownRow = firstRow + simdgroup % DOWN * ROW_TILES * 16u, ownFirst = part.first + simdgroup / DOWN * OUTPUT_TILES * 8u;
  if (ownRow >= count || ownFirst >= part.outputs) return;
  Sources from = sources_of(x, w, w1, ownRow, count, ownFirst, part.outputs, c.inner, lane);
  Sums totals;
  clear(totals);
  uint32_t boundary = length;
  Loaded next = load_step(from, 0u);
  for (uint32_t k = 0; k < c.inner; k += 32u) {
    Loaded now = next;
    if (k + 32u < c.inner) next = load_step(from, k + 32u);
    add_step(sums, now, lane);
    if (k + 32u < boundary && k + 32u < c.inner) continue;
    boundary += length;
    HR_UNROLL
    for (uint32_t i = 0; i < ROW_TILES * WEIGHT_TILES * 4u; i++) {
      uint32_t row = i / 4u / WEIGHT_TILES, tile = i / 4u % WEIGHT_TILES;
      totals.of[row][tile][i % 4u] += sums.of[row][tile][i % 4u];
    }
    clear(sums);
  }
  uint32_t width = GATED ? c.n0 : c.n0 + c.n1 + c.n2;
  HR_UNROLL
  for (uint32_t i = 0; i < ROW_TILES * OUTPUT_TILES * 4u; i++) {
    uint32_t tile = i / 4u % OUTPUT_TILES, rowTile = i / 4u / OUTPUT_TILES;
    uint32_t row = ownRow + rowTile * 16u + i % 4u / 2u * 8u + lane / 4u;
    uint32_t n = ownFirst + tile * 8u + lane % 4u * 2u + i % 2u;
    if (row >= count || n >= part.outputs) continue;
    float opened = GATED ? totals.of[rowTile][(tile + OUTPUT_TILES) % WEIGHT_TILES][i % 4u] : 0.0f;
    finish(y + uint64_t(row) * width + part.before + n, totals.of[rowTile][tile][i % 4u], opened, bias, b1, n);
  }
}
`;
