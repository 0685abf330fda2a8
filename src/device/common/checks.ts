/** Checks of what callers pass, the same for every device. */
import { HeadraceError } from "../../errors.ts";

/** Throws `BAD_OPTION` unless `value` is an integer in `[least, most]`. */
export function bounded(name: string, value: number, least: number, most: number): number {
  if (Number.isSafeInteger(value) && value >= least && value <= most) return value;
  throw new HeadraceError("BAD_OPTION", `${name} ${value} is not an integer from ${least} to ${most}`);
}

/** Throws `BAD_OPTION` unless `value` is a non-negative safe integer. */
export function assertEventValue(value: number): void {
  if (Number.isSafeInteger(value) && value >= 0) return;
  throw new HeadraceError("BAD_OPTION", `an event's value is a non-negative integer, not ${value}`);
}
