/** What padding holds, in a column's own type. */
import { HeadraceError } from "../errors.ts";
import type { ColumnSchema, DType } from "../types.ts";

/** Least and most whole number of a type. */
const INTEGERS: Partial<Record<DType, readonly [least: number, most: number]>> = {
  BOOL: [0, 1],
  U8: [0, 2 ** 8 - 1],
  I8: [-(2 ** 7), 2 ** 7 - 1],
  U16: [0, 2 ** 16 - 1],
  I16: [-(2 ** 15), 2 ** 15 - 1],
  U32: [0, 2 ** 32 - 1],
  I32: [-(2 ** 31), 2 ** 31 - 1],
  // The numbers next below 2^64 and 2^63, which themselves are too large.
  U64: [0, 2 ** 64 - 2 ** 11],
  I64: [-(2 ** 63), 2 ** 63 - 2 ** 10],
};

/**
 * The element that a view of `column` shows for `value`: a number, a bigint, or for BF16 its bits, rounded to
 * the nearest. Throws `BAD_OPTION` where the type cannot hold it; 0 fits every type, and nothing else those
 * that JavaScript has no number for.
 */
export function padElement(column: ColumnSchema, value: number): number | bigint {
  const { dtype } = column;
  if (dtype === "U64" || dtype === "I64") return BigInt(wholeNumber(column, value, INTEGERS[dtype]!));
  const bounds = INTEGERS[dtype];
  if (bounds !== undefined) return wholeNumber(column, value, bounds);
  if (value === 0 || dtype === "F64") return value;
  if (dtype === "F32" && Number.isFinite(Math.fround(value))) return value;
  if (dtype === "F16" && Number.isFinite(Math.f16round(value))) return value;
  if (dtype === "BF16") {
    const bits = bfloatBits(value);
    if ((bits & 0x7f80) !== 0x7f80) return bits;
  }
  throw refused(
    column,
    value,
    dtype === "F32" || dtype === "F16" || dtype === "BF16" ? "a smaller one" : "0",
  );
}

function wholeNumber(column: ColumnSchema, value: number, [least, most]: readonly [number, number]): number {
  if (Number.isInteger(value) && value >= least && value <= most) return value;
  throw refused(column, value, `a whole number from ${least} to ${most}`);
}

/** Round to nearest, ties to even, as the field's libraries do. */
function bfloatBits(value: number): number {
  const [bits] = new Uint32Array(Float32Array.of(value).buffer);
  return ((bits! + 0x7fff + ((bits! >>> 16) & 1)) >>> 16) & 0xffff;
}

function refused({ name, dtype }: ColumnSchema, value: number, wanted: string): HeadraceError {
  return new HeadraceError(
    "BAD_OPTION",
    `padValue is ${value}; for column ${name} (${dtype}) it must be ${wanted}; choose other columns or another value`,
  );
}
