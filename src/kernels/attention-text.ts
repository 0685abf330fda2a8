/**
 * Attention's kernel text.
 *
 * A threadgroup has a row and up to {@link HEADS_AT_ONCE} query heads of one key and value head, which share its loads.
 * Positions are cut into chunks of 32, of which simdgroup `s` takes chunks s, s + 4, s + 8, …, in order: each of its lanes
 * scores one position, then each sums up its elements of the values of all. The softmax is kept up to date by the largest
 * score so far. At the end the simdgroups' sums are put together in their order. All of that depends on the row's
 * position alone.
 */

/** Elements of a head at most. */
export const MAX_HEAD_SIZE = 256;
const HEADS_AT_ONCE = 4;
/** Of a threadgroup. More of them are sooner done with a long row; fewer leave room for more rows at once. */
const SIMDGROUPS = 4;

/** Threads of a threadgroup. */
export const ATTENTION_THREADS = 32 * SIMDGROUPS;

/** Threadgroups of a dispatch. */
export function attentionGroups(rows: number, numHeads: number, numKvHeads: number): number {
  return rows * numKvHeads * Math.ceil(numHeads / numKvHeads / HEADS_AT_ONCE);
}

export const ATTENTION_TEXT = `
enum Type : uint32_t { F32, F16, BF16 };
/* Loads of AHEAD times 8 elements of a key, and of VALUES positions, are under way at once. A lane has the elements 64 i + 2 lane and the one behind it, for i below PAIRS. */
enum Sizes : uint32_t { HEADS_AT_ONCE = ${HEADS_AT_ONCE}, SIMDGROUPS = ${SIMDGROUPS}, CHUNK = 32, AHEAD = 8, VALUES = 16, PAIRS = 4, MAX_SIZE = ${MAX_HEAD_SIZE} };

HR_FUNCTION_CONSTANT(0, uint32_t, TYPE);

struct AttentionConstants {
  uint32_t numHeads; uint32_t numKvHeads; uint32_t headSize; uint32_t blockTokens; uint32_t tableStride;
  uint32_t countAt; uint32_t maxRows; float scale;
};

struct Two { float a; float b; };
struct Eight { float of[8]; };

HR_FN float low_of(uint32_t word) { return TYPE == BF16 ? HR_FLOAT_OF(word << 16) : HR_HALF_BITS(word & 0xffffu); }
HR_FN float high_of(uint32_t word) { return TYPE == BF16 ? HR_FLOAT_OF(word & 0xffff0000u) : HR_HALF_BITS(word >> 16); }

/* The elements of a cache from \`index\` on, a multiple of 8 and of 2. */
HR_FN Eight eight_at(const HR_DEVICE uint8_t *cache, uint64_t index) {
  hr_uint4 a = hr_load<hr_uint4>(cache + index * (TYPE == F32 ? 4u : 2u));
  if (TYPE == F32) {
    hr_uint4 b = hr_load<hr_uint4>(cache + index * 4u + 16u);
    return {{HR_FLOAT_OF(a.x), HR_FLOAT_OF(a.y), HR_FLOAT_OF(a.z), HR_FLOAT_OF(a.w),
             HR_FLOAT_OF(b.x), HR_FLOAT_OF(b.y), HR_FLOAT_OF(b.z), HR_FLOAT_OF(b.w)}};
  }
  return {{low_of(a.x), high_of(a.x), low_of(a.y), high_of(a.y), low_of(a.z), high_of(a.z), low_of(a.w), high_of(a.w)}};
}
HR_FN Two two_at(const HR_DEVICE uint8_t *cache, uint64_t index) {
  if (TYPE == F32) {
    uint64_t words = hr_load<uint64_t>(cache + index * 4u);
    return {HR_FLOAT_OF(uint32_t(words)), HR_FLOAT_OF(uint32_t(words >> 32))};
  }
  uint32_t word = hr_load<uint32_t>(cache + index * 2u);
  return {low_of(word), high_of(word)};
}

/* What threads share: queries of MAX_SIZE elements; of this simdgroup, each position's part of each head, and its row of
 * the caches; of all simdgroups, their largest scores, totals, and sums put together. */
struct Shared {
  HR_GROUP hr_float4 *query;
  HR_GROUP hr_float4 *parts;
  HR_GROUP uint32_t *rows;
  HR_GROUP float *most;
  HR_GROUP float *total;
  HR_GROUP float *result;
};

/* The row of a cache that has this position of the slot whose blocks are \`blocks\`. */
HR_FN uint32_t cache_row(const HR_DEVICE uint32_t *blocks, uint32_t position, uint32_t kvHead,
                         HR_CONSTANT AttentionConstants &c) {
  return (blocks[position / c.blockTokens] * c.numKvHeads + kvHead) * c.blockTokens + position % c.blockTokens;
}

/* Eight products each of a key with the queries of HEADS heads. */
template <uint32_t HEADS>
HR_FN void score_eight(HR_THREAD float *scores, Eight key, uint32_t d, const HR_GROUP hr_float4 *query) {
  HR_UNROLL
  for (uint32_t head = 0; head < HEADS; head++) {
    hr_float4 a = query[(head * MAX_SIZE + d) / 4u], b = query[(head * MAX_SIZE + d) / 4u + 1u];
    float q[8] = {a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w};
    HR_UNROLL
    for (uint32_t i = 0; i < 8u; i++) scores[head] = HR_FMA(q[i], key.of[i], scores[head]);
  }
}

/* The products of one key with the queries of HEADS heads. */
template <uint32_t HEADS>
HR_FN void score_key(HR_THREAD float *scores, const HR_DEVICE uint8_t *keys, uint64_t index, uint32_t size,
                     const HR_GROUP hr_float4 *query) {
  HR_UNROLL
  for (uint32_t head = 0; head < HEADS; head++) scores[head] = 0.0f;
  uint32_t d = 0;
  for (; d + 8u * AHEAD <= size; d += 8u * AHEAD) {
    Eight key[AHEAD];
    HR_UNROLL
    for (uint32_t ahead = 0; ahead < AHEAD; ahead++) key[ahead] = eight_at(keys, index + d + 8u * ahead);
    HR_UNROLL
    for (uint32_t ahead = 0; ahead < AHEAD; ahead++) score_eight<HEADS>(scores, key[ahead], d + 8u * ahead, query);
  }
  for (; d < size; d += 8u) score_eight<HEADS>(scores, eight_at(keys, index + d), d, query);
}

/* All of one simdgroup's work for HEADS heads, from their queries to their results. */
template <uint32_t HEADS>
HR_FN void attend(Shared shared, const HR_DEVICE uint8_t *keys, const HR_DEVICE uint8_t *values,
                  const HR_DEVICE uint32_t *blocks, uint32_t last, uint32_t kvHead, HR_DEVICE float *out, uint32_t local,
                  HR_CONSTANT AttentionConstants &c) {
  uint32_t simdgroup = local / HR_SIMD_WIDTH, lane = local % HR_SIMD_WIDTH;
  float most[HEADS], total[HEADS];
  Two sums[HEADS][PAIRS];
  HR_UNROLL
  for (uint32_t head = 0; head < HEADS; head++) {
    most[head] = HR_FLOAT_OF(0xff800000u);
    total[head] = 0.0f;
    HR_UNROLL
    for (uint32_t i = 0; i < PAIRS; i++) sums[head][i] = {0.0f, 0.0f};
  }
  for (uint32_t first = simdgroup * CHUNK; first <= last; first += SIMDGROUPS * CHUNK) {
    uint32_t here = last - first < CHUNK ? last - first + 1u : CHUNK;
    uint32_t row = cache_row(blocks, first + (lane < here ? lane : 0u), kvHead, c);
    float scores[HEADS], keep[HEADS];
    score_key<HEADS>(scores, keys, uint64_t(row) * c.headSize, c.headSize, shared.query);
    HR_SIMD_BARRIER();
    shared.rows[lane] = row;
    HR_UNROLL
    for (uint32_t head = 0; head < HEADS; head++) {
      float score = lane < here ? scores[head] * c.scale : HR_FLOAT_OF(0xff800000u);
      float higher = hr_simd_max_of(score, lane, uint32_t(HR_SIMD_WIDTH));
      higher = higher > most[head] ? higher : most[head];
      keep[head] = hr_exp(most[head] - higher);
      most[head] = higher;
      float part = hr_exp(score - higher);
      total[head] = HR_FMA(total[head], keep[head], hr_simd_sum_of(part, lane, uint32_t(HR_SIMD_WIDTH)));
      reinterpret_cast<HR_GROUP float *>(shared.parts + lane)[head] = part;
    }
    HR_SIMD_BARRIER();
    HR_UNROLL
    for (uint32_t i = 0; i < PAIRS; i++) {
      uint32_t d = 64u * i + 2u * lane;
      if (d >= c.headSize) break;
      HR_UNROLL
      for (uint32_t head = 0; head < HEADS; head++) {
        sums[head][i].a *= keep[head];
        sums[head][i].b *= keep[head];
      }
      /* Behind the last position stands the chunk's first one again, with parts of 0. */
      for (uint32_t at = 0; at < here; at += VALUES) {
        Two value[VALUES];
        HR_UNROLL
        for (uint32_t j = 0; j < VALUES; j++) {
          value[j] = two_at(values, uint64_t(shared.rows[at + j]) * c.headSize + d);
        }
        HR_UNROLL
        for (uint32_t j = 0; j < VALUES; j++) {
          hr_float4 four = shared.parts[at + j];
          float parts[4] = {four.x, four.y, four.z, four.w};
          HR_UNROLL
          for (uint32_t head = 0; head < HEADS; head++) {
            sums[head][i].a = HR_FMA(parts[head], value[j].a, sums[head][i].a);
            sums[head][i].b = HR_FMA(parts[head], value[j].b, sums[head][i].b);
          }
        }
      }
    }
  }

  /* Simdgroups without a chunk have nothing to add. */
  uint32_t active = last / CHUNK + 1u < SIMDGROUPS ? last / CHUNK + 1u : uint32_t(SIMDGROUPS);
  HR_UNROLL
  for (uint32_t head = 0; head < HEADS; head++) {
    if (lane == 0u) shared.most[simdgroup * HEADS_AT_ONCE + head] = most[head];
    if (lane == 0u) shared.total[simdgroup * HEADS_AT_ONCE + head] = total[head];
  }
  HR_BARRIER();
  float keep[HEADS];
  HR_UNROLL
  for (uint32_t head = 0; head < HEADS; head++) {
    float higher = shared.most[head];
    for (uint32_t s = 1; s < active; s++) {
      float other = shared.most[s * HEADS_AT_ONCE + head];
      higher = other > higher ? other : higher;
    }
    keep[head] = hr_exp(most[head] - higher);
    total[head] = 0.0f;
    for (uint32_t s = 0; s < active; s++) {
      float part = hr_exp(shared.most[s * HEADS_AT_ONCE + head] - higher);
      total[head] = HR_FMA(shared.total[s * HEADS_AT_ONCE + head], part, total[head]);
    }
  }
  for (uint32_t s = 0; s < active; s++) {
    if (s == simdgroup) {
      HR_UNROLL
      for (uint32_t head = 0; head < HEADS; head++) {
        HR_UNROLL
        for (uint32_t i = 0; i < PAIRS; i++) {
          uint32_t d = 64u * i + 2u * lane;
          if (d >= c.headSize) break;
          HR_GROUP float *to = shared.result + head * MAX_SIZE + d;
          to[0] = HR_FMA(sums[head][i].a, keep[head], s == 0u ? 0.0f : to[0]);
          to[1] = HR_FMA(sums[head][i].b, keep[head], s == 0u ? 0.0f : to[1]);
        }
      }
    }
    HR_BARRIER();
  }
  HR_UNROLL
  for (uint32_t head = 0; head < HEADS; head++) {
    for (uint32_t d = local; d < c.headSize; d += SIMDGROUPS * HR_SIMD_WIDTH) {
      out[head * c.headSize + d] = shared.result[head * MAX_SIZE + d] / total[head];
    }
  }
}

HR_KERNEL(attention, HR_IN(0, float, qkv), HR_IN(1, uint8_t, kCache), HR_IN(2, uint8_t, vCache),
          HR_IN(3, uint32_t, blockTable), HR_IN(4, uint32_t, slots), HR_IN(5, uint32_t, positions),
          HR_IN(6, uint32_t, info), HR_OUT(7, float, out), HR_CONSTANTS(8, AttentionConstants, c)) {
  HR_SHARED(hr_float4, query, HEADS_AT_ONCE * MAX_SIZE / 4);
  HR_SHARED(hr_float4, parts, SIMDGROUPS * CHUNK);
  HR_SHARED(uint32_t, rows, SIMDGROUPS * CHUNK);
  HR_SHARED(float, most, SIMDGROUPS * HEADS_AT_ONCE);
  HR_SHARED(float, total, SIMDGROUPS * HEADS_AT_ONCE);
  HR_SHARED(float, result, HEADS_AT_ONCE * MAX_SIZE);
  uint32_t count = info[c.countAt] < c.maxRows ? info[c.countAt] : c.maxRows;
  uint32_t shared = c.numHeads / c.numKvHeads, sets = (shared + HEADS_AT_ONCE - 1u) / HEADS_AT_ONCE;
  uint32_t row = hr_group / (c.numKvHeads * sets), set = hr_group % sets, kvHead = hr_group / sets % c.numKvHeads;
  if (row >= count) return;
  uint32_t firstHead = kvHead * shared + set * HEADS_AT_ONCE, heads = shared - set * HEADS_AT_ONCE;
  if (heads > HEADS_AT_ONCE) heads = HEADS_AT_ONCE;
  const HR_DEVICE float *from =
      qkv + uint64_t(row) * (c.numHeads + 2u * c.numKvHeads) * c.headSize + firstHead * c.headSize;
  for (uint32_t i = hr_local; i < heads * c.headSize; i += hr_group_threads) {
    reinterpret_cast<HR_GROUP float *>(query)[i / c.headSize * MAX_SIZE + i % c.headSize] = from[i];
  }
  HR_BARRIER();
  uint32_t simdgroup = hr_local / HR_SIMD_WIDTH, last = positions[row];
  Shared place = {query, parts + simdgroup * CHUNK, rows + simdgroup * CHUNK, most, total, result};
  const HR_DEVICE uint32_t *blocks = blockTable + uint64_t(slots[row]) * c.tableStride;
  HR_DEVICE float *to = out + (uint64_t(row) * c.numHeads + firstHead) * c.headSize;
  if (heads == 1u) attend<1>(place, kCache, vCache, blocks, last, kvHead, to, hr_local, c);
  else if (heads == 2u) attend<2>(place, kCache, vCache, blocks, last, kvHead, to, hr_local, c);
  else if (heads == 3u) attend<3>(place, kCache, vCache, blocks, last, kvHead, to, hr_local, c);
  else attend<4>(place, kCache, vCache, blocks, last, kvHead, to, hr_local, c);
}
`;
