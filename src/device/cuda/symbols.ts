/** The functions of the CUDA driver that are used, each with its declaration in NVIDIA's `cuda.h` above it, and what
 * their arguments may be. */
import { type FFIFunction, FFIType, type FFITypeOrString } from "bun:ffi";
import { HeadraceError } from "../../errors.ts";

/** What an argument is, and how it is passed:
 * - `u32`, `i32`: an integer that fits.
 * - `size`: bytes, 0 or more.
 * - `device`: an address of the device's, not 0.
 * - `pointer`: an address of the host's or an opaque handle, not 0.
 * - `nullable`: the same, or 0 for NULL.
 * - `bytes`: a view that is not empty, which C reads or writes during the call alone. */
const PASSED = {
  u32: "u32",
  i32: "i32",
  size: "usize",
  device: "u64",
  pointer: "ptr",
  nullable: "ptr",
  bytes: "ptr",
} as const satisfies Record<string, FFITypeOrString>;

/** What a function answers: `status` a CUresult or an nvrtcResult, `address` a pointer, `count` a ssize_t,
 * `pair` two 32-bit numbers in a 64-bit register. */
const RETURNED = {
  status: "i32",
  address: "ptr",
  count: FFIType.i64_fast,
  pair: "u64",
  nothing: "void",
} as const satisfies Record<string, FFITypeOrString>;

type ArgumentKind = keyof typeof PASSED;

/** One function: its arguments, and what it answers where that is no status. */
export interface Signature {
  readonly args: readonly ArgumentKind[];
  readonly returns?: keyof typeof RETURNED;
}

interface Passed {
  u32: number;
  i32: number;
  size: number;
  device: number;
  pointer: number;
  nullable: number;
  bytes: NodeJS.TypedArray | DataView;
}
interface Returned {
  status: number;
  address: number;
  count: number;
  pair: bigint;
  nothing: undefined;
}
type Arguments<A extends readonly ArgumentKind[]> = { -readonly [K in keyof A]: Passed[A[K]] };
type Result<S extends Signature> = S["returns"] extends keyof Returned ? Returned[S["returns"]] : number;

/** The functions of a table as TypeScript calls them. A call with an argument that is missing, fractional or too large
 * throws `BAD_OPTION`, which only a mistake in this folder can cause: C would take it for NULL or another number. */
export type Functions<T extends Readonly<Record<string, Signature>>> = {
  readonly [K in keyof T]: (...args: Arguments<T[K]["args"]>) => Result<T[K]>;
};

/** The table as `dlopen` wants it. */
export function ffiTable(table: Readonly<Record<string, Signature>>): Record<string, FFIFunction> {
  return Object.fromEntries(
    Object.entries(table).map(([name, { args, returns = "status" }]) => [
      name,
      { args: args.map((kind) => PASSED[kind]), returns: RETURNED[returns] },
    ]),
  );
}

/** Puts the checks in front of what `dlopen` has bound. */
export function checkedFunctions<T extends Readonly<Record<string, Signature>>>(
  table: T,
  bound: object,
): Functions<T> {
  const functions = bound as Readonly<Record<string, (...args: unknown[]) => unknown>>;
  const wrapped = Object.entries(table).map(([name, { args, returns }]) => {
    const call = functions[name]!;
    const checks = args.map((kind) => CHECKS[kind]);
    const wrapper = (...given: unknown[]) => {
      if (given.length !== checks.length) {
        throw refused(name, `${given.length} of ${checks.length} arguments`);
      }
      for (let i = 0; i < checks.length; i++) {
        if (!checks[i]!(given[i])) throw refused(name, `argument ${i} ${String(given[i])}`);
      }
      const answer = call(...given);
      // NULL arrives as null.
      return returns === "address" ? Number(answer ?? 0) : answer;
    };
    return [name, wrapper];
  });
  return Object.fromEntries(wrapped) as Functions<T>;
}

const CHECKS: Readonly<Record<ArgumentKind, (value: unknown) => boolean>> = {
  u32: (value) => typeof value === "number" && value === value >>> 0,
  i32: (value) => typeof value === "number" && value === (value | 0),
  size: (value) => Number.isSafeInteger(value) && (value as number) >= 0,
  device: (value) => Number.isSafeInteger(value) && (value as number) > 0,
  pointer: (value) => Number.isSafeInteger(value) && (value as number) > 0,
  nullable: (value) => Number.isSafeInteger(value) && (value as number) >= 0,
  bytes: (value) => ArrayBuffer.isView(value) && value.byteLength > 0,
};

function refused(name: string, what: string): HeadraceError {
  return new HeadraceError("BAD_OPTION", `${name} cannot be called with ${what}`);
}

/** libcuda. Its handles (CUcontext, CUstream, CUevent, CUmodule, CUfunction) are pointers, a CUdevice is an int, and a
 * CUdeviceptr an unsigned long long. Names end in `_v2` where the header renames the function to that. */
export const DRIVER_SYMBOLS = {
  // CUresult cuInit(unsigned int Flags);
  cuInit: { args: ["u32"] },
  // CUresult cuDriverGetVersion(int *driverVersion);
  cuDriverGetVersion: { args: ["bytes"] },
  // CUresult cuGetErrorName(CUresult error, const char **pStr);
  cuGetErrorName: { args: ["i32", "bytes"] },
  // CUresult cuGetErrorString(CUresult error, const char **pStr);
  cuGetErrorString: { args: ["i32", "bytes"] },
  // CUresult cuDeviceGetCount(int *count);
  cuDeviceGetCount: { args: ["bytes"] },
  // CUresult cuDeviceGet(CUdevice *device, int ordinal);
  cuDeviceGet: { args: ["bytes", "i32"] },
  // CUresult cuDeviceGetName(char *name, int len, CUdevice dev);
  cuDeviceGetName: { args: ["bytes", "i32", "i32"] },
  // CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice dev);
  cuDeviceTotalMem_v2: { args: ["bytes", "i32"] },
  // CUresult cuDeviceGetAttribute(int *pi, CUdevice_attribute attrib, CUdevice dev);
  cuDeviceGetAttribute: { args: ["bytes", "i32", "i32"] },
  // CUresult cuDeviceGetPCIBusId(char *pciBusId, int len, CUdevice dev);
  cuDeviceGetPCIBusId: { args: ["bytes", "i32", "i32"] },
  // CUresult cuCtxCreate_v2(CUcontext *pctx, unsigned int flags, CUdevice dev);
  cuCtxCreate_v2: { args: ["bytes", "u32", "i32"] },
  // CUresult cuCtxDestroy_v2(CUcontext ctx);
  cuCtxDestroy_v2: { args: ["pointer"] },
  // CUresult cuCtxSetCurrent(CUcontext ctx);
  cuCtxSetCurrent: { args: ["nullable"] },
  // CUresult cuCtxSynchronize(void);
  cuCtxSynchronize: { args: [] },
  // CUresult cuMemGetInfo_v2(size_t *free, size_t *total);
  cuMemGetInfo_v2: { args: ["bytes", "bytes"] },
  // CUresult cuMemAlloc_v2(CUdeviceptr *dptr, size_t bytesize);
  cuMemAlloc_v2: { args: ["bytes", "size"] },
  // CUresult cuMemFree_v2(CUdeviceptr dptr);
  cuMemFree_v2: { args: ["device"] },
  // CUresult cuMemHostRegister_v2(void *p, size_t bytesize, unsigned int Flags);
  cuMemHostRegister_v2: { args: ["pointer", "size", "u32"] },
  // CUresult cuMemHostUnregister(void *p);
  cuMemHostUnregister: { args: ["pointer"] },
  // CUresult cuMemHostGetDevicePointer_v2(CUdeviceptr *pdptr, void *p, unsigned int Flags);
  cuMemHostGetDevicePointer_v2: { args: ["bytes", "pointer", "u32"] },
  // CUresult cuMemcpyAsync(CUdeviceptr dst, CUdeviceptr src, size_t ByteCount, CUstream hStream);
  cuMemcpyAsync: { args: ["device", "device", "size", "pointer"] },
  // CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr dstDevice, const void *srcHost, size_t ByteCount, CUstream hStream);
  cuMemcpyHtoDAsync_v2: { args: ["device", "pointer", "size", "pointer"] },
  // CUresult cuMemcpyDtoHAsync_v2(void *dstHost, CUdeviceptr srcDevice, size_t ByteCount, CUstream hStream);
  cuMemcpyDtoHAsync_v2: { args: ["pointer", "device", "size", "pointer"] },
  // CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr dstDevice, CUdeviceptr srcDevice, size_t ByteCount, CUstream hStream);
  cuMemcpyDtoDAsync_v2: { args: ["device", "device", "size", "pointer"] },
  // CUresult cuMemsetD8Async(CUdeviceptr dstDevice, unsigned char uc, size_t N, CUstream hStream);
  cuMemsetD8Async: { args: ["device", "u32", "size", "pointer"] },
  // CUresult cuStreamCreate(CUstream *phStream, unsigned int Flags);
  cuStreamCreate: { args: ["bytes", "u32"] },
  // CUresult cuStreamDestroy_v2(CUstream hStream);
  cuStreamDestroy_v2: { args: ["pointer"] },
  // CUresult cuStreamWaitEvent(CUstream hStream, CUevent hEvent, unsigned int Flags);
  cuStreamWaitEvent: { args: ["pointer", "pointer", "u32"] },
  // CUresult cuStreamSynchronize(CUstream hStream);
  cuStreamSynchronize: { args: ["pointer"] },
  // CUresult cuStreamQuery(CUstream hStream);
  cuStreamQuery: { args: ["pointer"] },
  // CUresult cuEventCreate(CUevent *phEvent, unsigned int Flags);
  cuEventCreate: { args: ["bytes", "u32"] },
  // CUresult cuEventDestroy_v2(CUevent hEvent);
  cuEventDestroy_v2: { args: ["pointer"] },
  // CUresult cuEventRecord(CUevent hEvent, CUstream hStream);
  cuEventRecord: { args: ["pointer", "pointer"] },
  // CUresult cuEventQuery(CUevent hEvent);
  cuEventQuery: { args: ["pointer"] },
  // CUresult cuEventSynchronize(CUevent hEvent);
  cuEventSynchronize: { args: ["pointer"] },
  // CUresult cuModuleLoadData(CUmodule *module, const void *image);
  cuModuleLoadData: { args: ["bytes", "bytes"] },
  // CUresult cuModuleUnload(CUmodule hmod);
  cuModuleUnload: { args: ["pointer"] },
  // CUresult cuModuleGetFunction(CUfunction *hfunc, CUmodule hmod, const char *name);
  cuModuleGetFunction: { args: ["bytes", "pointer", "bytes"] },
  // CUresult cuFuncSetAttribute(CUfunction hfunc, CUfunction_attribute attrib, int value);
  cuFuncSetAttribute: { args: ["pointer", "i32", "i32"] },
  // CUresult cuFuncGetAttribute(int *pi, CUfunction_attribute attrib, CUfunction hfunc);
  cuFuncGetAttribute: { args: ["bytes", "i32", "pointer"] },
  // CUresult cuLaunchKernel(CUfunction f, unsigned int gridDimX, unsigned int gridDimY, unsigned int gridDimZ, unsigned int blockDimX, unsigned int blockDimY, unsigned int blockDimZ, unsigned int sharedMemBytes, CUstream hStream, void **kernelParams, void **extra);
  cuLaunchKernel: {
    args: ["pointer", "u32", "u32", "u32", "u32", "u32", "u32", "u32", "pointer", "nullable", "nullable"],
  },
} as const satisfies Record<string, Signature>;

/** The same function by its newer name (since CUDA 12.8) and by its older one. */
export const ELAPSED_NAMES = ["cuEventElapsedTime_v2", "cuEventElapsedTime"] as const;

/** What is bound under either of {@link ELAPSED_NAMES}. */
export const ELAPSED_SIGNATURE = {
  // CUresult cuEventElapsedTime_v2(float *pMilliseconds, CUevent hStart, CUevent hEnd);
  args: ["bytes", "pointer", "pointer"],
} as const satisfies Signature;
