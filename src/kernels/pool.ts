/**
 * One vector a sequence from its hidden states: their mean, the first, or the last.
 *
 * `pool_rows` takes in the rows of a step and keeps one vector a slot; `pool_finish` makes the result of it where a
 * sequence has ended. States are added one after the other, by position, so that it does not matter how the sequence
 * was cut into steps.
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
import { bindRows, checkThreads, float32Of, ROWS_TEXT, rowsOf, type StepRows, wordsOf } from "./step.ts";

/** In the order of the text's numbers. */
const POOLINGS = ["mean", "first", "last"] as const;
/** What a sequence's vector is made of. */
export type Pooling = (typeof POOLINGS)[number];
/** A vector shorter than this is divided by it, not by its length. */
const LEAST_LENGTH = 1e-12;

const POOL_TEXT = `${ROWS_TEXT}
enum Pooling : uint32_t { MEAN, FIRST, LAST };

HR_FUNCTION_CONSTANT(0, uint32_t, POOLING);

struct PoolConstants { uint32_t hidden; uint32_t numSlots; uint32_t countAt; uint32_t maxRows; };

/* The thread of the first row of a run of one slot's rows takes all of the run, for one element. */
HR_KERNEL(pool_rows, HR_IN(0, float, states), HR_IN(1, uint32_t, positions), HR_IN(2, uint32_t, slots),
          HR_IN(3, uint32_t, info), HR_OUT(4, float, pooled), HR_CONSTANTS(5, PoolConstants, c)) {
  if (hr_thread >= hr_threads) return;
  uint32_t rows = rows_of(info, c.countAt, c.maxRows), first = hr_thread / c.hidden, i = hr_thread % c.hidden;
  if (first >= rows) return;
  uint32_t slot = slots[first], end = first + 1u;
  if (slot >= c.numSlots || (first > 0u && slots[first - 1u] == slot)) return;
  while (end < rows && slots[end] == slot) end++;
  HR_DEVICE float *to = pooled + (uint64_t(slot) * c.hidden + i);
  const HR_DEVICE float *from = states + i;
  bool isNew = positions[first] == 0u;
  if (POOLING == FIRST) {
    if (isNew) *to = from[uint64_t(first) * c.hidden];
  } else if (POOLING == LAST) {
    *to = from[uint64_t(end - 1u) * c.hidden];
  } else {
    float sum = isNew ? 0.0f : *to;
    for (uint32_t row = first; row < end; row++) sum = sum + from[uint64_t(row) * c.hidden];
    *to = sum;
  }
}
`;

const FINISH_TEXT = `${ROWS_TEXT}${SQUARES_TEXT}
enum Pooling : uint32_t { MEAN, FIRST, LAST };

HR_FUNCTION_CONSTANT(0, uint32_t, POOLING);
HR_FUNCTION_CONSTANT(1, bool, NORMALIZE);

struct FinishConstants {
  uint32_t hidden; uint32_t numSlots; uint32_t numStates; uint32_t numVectors; uint32_t countAt; uint32_t maxRows;
};

HR_KERNEL(pool_finish, HR_IN(0, float, pooled), HR_IN(1, uint32_t, positions), HR_IN(2, uint32_t, slots),
          HR_IN(3, uint32_t, lastRows), HR_IN(4, uint32_t, targets), HR_IN(5, uint32_t, info), HR_OUT(6, float, vectors),
          HR_CONSTANTS(7, FinishConstants, c)) {
  HR_SHARED(float, partial, 256);
  if (hr_group >= rows_of(info, c.countAt, c.maxRows)) return;
  uint32_t target = targets[hr_group], row = lastRows[hr_group];
  if (target >= c.numVectors) return;
  HR_DEVICE float *to = vectors + uint64_t(target) * c.hidden;
  uint32_t slot = row < c.numStates ? slots[row] : c.numSlots;
  if (slot >= c.numSlots) {
    for (uint32_t i = hr_local; i < c.hidden; i += hr_group_threads) to[i] = HR_FLOAT_OF(0x7fc00000u);
    return;
  }
  const HR_DEVICE float *from = pooled + uint64_t(slot) * c.hidden;
  float divisor = POOLING == MEAN ? float(positions[row]) + 1.0f : 1.0f;
  for (uint32_t i = hr_local; i < c.hidden; i += hr_group_threads) to[i] = from[i] / divisor;
  if (!NORMALIZE) return;
  HR_BARRIER();
  float length = HR_SQRT(sum_of_squares(to, partial, c.hidden, hr_local, hr_group_threads));
  if (length < 1e-12f) length = 1e-12f;
  for (uint32_t i = hr_local; i < c.hidden; i += hr_group_threads) to[i] = to[i] / length;
}
`;

/**
 * Buffers: states (F32, `[rows, hidden]`), positions and slots (uint32, one a row), info, pooled (F32, `[numSlots,
 * hidden]`). The rows of one slot must lie side by side, by position. A row whose slot is out of range counts for
 * nothing. Throws `BAD_OPTION` for another pooling.
 */
export function poolRowsKernel(pooling: Pooling): KernelSource {
  checkPooling(pooling);
  return {
    name: "pool_rows",
    host: (buffers, constants) => poolOnHost(pooling, buffers, constants),
    text: POOL_TEXT,
    functionConstants: [{ index: 0, type: "uint", value: POOLINGS.indexOf(pooling) }],
  };
}

function checkPooling(pooling: Pooling): void {
  if (POOLINGS.includes(pooling)) return;
  throw new HeadraceError("BAD_OPTION", `pool: ${pooling} is none of ${POOLINGS.join(", ")}`);
}

function poolOnHost(
  pooling: Pooling,
  [states, positions, slots, info, pooled]: readonly Uint8Array[],
  constants: Uint8Array,
): void {
  const read = new ConstantReader(constants);
  const hidden = read.uint();
  const numSlots = read.uint();
  const rows = rowsOf(info!, read.uint(), read.uint());
  const from = float32Of(states!, rows * hidden);
  const to = float32Of(pooled!, numSlots * hidden);
  const position = wordsOf(positions!, rows);
  const slot = wordsOf(slots!, rows);
  for (let row = 0; row < rows; row++) {
    if (slot[row]! >= numSlots) continue;
    const at = slot[row]! * hidden;
    const isFirst = row === 0 || slot[row - 1] !== slot[row];
    const isNew = isFirst && position[row] === 0;
    if (pooling === "mean") {
      if (isNew) to.fill(0, at, at + hidden);
      for (let i = 0; i < hidden; i++) to[at + i]! += from[row * hidden + i]!;
    } else if (pooling === "last" || isNew) {
      to.set(from.subarray(row * hidden, (row + 1) * hidden), at);
    }
  }
}

export interface PoolFinishKernelOptions {
  /** That of the rows' kernel. */
  readonly pooling: Pooling;
  /** Whether vectors are divided by their length. */
  readonly normalize?: boolean;
}

/**
 * Buffers: pooled, positions and slots as `pool_rows` has them, lastRows (uint32: the row of the step at which a
 * sequence ended, one a vector), targets (uint32: the row of `vectors` that it goes to, one a vector), info, vectors
 * (F32, `[numVectors, hidden]`). A target that is out of range is not written; a last row or a slot that is gives a
 * vector of NaN. Word `countAt` of info holds the number of vectors. Throws `BAD_OPTION` for another pooling.
 */
export function poolFinishKernel({ pooling, normalize = false }: PoolFinishKernelOptions): KernelSource {
  checkPooling(pooling);
  const summer = new SquareSummer();
  return {
    name: "pool_finish",
    host: (buffers, constants) => finishOnHost(pooling, normalize ? summer : undefined, buffers, constants),
    text: FINISH_TEXT,
    functionConstants: [
      { index: 0, type: "uint", value: POOLINGS.indexOf(pooling) },
      { index: 1, type: "bool", value: normalize },
    ],
  };
}

function finishOnHost(
  pooling: Pooling,
  summer: SquareSummer | undefined,
  [pooled, positions, slots, lastRows, targets, info, vectors]: readonly Uint8Array[],
  constants: Uint8Array,
): void {
  const read = new ConstantReader(constants);
  const [hidden, numSlots, numStates, numVectors] = [read.uint(), read.uint(), read.uint(), read.uint()];
  const count = rowsOf(info!, read.uint(), read.uint());
  const from = float32Of(pooled!, numSlots * hidden);
  const to = float32Of(vectors!, numVectors * hidden);
  const position = wordsOf(positions!, numStates);
  const slot = wordsOf(slots!, numStates);
  const last = wordsOf(lastRows!, count);
  const target = wordsOf(targets!, count);
  for (let index = 0; index < count; index++) {
    const at = target[index]! * hidden;
    if (target[index]! >= numVectors) continue;
    const own = last[index]! < numStates ? slot[last[index]!]! : numSlots;
    if (own >= numSlots) {
      to.fill(Number.NaN, at, at + hidden);
      continue;
    }
    const divisor = pooling === "mean" ? Math.fround(position[last[index]!]!) + 1 : 1;
    for (let i = 0; i < hidden; i++) to[at + i] = from[own * hidden + i]! / Math.fround(divisor);
    if (summer === undefined) continue;
    const length = Math.fround(Math.sqrt(summer.sum(to, at, hidden)));
    const by = Math.max(length, Math.fround(LEAST_LENGTH));
    for (let i = 0; i < hidden; i++) to[at + i]! /= by;
  }
}

/** What both dispatches take. */
interface PoolPlaces extends StepRows {
  /** F32 at a multiple of 4 bytes. */
  readonly pooled: Place;
  /** Words at a multiple of 4 bytes, as are `slots`. */
  readonly positions: Place;
  readonly slots: Place;
  /** Elements of a vector. */
  readonly hidden: number;
  /** Slots that `pooled` has vectors for. */
  readonly numSlots: number;
}

export interface PoolRowsOptions extends PoolPlaces {
  /** F32 at a multiple of 4 bytes. */
  readonly states: Place;
}

/** A dispatch of {@link poolRowsKernel}. Throws `BAD_OPTION`, `OUT_OF_RANGE`. */
export function poolRowsCall(pipeline: Pipeline, options: PoolRowsOptions): DispatchCall {
  const { states, pooled, positions, slots, hidden, numSlots, countAt, maxRows } = options;
  checkInteger("pool_rows: hidden", hidden, 1, 2 ** 24);
  checkInteger("pool_rows: numSlots", numSlots, 0, MAX_THREADS);
  const info = bindRows("pool_rows", options);
  return {
    pipeline,
    buffers: [
      bindPlace("pool_rows: states", states, maxRows * hidden * 4, 4),
      bindPlace("pool_rows: positions", positions, maxRows * 4, 4),
      bindPlace("pool_rows: slots", slots, maxRows * 4, 4),
      info,
      bindPlace("pool_rows: pooled", pooled, numSlots * hidden * 4, 4),
    ],
    constants: packConstants([hidden, numSlots, countAt, maxRows]),
    threads: checkThreads("pool_rows", maxRows, maxRows * hidden),
  };
}

export interface PoolFinishOptions extends PoolPlaces {
  /** Words at a multiple of 4 bytes, as are `targets`. */
  readonly lastRows: Place;
  readonly targets: Place;
  /** F32 at a multiple of 4 bytes; no two vectors may have the same target. */
  readonly vectors: Place;
  /** Rows that `positions` and `slots` have. */
  readonly numStates: number;
  /** Rows that `vectors` has. */
  readonly numVectors: number;
}

/** A dispatch of {@link poolFinishKernel}, for up to `maxRows` vectors. Throws `BAD_OPTION`, `OUT_OF_RANGE`. */
export function poolFinishCall(pipeline: Pipeline, options: PoolFinishOptions): DispatchCall {
  const { pooled, positions, slots, lastRows, targets, vectors } = options;
  const { hidden, numSlots, numStates, numVectors, countAt, maxRows } = options;
  checkInteger("pool_finish: hidden", hidden, 1, 2 ** 24);
  checkInteger("pool_finish: numSlots", numSlots, 0, MAX_THREADS);
  checkInteger("pool_finish: numStates", numStates, 0, MAX_THREADS);
  checkInteger("pool_finish: numVectors", numVectors, 0, MAX_THREADS);
  const info = bindRows("pool_finish", options);
  return {
    pipeline,
    buffers: [
      bindPlace("pool_finish: pooled", pooled, numSlots * hidden * 4, 4),
      bindPlace("pool_finish: positions", positions, numStates * 4, 4),
      bindPlace("pool_finish: slots", slots, numStates * 4, 4),
      bindPlace("pool_finish: lastRows", lastRows, maxRows * 4, 4),
      bindPlace("pool_finish: targets", targets, maxRows * 4, 4),
      info,
      bindPlace("pool_finish: vectors", vectors, numVectors * hidden * 4, 4),
    ],
    constants: packConstants([hidden, numSlots, numStates, numVectors, countAt, maxRows]),
    threads: checkThreads("pool_finish", maxRows, maxRows * GROUP_SIZE),
    threadsPerGroup: GROUP_SIZE,
  };
}
