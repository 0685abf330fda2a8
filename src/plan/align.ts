/** The one place where sizes are rounded up. */
import { HeadraceError } from "../errors.ts";

/**
 * The least multiple of `multiple` that is at least `n`.
 *
 * `n`: safe integer, 0 or more; `multiple`: safe integer, 1 or more, not necessarily a power of two.
 * Throws `OUT_OF_RANGE` where an argument is neither, or the result is no safe integer.
 */
export function roundUp(n: number, multiple: number): number {
  if (!Number.isSafeInteger(n) || n < 0 || !Number.isSafeInteger(multiple) || multiple < 1) {
    throw new HeadraceError("OUT_OF_RANGE", `cannot round ${n} up to a multiple of ${multiple}`);
  }
  const remainder = n % multiple;
  if (remainder === 0) return n;
  const missing = multiple - remainder;
  if (n > Number.MAX_SAFE_INTEGER - missing) {
    throw new HeadraceError(
      "OUT_OF_RANGE",
      `${n} rounded up to a multiple of ${multiple} is above ${Number.MAX_SAFE_INTEGER}`,
    );
  }
  return n + missing;
}
