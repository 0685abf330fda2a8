/** Device memory in which cuBLAS works: one for whatever may run at the same time as something else. */
import type { ResolvedDispatch } from "../host/pipeline.ts";
import type { CudaContext } from "./context.ts";
import { CudaMatmul, type Workspace } from "./matmul.ts";

/** NVIDIA's own advice for compute capability 9.0 and later, and for what came before. */
const LARGE_BYTES = 32 * 2 ** 20;
const SMALL_BYTES = 4 * 2 ** 20;
const LARGE_FROM = 90;

export class Workspaces {
  /** Bytes of each. */
  readonly byteLength: number;
  readonly #context: CudaContext;
  readonly #live = new Set<Workspace>();
  readonly #ofStream = new Map<number, Workspace>();

  /** `computeCapability`: 90 for 9.0. */
  constructor(context: CudaContext, computeCapability: number) {
    this.#context = context;
    this.byteLength = computeCapability >= LARGE_FROM ? LARGE_BYTES : SMALL_BYTES;
  }

  /** A new one, until {@link Workspaces.free}. Throws `OUT_OF_MEMORY`. */
  create(): Workspace {
    const { cuMemAlloc_v2 } = this.#context.driver.symbols;
    const what = `cuMemAlloc of ${this.byteLength} bytes for cuBLAS to work in`;
    const { byteLength } = this;
    const address = this.#context.make(what, (out) => cuMemAlloc_v2(out, byteLength));
    const workspace = { address, byteLength };
    this.#live.add(workspace);
    return workspace;
  }

  /** That of a stream's products, which run one after the other. Throws as {@link Workspaces.create}. */
  of(stream: number): Workspace {
    const known = this.#ofStream.get(stream);
    if (known !== undefined) return known;
    const made = this.create();
    this.#ofStream.set(stream, made);
    return made;
  }

  /** Gives one back that nothing runs in any more. */
  free(workspace: Workspace): void {
    if (!this.#live.delete(workspace)) return;
    const context = this.#context;
    if (context.destroyed || context.lost !== undefined) return;
    const { symbols } = context.driver;
    symbols.cuCtxSetCurrent(context.handle);
    symbols.cuMemFree_v2(workspace.address);
  }

  /** Frees those that are left. */
  close(): void {
    for (const workspace of [...this.#live]) this.free(workspace);
    this.#ofStream.clear();
  }
}

/** Whether some of the dispatches are products of cuBLAS. */
export function needsWorkspace(dispatches: readonly ResolvedDispatch[]): boolean {
  return dispatches.some(({ pipeline }) => pipeline instanceof CudaMatmul);
}
