/** What the kernels of a model's step share: how many rows there are, and floats of several types. */
import type { BufferBinding } from "../device/requests.ts";
import { HeadraceError } from "../errors.ts";
import { bindPlace, checkInteger, MAX_THREADS, type Place } from "./constants.ts";
import { WEIGHT_TYPES, type WeightType } from "./weights.ts";

/** The number of rows is known to the device alone, so that a dispatch can be replayed for any. Rows from it on are
 * neither read nor written. */
export interface StepRows {
  /** Words (uint32) at a multiple of 4 bytes. */
  readonly info: Place;
  /** The word of info that holds the number of rows; a larger one than `maxRows` counts as that. */
  readonly countAt: number;
  /** Rows that the buffers have room for. */
  readonly maxRows: number;
}

/** Comes before the text of a kernel that takes its rows from `info`. */
export const ROWS_TEXT = `
HR_FN uint32_t rows_of(const HR_DEVICE uint32_t *info, uint32_t countAt, uint32_t maxRows) {
  uint32_t count = info[countAt];
  return count < maxRows ? count : maxRows;
}
`;

/** Comes before the text of a kernel whose function constant `TYPE` is that of an array of floats. */
export const FLOATS_TEXT = `
enum FloatType : uint32_t { F32, F16, BF16 };

HR_FUNCTION_CONSTANT(0, uint32_t, TYPE);

HR_FN float float_of(uint32_t bits) {
  if (TYPE == F32) return HR_FLOAT_OF(bits);
  if (TYPE == BF16) return HR_FLOAT_OF(bits << 16);
  hr_half value;
  value.bits = uint16_t(bits);
  return hr_float(value);
}

HR_FN float float_at(const HR_DEVICE uint8_t *floats, uint64_t index) {
  if (TYPE == F32) return float_of(hr_load<uint32_t>(floats + index * 4u));
  return float_of(hr_load<uint16_t>(floats + index * 2u));
}
`;

/** The value of `TYPE`. */
export function typeConstant(type: WeightType): { index: 0; type: "uint"; value: number } {
  return { index: 0, type: "uint", value: WEIGHT_TYPES.indexOf(type) };
}

/** Throws `BAD_OPTION` for a type that kernels do not read. */
export function checkType(what: string, type: WeightType): void {
  if (WEIGHT_TYPES.includes(type)) return;
  throw new HeadraceError("BAD_OPTION", `${what} ${type} is none of ${WEIGHT_TYPES.join(", ")}`);
}

/** Binds `info`. Throws `BAD_OPTION`, and `OUT_OF_RANGE` where it has no word `countAt`. */
export function bindRows(what: string, { info, countAt, maxRows }: StepRows): BufferBinding {
  checkInteger(`${what}: countAt`, countAt, 0, 2 ** 24);
  checkInteger(`${what}: maxRows`, maxRows, 0, MAX_THREADS);
  return bindPlace(`${what}: info`, info, (countAt + 1) * 4, 4);
}

/** Throws `BAD_OPTION` where one dispatch cannot have so many threads. */
export function checkThreads(what: string, maxRows: number, threads: number): number {
  checkInteger(`${what}: threads for ${maxRows} rows`, threads, 0, MAX_THREADS);
  return threads;
}

/** The rows of a dispatch, from its bound info. */
export function rowsOf(info: Uint8Array, countAt: number, maxRows: number): number {
  return Math.min(wordsOf(info, countAt + 1)[countAt]!, maxRows);
}

/** Views over a bound buffer, from its start. */
export function wordsOf(bytes: Uint8Array, length: number): Uint32Array {
  return new Uint32Array(bytes.buffer, bytes.byteOffset, length);
}
export function float32Of(bytes: Uint8Array, length: number): Float32Array {
  return new Float32Array(bytes.buffer, bytes.byteOffset, length);
}
