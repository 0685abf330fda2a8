/**
 * The CUDA device as subjects: over the mock of the driver where that can be compiled, in the ways that machines and
 * options differ, and over a GPU where there is one.
 */

import { openCublas } from "../../src/device/cuda/cublas.ts";
import { initDriver, openDriver } from "../../src/device/cuda/driver.ts";
import type { Device } from "../../src/device/device.ts";
import { type OpenDeviceOptions, openDevice } from "../../src/device/open.ts";
import { HeadraceError } from "../../src/errors.ts";
import { buildCudaMock, type CudaMock, type MockConfig, openCudaMock } from "../cuda-mock/mock.ts";
import type { Subject } from "./harness.ts";

/** Bound, or why there is none. */
export type OpenedMock = { readonly path: string; readonly mock: CudaMock } | { readonly missing: string };

/** The mock of the driver, compiled where that was not done yet. */
export function cudaMock(): OpenedMock {
  const built = buildCudaMock();
  return "missing" in built ? built : { path: built.path, mock: openCudaMock(built.path) };
}

/** What a variant changes; all others have what is here, as one process has one mock. */
const USUAL = {
  seed: 1,
  maxDelayUs: 0,
  pieceBytes: 2 ** 20,
  freeWaits: false,
  // One case that loses its context does not fail all after it.
  contextAfterLoss: true,
  attributes: { 91: 1, 99: 1, 113: 1 },
} as const satisfies MockConfig;

interface Variant {
  readonly name: string;
  readonly options?: OpenDeviceOptions;
  readonly config?: MockConfig;
  readonly runsKernels?: boolean;
}

const TINY: OpenDeviceOptions = {
  lanes: 1,
  pieceBytes: 4096,
  sliceBuffers: 2,
  windowBytes: 65_536,
  inlineCopyBytes: 0,
};

const VARIANTS: readonly Variant[] = [
  { name: "" },
  { name: " with one lane, tiny pieces and no inline copies", options: TINY },
  // Operations of one stream overtake another's wherever no event holds them.
  { name: " with shuffled streams", config: { maxDelayUs: 400, pieceBytes: 3000 } },
  {
    name: " on the second GPU with shuffled streams and tiny pieces",
    options: { ...TINY, lanes: 3, ordinal: 1 },
    config: { maxDelayUs: 150, pieceBytes: 1000, seed: 7 },
  },
  { name: " without graphs", options: { graphs: false } },
  { name: " without NVRTC", options: { nvrtc: false }, runsKernels: false },
  // What is mapped is staged.
  { name: " without registration of mappings", options: { mapBudget: 0 } },
];

/** Every variant that this machine can try. */
export function cudaSubjects(): Subject[] {
  const opened = cudaMock();
  const mocked = "missing" in opened ? [] : VARIANTS.map((variant) => mockSubject(opened, variant));
  return hasGpu() ? [...mocked, gpuSubject()] : mocked;
}

function mockSubject({ path, mock }: { path: string; mock: CudaMock }, variant: Variant): Subject {
  const { name, config = {}, options = {}, runsKernels = true } = variant;
  const open = (more: OpenDeviceOptions): Device => {
    mock.configure({ ...USUAL, ...config, attributes: { ...USUAL.attributes, ...config.attributes } });
    return openDevice("cuda", { library: path, nvrtc: path, cublas: path, ...options, ...more });
  };
  return {
    name: `cuda (mock)${name}`,
    movesData: true,
    runsHostKernels: false,
    runsKernels,
    multiplies: true,
    open: () => open({}),
    openWithFaults: (faults) => open({ faults }),
  };
}

/** Whether there is a driver with a GPU, by the search that the device makes. */
function hasGpu(): boolean {
  try {
    initDriver(openDriver());
    return true;
  } catch (error) {
    if (error instanceof HeadraceError && error.code === "DEVICE_UNAVAILABLE") return false;
    throw error;
  }
}

function gpuSubject(): Subject {
  return {
    name: "cuda",
    movesData: true,
    runsHostKernels: false,
    multiplies: openCublas().cublas !== undefined,
    open: () => openDevice("cuda"),
    openWithFaults: (faults) => openDevice("cuda", { faults }),
  };
}
