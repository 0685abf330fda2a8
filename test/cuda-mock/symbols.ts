/** CUDA's functions bound as they are, for tests of the mock itself: codes come back as numbers, nothing is checked. */
import { dlopen, type Pointer, ptr, read, toArrayBuffer } from "bun:ffi";
import { MAP_PRIVATE, openLibc, PROT_READ, PROT_WRITE } from "../../src/device/host/libc.ts";

const P = "ptr";
const code = <const T extends readonly ("ptr" | "u64" | "u32" | "i32" | "u8" | "i64")[]>(...args: T) =>
  ({ args, returns: "i32" }) as const;

const SYMBOLS = {
  cuInit: code("u32"),
  cuDriverGetVersion: code(P),
  cuGetErrorName: code("i32", P),
  cuGetErrorString: code("i32", P),
  cuDeviceGetCount: code(P),
  cuDeviceGet: code(P, "i32"),
  cuDeviceGetName: code(P, "i32", "i32"),
  cuDeviceTotalMem_v2: code(P, "i32"),
  cuDeviceGetAttribute: code(P, "i32", "i32"),
  cuDeviceGetPCIBusId: code(P, "i32", "i32"),
  cuCtxCreate_v2: code(P, "u32", "i32"),
  cuCtxDestroy_v2: code("u64"),
  cuCtxSetCurrent: code("u64"),
  cuCtxSynchronize: code(),
  cuMemGetInfo_v2: code(P, P),
  cuMemAlloc_v2: code(P, "u64"),
  cuMemFree_v2: code("u64"),
  cuMemHostRegister_v2: code("u64", "u64", "u32"),
  cuMemHostUnregister: code("u64"),
  cuMemHostGetDevicePointer_v2: code(P, "u64", "u32"),
  cuMemcpyAsync: code("u64", "u64", "u64", "u64"),
  cuMemcpyHtoDAsync_v2: code("u64", "u64", "u64", "u64"),
  cuMemcpyDtoHAsync_v2: code("u64", "u64", "u64", "u64"),
  cuMemcpyDtoDAsync_v2: code("u64", "u64", "u64", "u64"),
  cuMemsetD8Async: code("u64", "u8", "u64", "u64"),
  cuStreamCreate: code(P, "u32"),
  cuStreamDestroy_v2: code("u64"),
  cuStreamWaitEvent: code("u64", "u64", "u32"),
  cuStreamSynchronize: code("u64"),
  cuStreamQuery: code("u64"),
  cuEventCreate: code(P, "u32"),
  cuEventDestroy_v2: code("u64"),
  cuEventRecord: code("u64", "u64"),
  cuEventQuery: code("u64"),
  cuEventSynchronize: code("u64"),
  cuEventElapsedTime: code(P, "u64", "u64"),
  cuEventElapsedTime_v2: code(P, "u64", "u64"),
  cuModuleLoadData: code(P, P),
  cuModuleUnload: code("u64"),
  cuModuleGetFunction: code(P, "u64", P),
  cuFuncSetAttribute: code("u64", "i32", "i32"),
  cuFuncGetAttribute: code(P, "i32", "u64"),
  cuLaunchKernel: code("u64", "u32", "u32", "u32", "u32", "u32", "u32", "u32", "u64", P, P),
  cuStreamBeginCapture_v2: code("u64", "i32"),
  cuStreamEndCapture: code("u64", P),
  cuGraphDestroy: code("u64"),
  cuGraphInstantiateWithFlags: code(P, "u64", "u64"),
  cuGraphLaunch: code("u64", "u64"),
  cuGraphExecDestroy: code("u64"),
  cublasGetProperty: code("i32", P),
  cublasCreate_v2: code(P),
  cublasDestroy_v2: code("u64"),
  cublasSetStream_v2: code("u64", "u64"),
  cublasSetWorkspace_v2: code("u64", "u64", "u64"),
  cublasGemmEx: {
    args: [
      ...(["u64", "i32", "i32", "i32", "i32", "i32", P, "u64", "i32", "i32"] as const),
      ...(["u64", "i32", "i32", P, "u64", "i32", "i32", "i32", "i32"] as const),
    ],
    returns: "i32",
  },
  nvrtcVersion: code(P, P),
  nvrtcCreateProgram: code(P, P, P, "i32", P, P),
  nvrtcDestroyProgram: code(P),
  nvrtcCompileProgram: code("u64", "i32", P),
  nvrtcGetProgramLogSize: code("u64", P),
  nvrtcGetProgramLog: code("u64", P),
  nvrtcGetPTXSize: code("u64", P),
  nvrtcGetPTX: code("u64", P),
  nvrtcGetCUBINSize: code("u64", P),
  nvrtcGetCUBIN: code("u64", P),
  nvrtcGetNumSupportedArchs: code(P),
  nvrtcGetSupportedArchs: code(P),
  // A struct of two ints in one register: the low half is cuFile's code, the high half CUDA's.
  cuFileDriverOpen: { args: [], returns: "u64" },
  cuFileDriverClose_v2: { args: [], returns: "u64" },
  cuFileDriverGetProperties: { args: [P], returns: "u64" },
  cuFileHandleRegister: { args: [P, P], returns: "u64" },
  cuFileHandleDeregister: { args: ["u64"], returns: "void" },
  cuFileBufRegister: { args: ["u64", "u64", "i32"], returns: "u64" },
  cuFileBufDeregister: { args: ["u64"], returns: "u64" },
  cuFileRead: { args: ["u64", "u64", "u64", "i64", "i64"], returns: "i64" },
  cuFileWrite: { args: ["u64", "u64", "u64", "i64", "i64"], returns: "i64" },
} as const;

export type CudaSymbols = ReturnType<typeof bindCuda>;

/** Binds every function that the mock exports. */
export function bindCuda(path: string) {
  return dlopen(path, SYMBOLS).symbols;
}

/** What a call leaves in 8 bytes. Throws unless the call gives 0. */
export function made(call: (out: BigUint64Array) => number): number {
  const out = new BigUint64Array(1);
  const result = call(out);
  if (result !== 0) throw new Error(`gave ${result}`);
  return Number(out[0]);
}

/** What a call leaves in 4 bytes. Throws unless the call gives 0. */
export function int(call: (out: Int32Array) => number): number {
  const out = new Int32Array(1);
  const result = call(out);
  if (result !== 0) throw new Error(`gave ${result}`);
  return out[0]!;
}

/** Text with the byte that ends it. */
export function text(value: string): Uint8Array {
  return new TextEncoder().encode(`${value}\0`);
}

/** The text at an address, up to its 0. */
export function textAt(address: number): string {
  const bytes: number[] = [];
  for (let at = 0; ; at++) {
    const byte = read.u8(address as Pointer, at);
    if (byte === 0) return new TextDecoder().decode(Uint8Array.from(bytes));
    bytes.push(byte);
  }
}

/** Anonymous memory of whole pages. Its owner calls `free`, and uses `bytes` no longer. */
export interface HostMemory {
  readonly address: number;
  readonly bytes: Uint8Array;
  free(): void;
}

export function hostMemory(byteLength: number): HostMemory {
  const libc = openLibc();
  const flags = MAP_PRIVATE | libc.platform.MAP_ANONYMOUS;
  const address = Number(libc.mmap(byteLength, PROT_READ | PROT_WRITE, flags, -1, 0));
  const bytes = new Uint8Array(toArrayBuffer(address as Pointer, 0, byteLength));
  return { address, bytes, free: () => void libc.munmap(address, byteLength) };
}

/** The address of a view's bytes. */
export function addressOf(view: Uint8Array): number {
  return Number(ptr(view));
}
