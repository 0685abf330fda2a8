/** NVRTC, NVIDIA's compiler of kernel texts: where it is, and what it can compile for. */
import { CString, dlopen, type Pointer } from "bun:ffi";
import { OutCell } from "./cells.ts";
import { loaderReason, unavailable } from "./driver.ts";
import { findLibraries, type Surroundings, surroundingsHere } from "./find.ts";
import { checkedFunctions, type Functions, ffiTable, type Signature } from "./symbols.ts";

/** Names the library in place of all others. */
export const NVRTC_VARIABLE = "HEADRACE_NVRTC_LIBRARY";

/** Names that the loader searches for by itself. */
export const NVRTC_NAMES = ["libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so.11.2"] as const;

/** An nvrtcProgram is a pointer. */
export const NVRTC_SYMBOLS = {
  // nvrtcResult nvrtcVersion(int *major, int *minor);
  nvrtcVersion: { args: ["bytes", "bytes"] },
  // nvrtcResult nvrtcCreateProgram(nvrtcProgram *prog, const char *src, const char *name, int numHeaders, const char * const *headers, const char * const *includeNames);
  nvrtcCreateProgram: { args: ["bytes", "bytes", "bytes", "i32", "nullable", "nullable"] },
  // nvrtcResult nvrtcDestroyProgram(nvrtcProgram *prog);
  nvrtcDestroyProgram: { args: ["bytes"] },
  // nvrtcResult nvrtcCompileProgram(nvrtcProgram prog, int numOptions, const char * const *options);
  nvrtcCompileProgram: { args: ["pointer", "i32", "bytes"] },
  // nvrtcResult nvrtcGetProgramLogSize(nvrtcProgram prog, size_t *logSizeRet);
  nvrtcGetProgramLogSize: { args: ["pointer", "bytes"] },
  // nvrtcResult nvrtcGetProgramLog(nvrtcProgram prog, char *log);
  nvrtcGetProgramLog: { args: ["pointer", "bytes"] },
  // nvrtcResult nvrtcGetPTXSize(nvrtcProgram prog, size_t *ptxSizeRet);
  nvrtcGetPTXSize: { args: ["pointer", "bytes"] },
  // nvrtcResult nvrtcGetPTX(nvrtcProgram prog, char *ptx);
  nvrtcGetPTX: { args: ["pointer", "bytes"] },
  // const char *nvrtcGetErrorString(nvrtcResult result);
  nvrtcGetErrorString: { args: ["i32"], returns: "address" },
} as const satisfies Record<string, Signature>;

/** Since CUDA 11.2. */
export const ARCHITECTURE_SYMBOLS = {
  // nvrtcResult nvrtcGetNumSupportedArchs(int* numArchs);
  nvrtcGetNumSupportedArchs: { args: ["bytes"] },
  // nvrtcResult nvrtcGetSupportedArchs(int* supportedArchs);
  nvrtcGetSupportedArchs: { args: ["bytes"] },
} as const satisfies Record<string, Signature>;

/** Since CUDA 11.1. */
export const CUBIN_SYMBOLS = {
  // nvrtcResult nvrtcGetCUBINSize(nvrtcProgram prog, size_t *cubinSizeRet);
  nvrtcGetCUBINSize: { args: ["pointer", "bytes"] },
  // nvrtcResult nvrtcGetCUBIN(nvrtcProgram prog, char *cubin);
  nvrtcGetCUBIN: { args: ["pointer", "bytes"] },
} as const satisfies Record<string, Signature>;

/** NVRTC as the calling thread has bound it. It stays loaded until the process ends. */
export interface Nvrtc {
  readonly path: string;
  /** As the driver counts: 12040 for 12.4. */
  readonly version: number;
  /** Compute capabilities that it compiles for, as 90 for 9.0, ascending; empty where it does not tell. */
  readonly architectures: readonly number[];
  readonly symbols: Functions<typeof NVRTC_SYMBOLS>;
  /** Absent in old ones. */
  readonly cubin: Functions<typeof CUBIN_SYMBOLS> | undefined;
}

/** NVRTC, or why there is none, and what to do. */
export type NvrtcSearch = { readonly nvrtc: Nvrtc } | { readonly nvrtc: undefined; readonly reason: string };

export interface NvrtcOptions {
  /** Path; false for none. */
  readonly library?: string | false | undefined;
  /** CUDA version of the driver that will load what is compiled, as 12040; any without. */
  readonly driverVersion?: number | undefined;
  readonly surroundings?: Surroundings;
  /** Names for the loader's own search; {@link NVRTC_NAMES} without. */
  readonly names?: readonly string[];
}

/** Binds NVRTC for the calling thread: `library` where it is given, else what HEADRACE_NVRTC_LIBRARY names, else the
 * first that is there and no newer than the driver, else one of the driver's major version. Never throws. */
export function openNvrtc(options: NvrtcOptions = {}): NvrtcSearch {
  const { library, driverVersion = Number.POSITIVE_INFINITY, surroundings = surroundingsHere() } = options;
  if (library === false) return missing("the option nvrtc is false");
  const variable = surroundings.env[NVRTC_VARIABLE] ?? "";
  const named = library ?? (variable === "" ? undefined : variable);
  if (named !== undefined) return openNamed(named, library === undefined);

  const install = `install one (${installNvrtc(driverVersion)}), or set ${NVRTC_VARIABLE} to its path`;
  const failures: string[] = [];
  const newer: Nvrtc[] = [];
  const found = findLibraries("libnvrtc.so", surroundings);
  for (const path of [...(options.names ?? NVRTC_NAMES), ...found]) {
    try {
      const nvrtc = bindNvrtc(path);
      if (nvrtc.version <= driverVersion) return { nvrtc };
      newer.push(nvrtc);
    } catch (error) {
      // A name says only that the loader's own search is without it.
      if (path.includes("/")) failures.push(loaderReason(path, error));
    }
  }
  const fitting = newer.find(({ version }) => major(version) === major(driverVersion));
  if (fitting !== undefined) return { nvrtc: fitting };
  const [first] = newer;
  if (first !== undefined) {
    const text = `${first.path} is NVRTC ${versionText(first.version)}`;
    return missing(`${text}, and the driver takes CUDA ${versionText(driverVersion)} at most; ${install}`);
  }
  if (failures.length > 0) return missing(`${failures.join("; ")}; ${install}`);
  return missing(`no libnvrtc.so.* in the system's search path, CUDA_HOME, ${PLACES}; ${install}`);
}

const PLACES = "/usr/local/cuda* or the nvidia packages of Python";

/** What has pip install an NVRTC for a driver of this CUDA version, as 12040. The packages of CUDA 13 and later bear no
 * version in their name. */
export function installNvrtc(driverVersion: number): string {
  const own = major(driverVersion);
  return `pip install nvidia-cuda-nvrtc${own < 13 ? `-cu${own}` : ""}`;
}

/** `12.4` for 12040. */
export function versionText(version: number): string {
  return `${major(version)}.${Math.floor((version % 1000) / 10)}`;
}

/** What NVRTC says of a result of its own. */
export function nvrtcErrorText(nvrtc: Nvrtc, result: number): string {
  const address = nvrtc.symbols.nvrtcGetErrorString(result);
  const text = address === 0 ? "nvrtcResult" : new CString(address as Pointer).toString();
  return `${text} (${result})`;
}

/** Throws `DEVICE_UNAVAILABLE` where `library` or HEADRACE_NVRTC_LIBRARY names an NVRTC that cannot be loaded. Where
 * neither names one, nothing is loaded. */
export function assertNamedNvrtc(library: string | false | undefined): void {
  if (library === false || (library === undefined && (process.env[NVRTC_VARIABLE] ?? "") === "")) return;
  const search = openNvrtc({ library });
  if (search.nvrtc === undefined) throw unavailable(`NVRTC: ${search.reason}`);
}

function openNamed(path: string, byVariable: boolean): NvrtcSearch {
  try {
    return { nvrtc: bindNvrtc(path) };
  } catch (error) {
    const mend = byVariable ? `correct or unset ${NVRTC_VARIABLE}` : "correct or leave out the option nvrtc";
    return missing(`${loaderReason(path, error)}; ${mend}`);
  }
}

function bindNvrtc(path: string): Nvrtc {
  const symbols = bind(path, NVRTC_SYMBOLS);
  const majorOut = new OutCell();
  const minorOut = new OutCell();
  const result = symbols.nvrtcVersion(majorOut.bytes, minorOut.bytes);
  if (result !== 0) throw new Error(`nvrtcVersion answered ${result}`);
  const version = majorOut.i32 * 1000 + minorOut.i32 * 10;
  const cubin = bindOptional(path, CUBIN_SYMBOLS);
  return { path, version, architectures: architecturesOf(path), symbols, cubin };
}

function architecturesOf(path: string): number[] {
  const symbols = bindOptional(path, ARCHITECTURE_SYMBOLS);
  const count = new OutCell();
  if (symbols === undefined || symbols.nvrtcGetNumSupportedArchs(count.bytes) !== 0) return [];
  if (count.i32 < 1 || count.i32 > MAX_ARCHITECTURES) return [];
  const list = new Int32Array(new ArrayBuffer(count.i32 * 4));
  return symbols.nvrtcGetSupportedArchs(list) === 0 ? [...list].sort((a, b) => a - b) : [];
}

/** More than NVIDIA will ever have; what is larger is no count. */
const MAX_ARCHITECTURES = 1024;

function bind<T extends Readonly<Record<string, Signature>>>(path: string, table: T): Functions<T> {
  return checkedFunctions(table, dlopen(path, ffiTable(table)).symbols);
}

function bindOptional<T extends Readonly<Record<string, Signature>>>(path: string, table: T) {
  try {
    return bind(path, table);
  } catch {
    return undefined;
  }
}

function major(version: number): number {
  return Math.floor(version / 1000);
}

function missing(text: string): NvrtcSearch {
  return { nvrtc: undefined, reason: text };
}
