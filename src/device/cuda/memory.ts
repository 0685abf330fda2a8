/**
 * Memory of a CUDA device. `shared` is memory of the process that is pinned and registered with the driver, so that
 * copy engines and kernels reach it at the address that the host uses; `private` is the device's own. A mapping is
 * registered by windows, when it is first used: see {@link Registrar}.
 */
import { totalmem } from "node:os";
import { HeadraceError } from "../../errors.ts";
import type { Declined, Storage } from "../device.ts";
import type { HostFile } from "../host/file.ts";
import { type Extent, HostBuffer, HostMemory } from "../host/memory.ts";
import { OutCell } from "./cells.ts";
import type { CudaContext } from "./context.ts";
import { REGISTER_SHARED, STREAM_NON_BLOCKING } from "./flags.ts";
import type { Registrar } from "./registrar.ts";

export interface CudaMemoryParts {
  readonly context: CudaContext;
  readonly registrar: Registrar;
  /** Why mappings cannot be registered here; undefined where they can. */
  readonly mappingRefused: string | undefined;
  /** Flags of cuMemHostRegister for mappings. */
  readonly mappingFlags: number;
}

export class CudaMemory extends HostMemory {
  readonly #cuda: CudaContext;
  readonly #registrar: Registrar;
  readonly #mappingRefused: string | undefined;
  readonly #mappingFlags: number;
  /** What the driver has not released: mapped until its contexts are gone, or new memory would get the addresses. */
  readonly #stuck: Extent[] = [];
  /** Bases of mappings whose first page it has not released. */
  readonly #held = new Set<number>();
  /** A CUstream for clearing memory; made when first needed. */
  #clearing = 0;

  constructor({ context, registrar, mappingRefused, mappingFlags }: CudaMemoryParts) {
    super(context, (region, address, byteLength) => {
      registrar.want(region, address, byteLength);
    });
    this.#cuda = context;
    this.#registrar = registrar;
    this.#mappingRefused = mappingRefused;
    this.#mappingFlags = mappingFlags;
  }

  override map(file: HostFile, byteOffset: number, byteLength: number): HostBuffer | Declined {
    if (this.#mappingRefused !== undefined) return { declined: this.#mappingRefused };
    const answer = super.map(file, byteOffset, byteLength);
    if (!(answer instanceof HostBuffer)) return answer;
    let refused: string | undefined;
    try {
      refused = this.#tryRegistering(answer.region.extent);
    } catch (error) {
      answer.close();
      throw error;
    }
    if (refused === undefined) {
      this.#registrar.add(answer.region);
      return answer;
    }
    answer.close();
    return { declined: `${file.path}: ${refused}` };
  }

  /** Zeroed memory that host and device see at one address, for the device's own use: given back by
   * {@link CudaMemory.unmap}. Throws `OUT_OF_MEMORY`, `DEVICE_LOST`. */
  pin(byteLength: number): Extent {
    this.#cuda.use();
    return this.#allocateShared(byteLength);
  }

  /** Throws `OUT_OF_MEMORY`, `DEVICE_LOST`, `DEVICE_FAILED`. */
  protected override allocate(byteLength: number, storage: Storage): Extent {
    this.#cuda.use();
    if (byteLength === 0) {
      return {
        kind: storage === "private" ? "device" : "own",
        base: 0,
        mappedLength: 0,
        descriptor: undefined,
      };
    }
    return storage === "private" ? this.#allocatePrivate(byteLength) : this.#allocateShared(byteLength);
  }

  override unmap(extent: Extent): void {
    if (extent.kind === "file") {
      this.#registrar.remove(extent, (released) => {
        this.#unmapHost(extent, !this.#held.delete(extent.base) && released);
      });
      return;
    }
    if (extent.mappedLength === 0) return;
    const { symbols } = this.#cuda.driver;
    let released = true;
    if (!this.#cuda.destroyed) {
      symbols.cuCtxSetCurrent(this.#cuda.handle);
      // Nobody is left who could be told of a failure; destroying the context frees what is not free by then.
      if (extent.kind === "device") symbols.cuMemFree_v2(extent.base);
      else released = symbols.cuMemHostUnregister(extent.base) === 0;
    }
    if (extent.kind === "own") this.#unmapHost(extent, released);
  }

  /** Unmaps what the driver would not release, when its contexts are gone. */
  unmapRest(): void {
    for (const extent of this.#stuck.splice(0)) super.unmap(extent);
  }

  #unmapHost(extent: Extent, released: boolean): void {
    if (released || this.#cuda.destroyed) super.unmap(extent);
    else this.#stuck.push(extent);
  }

  #allocatePrivate(byteLength: number): Extent {
    const { symbols } = this.#cuda.driver;
    const what = `${byteLength} bytes of device memory`;
    const result = symbols.cuMemAlloc_v2(this.#cuda.out.clear(), byteLength);
    if (result !== 0) throw this.#withFree(this.#cuda.failure(what, result));
    const base = this.#cuda.out.u64;
    try {
      this.#clear(base, byteLength);
    } catch (error) {
      // Nothing says that freeing waits for what was started.
      if (this.#clearing !== 0) symbols.cuStreamSynchronize(this.#clearing);
      symbols.cuMemFree_v2(base);
      throw error;
    }
    return { kind: "device", base, mappedLength: byteLength, descriptor: undefined };
  }

  #clear(base: number, byteLength: number): void {
    const { symbols } = this.#cuda.driver;
    this.#clearing ||= this.#cuda.make("cuStreamCreate", (out) =>
      symbols.cuStreamCreate(out, STREAM_NON_BLOCKING),
    );
    const stream = this.#clearing;
    this.#cuda.check("cuMemsetD8Async", symbols.cuMemsetD8Async(base, 0, byteLength, stream));
    this.#cuda.check("clearing memory", symbols.cuStreamSynchronize(stream));
  }

  #allocateShared(byteLength: number): Extent {
    const { syscalls, driver } = this.#cuda;
    // Pinning touches all of it, and a system that has promised too much ends the process then.
    const most = totalmem();
    if (byteLength > most) {
      const message = `pinning ${byteLength} bytes: this machine has ${most}; use private memory, or less`;
      throw new HeadraceError("OUT_OF_MEMORY", message);
    }
    const extent = super.allocate(byteLength, "shared");
    // Large pages are cleared and pinned twice as fast; a hint, so the answer does not matter.
    syscalls.advise(extent.base, extent.mappedLength, "huge");
    const result = driver.symbols.cuMemHostRegister_v2(extent.base, extent.mappedLength, REGISTER_SHARED);
    if (result === 0) return extent;
    syscalls.unmap(extent.base, extent.mappedLength);
    throw this.#cuda.failure(`pinning ${byteLength} bytes (a limit may be set: see ulimit -l)`, result);
  }

  /** Registers the first page for a moment. Returns why that was refused. */
  #tryRegistering(extent: Extent): string | undefined {
    const { syscalls, driver } = this.#cuda;
    this.#cuda.use();
    const pages = Math.min(extent.mappedLength, syscalls.pageSize);
    const result = driver.symbols.cuMemHostRegister_v2(extent.base, pages, this.#mappingFlags);
    if (result === 0) {
      const left = driver.symbols.cuMemHostUnregister(extent.base);
      if (left === 0) return undefined;
      this.#held.add(extent.base);
      throw this.#cuda.failure("cuMemHostUnregister", left);
    }
    const error = this.#cuda.failure("cuMemHostRegister", result);
    if (error.code === "DEVICE_LOST") throw error;
    return `the driver does not register its mapping: ${error.message}`;
  }

  #withFree(error: HeadraceError): HeadraceError {
    if (error.code !== "OUT_OF_MEMORY") return error;
    const [free, total] = [new OutCell(), new OutCell()];
    if (this.#cuda.driver.symbols.cuMemGetInfo_v2(free.clear(), total.clear()) !== 0) return error;
    return new HeadraceError(error.code, `${error.message}; ${free.u64} of ${total.u64} bytes are free`, {
      cause: error,
    });
  }
}
