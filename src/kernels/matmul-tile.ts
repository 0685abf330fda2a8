/** What the matrix product's kernels have in common, however a tile is computed: how one begins, and how it ends. */

/** Opens the kernel's function; what threads share is declared behind it. */
export const TILE_KERNEL_TEXT = `
HR_KERNEL(matmul, HR_IN(0, float, x), HR_IN(1, uint8_t, w0), HR_IN(2, uint8_t, w1), HR_IN(3, uint8_t, w2),
          HR_IN(4, uint8_t, b0), HR_IN(5, uint8_t, b1), HR_IN(6, uint8_t, b2), HR_IN(7, uint32_t, info),
          HR_OUT(8, float, y), HR_CONSTANTS(9, MatmulConstants, c)) {
`;

/** The threadgroup's place: its part, the tile's first row, the part's weights and bias. Ends where there is nothing to
 * compute. Behind an enum of TILE_ROWS and TILE_OUTPUTS. */
export const TILE_PLACE_TEXT = `
  uint32_t count = info[c.countAt] < c.maxRows ? info[c.countAt] : c.maxRows;
  uint32_t rowTiles = (c.maxRows + TILE_ROWS - 1u) / TILE_ROWS;
  uint32_t firstRow = hr_group % rowTiles * TILE_ROWS;
  Part part = part_of(hr_group / rowTiles, TILE_OUTPUTS, c);
  if (firstRow >= count || part.outputs == 0u) return;
  const HR_DEVICE uint8_t *w = part.number == 0u ? w0 : part.number == 1u ? w1 : w2;
  const HR_DEVICE uint8_t *bias = part.number == 0u ? b0 : part.number == 1u ? b1 : b2;
`;

/** For tiles whose simdgroups have a section of the inner length each. Behind an enum of SECTIONS, TILE_ROWS, TILE_OUTPUTS
 * and TILE_WEIGHTS. */
export const FINISH_TILE_TEXT = `
/* Adds the sections of all of a tile's sums, \`[section, row, weight]\`, and writes what they come to. Of a gated output,
 * the weight that the gate opens stands TILE_OUTPUTS behind the gate's. */
HR_FN void finish_tile(const HR_GROUP float *partial, HR_DEVICE float *y, const HR_DEVICE uint8_t *bias,
                       const HR_DEVICE uint8_t *openedBias, uint32_t firstRow, uint32_t count, Part part,
                       HR_CONSTANT MatmulConstants &c, uint32_t local) {
  uint32_t width = GATED ? c.n0 : c.n0 + c.n1 + c.n2;
  for (uint32_t i = local; i < TILE_ROWS * TILE_OUTPUTS; i += HR_GROUP_SIZE) {
    uint32_t row = firstRow + i / TILE_OUTPUTS, n = part.first + i % TILE_OUTPUTS;
    if (row >= count || n >= part.outputs) continue;
    float sum = 0.0f, opened = 0.0f;
    for (uint32_t s = 0; s < SECTIONS; s++) {
      uint32_t at = (s * TILE_ROWS + i / TILE_OUTPUTS) * TILE_WEIGHTS + i % TILE_OUTPUTS;
      sum += partial[at];
      if (GATED) opened += partial[at + TILE_OUTPUTS];
    }
    finish(y + uint64_t(row) * width + part.before + n, sum, opened, bias, openedBias, n);
  }
}
`;
