/** What of CUDA is on a machine, part by part, whether or not a device can be opened. */
import { existsSync } from "node:fs";
import { capabilityText } from "./compile.ts";
import { type CudaDriver, initDriver, openDriver } from "./driver.ts";
import { NVIDIA_FS, openCuFile } from "./gds.ts";
import { listCudaDevices, readDriverVersion, readKernelVersion } from "./info.ts";
import { installNvrtc, openNvrtc, versionText } from "./nvrtc.ts";

/** Why a part is not there or cannot be used, and what to do. */
export interface Absent {
  readonly found: false;
  readonly reason: string;
}

/** One GPU as the driver shows it. */
export interface CudaGpu {
  readonly ordinal: number;
  readonly name: string;
  readonly memoryBytes: number;
  /** `9.0` */
  readonly computeCapability: string;
  readonly pciBusId: string;
}

/** Plain data, for people and for JSON. */
export interface CudaFindings {
  /** The driver's library; `cuda` is the newest version of CUDA that it takes, `version` that of its part in the
   * kernel, where that is told. */
  readonly driver:
    | { readonly found: true; readonly path: string; readonly cuda: string; readonly version?: string }
    | Absent;
  readonly gpus: { readonly found: true; readonly list: readonly CudaGpu[] } | Absent;
  /** The compiler that kernels need. */
  readonly nvrtc:
    | { readonly found: true; readonly path: string; readonly version: string }
    /** `install` is the command that gets one. */
    | (Absent & { readonly install: string });
  /** GPUDirect Storage: cuFile, and whether nvidia-fs is loaded, which most disks need. */
  readonly gds: { readonly found: true; readonly path: string; readonly nvidiaFs: boolean } | Absent;
}

/** Looks for each part; opens no context, and nothing of cuFile, whose driver does not come back on a machine without a
 * GPU. Never throws. */
export function lookAtCuda(): CudaFindings {
  const { driver, bound, driverVersion } = lookAtDriver();
  const search = openNvrtc({ driverVersion });
  const cufile = openCuFile();
  return {
    driver,
    gpus: bound === undefined ? { found: false, reason: "there is no driver" } : lookAtGpus(bound),
    nvrtc:
      search.nvrtc === undefined
        ? {
            found: false,
            reason: search.reason,
            install: installNvrtc(driverVersion ?? Number.POSITIVE_INFINITY),
          }
        : { found: true, path: search.nvrtc.path, version: versionText(search.nvrtc.version) },
    gds:
      "declined" in cufile
        ? { found: false, reason: cufile.declined }
        : { found: true, path: cufile.path, nvidiaFs: existsSync(NVIDIA_FS) },
  };
}

interface LookedAt {
  readonly driver: CudaFindings["driver"];
  readonly bound?: CudaDriver;
  readonly driverVersion?: number;
}

function lookAtDriver(): LookedAt {
  try {
    const bound = openDriver();
    const driverVersion = readDriverVersion(bound);
    const version = readKernelVersion();
    const known = version === undefined ? {} : { version };
    const driver = { found: true, path: bound.path, cuda: versionText(driverVersion), ...known } as const;
    return { driver, bound, driverVersion };
  } catch (error) {
    return { driver: absent(error) };
  }
}

function lookAtGpus(driver: CudaDriver): CudaFindings["gpus"] {
  try {
    initDriver(driver);
    const list = listCudaDevices(driver).map(
      ({ ordinal, name, totalMemory, computeCapability, pciBusId }) => ({
        ordinal,
        name,
        memoryBytes: totalMemory,
        computeCapability: capabilityText(computeCapability),
        pciBusId,
      }),
    );
    return { found: true, list };
  } catch (error) {
    return absent(error);
  }
}

function absent(error: unknown): Absent {
  return { found: false, reason: error instanceof Error ? error.message : String(error) };
}
