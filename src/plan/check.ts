/** Checks of options and ranges that the plan's files share. */
import { HeadraceError } from "../errors.ts";

/** Throws `BAD_OPTION` unless `value` is an integer in `[least, most]`. */
export function checkInteger(
  name: string,
  value: number,
  least: number,
  most: number = Number.MAX_SAFE_INTEGER,
): void {
  if (Number.isSafeInteger(value) && value >= least && value <= most) return;
  const bounds = most === Number.MAX_SAFE_INTEGER ? `at least ${least}` : `from ${least} to ${most}`;
  throw new HeadraceError("BAD_OPTION", `${name} is ${String(value)}; it must be an integer ${bounds}`);
}

/** Throws `OUT_OF_RANGE` unless `[start, start + count)` lies in `[0, length)`. */
export function checkSpan(what: string, start: number, count: number, length: number): void {
  const whole = Number.isSafeInteger(start) && Number.isSafeInteger(count);
  if (whole && start >= 0 && count >= 0 && count <= length && start <= length - count) return;
  throw new HeadraceError(
    "OUT_OF_RANGE",
    `${what} [${start}, ${start + count}) are not all in [0, ${length})`,
  );
}

/** Throws `OUT_OF_RANGE` unless an output array of `length` can take `count` numbers. */
export function checkRoom(count: number, length: number): void {
  if (count <= length) return;
  throw new HeadraceError("OUT_OF_RANGE", `${count} numbers do not fit an output array of ${length}`);
}
