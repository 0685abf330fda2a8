/** What the library says of its device. */
import type { Capabilities, Device } from "../device.ts";
import { DeviceFlag, STRUCTS } from "./abi.ts";
import type { MetalContext } from "./context.ts";
import { NativeError } from "./errors.ts";
import type { MetalLibrary } from "./library.ts";
import { CODECS } from "./options.ts";

/** The fields of hr_device_info. */
export interface DeviceInfo {
  readonly flags: number;
  readonly gpuFamily: number;
  readonly metalVersion: number;
  readonly simdWidth: number;
  readonly codecs: number;
  readonly lanes: number;
  readonly performanceCores: number;
  readonly pageSize: number;
  readonly maxBufferLength: number;
  readonly workingSet: number;
  readonly maxMapLength: number;
  readonly mapBudget: number;
  readonly maxThreadgroupMemory: number;
  readonly allocatedSize: number;
  readonly name: string;
}

/** Throws `DEVICE_LOST` and the like. */
export function readDeviceInfo(symbols: MetalLibrary["symbols"], handle: number): DeviceInfo {
  const { byteLength, fields: at } = STRUCTS.hr_device_info;
  const bytes = new Uint8Array(new ArrayBuffer(byteLength));
  const error = new NativeError();
  const status = symbols.hr_device_info_get(handle, bytes, error.bytes);
  if (status < 0) throw error.toError(status, "the Metal device");
  const view = new DataView(bytes.buffer);
  const u32 = (field: number) => view.getUint32(field, true);
  const u64 = (field: number) => Number(view.getBigUint64(field, true));
  const end = bytes.indexOf(0, at.name);
  return {
    flags: u32(at.flags),
    gpuFamily: u32(at.gpu_family),
    metalVersion: u32(at.metal_version),
    simdWidth: u32(at.simd_width),
    codecs: u32(at.codecs),
    lanes: u32(at.lanes),
    performanceCores: u32(at.performance_cores),
    pageSize: u64(at.page_size),
    maxBufferLength: u64(at.max_buffer_length),
    workingSet: u64(at.working_set),
    maxMapLength: u64(at.max_map_length),
    mapBudget: u64(at.map_budget),
    maxThreadgroupMemory: u64(at.max_threadgroup_memory),
    allocatedSize: u64(at.allocated_size),
    name: new TextDecoder().decode(bytes.subarray(at.name, end < 0 ? byteLength : end)),
  };
}

export function isStandIn({ flags }: DeviceInfo): boolean {
  return (flags & DeviceFlag.STAND_IN) !== 0;
}

export function capabilitiesOf(info: DeviceInfo): Capabilities {
  const unifiedMemory = (info.flags & DeviceFlag.UNIFIED_MEMORY) !== 0;
  return {
    name: isStandIn(info) ? "Metal stand-in" : info.name,
    pageSize: info.pageSize,
    unifiedMemory,
    // Elsewhere each access of the GPU to mapped pages would cross a bus.
    canMap: unifiedMemory,
    maxBufferLength: info.maxBufferLength,
    maxMapLength: info.maxMapLength,
    workingSet: info.workingSet,
    // Of the widest element that kernels read; those that read vectors of them look at the offset.
    offsetAlignment: 8,
    lanes: info.lanes,
    codecs: Object.entries(CODECS).flatMap(([name, bit]) => ((info.codecs >>> bit) & 1 ? [name] : [])),
    canStream: (info.flags & DeviceFlag.CAN_STREAM) !== 0,
  };
}

/** Whether `hr_matmul_create` works. */
export function canMultiply({ flags }: DeviceInfo): boolean {
  return (flags & DeviceFlag.MATMUL) !== 0;
}

export function factsOf(info: DeviceInfo, library: MetalLibrary, context: MetalContext): Device["facts"] {
  const { flags, metalVersion } = info;
  return {
    device: info.name,
    library: library.path,
    standIn: isStandIn(info),
    gpuFamily: info.gpuFamily === 0 ? "none" : `Apple ${info.gpuFamily}`,
    metalVersion: `${metalVersion >>> 16}.${metalVersion & 0xffff}`,
    simdWidth: info.simdWidth,
    performanceCores: info.performanceCores,
    mapBudget: info.mapBudget,
    maxThreadgroupMemory: info.maxThreadgroupMemory,
    allocatedSize: info.allocatedSize,
    matrixProducts: canMultiply(info),
    residencySets: (flags & DeviceFlag.RESIDENCY_SETS) !== 0,
    removable: (flags & DeviceFlag.REMOVABLE) !== 0,
    lowPower: (flags & DeviceFlag.LOW_POWER) !== 0,
    openHandles: context.closed ? 0 : context.symbols.hr_device_open_handles(context.handle),
  };
}
