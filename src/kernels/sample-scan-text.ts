/** The part of the sampler's kernel text that looks at all of a row: its logits as keys, and sums over lanes. */
import { MASSES_TEXT } from "./masses.ts";

/**
 * Tokens stand in as keys: integers that are ordered as logits are, 0 for what is never chosen. Threads of any number
 * share 256 lanes, of which each takes every 256th group of four tokens; all that is added is an integer. So nothing
 * depends on how many threads there are, or on their order.
 */
export const SAMPLE_SCAN_TEXT = `${MASSES_TEXT}
enum Flag : uint32_t { DRAWN = 1u, LOGPROB = 2u, PENALIZED = 4u };

struct SampleParams {
  uint32_t slot; uint32_t flags; float inverseTemperature; uint32_t topK; uint32_t topP; uint32_t minP;
  float penalty; uint32_t seedLow; uint32_t seedHigh; uint32_t rowLow; uint32_t rowHigh; uint32_t step;
};
struct SampleConstants { uint32_t vocab; uint32_t numSlots; uint32_t countAt; uint32_t maxRows; };

/* A row's logits as they are looked at, and the thread that looks. */
struct Row {
  const HR_DEVICE float *logits;
  const HR_DEVICE uint32_t *seen;
  uint32_t vocab; uint32_t isWide; uint32_t isPenalized; float penalty; float inverseTemperature;
  float most;     /* the largest logit */
  uint32_t least; /* the lowest key that is kept, from 1 */
  uint32_t lane; uint32_t lanes;
};

/* What the threadgroup shares: for sums of lanes, sums of 16 of those, and histograms. */
struct Shared {
  HR_GROUP uint64_t *sums;
  HR_GROUP uint64_t *folds;
  HR_GROUP uint32_t *bins;
};

HR_FN uint32_t key_of(uint32_t bits) {
  if ((bits & 0x7f800000u) == 0x7f800000u) return 0u;
  if (bits == 0x80000000u) return 0x80000000u;
  return (bits >> 31) != 0u ? ~bits : bits | 0x80000000u;
}

HR_FN float logit_of(uint32_t key) {
  return HR_FLOAT_OF((key >> 31) != 0u ? key & 0x7fffffffu : ~key);
}

HR_FN uint32_t penalized(uint32_t bits, float penalty) {
  if ((bits & 0x7f800000u) == 0x7f800000u) return bits;
  float logit = HR_FLOAT_OF(bits);
  uint32_t made = HR_BITS_OF(logit > 0.0f ? logit / penalty : logit * penalty);
  return (made & 0x7fffffffu) == 0x7f800000u ? made - 1u : made;
}

/* The keys of tokens [at, at + 4); 0 for what lies past the vocabulary. \`at\` is a multiple of 4. */
HR_FN hr_uint4 keys_at(const HR_THREAD Row *row, uint32_t at) {
  hr_uint4 bits;
  if (row->isWide != 0u) {
    bits = hr_load<hr_uint4>((const HR_DEVICE uint8_t *)(row->logits + at));
  } else {
    bits.x = HR_BITS_OF(row->logits[at]);
    bits.y = at + 1u < row->vocab ? HR_BITS_OF(row->logits[at + 1u]) : 0x7fc00000u;
    bits.z = at + 2u < row->vocab ? HR_BITS_OF(row->logits[at + 2u]) : 0x7fc00000u;
    bits.w = at + 3u < row->vocab ? HR_BITS_OF(row->logits[at + 3u]) : 0x7fc00000u;
  }
  if (row->isPenalized != 0u) {
    uint32_t held = row->seen[at / 32u] >> (at & 31u);
    if ((held & 1u) != 0u) bits.x = penalized(bits.x, row->penalty);
    if ((held & 2u) != 0u) bits.y = penalized(bits.y, row->penalty);
    if ((held & 4u) != 0u) bits.z = penalized(bits.z, row->penalty);
    if ((held & 8u) != 0u) bits.w = penalized(bits.w, row->penalty);
  }
  hr_uint4 keys;
  keys.x = key_of(bits.x);
  keys.y = key_of(bits.y);
  keys.z = key_of(bits.z);
  keys.w = key_of(bits.w);
  return keys;
}

/* 0 for what is not kept. */
HR_FN uint64_t mass_at(const HR_THREAD Row *row, uint32_t key) {
  return key < row->least ? uint64_t(0u) : mass_of((logit_of(key) - row->most) * row->inverseTemperature);
}

struct Best {
  uint32_t key; uint32_t token;
};

HR_FN void consider(HR_THREAD Best *best, uint32_t key, uint32_t token) {
  if (key <= best->key) return;
  best->key = key;
  best->token = token;
}

HR_FN void consider_all(HR_THREAD Best *best, hr_uint4 keys, uint32_t at) {
  consider(best, keys.x, at);
  consider(best, keys.y, at + 1u);
  consider(best, keys.z, at + 2u);
  consider(best, keys.w, at + 3u);
}

/* The largest key in the upper word, in the lower one the complement of the first token that has it. */
HR_FN uint64_t most_of(const HR_THREAD Row *row, const HR_THREAD Shared *shared) {
  for (uint32_t own = row->lane; own < 256u; own += row->lanes) {
    Best best;
    best.key = best.token = 0u;
    uint32_t at = own * 4u;
    for (; at + 3072u < row->vocab; at += 4096u) {
      hr_uint4 a = keys_at(row, at), b = keys_at(row, at + 1024u);
      hr_uint4 c = keys_at(row, at + 2048u), d = keys_at(row, at + 3072u);
      consider_all(&best, a, at);
      consider_all(&best, b, at + 1024u);
      consider_all(&best, c, at + 2048u);
      consider_all(&best, d, at + 3072u);
    }
    for (; at < row->vocab; at += 1024u) consider_all(&best, keys_at(row, at), at);
    shared->sums[own] = uint64_t(best.key) << 32 | uint64_t(~best.token);
  }
  HR_BARRIER();
  for (uint32_t own = row->lane; own < 16u; own += row->lanes) {
    uint64_t most = 0u;
    for (uint32_t i = 16u * own; i < 16u * own + 16u; i++) most = shared->sums[i] > most ? shared->sums[i] : most;
    shared->folds[own] = most;
  }
  HR_BARRIER();
  uint64_t most = 0u;
  for (uint32_t i = 0; i < 16u; i++) most = shared->folds[i] > most ? shared->folds[i] : most;
  HR_BARRIER();
  return most;
}

/* Sums of 16 lanes each; the sum of all. */
HR_FN uint64_t fold(const HR_THREAD Row *row, const HR_THREAD Shared *shared) {
  HR_BARRIER();
  for (uint32_t own = row->lane; own < 16u; own += row->lanes) {
    uint64_t sum = 0u;
    for (uint32_t i = 16u * own; i < 16u * own + 16u; i++) sum += shared->sums[i];
    shared->folds[own] = sum;
  }
  HR_BARRIER();
  uint64_t sum = 0u;
  for (uint32_t i = 0; i < 16u; i++) sum += shared->folds[i];
  return sum;
}

/* The first lane with which the lanes' sum exceeds \`target\`, after \`fold\`: 256 where there is none. What the lanes
 * before it add up to is taken from the target. */
HR_FN uint32_t find(const HR_THREAD Shared *shared, HR_THREAD uint64_t *target) {
  uint32_t index = 0u;
  while (index < 256u && *target >= shared->folds[index / 16u]) {
    *target -= shared->folds[index / 16u];
    index += 16u;
  }
  while (index < 256u && *target >= shared->sums[index]) {
    *target -= shared->sums[index];
    index++;
  }
  HR_BARRIER();
  return index;
}

/* The sum of the masses of keys above \`bound\` that are \`minMass\` at least; lanes' own sums stay shared. */
HR_FN uint64_t mass_above(const HR_THREAD Row *row, const HR_THREAD Shared *shared, uint32_t bound, uint64_t minMass) {
  for (uint32_t own = row->lane; own < 256u; own += row->lanes) {
    uint64_t sum = 0u;
    for (uint32_t at = own * 4u; at < row->vocab; at += 1024u) {
      hr_uint4 keys = keys_at(row, at);
      uint64_t x = keys.x > bound ? mass_at(row, keys.x) : 0u, y = keys.y > bound ? mass_at(row, keys.y) : 0u;
      uint64_t z = keys.z > bound ? mass_at(row, keys.z) : 0u, w = keys.w > bound ? mass_at(row, keys.w) : 0u;
      sum += (x < minMass ? 0u : x) + (y < minMass ? 0u : y) + (z < minMass ? 0u : z) + (w < minMass ? 0u : w);
    }
    shared->sums[own] = sum;
  }
  return fold(row, shared);
}
`;
