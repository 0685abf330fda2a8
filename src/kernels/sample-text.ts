/** The sampler's kernel text: a threadgroup a row. */
import { PHILOX_TEXT } from "./philox.ts";
import { SAMPLE_SCAN_TEXT } from "./sample-scan-text.ts";
import { ROWS_TEXT } from "./step.ts";

/**
 * Thresholds come from radix descents over the keys: a histogram of their highest byte, the bin that holds the
 * threshold, a histogram of the next byte of the keys in it, and so on.
 */
export const SAMPLE_TEXT = `${ROWS_TEXT}${PHILOX_TEXT}${SAMPLE_SCAN_TEXT}
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
    /* As \`most\` is: of a -0 the two would differ in sign, and the sum be -0 where the host's is 0. */
    logprob = logit_of(key_of(HR_BITS_OF(row.logits[token]))) - row.most - log_of(total);
  }
  if (hr_local == 0u) {
    tokens[hr_group] = token < c.vocab ? int32_t(token) : -1;
    logprobs[hr_group] = logprob;
  }
}
`;
