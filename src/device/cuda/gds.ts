/**
 * GPUDirect Storage: cuFile moves a file's bytes between disk and device memory. Everything here may be missing or
 * refuse, and then says why: the caller goes another way. Functions and structs are those of NVIDIA's `cufile.h`.
 */
import { dlopen } from "bun:ffi";
import { existsSync } from "node:fs";
import { errnoName } from "../common/errors.ts";
import type { Declined } from "../device.ts";
import { OutCell } from "./cells.ts";
import { loaderReason } from "./driver.ts";
import { errorName } from "./errors.ts";
import { findLibraries, type Surroundings, surroundingsHere } from "./find.ts";
import { CUDA_DRIVER_ERROR, CUFILE_ERRORS, CUFILE_SYMBOLS, PROPERTIES_SYMBOLS } from "./gds-symbols.ts";
import { checkedFunctions, type Functions, ffiTable, type Signature } from "./symbols.ts";

/** Names the library in place of all others. */
export const CUFILE_VARIABLE = "HEADRACE_CUFILE_LIBRARY";

/** cuFile as the calling thread has bound it. Its driver, and the handles of files, are one for the process. */
export interface CuFile {
  readonly path: string;
  readonly symbols: Functions<typeof CUFILE_SYMBOLS>;
  /** Absent in old ones. */
  readonly properties: Functions<typeof PROPERTIES_SYMBOLS> | undefined;
}

export interface CuFileOptions {
  /** Path; what HEADRACE_CUFILE_LIBRARY names, or the first that is found, without. */
  readonly library?: string | undefined;
  readonly surroundings?: Surroundings;
  /** Names for the loader's own search. */
  readonly names?: readonly string[];
}

const NAMES = ["libcufile.so.0", "libcufile.so.1", "libcufile.so"];
const INSTALL = `install it (nvidia-gds), or set ${CUFILE_VARIABLE} to its path`;

/** Binds cuFile for the calling thread, or says why not. */
export function openCuFile(options: CuFileOptions = {}): CuFile | Declined {
  const { surroundings = surroundingsHere(), names = NAMES } = options;
  const variable = surroundings.env[CUFILE_VARIABLE] ?? "";
  const named = options.library ?? (variable === "" ? undefined : variable);
  const paths = named === undefined ? [...names, ...findLibraries("libcufile.so", surroundings)] : [named];
  const failures: string[] = [];
  for (const path of paths) {
    try {
      return bindCuFile(path);
    } catch (error) {
      if (path.includes("/") || named !== undefined) failures.push(loaderReason(path, error));
    }
  }
  if (named !== undefined) return { declined: failures.join("; ") };
  const what = failures.length > 0 ? failures.join("; ") : "there is no libcufile.so.0";
  return { declined: `${what}; ${INSTALL}` };
}

function bindCuFile(path: string): CuFile {
  const symbols = bind(path, CUFILE_SYMBOLS);
  let properties: CuFile["properties"];
  try {
    properties = bind(path, PROPERTIES_SYMBOLS);
  } catch {
    properties = undefined;
  }
  return { path, symbols, properties };
}

function bind<T extends Readonly<Record<string, Signature>>>(path: string, table: T): Functions<T> {
  return checkedFunctions(table, dlopen(path, ffiTable(table)).symbols);
}

/** A cuFile whose driver is open. */
export interface GdsState {
  /** `direct`: disk to device memory; `compatibility`: cuFile reads into host memory and copies, as nobody has loaded
   * nvidia-fs; `unknown` where this cuFile does not tell. */
  readonly mode: "direct" | "compatibility" | "unknown";
}

/** Where nvidia-fs, the part in the kernel, shows itself while it is loaded. */
export const NVIDIA_FS = "/proc/driver/nvidia-fs/version";

/** Opens cuFile's driver for the process, or says why not. A context of CUDA's is current: without a GPU the real one
 * never comes back from this. It writes a `cufile.log` where its cufile.json says, by default in the working folder.
 * Close it with {@link closeGdsDriver}. */
export function openGdsDriver(cufile: CuFile): GdsState | Declined {
  const answer = cufile.symbols.cuFileDriverOpen();
  const reason = errorOf(answer);
  // Someone else in the process has opened it, and it counts its users.
  if (reason !== undefined && codeOf(answer) !== ALREADY_OPEN) {
    return { declined: `cuFileDriverOpen: ${reason}` };
  }
  return { mode: modeOf(cufile) };
}

/** Closes cuFile's driver; files are deregistered, and nothing is read. */
export function closeGdsDriver({ symbols }: CuFile): void {
  // A failure leaves the driver open until the process ends, which harms nobody.
  symbols.cuFileDriverClose_v2();
}

const ALREADY_OPEN = 5026;
/** `CUfileDrvProps_t` has 56 bytes, and may grow. */
const PROPERTIES_BYTES = 1024;
const MAJOR_VERSION_AT = 0;
const STATUS_FLAGS_AT = 24;
/** CU_FILE_NVME_P2P_SUPPORTED: NVMe without nvidia-fs. */
const NVME_P2P = 11;

function modeOf({ properties }: CuFile): GdsState["mode"] {
  if (existsSync(NVIDIA_FS)) return "direct";
  if (properties === undefined) return "unknown";
  const bytes = new DataView(new ArrayBuffer(PROPERTIES_BYTES));
  if (codeOf(properties.cuFileDriverGetProperties(bytes)) !== 0) return "unknown";
  const version = bytes.getUint32(MAJOR_VERSION_AT, true);
  const peer = (bytes.getUint32(STATUS_FLAGS_AT, true) >>> NVME_P2P) & 1;
  return version > 0 || peer === 1 ? "direct" : "compatibility";
}

/** `CUfileDescr_t`: an enum, padding, a union of descriptor and pointer, and a table of functions that is NULL. */
const DESCRIPTOR_BYTES = 24;
const DESCRIPTOR_TYPE_AT = 0;
const DESCRIPTOR_FD_AT = 8;
/** CU_FILE_HANDLE_TYPE_OPAQUE_FD */
const OPAQUE_FD = 1;

/** Registers an open file, which the file system may refuse; O_DIRECT is what most want. The driver is open. Returns its handle, valid in
 * all threads until {@link deregisterFile}, while the descriptor stays open. */
export function registerFile({ symbols }: CuFile, fd: number): number | Declined {
  const descriptor = new DataView(new ArrayBuffer(DESCRIPTOR_BYTES));
  descriptor.setInt32(DESCRIPTOR_TYPE_AT, OPAQUE_FD, true);
  descriptor.setInt32(DESCRIPTOR_FD_AT, fd, true);
  const handle = new OutCell();
  const reason = errorOf(symbols.cuFileHandleRegister(handle.clear(), descriptor));
  if (reason !== undefined) return { declined: `cuFileHandleRegister: ${reason}` };
  return handle.u64 > 0 ? handle.u64 : { declined: "cuFileHandleRegister gave no handle" };
}

/** Ends a handle; nothing reads or writes through it any more. */
export function deregisterFile({ symbols }: CuFile, handle: number): void {
  symbols.cuFileHandleDeregister(handle);
}

/** Pins device memory for many transfers, which then need no copy within the device. Returns why not, if so. */
export function registerMemory(
  { symbols }: CuFile,
  address: number,
  byteLength: number,
): Declined | undefined {
  const reason = errorOf(symbols.cuFileBufRegister(address, byteLength, 0));
  return reason === undefined ? undefined : { declined: `cuFileBufRegister: ${reason}` };
}

/** Ends what {@link registerMemory} began, before the memory goes. */
export function deregisterMemory({ symbols }: CuFile, address: number): void {
  symbols.cuFileBufDeregister(address);
}

/** One transfer between a file and device memory. */
export interface Transfer {
  /** From {@link registerFile}. */
  readonly handle: number;
  /** Where the memory begins that was allocated, or registered. */
  readonly base: number;
  /** From `base` on. */
  readonly memoryOffset: number;
  readonly byteLength: number;
  readonly fileOffset: number;
}

/** Reads into device memory, and blocks. A context of CUDA's is current. Bytes read, which may be fewer than asked and
 * are 0 at the end of the file; or why not, and then the memory holds anything. `errno` gives the calling thread's. */
export function gdsRead({ symbols }: CuFile, transfer: Transfer, errno: () => number): number | Declined {
  const { handle, base, byteLength, fileOffset, memoryOffset } = transfer;
  return transferred(
    "cuFileRead",
    symbols.cuFileRead(handle, base, byteLength, fileOffset, memoryOffset),
    errno,
  );
}

/** Writes from device memory, and blocks, as {@link gdsRead}. */
export function gdsWrite({ symbols }: CuFile, transfer: Transfer, errno: () => number): number | Declined {
  const { handle, base, byteLength, fileOffset, memoryOffset } = transfer;
  return transferred(
    "cuFileWrite",
    symbols.cuFileWrite(handle, base, byteLength, fileOffset, memoryOffset),
    errno,
  );
}

function transferred(call: string, count: number, errno: () => number): number | Declined {
  if (count >= 0) return count;
  // -1 is the system's failure; others are codes of cuFile's with their sign turned.
  return { declined: `${call}: ${count === -1 ? errnoName(errno()) : describe(-count)}` };
}

/** What a `CUfileError_t` says, which comes in one register: its low half cuFile's code, its high half CUDA's where
 * the first is CU_FILE_CUDA_DRIVER_ERROR. Undefined for success. */
function errorOf(answer: bigint): string | undefined {
  const code = codeOf(answer);
  if (code === 0) return undefined;
  if (code !== CUDA_DRIVER_ERROR) return describe(code);
  const result = Number(answer >> 32n);
  return `${describe(code)}: ${errorName(undefined, result)} (${result})`;
}

function codeOf(answer: bigint): number {
  return Number(BigInt.asIntN(32, answer));
}

function describe(code: number): string {
  const text = CUFILE_ERRORS[code];
  return text === undefined ? `cuFile error ${code}` : `${text} (${code})`;
}
