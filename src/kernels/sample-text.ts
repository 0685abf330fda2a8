/** The sampler's kernel text: a threadgroup a row. */
import { MASSES_TEXT } from "./masses.ts";
import { PHILOX_TEXT } from "./philox.ts";
import { ROWS_TEXT } from "./step.ts";

/**
 * Tokens stand in as keys: integers that are ordered as logits are, 0 for what is never chosen. Thresholds come from
 * radix descents over the keys: a histogram of their highest byte, the bin that holds the threshold, a histogram of the
 * next byte of the keys in it, and so on. Threads of any number share 256 lanes, of which each takes every 256th group
 * of four tokens; all that is added is an integer. So nothing depends on how many threads there are, or on their order.
 */
export const SAMPLE_TEXT = `${ROWS_TEXT}${MASSES_TEXT}${PHILOX_TEXT}
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

/* What one lane has found for the bin that it found last: neighbours often fall in the same one. */
struct Tally {
  uint32_t bin; uint64_t weight;
};

/* Weights are added in parts of which none overflows. */
HR_FN void flush(const HR_THREAD Tally *tally, HR_GROUP uint32_t *bins) {
  uint32_t low = uint32_t(tally->weight) & 0xfffu, middle = uint32_t(tally->weight >> 12) & 0xfffu;
  uint32_t high = uint32_t(tally->weight >> 24);
  if (low != 0u) HR_GROUP_ATOMIC_ADD(bins + tally->bin, low);
  if (middle != 0u) HR_GROUP_ATOMIC_ADD(bins + 256u + tally->bin, middle);
  if (high != 0u) HR_GROUP_ATOMIC_ADD(bins + 512u + tally->bin, high);
}

HR_FN void tally_key(const HR_THREAD Row *row, HR_GROUP uint32_t *bins, HR_THREAD Tally *tally, uint32_t key,
                     uint32_t prefix, uint32_t shift, bool isMass) {
  if (key < row->least || (shift < 24u && ((key ^ prefix) >> (shift + 8u)) != 0u)) return;
  uint32_t bin = 255u - (key >> shift & 255u);
  if (bin != tally->bin) {
    flush(tally, bins);
    tally->bin = bin;
    tally->weight = 0u;
  }
  tally->weight += isMass ? mass_at(row, key) : uint64_t(1u);
}

/* The key at which the weights of the kept keys, from the largest on, reach \`want\`, from 1: each weighs 1, or its mass.
 * 0 where they never do. What those above it weigh is taken from \`want\`. */
HR_FN uint32_t descend(const HR_THREAD Row *row, const HR_THREAD Shared *shared, bool isMass, HR_THREAD uint64_t *want) {
  uint32_t prefix = 0u;
  for (uint32_t level = 4u; level > 0u; level--) {
    uint32_t shift = 8u * (level - 1u);
    for (uint32_t i = row->lane; i < 768u; i += row->lanes) shared->bins[i] = 0u;
    HR_BARRIER();
    for (uint32_t own = row->lane; own < 256u; own += row->lanes) {
      Tally tally;
      tally.bin = 0u;
      tally.weight = 0u;
      for (uint32_t at = own * 4u; at < row->vocab; at += 1024u) {
        hr_uint4 keys = keys_at(row, at);
        tally_key(row, shared->bins, &tally, keys.x, prefix, shift, isMass);
        tally_key(row, shared->bins, &tally, keys.y, prefix, shift, isMass);
        tally_key(row, shared->bins, &tally, keys.z, prefix, shift, isMass);
        tally_key(row, shared->bins, &tally, keys.w, prefix, shift, isMass);
      }
      flush(&tally, shared->bins);
    }
    HR_BARRIER();
    for (uint32_t own = row->lane; own < 256u; own += row->lanes) {
      uint64_t middle = shared->bins[256u + own], high = shared->bins[512u + own];
      shared->sums[own] = shared->bins[own] + (middle << 12) + (high << 24);
    }
    fold(row, shared);
    uint64_t target = *want - 1u;
    uint32_t bin = find(shared, &target);
    if (bin == 256u) return 0u;
    *want = target + 1u;
    prefix |= (255u - bin) << shift;
  }
  return prefix;
}

/* Token number \`target\` of those with this key, by their ids; the vocabulary's size where there are fewer. */
HR_FN uint32_t token_with(const HR_THREAD Row *row, const HR_THREAD Shared *shared, uint32_t key, uint64_t target) {
  uint32_t length = (row->vocab + 255u) / 256u;
  for (uint32_t own = row->lane; own < 256u; own += row->lanes) shared->bins[own] = 0u;
  HR_BARRIER();
  for (uint32_t own = row->lane; own < 256u; own += row->lanes) {
    for (uint32_t at = own * 4u; at < row->vocab; at += 1024u) {
      hr_uint4 keys = keys_at(row, at);
      if (keys.x == key) HR_GROUP_ATOMIC_ADD(shared->bins + at / length, 1u);
      if (keys.y == key) HR_GROUP_ATOMIC_ADD(shared->bins + (at + 1u) / length, 1u);
      if (keys.z == key) HR_GROUP_ATOMIC_ADD(shared->bins + (at + 2u) / length, 1u);
      if (keys.w == key) HR_GROUP_ATOMIC_ADD(shared->bins + (at + 3u) / length, 1u);
    }
  }
  HR_BARRIER();
  for (uint32_t own = row->lane; own < 256u; own += row->lanes) shared->sums[own] = shared->bins[own];
  fold(row, shared);
  uint32_t first = find(shared, &target) * length;
  for (uint32_t at = first & ~3u; at < first + length && at < row->vocab; at += 4u) {
    hr_uint4 keys = keys_at(row, at);
    for (uint32_t i = 0; i < 4u; i++) {
      uint32_t one = i == 0u ? keys.x : i == 1u ? keys.y : i == 2u ? keys.z : keys.w;
      if (at + i < first || one != key) continue;
      if (target == 0u) return at + i;
      target--;
    }
  }
  return row->vocab;
}

/* The token of a lane at which its masses above \`bound\` exceed \`target\`. */
HR_FN uint32_t token_of_lane(const HR_THREAD Row *row, const HR_THREAD Shared *shared, uint32_t lane, uint32_t bound,
                             uint64_t minMass, uint64_t target) {
  uint32_t first = lane * 4u;
  for (uint32_t i = row->lane; first + i * 1024u < row->vocab; i += row->lanes) {
    hr_uint4 keys = keys_at(row, first + i * 1024u);
    uint64_t x = keys.x > bound ? mass_at(row, keys.x) : 0u, y = keys.y > bound ? mass_at(row, keys.y) : 0u;
    uint64_t z = keys.z > bound ? mass_at(row, keys.z) : 0u, w = keys.w > bound ? mass_at(row, keys.w) : 0u;
    shared->sums[i] = (x < minMass ? 0u : x) + (y < minMass ? 0u : y) + (z < minMass ? 0u : z) + (w < minMass ? 0u : w);
  }
  HR_BARRIER();
  uint32_t at = first;
  for (uint32_t i = 0; at + 1024u < row->vocab && target >= shared->sums[i]; i++) {
    target -= shared->sums[i];
    at += 1024u;
  }
  hr_uint4 keys = keys_at(row, at);
  for (uint32_t i = 0; i < 3u; i++) {
    uint32_t key = i == 0u ? keys.x : i == 1u ? keys.y : keys.z;
    uint64_t mass = key > bound ? mass_at(row, key) : 0u;
    if (mass < minMass) mass = 0u;
    if (target < mass) return at + i;
    target -= mass;
  }
  return at + 3u;
}

/* The upper half of a product. */
HR_FN uint64_t high_half(uint64_t a, uint64_t b) {
  uint64_t a0 = a & 0xffffffffu, a1 = a >> 32, b0 = b & 0xffffffffu, b1 = b >> 32;
  uint64_t middle = a1 * b0 + (a0 * b0 >> 32), other = a0 * b1 + (middle & 0xffffffffu);
  return a1 * b1 + (middle >> 32) + (other >> 32);
}

HR_FN uint32_t draw(const HR_THREAD Row *row, const HR_THREAD Shared *shared, const HR_DEVICE SampleParams *params) {
  uint32_t bound = row->least - 1u;
  uint64_t minMass = uint64_t(params->minP) << 3, tied = 0u, tiedMass = 0u;
  if (params->topP != 0u) {
    uint64_t total = mass_above(row, shared, bound, 0u);
    /* total * topP / 2^32, rounded up. */
    uint64_t want = (total >> 32) * params->topP + (((total & 0xffffffffu) * params->topP + 0xffffffffu) >> 32);
    HR_BARRIER();
    bound = descend(row, shared, true, &want);
    tiedMass = mass_at(row, bound);
    if (tiedMass != 0u && tiedMass >= minMass) tied = (want + tiedMass - 1u) / tiedMass;
  }
  uint64_t above = mass_above(row, shared, bound, minMass);
  hr_uint4 counter;
  counter.x = params->rowLow;
  counter.y = params->rowHigh;
  counter.z = params->step;
  counter.w = 0u;
  counter = philox(counter, params->seedLow, params->seedHigh);
  uint64_t target = high_half(uint64_t(counter.y) << 32 | counter.x, above + tied * tiedMass);
  if (target >= above) {
    HR_BARRIER();
    return tied == 0u ? row->vocab : token_with(row, shared, bound, (target - above) / tiedMass);
  }
  uint32_t lane = find(shared, &target);
  return token_of_lane(row, shared, lane, bound, minMass, target);
}

HR_KERNEL(sample, HR_IN(0, float, logits), HR_IN(1, SampleParams, params), HR_IN(2, uint32_t, seen),
          HR_IN(3, uint32_t, info), HR_OUT(4, int32_t, tokens), HR_OUT(5, float, logprobs),
          HR_CONSTANTS(6, SampleConstants, c)) {
  HR_SHARED(uint64_t, sums, 512);
  HR_SHARED(uint64_t, folds, 16);
  HR_SHARED(uint32_t, bins, 768);
  if (hr_group >= rows_of(info, c.countAt, c.maxRows)) return;
  Shared shared;
  shared.sums = sums;
  shared.folds = folds;
  shared.bins = bins;
  const HR_DEVICE SampleParams *own = params + hr_group;
  uint32_t flags = own->flags;
  bool isRight = (flags & PENALIZED) == 0u || own->slot < c.numSlots;
  Row row;
  row.logits = logits + uint64_t(hr_group) * c.vocab;
  row.vocab = c.vocab;
  row.isWide = (c.vocab & 3u) == 0u && (HR_ADDRESS(logits) & 15u) == 0u ? 1u : 0u;
  row.isPenalized = isRight && (flags & PENALIZED) != 0u ? 1u : 0u;
  row.seen = seen;
  if (row.isPenalized != 0u) row.seen = seen + uint64_t(own->slot) * ((c.vocab + 31u) / 32u);
  row.penalty = own->penalty;
  row.inverseTemperature = own->inverseTemperature;
  row.least = 1u;
  row.lane = hr_local;
  row.lanes = hr_group_threads;
  uint64_t best = most_of(&row, &shared);
  uint32_t token = c.vocab;
  row.most = logit_of(uint32_t(best >> 32));
  if (isRight && (best >> 32) != 0u) {
    token = ~uint32_t(best);
    if ((flags & DRAWN) != 0u) {
      uint64_t want = own->topK;
      if (want != 0u && want < c.vocab) {
        uint32_t least = descend(&row, &shared, false, &want);
        if (least != 0u) row.least = least;
      }
      token = draw(&row, &shared, own);
      HR_BARRIER();
    }
  }
  float logprob = token < c.vocab ? 0.0f : HR_FLOAT_OF(0x7fc00000u);
  if (token < c.vocab && (flags & LOGPROB) != 0u) {
    if (row.isPenalized != 0u) {
      row.isPenalized = 0u;
      row.most = logit_of(uint32_t(most_of(&row, &shared) >> 32));
    }
    row.inverseTemperature = 1.0f;
    row.least = 1u;
    uint64_t total = mass_above(&row, &shared, 0u, 0u);
    logprob = row.logits[token] - row.most - log_of(total);
  }
  if (hr_local == 0u) {
    tokens[hr_group] = token < c.vocab ? int32_t(token) : -1;
    logprobs[hr_group] = logprob;
  }
}
`;
