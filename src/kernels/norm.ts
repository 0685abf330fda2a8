/**
 * RMSNorm: `y = x / sqrt(mean(x^2) + eps) * weight`, for rows of x in their order or by their numbers.
 *
 * The order of the sum is fixed by the length of a row alone: 256 lanes take groups of four squares in turn, element
 * `i` that is lane `floor(i / 4) mod 256`, each adds its own from left to right; 32 sums of the lanes with the same
 * number modulo 32 follow, and their sum.
 */
import type { KernelSource, Pipeline } from "../device/device.ts";
import type { DispatchCall } from "../device/requests.ts";
import { HeadraceError } from "../errors.ts";
import {
  bindPlace,
  ConstantReader,
  checkInteger,
  MAX_THREADS,
  type Place,
  packConstants,
} from "./constants.ts";
import { GROUP_SIZE } from "./portable.ts";
import { SQUARES_TEXT, SquareSummer } from "./squares.ts";
import {
  bindRows,
  checkThreads,
  checkType,
  FLOATS_TEXT,
  float32Of,
  ROWS_TEXT,
  rowsOf,
  type StepRows,
  typeConstant,
  wordsOf,
} from "./step.ts";
import { floatsOf, WEIGHT_BYTES, type WeightType } from "./weights.ts";

const HEAD = `${ROWS_TEXT}${FLOATS_TEXT}${SQUARES_TEXT}
struct NormConstants {
  float eps; uint32_t hidden; uint32_t countAt; uint32_t maxRows; uint32_t inputRows;
};

HR_FN void norm_row(const HR_DEVICE float *x, const HR_DEVICE uint8_t *weight, HR_DEVICE float *y,
                    HR_GROUP float *partial, float eps, uint32_t hidden, uint32_t lane, uint32_t lanes) {
  float mean = sum_of_squares(x, partial, hidden, lane, lanes) / float(hidden);
  float scale = 1.0f / HR_SQRT(mean + eps);
  for (uint32_t i = lane; i < hidden; i += lanes) y[i] = x[i] * scale * float_at(weight, i);
}
`;

const TEXT = `${HEAD}
HR_KERNEL(rms_norm, HR_IN(0, float, x), HR_IN(1, uint8_t, weight), HR_IN(2, uint32_t, info), HR_OUT(3, float, y),
          HR_CONSTANTS(4, NormConstants, c)) {
  HR_SHARED(float, partial, 256);
  if (hr_group >= rows_of(info, c.countAt, c.maxRows)) return;
  uint64_t at = uint64_t(hr_group) * c.hidden;
  norm_row(x + at, weight, y + at, partial, c.eps, c.hidden, hr_local, hr_group_threads);
}
`;

const INDEXED_TEXT = `${HEAD}
HR_KERNEL(rms_norm_rows, HR_IN(0, float, x), HR_IN(1, uint32_t, rows), HR_IN(2, uint8_t, weight),
          HR_IN(3, uint32_t, info), HR_OUT(4, float, y), HR_CONSTANTS(5, NormConstants, c)) {
  HR_SHARED(float, partial, 256);
  if (hr_group >= rows_of(info, c.countAt, c.maxRows)) return;
  HR_DEVICE float *to = y + uint64_t(hr_group) * c.hidden;
  uint32_t row = rows[hr_group];
  if (row >= c.inputRows) {
    for (uint32_t i = hr_local; i < c.hidden; i += hr_group_threads) to[i] = HR_FLOAT_OF(0x7fc00000u);
    return;
  }
  const HR_DEVICE float *from = x + uint64_t(row) * c.hidden;
  norm_row(from, weight, to, partial, c.eps, c.hidden, hr_local, hr_group_threads);
}
`;

export interface RmsNormKernelOptions {
  /** Of the weight. */
  readonly type: WeightType;
  /** Whether row i of y comes from row `rows[i]` of x, not from row i. */
  readonly indexed?: boolean;
}

/**
 * Buffers: x (F32, `[rows, hidden]`), with `indexed` rows (uint32, one a row of y), weight (`[hidden]`), info, y (F32,
 * `[rows, hidden]`). A number past the last row of x reads nothing: its row of y becomes NaN. Throws `BAD_OPTION` for
 * another type.
 */
export function rmsNormKernel({ type, indexed = false }: RmsNormKernelOptions): KernelSource {
  checkType("rms_norm: type", type);
  const summer = new SquareSummer();
  return {
    name: indexed ? "rms_norm_rows" : "rms_norm",
    host: (buffers, constants) => normOnHost(type, indexed, summer, buffers, constants),
    text: indexed ? INDEXED_TEXT : TEXT,
    functionConstants: [typeConstant(type)],
  };
}

function normOnHost(
  type: WeightType,
  indexed: boolean,
  summer: SquareSummer,
  buffers: readonly Uint8Array[],
  constants: Uint8Array,
): void {
  const [x, numbers, weight, info, y] = indexed ? buffers : [buffers[0], undefined, ...buffers.slice(1)];
  const read = new ConstantReader(constants);
  const eps = read.float();
  const hidden = read.uint();
  const rows = rowsOf(info!, read.uint(), read.uint());
  const inputRows = indexed ? read.uint() : rows;
  const index = numbers === undefined ? undefined : wordsOf(numbers, rows);
  const from = float32Of(x!, inputRows * hidden);
  const to = float32Of(y!, rows * hidden);
  const weights = floatsOf(type, weight!, 0, hidden);
  for (let row = 0; row < rows; row++) {
    const source = index === undefined ? row : index[row]!;
    const at = row * hidden;
    if (source >= inputRows) {
      to.fill(Number.NaN, at, at + hidden);
      continue;
    }
    const start = source * hidden;
    const mean = Math.fround(summer.sum(from, start, hidden) / hidden);
    const scale = Math.fround(1 / Math.fround(Math.sqrt(Math.fround(mean + eps))));
    for (let i = 0; i < hidden; i++) {
      // Two products are exact enough in a double for the second to be rounded once.
      to[at + i] = Math.fround(from[start + i]! * scale) * weights[i]!;
    }
  }
}

export interface RmsNormOptions extends RmsNormKernelOptions, StepRows {
  /** Row 0, at a multiple of 4 bytes; loads are wide where it is a multiple of 16 and `hidden` one of 4. */
  readonly x: Place;
  /** With `indexed`: words at a multiple of 4 bytes. */
  readonly rows?: Place;
  /** With `indexed`: rows of x; a number must be below it. */
  readonly inputRows?: number;
  /** `hidden` elements, at a multiple of their size. */
  readonly weight: Place;
  /** At a multiple of 4 bytes. It may be x itself without `indexed`, and must not overlap it otherwise. */
  readonly y: Place;
  /** Elements of a row. */
  readonly hidden: number;
  /** What is added to the mean, as an F32. */
  readonly eps: number;
}

/** A dispatch of {@link rmsNormKernel} of the same type. Throws `BAD_OPTION`, `OUT_OF_RANGE`. */
export function rmsNormCall(pipeline: Pipeline, options: RmsNormOptions): DispatchCall {
  const { type, indexed = false, x, weight, y, hidden, eps, countAt, maxRows } = options;
  checkType("rms_norm: type", type);
  checkInteger("rms_norm: hidden", hidden, 1, 2 ** 24);
  if (!(Number.isFinite(eps) && eps >= 0)) {
    throw new HeadraceError("BAD_OPTION", `rms_norm: eps ${eps} is no number from 0 on`);
  }
  const { rows, inputRows = indexed ? undefined : maxRows } = options;
  if ((rows === undefined) === indexed || inputRows === undefined) {
    const message = "rms_norm: rows and inputRows go with `indexed`, and are needed with it";
    throw new HeadraceError("BAD_OPTION", message);
  }
  checkInteger("rms_norm: inputRows", inputRows, 0, MAX_THREADS);
  const info = bindRows("rms_norm", options);
  const size = WEIGHT_BYTES[type];
  return {
    pipeline,
    buffers: [
      bindPlace("rms_norm: x", x, inputRows * hidden * 4, 4),
      ...(rows === undefined ? [] : [bindPlace("rms_norm: rows", rows, maxRows * 4, 4)]),
      bindPlace("rms_norm: weight", weight, hidden * size, size),
      info,
      bindPlace("rms_norm: y", y, maxRows * hidden * 4, 4),
    ],
    constants: packConstants([{ float: eps }, hidden, countAt, maxRows, inputRows]),
    threads: checkThreads("rms_norm", maxRows, maxRows * GROUP_SIZE),
    threadsPerGroup: GROUP_SIZE,
  };
}
