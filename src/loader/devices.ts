/** What belongs to one device is of no use to another. */
import type { Device } from "../device/device.ts";
import { HeadraceError } from "../errors.ts";

/** Throws `BAD_OPTION` unless `own` is `device`, naming both. `what` belongs to `own`; `user` works with `device`. */
export function assertSameDevice(what: string, own: Device, user: string, device: Device): void {
  if (own === device) return;
  const [first, second] = [own.capabilities.name, device.capabilities.name];
  const other = first === second ? `another device ${second}` : `device ${second}`;
  const text = `${what} is of device ${first}, and ${user} works with ${other}`;
  throw new HeadraceError("BAD_OPTION", `${text}; make both with one device`);
}
