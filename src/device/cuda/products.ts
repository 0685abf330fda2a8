/** The matrix products of one CUDA device, and the library behind them. */
import { HeadraceError } from "../../errors.ts";
import { resolveMatmul } from "../common/matmul.ts";
import type { Device } from "../device.ts";
import type { CudaContext } from "./context.ts";
import { type CublasOptions, type CublasSearch, openCublas } from "./cublas.ts";
import { Blas, CudaMatmul } from "./matmul.ts";

export class Products {
  readonly #context: CudaContext;
  readonly #options: CublasOptions;
  #search: CublasSearch | undefined;
  #blas: Blas | undefined;

  constructor(context: CudaContext, options: CublasOptions) {
    this.#context = context;
    this.#options = options;
  }

  /** As {@link Device.createMatmul}. Looks for the library when this is first asked, as loading it takes long. */
  get create(): Device["createMatmul"] {
    this.#search ??= openCublas(this.#options);
    const search = this.#search;
    if (search.cublas === undefined && !search.named) return undefined;
    const context = this.#context;
    return (options) => {
      context.assertOpen();
      const matmul = resolveMatmul(options);
      if (search.cublas === undefined) {
        throw new HeadraceError("UNSUPPORTED", `${context.deviceName}: cuBLAS: ${search.reason}`);
      }
      this.#blas ??= new Blas(context, search.cublas);
      return new CudaMatmul(context, this.#blas, matmul);
    };
  }

  /** Where the library is, or why there is none, once somebody has asked for it. */
  get facts(): Device["facts"] {
    if (this.#search === undefined) return {};
    const { cublas } = this.#search;
    return {
      cublas: cublas === undefined ? `none: ${this.#search.reason}` : `${cublas.version}, ${cublas.path}`,
    };
  }

  /** When none of them runs any more. */
  close(): void {
    this.#blas?.close();
  }
}
