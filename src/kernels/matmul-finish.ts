/** How tiles end whose simdgroups have a section of the inner length each. */

/** Behind an enum of SECTIONS, TILE_ROWS, TILE_OUTPUTS and TILE_WEIGHTS. */
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
