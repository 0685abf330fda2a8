/** Opens a device by name: the only file that names concrete devices. */
import { HeadraceError } from "../errors.ts";
import type { Device } from "./device.ts";
import { type HostOptions, openHost } from "./host/device.ts";
import { type NullOptions, openNull } from "./null/device.ts";

/** Names that {@link openDevice} knows. `auto` is the best device of this machine. */
export const DEVICE_NAMES = ["auto", "host", "null", "metal", "cuda"] as const;

export type DeviceName = (typeof DEVICE_NAMES)[number];

/** Each device reads its own fields and ignores the others'. */
export interface OpenDeviceOptions extends HostOptions, NullOptions {}

/** Opens a device, which the caller owns. Throws `BAD_OPTION` for an unknown name or a bad option, and
 * `DEVICE_UNAVAILABLE` where the device cannot work here. */
export function openDevice(name: DeviceName | (string & {}), options: OpenDeviceOptions = {}): Device {
  switch (name) {
    case "auto":
    case "host":
      return openHost(options);
    case "null":
      return openNull(options);
    case "metal":
    case "cuda":
      throw new HeadraceError(
        "DEVICE_UNAVAILABLE",
        `device ${name}: this version does not have it; use host, which works on every machine`,
      );
    default:
      throw new HeadraceError("BAD_OPTION", `device ${name} is none of ${DEVICE_NAMES.join(", ")}`);
  }
}
