/** cuBLAS, NVIDIA's library of matrix products: where it is, and what its results mean. */
import { dlopen } from "bun:ffi";
import { type ErrorCode, HeadraceError } from "../../errors.ts";
import { OutCell } from "./cells.ts";
import { loaderReason } from "./driver.ts";
import { findLibraries, type Surroundings, surroundingsHere } from "./find.ts";
import { checkedFunctions, type Functions, ffiTable, type Signature } from "./symbols.ts";

/** Names the library in place of all others. */
export const CUBLAS_VARIABLE = "HEADRACE_CUBLAS_LIBRARY";

/** Names that the loader searches for by itself. */
export const CUBLAS_NAMES = ["libcublas.so.13", "libcublas.so.12"] as const;

/** A cublasHandle_t is a pointer; cublasOperation_t, cudaDataType_t, cublasComputeType_t and cublasGemmAlgo_t are ints. */
export const CUBLAS_SYMBOLS = {
  // cublasStatus_t cublasGetProperty(libraryPropertyType type, int *value);
  cublasGetProperty: { args: ["i32", "bytes"] },
  // cublasStatus_t cublasCreate_v2(cublasHandle_t *handle);
  cublasCreate_v2: { args: ["bytes"] },
  // cublasStatus_t cublasDestroy_v2(cublasHandle_t handle);
  cublasDestroy_v2: { args: ["pointer"] },
  // cublasStatus_t cublasSetStream_v2(cublasHandle_t handle, cudaStream_t streamId);
  cublasSetStream_v2: { args: ["pointer", "pointer"] },
  // cublasStatus_t cublasSetWorkspace_v2(cublasHandle_t handle, void *workspace, size_t workspaceSizeInBytes);
  cublasSetWorkspace_v2: { args: ["pointer", "pointer", "size"] },
  // cublasStatus_t cublasGemmEx(cublasHandle_t handle, cublasOperation_t transa, cublasOperation_t transb, int m, int n, int k, const void *alpha, const void *A, cudaDataType_t Atype, int lda, const void *B, cudaDataType_t Btype, int ldb, const void *beta, void *C, cudaDataType_t Ctype, int ldc, cublasComputeType_t computeType, cublasGemmAlgo_t algo);
  cublasGemmEx: {
    args: [
      ...(["pointer", "i32", "i32", "i32", "i32", "i32", "bytes"] as const),
      ...(["pointer", "i32", "i32", "pointer", "i32", "i32", "bytes"] as const),
      ...(["pointer", "i32", "i32", "i32", "i32"] as const),
    ],
  },
} as const satisfies Record<string, Signature>;

/** cuBLAS as the calling thread has bound it. It stays loaded until the process ends. */
export interface Cublas {
  readonly path: string;
  /** `12.4`. */
  readonly version: string;
  readonly symbols: Functions<typeof CUBLAS_SYMBOLS>;
}

/** cuBLAS; or why there is none, and whether one was named, so that the reason is worth telling as a failure. */
export type CublasSearch =
  | { readonly cublas: Cublas }
  | { readonly cublas: undefined; readonly reason: string; readonly named: boolean };

export interface CublasOptions {
  /** Path; false for none. */
  readonly library?: string | false | undefined;
  /** CUDA version of the driver, as 12040: later major versions of cuBLAS do not start with it. */
  readonly driverVersion?: number | undefined;
  readonly surroundings?: Surroundings;
  /** Names for the loader's own search; {@link CUBLAS_NAMES} without. */
  readonly names?: readonly string[];
}

/** Binds cuBLAS for the calling thread: `library` where it is given, else what HEADRACE_CUBLAS_LIBRARY names, else the
 * first that is there and of no later major version than the driver. Never throws. Loading it takes some 100 ms. */
export function openCublas(options: CublasOptions = {}): CublasSearch {
  const { library, driverVersion = Number.POSITIVE_INFINITY, surroundings = surroundingsHere() } = options;
  if (library === false) return missing("the option cublas is false");
  const variable = surroundings.env[CUBLAS_VARIABLE] ?? "";
  const named = library ?? (variable === "" ? undefined : variable);
  if (named !== undefined) return openNamed(named, library === undefined);

  const ownMajor = Math.floor(driverVersion / 1000);
  const failures: string[] = [];
  for (const path of [...(options.names ?? CUBLAS_NAMES), ...findLibraries("libcublas.so", surroundings)]) {
    try {
      const cublas = bindCublas(path);
      if (Number.parseInt(cublas.version, 10) <= ownMajor) return { cublas };
      failures.push(`${path} is cuBLAS ${cublas.version}, and the driver takes CUDA ${ownMajor} at most`);
    } catch (error) {
      // A name says only that the loader's own search is without it.
      if (path.includes("/")) failures.push(loaderReason(path, error));
    }
  }
  if (failures.length > 0) return missing(failures.join("; "));
  const places = "the system's search path, CUDA_HOME, /usr/local/cuda* or the nvidia packages of Python";
  return missing(`no libcublas.so.* in ${places}; install one, or set ${CUBLAS_VARIABLE} to its path`);
}

/** Of `enum cublasStatus_t`. */
const STATUS: Readonly<Record<number, { readonly name: string; readonly code?: ErrorCode }>> = {
  1: { name: "CUBLAS_STATUS_NOT_INITIALIZED" },
  3: { name: "CUBLAS_STATUS_ALLOC_FAILED", code: "OUT_OF_MEMORY" },
  7: { name: "CUBLAS_STATUS_INVALID_VALUE" },
  8: { name: "CUBLAS_STATUS_ARCH_MISMATCH", code: "UNSUPPORTED" },
  11: { name: "CUBLAS_STATUS_MAPPING_ERROR" },
  13: { name: "CUBLAS_STATUS_EXECUTION_FAILED" },
  14: { name: "CUBLAS_STATUS_INTERNAL_ERROR" },
  15: { name: "CUBLAS_STATUS_NOT_SUPPORTED", code: "UNSUPPORTED" },
  16: { name: "CUBLAS_STATUS_LICENSE_ERROR" },
};

/** Throws the failure of a call for any status but success: `OUT_OF_MEMORY`, `UNSUPPORTED`, else `DEVICE_FAILED`. */
export function checkCublas(what: string, status: number): void {
  if (status === 0) return;
  const { name, code = "DEVICE_FAILED" } = STATUS[status] ?? { name: "cublasStatus_t" };
  throw new HeadraceError(code, `${what}: ${name} (${status})`);
}

function openNamed(path: string, byVariable: boolean): CublasSearch {
  try {
    return { cublas: bindCublas(path) };
  } catch (error) {
    const mend = byVariable
      ? `correct or unset ${CUBLAS_VARIABLE}`
      : "correct or leave out the option cublas";
    return { ...missing(`${loaderReason(path, error)}; ${mend}`), named: true };
  }
}

function bindCublas(path: string): Cublas {
  const symbols = checkedFunctions(CUBLAS_SYMBOLS, dlopen(path, ffiTable(CUBLAS_SYMBOLS)).symbols);
  const [major, minor] = [0, 1].map((property) => {
    const cell = new OutCell();
    checkCublas("cublasGetProperty", symbols.cublasGetProperty(property, cell.clear()));
    return cell.i32;
  });
  return { path, version: `${major}.${minor}`, symbols };
}

function missing(reason: string) {
  return { cublas: undefined, reason, named: false } as const;
}
