/**
 * The matrix product's kernel text, and how its work is cut up.
 *
 * **Order of a sum.** All tiles add the products of an output in one order. The inner length is cut into 8 sections of
 * `8 * ceil(inner / 64)` products, of which the last may be shorter or empty. A section is added up from 0 by fused
 * multiply-adds in order, as if padded with zeros to a multiple of 8; then the sections are added in order, from 0; then
 * comes the bias. So tiles differ in speed alone.
 *
 * - *Split* tiles give each simdgroup of the threadgroup one section of all of the tile's outputs: there are enough
 *   threads where there are few rows, and then it is the loads of weights that count.
 * - The *staged* tile goes through the sections one after another, with x and weights in threadgroup memory that all
 *   simdgroups read: more arithmetic for each load, where there are many rows.
 *
 * Tiles for matrix units have an order of their own: see `matmul-units.ts`.
 */
import { MATMUL_SPLIT_TEXT } from "./matmul-split.ts";
import { MATMUL_STAGED_TEXT } from "./matmul-staged.ts";
import { UNITS_SPLIT_TEXT, UNITS_WIDE_TEXT } from "./matmul-units.ts";

/** How a dispatch is cut up: rows and outputs of a threadgroup. */
export interface Tile {
  readonly name: string;
  readonly rows: number;
  readonly outputs: number;
  /** Of a gated product, which multiplies two weights for each. */
  readonly gatedOutputs: number;
  /** Dispatches of up to so many rows use it. */
  readonly maxRows: number;
  /** The sizes as fields of an enum, and the text. */
  text(gated: boolean): string;
}

interface SplitShape {
  readonly maxRows: number;
  /** Lanes of a simdgroup that take different rows; the others take different outputs. */
  readonly laneRows: number;
  /** Rows of one lane, and its outputs. */
  readonly rows: number;
  readonly outputs: number;
  /** Where gated. */
  readonly gatedOutputs: number;
  /** Loads of 8 weights of a row that are under way at once. */
  readonly ahead: number;
}

function splitTile(shape: SplitShape): Tile {
  const { maxRows, laneRows, rows, ahead } = shape;
  const lanes = 32 / laneRows;
  return {
    name: `split ${laneRows * rows}`,
    rows: laneRows * rows,
    outputs: lanes * shape.outputs,
    gatedOutputs: lanes * shape.gatedOutputs,
    maxRows,
    text: (gated) => {
      const outputs = gated ? shape.gatedOutputs : shape.outputs;
      const weights = gated ? 2 * outputs : outputs;
      const sizes = {
        ...{ LANE_ROWS: laneRows, LANE_OUTPUTS: lanes, ROWS: rows, OUTPUTS: outputs, AHEAD: ahead },
        ...{ WEIGHTS: weights, TILE_WEIGHTS: lanes * weights },
        ...{ TILE_ROWS: laneRows * rows, TILE_OUTPUTS: lanes * outputs },
      };
      return enumOf(sizes) + MATMUL_SPLIT_TEXT;
    },
  };
}

/** 16 by 16 threads of 4 rows and 4 weights each. */
const STAGED: Tile = {
  name: "staged",
  rows: 64,
  outputs: 64,
  gatedOutputs: 32,
  maxRows: Number.POSITIVE_INFINITY,
  text: (gated) =>
    enumOf({ TILE_ROWS: 64, TILE_OUTPUTS: gated ? 32 : 64, OUTPUTS: gated ? 2 : 4 }) + MATMUL_STAGED_TEXT,
};

/** Smallest first. Threadgroup memory of a split tile is 32 bytes for each row and weight of it, at most 32 KiB. */
export const TILES: readonly Tile[] = [
  splitTile({ maxRows: 1, laneRows: 1, rows: 1, outputs: 1, gatedOutputs: 1, ahead: 4 }),
  splitTile({ maxRows: 8, laneRows: 1, rows: 4, outputs: 1, gatedOutputs: 1, ahead: 2 }),
  splitTile({ maxRows: 256, laneRows: 4, rows: 4, outputs: 4, gatedOutputs: 2, ahead: 1 }),
  STAGED,
];

/** For matrix units: in tiles of 16 rows and 8 weights, `rowTiles` by 4 of them a simdgroup. */
function unitsTile(rowTiles: number, simdgroups: readonly [down: number, across: number]): Tile {
  const [down, across] = simdgroups;
  const rows = rowTiles * 16 * down;
  const outputs = 32 * across;
  const isSplit = down === 1;
  return {
    name: `units ${rows}`,
    rows,
    outputs,
    gatedOutputs: outputs / 2,
    maxRows: Number.POSITIVE_INFINITY,
    text: (gated) =>
      enumOf({
        ...{ ROW_TILES: rowTiles, OUTPUT_TILES: gated ? 2 : 4, WEIGHT_TILES: 4, TILE_ROWS: rows },
        ...{ TILE_OUTPUTS: gated ? outputs / 2 : outputs, TILE_WEIGHTS: outputs, DOWN: down },
      }) + (isSplit ? UNITS_SPLIT_TEXT : UNITS_WIDE_TEXT),
  };
}

const UNITS_SPLIT = unitsTile(1, [1, 1]);
const UNITS_WIDE = unitsTile(2, [2, 4]);

/** Wide tiles are used from so many threadgroups on, of two weights for each output where gated: fewer leave too much of
 * a large GPU idle. */
const WIDE_GROUPS = 192;

function enumOf(sizes: Readonly<Record<string, number>>): string {
  const fields = Object.entries(sizes).map(([name, value]) => `${name} = ${value}`);
  return `enum Sizes : uint32_t { SECTIONS = 8, ${fields.join(", ")} };\n`;
}

/** What decides how a dispatch is cut up. */
export interface TileChoice {
  readonly maxRows?: number | undefined;
  readonly matrixUnits?: boolean | undefined;
  readonly gated?: boolean | undefined;
  /** Of each part. */
  readonly outputs?: readonly number[] | undefined;
}

/** The tile for such dispatches. */
export function tileOf({ maxRows = 1, matrixUnits, gated = false, outputs = [] }: TileChoice): Tile {
  if (matrixUnits !== true) return TILES.find((tile) => maxRows <= tile.maxRows)!;
  const groups = matmulGroups(UNITS_WIDE, maxRows, outputs, gated);
  return (gated ? 2 * groups : groups) >= WIDE_GROUPS ? UNITS_WIDE : UNITS_SPLIT;
}

/** Threadgroups that cover `rows` rows of parts with so many outputs. */
export function matmulGroups(tile: Tile, rows: number, outputs: readonly number[], gated: boolean): number {
  const width = gated ? tile.gatedOutputs : tile.outputs;
  const across = (gated ? outputs.slice(0, 1) : outputs).reduce(
    (sum, one) => sum + Math.ceil(one / width),
    0,
  );
  return Math.ceil(rows / tile.rows) * across;
}

export function matmulText(tile: Tile, gated: boolean): string {
  return COMMON + tile.text(gated);
}

const COMMON = `
enum Type : uint32_t { F32, F16, BF16 };

HR_FUNCTION_CONSTANT(0, uint32_t, TYPE);
HR_FUNCTION_CONSTANT(1, bool, GATED);
HR_FUNCTION_CONSTANT(2, bool, BIAS);
HR_FUNCTION_CONSTANT(3, bool, ACCUMULATE);

struct MatmulConstants { uint32_t inner; uint32_t n0; uint32_t n1; uint32_t n2; uint32_t countAt; uint32_t maxRows; };

/* Outputs from \`first\` on of a part, which has \`outputs\`; they stand behind \`before\` others in a row of y. */
struct Part { uint32_t number; uint32_t first; uint32_t outputs; uint32_t before; };

/* Without outputs where the tile is none. */
HR_FN Part part_of(uint32_t tile, uint32_t tileOutputs, HR_CONSTANT MatmulConstants &c) {
  uint32_t counts[3] = {c.n0, GATED ? 0u : c.n1, GATED ? 0u : c.n2};
  Part part = {0u, 0u, 0u, 0u};
  uint32_t before = 0u;
  for (uint32_t number = 0; number < 3u; number++) {
    uint32_t tiles = (counts[number] + tileOutputs - 1u) / tileOutputs;
    if (part.outputs == 0u && tile < tiles) part = {number, tile * tileOutputs, counts[number], before};
    tile -= part.outputs == 0u ? tiles : 0u;
    before += counts[number];
  }
  return part;
}

HR_FN float element(const HR_DEVICE uint8_t *at, uint64_t index) {
  if (TYPE == F32) return HR_FLOAT_OF(hr_load<uint32_t>(at + 4u * index));
  uint32_t bits = hr_load<uint16_t>(at + 2u * index);
  return TYPE == BF16 ? HR_FLOAT_OF(bits << 16) : HR_HALF_BITS(bits);
}

HR_FN float low_of(uint32_t word) { return TYPE == BF16 ? HR_FLOAT_OF(word << 16) : HR_HALF_BITS(word & 0xffffu); }
HR_FN float high_of(uint32_t word) { return TYPE == BF16 ? HR_FLOAT_OF(word & 0xffff0000u) : HR_HALF_BITS(word >> 16); }

HR_FN bool is_wide(const HR_DEVICE float *x, const HR_DEVICE uint8_t *w, uint32_t inner) {
  return inner % 8u == 0u && ((HR_ADDRESS(x) | HR_ADDRESS(w)) & 15u) == 0u;
}

HR_FN float silu(float value) { return value / (1.0f + hr_exp(-value)); }

/* Writes one output from its sum, or from the sums of its gate and of what that opens. */
HR_FN void finish(HR_DEVICE float *to, float sum, float opened, const HR_DEVICE uint8_t *bias,
                  const HR_DEVICE uint8_t *openedBias, uint32_t n) {
  if (BIAS) sum += element(bias, n);
  if (GATED) {
    if (BIAS) opened += element(openedBias, n);
    *to = silu(sum) * opened;
  } else {
    *to = ACCUMULATE ? *to + sum : sum;
  }
}

`;
