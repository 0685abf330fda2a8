/** Attention's kernel text. */
import { GROUP_SIZE } from "./portable.ts";

/** Elements of a head at most. */
export const MAX_HEAD_SIZE = 256;

/** Threadgroups of a dispatch. */
export function attentionGroups(rows: number, numHeads: number, _numKvHeads: number): number {
  return Math.ceil((rows * numHeads) / GROUP_SIZE);
}

export const ATTENTION_TEXT = `
enum Type : uint32_t { F32, F16, BF16 };

HR_FUNCTION_CONSTANT(0, uint32_t, TYPE);

struct AttentionConstants {
  uint32_t numHeads; uint32_t numKvHeads; uint32_t headSize; uint32_t blockTokens; uint32_t tableStride;
  uint32_t countAt; uint32_t maxRows; float scale;
};

HR_FN float element(const HR_DEVICE uint8_t *at, uint64_t index) {
  if (TYPE == F32) return HR_FLOAT_OF(hr_load<uint32_t>(at + 4u * index));
  uint16_t bits = hr_load<uint16_t>(at + 2u * index);
  if (TYPE == BF16) return HR_FLOAT_OF(uint32_t(bits) << 16);
  hr_half value;
  value.bits = bits;
  return hr_float(value);
}

HR_KERNEL(attention, HR_IN(0, float, qkv), HR_IN(1, uint8_t, kCache), HR_IN(2, uint8_t, vCache),
          HR_IN(3, uint32_t, blockTable), HR_IN(4, uint32_t, slots), HR_IN(5, uint32_t, positions),
          HR_IN(6, uint32_t, info), HR_OUT(7, float, out), HR_CONSTANTS(8, AttentionConstants, c)) {
  uint32_t count = info[c.countAt] < c.maxRows ? info[c.countAt] : c.maxRows;
  uint32_t row = hr_thread / c.numHeads, head = hr_thread % c.numHeads;
  if (row >= count) return;
  uint32_t kvHead = head / (c.numHeads / c.numKvHeads), size = c.headSize;
  const HR_DEVICE float *q = qkv + uint64_t(row) * (c.numHeads + 2u * c.numKvHeads) * size + head * size;
  const HR_DEVICE uint32_t *blocks = blockTable + uint64_t(slots[row]) * c.tableStride;
  float sums[256];
  for (uint32_t d = 0; d < size; d++) sums[d] = 0.0f;
  float most = HR_FLOAT_OF(0xff800000u), total = 0.0f;
  for (uint32_t position = 0; position <= positions[row]; position++) {
    uint64_t at = ((uint64_t(blocks[position / c.blockTokens]) * c.numKvHeads + kvHead) * c.blockTokens +
                   position % c.blockTokens) * size;
    float score = 0.0f;
    for (uint32_t d = 0; d < size; d++) score = HR_FMA(q[d], element(kCache, at + d), score);
    score *= c.scale;
    float higher = score > most ? score : most;
    float keep = hr_exp(most - higher), part = hr_exp(score - higher);
    total = HR_FMA(total, keep, part);
    for (uint32_t d = 0; d < size; d++) sums[d] = HR_FMA(part, element(vCache, at + d), sums[d] * keep);
    most = higher;
  }
  HR_DEVICE float *to = out + (uint64_t(row) * c.numHeads + head) * size;
  for (uint32_t d = 0; d < size; d++) to[d] = sums[d] / total;
}
`;
