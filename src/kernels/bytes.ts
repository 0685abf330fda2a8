/** Bytes of any length at any place, moved by aligned loads: the part of several kernels' texts that does it. */

/** How many bytes a thread loads at once where it can. */
export const WINDOW_BYTES = 16;

/**
 * Comes before the text of a kernel that uses `part_of` or `copy_bytes`.
 *
 * Memory is cut into windows, the 16 bytes at each multiple of 16. A window that lies within the range is loaded at
 * once, at the range's ends the words and bytes in it alone: nothing outside of the range is read or written. Loads
 * are always aligned, whatever the target is, since they may cross a bus; stores are as wide as the target allows.
 * Lanes take neighbouring windows, and each has four loads under way before it stores.
 */
export const BYTES_TEXT = `
/* The 4 bytes at \`at\`, those at places [first, last) of their window alone; the others are 0. */
HR_FN uint32_t word_of(const HR_DEVICE uint8_t *at, uint32_t place, uint32_t first, uint32_t last) {
  if (first <= place && place + 4u <= last) return hr_load<uint32_t>(at);
  uint32_t word = 0u;
  for (uint32_t i = 0; i < 4u; i++) {
    if (first <= place + i && place + i < last) word |= uint32_t(at[i]) << (8u * i);
  }
  return word;
}

/* Bytes [first, last) of the window at \`at\`; the others are 0. */
HR_FN hr_uint4 part_of(const HR_DEVICE uint8_t *at, uint32_t first, uint32_t last) {
  hr_uint4 part;
  part.x = word_of(at, 0u, first, last);
  part.y = word_of(at + 4, 4u, first, last);
  part.z = word_of(at + 8, 8u, first, last);
  part.w = word_of(at + 12, 12u, first, last);
  return part;
}

HR_FN void store_bytes_of(HR_DEVICE uint8_t *to, uint32_t word, uint32_t place, uint32_t first, uint32_t last) {
  for (uint32_t i = 0; i < 4u; i++) {
    if (first <= place + i && place + i < last) to[i] = uint8_t(word >> (8u * i));
  }
}

/* Bytes [first, last) of a window, of which byte 0 would lie at \`to\`. */
HR_FN void store_part(HR_DEVICE uint8_t *to, hr_uint4 part, uint32_t first, uint32_t last) {
  store_bytes_of(to, part.x, 0u, first, last);
  store_bytes_of(to + 4, part.y, 4u, first, last);
  store_bytes_of(to + 8, part.z, 8u, first, last);
  store_bytes_of(to + 12, part.w, 12u, first, last);
}

HR_FN void store_word(HR_DEVICE uint8_t *to, uint32_t word, uint32_t phase) {
  if ((phase & 1u) == 0u) {
    hr_store<uint16_t>(to, uint16_t(word));
    hr_store<uint16_t>(to + 2, uint16_t(word >> 16));
  } else {
    for (uint32_t i = 0; i < 4u; i++) to[i] = uint8_t(word >> (8u * i));
  }
}

/* A whole window; \`phase\` is the target's address modulo 16. */
HR_FN void store_window(HR_DEVICE uint8_t *to, hr_uint4 window, uint32_t phase) {
  if (phase == 0u) {
    hr_store<hr_uint4>(to, window);
  } else if ((phase & 7u) == 0u) {
    hr_store<uint64_t>(to, uint64_t(window.x) | uint64_t(window.y) << 32);
    hr_store<uint64_t>(to + 8, uint64_t(window.z) | uint64_t(window.w) << 32);
  } else if ((phase & 3u) == 0u) {
    hr_store<uint32_t>(to, window.x);
    hr_store<uint32_t>(to + 4, window.y);
    hr_store<uint32_t>(to + 8, window.z);
    hr_store<uint32_t>(to + 12, window.w);
  } else {
    store_word(to, window.x, phase);
    store_word(to + 4, window.y, phase);
    store_word(to + 8, window.z, phase);
    store_word(to + 12, window.w, phase);
  }
}

/* Lane \`lane\` of \`lanes\`, a power of two: its part of a copy of \`length\` bytes between ranges that do not overlap. */
HR_FN void copy_bytes(
    HR_DEVICE uint8_t *target, const HR_DEVICE uint8_t *source, uint64_t length, uint32_t lane, uint32_t lanes) {
  if (length == 0u) return;
  /* Lane 0 starts where a line of memory does, so that the lanes load whole ones. */
  uint32_t line = lanes < 8u ? 16u * lanes : 128u;
  uint32_t lead = uint32_t(HR_ADDRESS(source)) & (line - 1u);
  uint64_t end = uint64_t(lead) + length;
  uint64_t firstWhole = uint64_t((lead + 15u) / 16u);
  uint64_t endWhole = end / 16u;
  uint64_t leadWindow = uint64_t(lead / 16u);
  const HR_DEVICE uint8_t *from = source - lead;
  HR_DEVICE uint8_t *to = target - lead;
  uint32_t phase = uint32_t(HR_ADDRESS(to)) & 15u;

  uint32_t leadFirst = lead % 16u;
  uint32_t leadLast = endWhole == leadWindow ? uint32_t(end % 16u) : 16u;
  bool hasLead = leadFirst != 0u && lane == (uint32_t(leadWindow) & (lanes - 1u));
  uint32_t tailLast = uint32_t(end % 16u);
  bool hasTail = tailLast != 0u && endWhole >= firstWhole && lane == (uint32_t(endWhole) & (lanes - 1u));
  hr_uint4 leadPart, tailPart;
  if (hasLead) leadPart = part_of(from + leadWindow * 16u, leadFirst, leadLast);
  if (hasTail) tailPart = part_of(from + endWhole * 16u, 0u, tailLast);

  for (uint64_t at = lane; at < endWhole; at += 4u * uint64_t(lanes)) {
    uint64_t second = at + lanes, third = second + lanes, fourth = third + lanes;
    bool isFirst = at >= firstWhole, isSecond = second >= firstWhole && second < endWhole;
    bool isThird = third >= firstWhole && third < endWhole, isFourth = fourth >= firstWhole && fourth < endWhole;
    hr_uint4 a, b, c, d;
    if (isFirst) a = hr_load<hr_uint4>(from + at * 16u);
    if (isSecond) b = hr_load<hr_uint4>(from + second * 16u);
    if (isThird) c = hr_load<hr_uint4>(from + third * 16u);
    if (isFourth) d = hr_load<hr_uint4>(from + fourth * 16u);
    if (isFirst) store_window(to + at * 16u, a, phase);
    if (isSecond) store_window(to + second * 16u, b, phase);
    if (isThird) store_window(to + third * 16u, c, phase);
    if (isFourth) store_window(to + fourth * 16u, d, phase);
  }
  if (hasLead) store_part(to + leadWindow * 16u, leadPart, leadFirst, leadLast);
  if (hasTail) store_part(to + endWhole * 16u, tailPart, 0u, tailLast);
}
`;
