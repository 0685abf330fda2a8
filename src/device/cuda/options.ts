/** How the CUDA device works. */
import { availableParallelism, totalmem } from "node:os";
import { HeadraceError } from "../../errors.ts";
import { bounded } from "../common/checks.ts";
import type { Fault } from "../host/faults.ts";

/** Every field has a default that suits most machines. */
export interface CudaOptions {
  /** Path of the driver's libcuda; found by HEADRACE_CUDA_LIBRARY or in the system without. */
  readonly library?: string;
  /** Of the GPU, as the driver counts those that CUDA_VISIBLE_DEVICES leaves; 0 to 255, default 0. */
  readonly ordinal?: number;
  /** Threads that read, write and copy, each in a Worker of its own; 1 to 64, default one a core, but 4 at least and
   * 16 at most. */
  readonly lanes?: number;
  /** Longer requests are cut into pieces of this many bytes; 4 KiB to 1 GiB, default 4 MiB. Each slice buffer has as
   * many bytes. */
  readonly pieceBytes?: number;
  /** Pinned buffers of a lane, through which files go to and from device memory; 2 to 8, default 2: one is filled
   * while the other is on its way, and all of them together still lie in a large cache. */
  readonly sliceBuffers?: number;
  /** Bytes of mappings that are registered with the driver at once, and so locked in memory; 0 to 2^46, default half
   * of the machine's memory. With less than a window nothing is registered, and what is mapped goes through slices. */
  readonly mapBudget?: number;
  /** Mappings are registered by windows of this many bytes; a multiple of 64 KiB up to 1 GiB, default 64 MiB. One of
   * 2 MiB fits large pages. */
  readonly windowBytes?: number;
  /** Reads past the page cache (O_DIRECT), where the file system can; default false. */
  readonly direct?: boolean;
  /** Reads by GPUDirect Storage, where cuFile and the file system can; default false. `compatibility` takes cuFile also
   * where it reads into host memory itself, to compare. */
  readonly gds?: boolean | "compatibility";
  /** Path of libnvrtc, which compiles kernels; false for no kernels. Found by HEADRACE_NVRTC_LIBRARY or in the system
   * without. */
  readonly nvrtc?: string | false;
  /** Path of libcublas, which {@link Device.createMatmul} is made of; false for none. Found by HEADRACE_CUBLAS_LIBRARY or
   * in the system without. */
  readonly cublas?: string | false;
  /** Whether sequences are recorded as graphs of the driver's, where it has them; default true. */
  readonly graphs?: boolean;
  /** Submissions of copies in host memory up to this many bytes are made on the calling thread, unless that proves
   * slow; 0 to 1 GiB, default 1 MiB. */
  readonly inlineCopyBytes?: number;
  /** Pieces that can wait for a lane before more are held back; a power of two from 16 to 2^24, default 4096. */
  readonly ringEntries?: number;
  /** Failures of system calls to inject, for tests. */
  readonly faults?: readonly Fault[];
}

/** {@link CudaOptions} with all that has a default; what is found elsewhere without stays undefined. */
export type CudaSettings = Required<Omit<CudaOptions, "library" | "nvrtc" | "cublas">> &
  Readonly<{
    library: string | undefined;
    nvrtc: string | false | undefined;
    cublas: string | false | undefined;
  }>;

const KIB = 2 ** 10;
const MIB = 2 ** 20;
const GIB = 2 ** 30;
const MAX_BYTES = 2 ** 46;
/** The largest page of the systems that this runs on: registration works by whole pages. */
const PAGE = 64 * KIB;

/** Throws `BAD_OPTION` for an option out of its bounds. */
export function resolveOptions(options: CudaOptions = {}): CudaSettings {
  const { library, nvrtc, cublas } = options;
  assertPath("library", library);
  if (nvrtc !== false) assertPath("nvrtc", nvrtc);
  if (cublas !== false) assertPath("cublas", cublas);
  return {
    library,
    nvrtc,
    cublas,
    graphs: flag("graphs", options.graphs ?? true),
    ordinal: bounded("ordinal", options.ordinal ?? 0, 0, 255),
    lanes: bounded("lanes", options.lanes ?? defaultLanes(), 1, 64),
    pieceBytes: bounded("pieceBytes", options.pieceBytes ?? 4 * MIB, 4 * KIB, GIB),
    sliceBuffers: bounded("sliceBuffers", options.sliceBuffers ?? 2, 2, 8),
    mapBudget: bounded("mapBudget", options.mapBudget ?? Math.floor(totalmem() / 2), 0, MAX_BYTES),
    windowBytes: multiple("windowBytes", bounded("windowBytes", options.windowBytes ?? 64 * MIB, PAGE, GIB)),
    direct: flag("direct", options.direct),
    gds: options.gds === "compatibility" ? options.gds : flag("gds", options.gds),
    inlineCopyBytes: bounded("inlineCopyBytes", options.inlineCopyBytes ?? MIB, 0, GIB),
    ringEntries: powerOfTwo("ringEntries", bounded("ringEntries", options.ringEntries ?? 4096, 16, 2 ** 24)),
    faults: options.faults ?? [],
  };
}

function defaultLanes(): number {
  return Math.min(16, Math.max(4, availableParallelism()));
}

function multiple(name: string, value: number): number {
  if (value % PAGE === 0) return value;
  throw new HeadraceError("BAD_OPTION", `${name} ${value} is no multiple of ${PAGE}`);
}

function powerOfTwo(name: string, value: number): number {
  if ((value & (value - 1)) === 0) return value;
  throw new HeadraceError("BAD_OPTION", `${name} ${value} is not a power of two`);
}

function flag(name: string, value: boolean | undefined): boolean {
  if (value === undefined || typeof value === "boolean") return value ?? false;
  throw new HeadraceError("BAD_OPTION", `${name} ${String(value)} is neither true nor false`);
}

/** An empty path would have the loader search for it, and a zero end it early. */
function assertPath(name: string, value: string | undefined): void {
  if (value === undefined || (typeof value === "string" && value !== "" && !value.includes("\0"))) return;
  throw new HeadraceError("BAD_OPTION", `${name} ${JSON.stringify(value)} can name no library`);
}
