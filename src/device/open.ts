/** Opens a device by name: the only file that names concrete devices. */
import { HeadraceError } from "../errors.ts";
import type { CudaFindings } from "./cuda/look.ts";
import type { CudaOptions } from "./cuda/options.ts";
import type { Device } from "./device.ts";
import { type HostOptions, openHost } from "./host/device.ts";
import type { MetalOptions } from "./metal/options.ts";
import { type NullOptions, openNull } from "./null/device.ts";

/** Names that {@link openDevice} knows. `auto` is the best device of this machine. */
export const DEVICE_NAMES = ["auto", "host", "null", "metal", "cuda"] as const;

export type DeviceName = (typeof DEVICE_NAMES)[number];

/** Each device reads its own fields and ignores the others'. */
export interface OpenDeviceOptions extends HostOptions, NullOptions, MetalOptions, CudaOptions {}

/** Opens a device, which the caller owns. Throws `BAD_OPTION` for an unknown name or a bad option, and
 * `DEVICE_UNAVAILABLE` where the device cannot work here. */
export function openDevice(name: DeviceName | (string & {}), options: OpenDeviceOptions = {}): Device {
  switch (name) {
    case "auto":
      return openBest(options);
    case "host":
      return openHost(options);
    case "null":
      return openNull(options);
    case "metal":
      return metal().openMetal(options);
    case "cuda":
      return cuda().openCuda(options);
    default:
      throw new HeadraceError("BAD_OPTION", `device ${name} is none of ${DEVICE_NAMES.join(", ")}`);
  }
}

/** Metal on Apple silicon where the library is there and fits, else the host. A library that somebody has named must
 * fit; on another system it is a test's, and is not taken for `auto`. */
function openBest(options: OpenDeviceOptions): Device {
  if (process.platform !== "darwin" || process.arch !== "arm64") return openHost(options);
  return metal().openFoundMetal(options) ?? openHost(options);
}

export type { CudaFindings };

/** What of CUDA this machine has: driver, GPUs, the compiler of kernels, GPUDirect Storage; and why not, and what to do,
 * for each part that is missing. Opens no device and never throws. */
export function lookAtCuda(): CudaFindings {
  return (require("./cuda/look.ts") as typeof import("./cuda/look.ts")).lookAtCuda();
}

// Loaded when they are first asked for, in the call itself: most processes use one device at most of these, and all
// of them together take longer to load than a small dataset.

function metal() {
  return require("./metal/device.ts") as typeof import("./metal/device.ts");
}

function cuda() {
  return require("./cuda/device.ts") as typeof import("./cuda/device.ts");
}
