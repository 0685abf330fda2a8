/** What a GPU says of itself. */
import type { Capabilities, Device } from "../device.ts";
import { MAX_LENGTH } from "../host/memory.ts";
import { OutCell, textOf } from "./cells.ts";
import type { CudaDriver } from "./driver.ts";
import { checkResult } from "./errors.ts";
import { HeadraceError } from "../../errors.ts";
import type { NvrtcSearch } from "./nvrtc.ts";
import type { CudaSettings } from "./options.ts";
export interface CudaInfo { device: number; name: string; computeCapability: number; driverVersion: number; totalMemory: number; readOnly: boolean; hostRegister: boolean; hostPointer: boolean }
export function readCudaInfo(driver: CudaDriver, ordinal: number): CudaInfo {
  const o = new OutCell(); const { symbols: s } = driver;
  checkResult(driver, "count", s.cuDeviceGetCount(o.clear()));
  if (ordinal >= o.i32) throw new HeadraceError("BAD_OPTION", `ordinal ${ordinal}: CUDA has ${o.i32} devices on this machine`);
  checkResult(driver, "get", s.cuDeviceGet(o.clear(), ordinal)); const device = o.i32;
  const n = new Uint8Array(new ArrayBuffer(256)); checkResult(driver, "name", s.cuDeviceGetName(n, 256, device));
  const attr = (a: number) => { checkResult(driver, "attr", s.cuDeviceGetAttribute(o.clear(), a, device)); return o.i32; };
  const computeCapability = attr(75) * 10 + attr(76);
  checkResult(driver, "v", s.cuDriverGetVersion(o.clear())); const driverVersion = o.i32;
  checkResult(driver, "m", s.cuDeviceTotalMem_v2(o.clear(), device)); const totalMemory = o.u64;
  return { device, name: textOf(n), computeCapability, driverVersion, totalMemory, readOnly: attr(113) === 1, hostRegister: attr(99) === 1, hostPointer: attr(91) === 1 };
}
export function capabilitiesOf(i: CudaInfo, s: CudaSettings, pageSize: number): Capabilities {
  return { name: i.name, pageSize, unifiedMemory: false, canMap: mappingRegistration(i).refused === undefined, maxBufferLength: MAX_LENGTH, maxMapLength: MAX_LENGTH, workingSet: i.totalMemory, offsetAlignment: 16, lanes: s.lanes, codecs: [], canStream: false };
}
export function factsOf(i: CudaInfo, d: CudaDriver, n: NvrtcSearch): Device["facts"] { return { driver: d.path, cuda: i.driverVersion, nvrtc: n.nvrtc?.path ?? "none" }; }
export function mappingRegistration(i: CudaInfo): { refused: string | undefined; flags: number } {
  return { refused: i.hostRegister && i.hostPointer ? undefined : "no registration", flags: i.readOnly ? 11 : 3 };
}
