/** From the CUDA driver's results to this project's codes. What each result means for context and process is as the
 * comments of `enum cudaError_enum` in NVIDIA's `cuda.h` (CUDA 13) have it. */
import { CString, type Pointer } from "bun:ffi";
import { type ErrorCode, HeadraceError } from "../../errors.ts";
import { OutCell } from "./cells.ts";
import type { CudaDriver } from "./driver.ts";

/** CUDA_ERROR_NOT_READY: what was asked about has not ended; no failure. */
export const NOT_READY = 600;

/** A result: its name, and the code where that is not `DEVICE_FAILED`. */
interface Row {
  readonly name: string;
  readonly code?: ErrorCode;
  readonly remedy?: string;
  /** `context`: it and its memory cannot be used any more; a new one can. `process`: no context of the process
   * works any more. */
  readonly lost?: "context" | "process";
}

const SMALLER = "free memory, or use fewer or smaller buffers";
const DRIVER = "update the NVIDIA driver";
const NVRTC = "use an NVRTC no newer than the driver";
const MPS = "look at the MPS server (nvidia-cuda-mps-control)";

/** Those that calls of this folder can meet. */
const ROWS: Readonly<Record<number, Row>> = {
  1: { name: "CUDA_ERROR_INVALID_VALUE" },
  2: { name: "CUDA_ERROR_OUT_OF_MEMORY", code: "OUT_OF_MEMORY", remedy: SMALLER },
  3: { name: "CUDA_ERROR_NOT_INITIALIZED", code: "DEVICE_UNAVAILABLE" },
  4: { name: "CUDA_ERROR_DEINITIALIZED", remedy: "the process is ending" },
  34: {
    name: "CUDA_ERROR_STUB_LIBRARY",
    code: "DEVICE_UNAVAILABLE",
    remedy: "this library is the toolkit's stub; name the driver's own by HEADRACE_CUDA_LIBRARY",
  },
  36: { name: "CUDA_ERROR_CALL_REQUIRES_NEWER_DRIVER", code: "DEVICE_UNAVAILABLE", remedy: DRIVER },
  46: {
    name: "CUDA_ERROR_DEVICE_UNAVAILABLE",
    code: "DEVICE_UNAVAILABLE",
    remedy: "another process may have it for itself (nvidia-smi -q -d COMPUTE)",
  },
  100: {
    name: "CUDA_ERROR_NO_DEVICE",
    code: "DEVICE_UNAVAILABLE",
    remedy: "look at nvidia-smi and CUDA_VISIBLE_DEVICES, or use host",
  },
  101: { name: "CUDA_ERROR_INVALID_DEVICE", code: "DEVICE_UNAVAILABLE" },
  102: { name: "CUDA_ERROR_DEVICE_NOT_LICENSED", code: "DEVICE_UNAVAILABLE" },
  200: { name: "CUDA_ERROR_INVALID_IMAGE", code: "BAD_KERNEL" },
  201: { name: "CUDA_ERROR_INVALID_CONTEXT" },
  205: { name: "CUDA_ERROR_MAP_FAILED" },
  206: { name: "CUDA_ERROR_UNMAP_FAILED" },
  208: { name: "CUDA_ERROR_ALREADY_MAPPED" },
  209: { name: "CUDA_ERROR_NO_BINARY_FOR_GPU", code: "BAD_KERNEL" },
  211: { name: "CUDA_ERROR_NOT_MAPPED" },
  214: { name: "CUDA_ERROR_ECC_UNCORRECTABLE", code: "DEVICE_LOST", lost: "context" },
  215: { name: "CUDA_ERROR_UNSUPPORTED_LIMIT" },
  216: { name: "CUDA_ERROR_CONTEXT_ALREADY_IN_USE" },
  218: { name: "CUDA_ERROR_INVALID_PTX", code: "BAD_KERNEL" },
  220: { name: "CUDA_ERROR_NVLINK_UNCORRECTABLE", code: "DEVICE_LOST", lost: "context" },
  221: { name: "CUDA_ERROR_JIT_COMPILER_NOT_FOUND", code: "BAD_KERNEL", remedy: DRIVER },
  222: { name: "CUDA_ERROR_UNSUPPORTED_PTX_VERSION", code: "BAD_KERNEL", remedy: NVRTC },
  223: {
    name: "CUDA_ERROR_JIT_COMPILATION_DISABLED",
    code: "BAD_KERNEL",
    remedy: "unset CUDA_DISABLE_PTX_JIT",
  },
  226: { name: "CUDA_ERROR_CONTAINED", code: "DEVICE_LOST", lost: "process" },
  300: { name: "CUDA_ERROR_INVALID_SOURCE", code: "BAD_KERNEL" },
  301: { name: "CUDA_ERROR_FILE_NOT_FOUND" },
  302: { name: "CUDA_ERROR_SHARED_OBJECT_SYMBOL_NOT_FOUND" },
  303: { name: "CUDA_ERROR_SHARED_OBJECT_INIT_FAILED" },
  304: { name: "CUDA_ERROR_OPERATING_SYSTEM" },
  400: { name: "CUDA_ERROR_INVALID_HANDLE" },
  401: { name: "CUDA_ERROR_ILLEGAL_STATE" },
  500: { name: "CUDA_ERROR_NOT_FOUND", code: "BAD_KERNEL" },
  [NOT_READY]: { name: "CUDA_ERROR_NOT_READY" },
  700: { name: "CUDA_ERROR_ILLEGAL_ADDRESS", code: "DEVICE_LOST", lost: "process" },
  701: {
    name: "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES",
    remedy: "ask for fewer threads a group or less threadgroup memory",
  },
  702: { name: "CUDA_ERROR_LAUNCH_TIMEOUT", code: "DEVICE_LOST", lost: "process" },
  708: { name: "CUDA_ERROR_PRIMARY_CONTEXT_ACTIVE" },
  709: { name: "CUDA_ERROR_CONTEXT_IS_DESTROYED", code: "DEVICE_LOST", lost: "context" },
  710: { name: "CUDA_ERROR_ASSERT", code: "DEVICE_LOST", lost: "context" },
  712: { name: "CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED" },
  713: { name: "CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED" },
  714: { name: "CUDA_ERROR_HARDWARE_STACK_ERROR", code: "DEVICE_LOST", lost: "process" },
  715: { name: "CUDA_ERROR_ILLEGAL_INSTRUCTION", code: "DEVICE_LOST", lost: "process" },
  716: { name: "CUDA_ERROR_MISALIGNED_ADDRESS", code: "DEVICE_LOST", lost: "process" },
  717: { name: "CUDA_ERROR_INVALID_ADDRESS_SPACE", code: "DEVICE_LOST", lost: "process" },
  718: { name: "CUDA_ERROR_INVALID_PC", code: "DEVICE_LOST", lost: "process" },
  719: { name: "CUDA_ERROR_LAUNCH_FAILED", code: "DEVICE_LOST", lost: "process" },
  721: { name: "CUDA_ERROR_TENSOR_MEMORY_LEAK", code: "DEVICE_LOST", lost: "process" },
  800: { name: "CUDA_ERROR_NOT_PERMITTED" },
  801: { name: "CUDA_ERROR_NOT_SUPPORTED", code: "UNSUPPORTED" },
  802: {
    name: "CUDA_ERROR_SYSTEM_NOT_READY",
    code: "DEVICE_UNAVAILABLE",
    remedy: "start the machine's NVIDIA services (nvidia-fabricmanager)",
  },
  803: {
    name: "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH",
    code: "DEVICE_UNAVAILABLE",
    remedy: "restart the machine",
  },
  804: {
    name: "CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE",
    code: "DEVICE_UNAVAILABLE",
    remedy: "take the cuda-compat folder out of LD_LIBRARY_PATH",
  },
  805: { name: "CUDA_ERROR_MPS_CONNECTION_FAILED", code: "DEVICE_UNAVAILABLE", remedy: MPS },
  806: { name: "CUDA_ERROR_MPS_RPC_FAILURE", code: "DEVICE_UNAVAILABLE", remedy: MPS },
  807: { name: "CUDA_ERROR_MPS_SERVER_NOT_READY", code: "DEVICE_UNAVAILABLE", remedy: MPS },
  808: { name: "CUDA_ERROR_MPS_MAX_CLIENTS_REACHED", code: "DEVICE_UNAVAILABLE", remedy: MPS },
  809: { name: "CUDA_ERROR_MPS_MAX_CONNECTIONS_REACHED", code: "DEVICE_UNAVAILABLE", remedy: MPS },
  810: { name: "CUDA_ERROR_MPS_CLIENT_TERMINATED", code: "DEVICE_LOST", lost: "process" },
  911: { name: "CUDA_ERROR_EXTERNAL_DEVICE", code: "DEVICE_LOST", lost: "process" },
  999: { name: "CUDA_ERROR_UNKNOWN" },
};

const REOPEN = "close the device and open it again";
const RESTART = "close the device and go on in a new process, as CUDA refuses all work in this one";

/** Whether every later call in the context fails as well. */
export function isSticky(result: number): boolean {
  return ROWS[result]?.lost !== undefined;
}

/** Whether a new context in the same process fails as well. */
export function endsProcess(result: number): boolean {
  return ROWS[result]?.lost === "process";
}

/** `CUDA_ERROR_ILLEGAL_ADDRESS` for 700, and so on, by the driver or, where there is none, by a table. */
export function errorName(driver: CudaDriver | undefined, result: number): string {
  const asked = driver === undefined ? "" : constantText(driver.symbols.cuGetErrorName, result);
  return asked !== "" ? asked : (ROWS[result]?.name ?? "CUDA error");
}

/** The failure of a call; `what` names it with its numbers: `cuMemAlloc of 4096 bytes`. Codes: `OUT_OF_MEMORY`,
 * `DEVICE_LOST`, `DEVICE_UNAVAILABLE`, `BAD_KERNEL`, `UNSUPPORTED`, else `DEVICE_FAILED`. */
export function cudaError(driver: CudaDriver | undefined, what: string, result: number): HeadraceError {
  const row = ROWS[result];
  const text = driver === undefined ? "" : constantText(driver.symbols.cuGetErrorString, result);
  const parts = [`${what}: ${errorName(driver, result)} (${result})`];
  if (text !== "") parts.push(`: ${text}`);
  const remedy = row?.lost === undefined ? row?.remedy : row.lost === "process" ? RESTART : REOPEN;
  if (remedy !== undefined) parts.push(`; ${remedy}`);
  return new HeadraceError(row?.code ?? "DEVICE_FAILED", parts.join(""));
}

/** Throws {@link cudaError} for any result but success. */
export function checkResult(driver: CudaDriver | undefined, what: string, result: number): void {
  if (result !== 0) throw cudaError(driver, what, result);
}

/** What the driver says of a result; empty for one that it does not know. The text is the driver's own and stays. */
function constantText(ask: (result: number, text: Uint8Array) => number, result: number): string {
  const cell = new OutCell();
  if (ask(result, cell.bytes) !== 0) return "";
  const address = cell.u64;
  return address === 0 ? "" : new CString(address as Pointer).toString();
}
