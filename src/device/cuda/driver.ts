/** Finds and binds the CUDA driver's library. Each thread binds it for itself; the driver behind is one for all. */
import { dlopen } from "bun:ffi";
import { HeadraceError } from "../../errors.ts";
import { cudaError } from "./errors.ts";
import {
  checkedFunctions,
  DRIVER_SYMBOLS,
  ELAPSED_NAMES,
  ELAPSED_SIGNATURE,
  type Functions,
  ffiTable,
} from "./symbols.ts";

/** Names the library in place of all others. */
export const DRIVER_VARIABLE = "HEADRACE_CUDA_LIBRARY";

/** Where the driver's library lies: by the loader's own search, in containers, in WSL, on NixOS, on Jetson. */
export const DRIVER_LIBRARIES = [
  "libcuda.so.1",
  "libcuda.so",
  "/usr/local/nvidia/lib64/libcuda.so.1",
  "/usr/lib/wsl/lib/libcuda.so.1",
  "/run/opengl-driver/lib/libcuda.so.1",
  "/usr/lib/aarch64-linux-gnu/tegra/libcuda.so.1",
] as const;

/** The driver's functions; all but {@link DriverFunctions.eventElapsedTime} have the names of `cuda.h`. A result of
 * 0 is success, any other goes through `errors.ts`. */
export interface DriverFunctions extends Functions<typeof DRIVER_SYMBOLS> {
  /** cuEventElapsedTime, under whichever name this driver has it: a float of milliseconds. */
  readonly eventElapsedTime: (
    milliseconds: NodeJS.TypedArray | DataView,
    start: number,
    end: number,
  ) => number;
}

/** The driver as the calling thread has bound it. It stays loaded until the process ends. */
export interface CudaDriver {
  /** As the loader was given it: a path, or a name that it searches for. */
  readonly path: string;
  readonly symbols: DriverFunctions;
}

/** Binds the driver for the calling thread: `library` where it is given, else what HEADRACE_CUDA_LIBRARY names, else
 * the first of {@link DRIVER_LIBRARIES} that is there. Throws `DEVICE_UNAVAILABLE` with what was tried. */
export function openDriver(library?: string): CudaDriver {
  const variable = process.env[DRIVER_VARIABLE] ?? "";
  const named = library ?? (variable === "" ? undefined : variable);
  if (named === undefined && process.platform !== "linux") {
    const text = `needs Linux with an NVIDIA GPU, and this is ${process.platform}`;
    throw unavailable(`${text}; use host, which works on every machine`);
  }
  const tried = named === undefined ? DRIVER_LIBRARIES : [named];
  const failures: string[] = [];
  for (const path of tried) {
    try {
      return bindDriver(path);
    } catch (error) {
      failures.push(loaderReason(path, error));
    }
  }
  if (named === undefined) {
    // Those that are simply not there would hide the one that is, and does not load.
    const others = failures.filter((failure) => !failure.endsWith(ABSENT));
    const what = others.length > 0 ? others.join("; ") : `there is none of ${tried.join(", ")}`;
    const text = `the NVIDIA driver's library cannot be loaded: ${what}`;
    throw unavailable(
      `${text}; install or update the driver, set ${DRIVER_VARIABLE} to its libcuda.so.1, or use host`,
    );
  }
  const mend =
    library === undefined ? `correct or unset ${DRIVER_VARIABLE}` : "correct or leave out the option library";
  throw unavailable(`${failures.join("; ")}; ${mend}`);
}

/** Calls cuInit, which may be done often. Throws `DEVICE_UNAVAILABLE` where there is no GPU, or the driver does not
 * start. */
export function initDriver(driver: CudaDriver): void {
  const result = driver.symbols.cuInit(0);
  if (result === 0) return;
  throw unavailable(cudaError(driver, "cuInit", result).message);
}

function bindDriver(path: string): CudaDriver {
  const bound = dlopen(path, ffiTable(DRIVER_SYMBOLS)).symbols;
  const symbols = {
    ...checkedFunctions(DRIVER_SYMBOLS, bound),
    eventElapsedTime: bindElapsed(path),
  };
  return { path, symbols };
}

function bindElapsed(path: string): DriverFunctions["eventElapsedTime"] {
  let failure: unknown;
  for (const name of ELAPSED_NAMES) {
    const table = { [name]: ELAPSED_SIGNATURE };
    try {
      return checkedFunctions(table, dlopen(path, ffiTable(table)).symbols)[name]!;
    } catch (error) {
      failure = error;
    }
  }
  throw failure;
}

/** How the system's loader ends what it says of a library that is not there. */
const ABSENT = "No such file or directory";

/** What the loader says of a library, in one line with its path. */
export function loaderReason(path: string, error: unknown): string {
  const text = (error instanceof Error ? error.message : String(error)).replaceAll(/\s*\n\s*/g, " ");
  // The runtime puts words of its own, and the path once more, in front.
  const own = text.replace(/^Failed to open library "[^"]*": /, "");
  return own.includes(path) ? own : `${path}: ${own}`;
}

/** The failure of a device that cannot be opened here. */
export function unavailable(message: string): HeadraceError {
  return new HeadraceError("DEVICE_UNAVAILABLE", `device cuda: ${message}`);
}
