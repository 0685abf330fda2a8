/** Matrix products by cuBLAS: pipelines that dispatches name like kernels. */
import { HeadraceError } from "../../errors.ts";
import { checkMatmul, type Matmul, type MatmulType, matmulName } from "../common/matmul.ts";
import { EnginePipeline, type ResolvedDispatch } from "../host/pipeline.ts";
import { OutCell } from "./cells.ts";
import type { CudaContext } from "./context.ts";
import { type Cublas, checkCublas } from "./cublas.ts";

/** Of `cublasOperation_t`, `cudaDataType_t`, `cublasComputeType_t` and `cublasGemmAlgo_t`. */
const AS_IT_IS = 0;
const TRANSPOSED = 1;
const DATA_TYPES: Readonly<Record<MatmulType, number>> = { F32: 0, F16: 2, BF16: 14 };
const COMPUTE_F32 = 68;
const ANY_ALGORITHM = -1;

const ONE = new Float32Array(new ArrayBuffer(4)).fill(1);
const ZERO = new Float32Array(new ArrayBuffer(4));

/** A product of fixed shape but for the rows of x. */
export class CudaMatmul extends EnginePipeline {
  readonly matmul: Matmul;
  readonly #blas: Blas;

  constructor(context: CudaContext, blas: Blas, matmul: Matmul) {
    super(context, matmulName(matmul));
    this.matmul = matmul;
    this.#blas = blas;
  }

  override checkCall(buffers: ResolvedDispatch["buffers"], constants: Uint8Array, threads: number): void {
    const places = buffers.map(({ region, offset }) => {
      return { byteLength: region.byteLength, offset, address: region.address };
    });
    checkMatmul(this.matmul, places, constants, threads);
    const target = buffers[2]!.region;
    if (target.extent.kind !== "file") return;
    const path = target.descriptor?.path ?? "a file";
    const text = `y is written to, and the mapping of ${path} can only be read`;
    throw new HeadraceError("BAD_OPTION", `dispatch of ${this.name}: ${text}`);
  }

  /** Puts a checked product into `stream`, which alone uses `workspace` meanwhile. Throws `DEVICE_FAILED`,
   * `OUT_OF_MEMORY`, `UNSUPPORTED`. */
  launch(stream: number, workspace: Workspace, { buffers, threads }: ResolvedDispatch): void {
    if (threads === 0) return;
    const [x, w, y] = buffers.map(({ region, offset }) => region.address + offset);
    const { inner, outputs, type, outputType, outputStride, accumulate } = this.matmul;
    const blas = this.#blas;
    blas.use(stream, workspace);
    // The library counts by columns: its yᵀ[N, T] = w[N, K] · xᵀ[K, T], each of them as it lies in memory.
    const status = blas.symbols.cublasGemmEx(
      blas.handle,
      TRANSPOSED,
      AS_IT_IS,
      outputs,
      threads,
      inner,
      ONE,
      w!,
      DATA_TYPES[type],
      inner,
      x!,
      DATA_TYPES[type],
      inner,
      accumulate ? ONE : ZERO,
      y!,
      DATA_TYPES[outputType],
      outputStride,
      COMPUTE_F32,
      ANY_ALGORITHM,
    );
    checkCublas(this.name, status);
  }
}

/** Memory that cuBLAS works in. */
export interface Workspace {
  readonly address: number;
  readonly byteLength: number;
}

/** A handle of cuBLAS for one device, used by the thread that made it. */
export class Blas {
  readonly handle: number;
  readonly symbols: Cublas["symbols"];
  readonly #context: CudaContext;
  #stream = 0;
  #workspace = 0;

  /** Throws `DEVICE_FAILED`, `OUT_OF_MEMORY`, `UNSUPPORTED` where the library does not start. */
  constructor(context: CudaContext, { symbols, path, version }: Cublas) {
    const out = new OutCell();
    context.use();
    const what = `${context.deviceName}: cuBLAS ${version} of ${path}`;
    checkCublas(what, symbols.cublasCreate_v2(out.clear()));
    this.handle = out.u64;
    this.symbols = symbols;
    this.#context = context;
  }

  /** Has what follows go to `stream`. */
  use(stream: number, workspace: Workspace): void {
    if (stream === this.#stream && workspace.address === this.#workspace) return;
    const { symbols, handle } = this;
    this.#stream = 0;
    checkCublas("cublasSetStream", symbols.cublasSetStream_v2(handle, stream));
    // In this order: a new stream starts with the library's own, which all streams share.
    const { address, byteLength } = workspace;
    checkCublas("cublasSetWorkspace", symbols.cublasSetWorkspace_v2(handle, address, byteLength));
    this.#stream = stream;
    this.#workspace = address;
  }

  /** When nothing of it runs any more. */
  close(): void {
    const context = this.#context;
    if (context.destroyed || context.lost !== undefined) return;
    context.driver.symbols.cuCtxSetCurrent(context.handle);
    this.symbols.cublasDestroy_v2(this.handle);
  }
}
