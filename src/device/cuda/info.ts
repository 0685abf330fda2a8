/** What the driver says of its GPUs, and what the device makes of it. */
import { readFileSync } from "node:fs";
import { HeadraceError } from "../../errors.ts";
import type { Capabilities, Device } from "../device.ts";
import { MAX_LENGTH } from "../host/memory.ts";
import { OutCell, textOf } from "./cells.ts";
import { capabilityText } from "./compile.ts";
import type { CudaDriver } from "./driver.ts";
import { checkResult } from "./errors.ts";
import { REGISTER_READ_ONLY, REGISTER_SHARED } from "./flags.ts";
import { type NvrtcSearch, versionText } from "./nvrtc.ts";
import type { CudaSettings } from "./options.ts";

/** One GPU. */
export interface CudaInfo {
  readonly ordinal: number;
  /** The CUdevice. */
  readonly device: number;
  /** `NVIDIA H100 80GB HBM3` */
  readonly name: string;
  /** As 90 for 9.0. */
  readonly computeCapability: number;
  /** The newest CUDA version that the driver takes, as 12040 for 12.4. */
  readonly driverVersion: number;
  /** Of device memory, in bytes. */
  readonly totalMemory: number;
  /** `0000:1B:00.0` */
  readonly pciBusId: string;
  /** Whether the GPU's memory is the host's. */
  readonly integrated: boolean;
  /** Whether read-only mappings can be registered. */
  readonly readOnly: boolean;
  readonly hostRegister: boolean;
  /** Whether registered memory has the same address for the GPU. */
  readonly hostPointer: boolean;
  /** Whether the GPU can reach memory that is not registered. */
  readonly pageable: boolean;
  /** Copies that can run beside kernels and each other. */
  readonly copyEngines: number;
  readonly multiprocessors: number;
  /** Bytes that one group can have at most. */
  readonly maxThreadgroupMemory: number;
}

/** Of `enum CUdevice_attribute`. */
const Attribute = {
  multiprocessors: 16,
  integrated: 18,
  copyEngines: 40,
  capabilityMajor: 75,
  capabilityMinor: 76,
  pageable: 88,
  hostPointer: 91,
  maxThreadgroupMemory: 97,
  hostRegister: 99,
  readOnly: 113,
} as const;

const TEXT_BYTES = 256;

/** How many GPUs the driver shows to this process. Throws `DEVICE_FAILED` and the like. */
export function countDevices(driver: CudaDriver): number {
  const cell = new OutCell();
  checkResult(driver, "device cuda: cuDeviceGetCount", driver.symbols.cuDeviceGetCount(cell.clear()));
  return cell.i32;
}

/** The newest CUDA version that the driver takes, as 12040 for 12.4. */
export function readDriverVersion(driver: CudaDriver): number {
  const cell = new OutCell();
  checkResult(driver, "device cuda: cuDriverGetVersion", driver.symbols.cuDriverGetVersion(cell.clear()));
  return cell.i32;
}

/** Asks for all of one GPU; the driver is initialised, and no context is needed. Throws `BAD_OPTION` for an ordinal
 * that is not there. */
export function readCudaInfo(driver: CudaDriver, ordinal: number): CudaInfo {
  const count = countDevices(driver);
  if (ordinal >= count) {
    const shown = count === 1 ? "1 GPU, 0" : `${count} GPUs, 0 to ${count - 1}`;
    const text = `ordinal ${ordinal} is not there: the driver shows ${shown}`;
    throw new HeadraceError("BAD_OPTION", `device cuda: ${text}; look at CUDA_VISIBLE_DEVICES`);
  }
  const { symbols } = driver;
  const cell = new OutCell();
  const check = (call: string, result: number) =>
    checkResult(driver, `device cuda: ${call} of GPU ${ordinal}`, result);
  check("cuDeviceGet", symbols.cuDeviceGet(cell.clear(), ordinal));
  const device = cell.i32;
  const text = (call: "cuDeviceGetName" | "cuDeviceGetPCIBusId") => {
    const bytes = new Uint8Array(new ArrayBuffer(TEXT_BYTES));
    check(call, symbols[call](bytes, bytes.length, device));
    return textOf(bytes);
  };
  const attribute = (number: number) => {
    check(`cuDeviceGetAttribute ${number}`, symbols.cuDeviceGetAttribute(cell.clear(), number, device));
    return cell.i32;
  };
  check("cuDeviceTotalMem", symbols.cuDeviceTotalMem_v2(cell.clear(), device));
  const totalMemory = cell.u64;
  return {
    ordinal,
    device,
    name: text("cuDeviceGetName"),
    computeCapability: attribute(Attribute.capabilityMajor) * 10 + attribute(Attribute.capabilityMinor),
    driverVersion: readDriverVersion(driver),
    totalMemory,
    pciBusId: text("cuDeviceGetPCIBusId"),
    integrated: attribute(Attribute.integrated) !== 0,
    readOnly: attribute(Attribute.readOnly) !== 0,
    hostRegister: attribute(Attribute.hostRegister) !== 0,
    hostPointer: attribute(Attribute.hostPointer) !== 0,
    pageable: attribute(Attribute.pageable) !== 0,
    copyEngines: attribute(Attribute.copyEngines),
    multiprocessors: attribute(Attribute.multiprocessors),
    maxThreadgroupMemory: attribute(Attribute.maxThreadgroupMemory),
  };
}

/** All GPUs that the driver shows. Throws as {@link readCudaInfo}. */
export function listCudaDevices(driver: CudaDriver): CudaInfo[] {
  return Array.from({ length: countDevices(driver) }, (_, ordinal) => readCudaInfo(driver, ordinal));
}

/** How mappings are registered: the flags, or why they cannot be. */
export interface MappingRegistration {
  readonly refused: string | undefined;
  readonly flags: number;
}

export function mappingRegistration(info: CudaInfo): MappingRegistration {
  // Without the flag the driver wants pages that can be written, which a mapping to read may still refuse it.
  const flags = info.readOnly ? REGISTER_READ_ONLY : REGISTER_SHARED;
  if (!info.hostRegister && !info.readOnly) {
    return { refused: `${info.name} cannot register host memory`, flags };
  }
  if (!info.hostPointer) {
    return { refused: `${info.name} sees host memory at other addresses than the host`, flags };
  }
  return { refused: undefined, flags };
}

/** The compute capability that brought `mma` of bfloats. */
const BFLOAT_UNITS = 80;

export function capabilitiesOf(info: CudaInfo, settings: CudaSettings, pageSize: number): Capabilities {
  return {
    name: info.name,
    pageSize,
    // Also where host and GPU share one memory: kernels reach `private` buffers faster there as well.
    unifiedMemory: false,
    canMap: mappingRegistration(info).refused === undefined,
    // More than any memory has: what the driver refuses is `OUT_OF_MEMORY`, as it depends on what is free.
    maxBufferLength: MAX_LENGTH,
    maxMapLength: MAX_LENGTH,
    workingSet: info.totalMemory,
    // Of the widest element that kernel texts know; an address that is not aligned would end the context. Kernels that
    // read vectors of elements look at the address themselves.
    offsetAlignment: 8,
    lanes: settings.lanes,
    codecs: [],
    canStream: false,
    matrixUnits: info.computeCapability >= BFLOAT_UNITS,
  };
}

/** What is known of a device beyond its GPU. */
export interface MoreFacts {
  /** Device memory that is free now, in bytes. */
  readonly freeMemoryBytes?: number | undefined;
  /** In words: how GPUDirect Storage works, or why it does not. */
  readonly gds?: string | undefined;
}

export function factsOf(
  info: CudaInfo,
  driver: CudaDriver,
  nvrtc: NvrtcSearch,
  { freeMemoryBytes, gds }: MoreFacts = {},
): Device["facts"] {
  const version = readKernelVersion();
  const { refused, flags } = mappingRegistration(info);
  return {
    library: driver.path,
    ...(version === undefined ? {} : { driver: version }),
    cuda: versionText(info.driverVersion),
    ordinal: info.ordinal,
    pciBusId: info.pciBusId,
    computeCapability: capabilityText(info.computeCapability),
    multiprocessors: info.multiprocessors,
    copyEngines: info.copyEngines,
    integrated: info.integrated,
    pageableAccess: info.pageable,
    registration: refused ?? (flags === REGISTER_READ_ONLY ? "read-only" : "memory that can be written"),
    maxThreadgroupMemory: info.maxThreadgroupMemory,
    totalMemoryBytes: info.totalMemory,
    ...(freeMemoryBytes === undefined ? {} : { freeMemoryBytes }),
    nvrtc: nvrtc.nvrtc === undefined ? `none: ${nvrtc.reason}` : nvrtcText(nvrtc.nvrtc),
    ...(gds === undefined ? {} : { gds }),
  };
}

function nvrtcText({ path, version }: { path: string; version: number }): string {
  return `${versionText(version)}, ${path}`;
}

/** Device memory that is free now, in bytes, of the GPU whose context is current; undefined where the driver does not
 * say. */
export function readFreeMemory(driver: CudaDriver): number | undefined {
  const free = new OutCell();
  const total = new OutCell();
  return driver.symbols.cuMemGetInfo_v2(free.clear(), total.clear()) === 0 ? free.u64 : undefined;
}

/** Where the kernel's part of the driver shows itself. */
const KERNEL_VERSION = "/proc/driver/nvidia/version";

/** Version of the driver's part in the kernel, as nvidia-smi shows it: `580.65.06`. Undefined where there is none, and
 * under WSL, which has it in Windows. */
export function readKernelVersion(path: string = KERNEL_VERSION): string | undefined {
  try {
    return /^NVRM version:.*?\s(\d+\.\d+(?:\.\d+)?)\s/m.exec(readFileSync(path, "utf8"))?.[1];
  } catch {
    return undefined;
  }
}
