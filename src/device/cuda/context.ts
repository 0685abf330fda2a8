/** What the parts of one open CUDA device share: the driver, the context, and whether it still works. */
import { HeadraceError } from "../../errors.ts";
import { type FileWay, HostContext } from "../host/context.ts";
import type { Syscalls } from "../host/syscalls.ts";
import { OutCell } from "./cells.ts";
import type { CudaDriver } from "./driver.ts";
import { cudaError, isSticky } from "./errors.ts";
import type { FileWays } from "./file-ways.ts";
import { CONTEXT_BLOCKING } from "./flags.ts";

export interface CudaContextParts {
  readonly deviceName: string;
  readonly syscalls: Syscalls;
  readonly driver: CudaDriver;
  /** The CUcontext, owned. */
  readonly handle: number;
}

export class CudaContext extends HostContext {
  readonly driver: CudaDriver;
  /** The CUcontext. */
  readonly handle: number;
  /** Kernels see all of any buffer. */
  override readonly maxKernelBytes = Number.MAX_SAFE_INTEGER;
  /** Where calls put what they make; read at once. */
  readonly out = new OutCell();
  /** Set once, before the first file is opened. */
  fileWays: FileWays | undefined;
  /** Called once, soon after the context was lost. */
  whenLost: ((error: HeadraceError) => void) | undefined;
  #lost: HeadraceError | undefined;
  #destroyed = false;
  /** What keeps the process alive while work is in flight: Workers cannot, since an idle one would as well. */
  readonly #alive = setInterval(() => {}, 2 ** 31 - 1);
  #busy = 0;

  constructor({ deviceName, syscalls, driver, handle }: CudaContextParts) {
    super(deviceName, syscalls);
    this.driver = driver;
    this.handle = handle;
    this.#alive.unref();
  }

  /** Makes a context of the device, a CUdevice, in about a tenth of a second. Throws `DEVICE_LOST`, `DEVICE_FAILED`. */
  static create(driver: CudaDriver, deviceName: string, device: number, syscalls: Syscalls): CudaContext {
    const out = new OutCell();
    const result = driver.symbols.cuCtxCreate_v2(out.clear(), CONTEXT_BLOCKING, device);
    if (result !== 0) throw cudaError(driver, `${deviceName}: a new context`, result);
    return new CudaContext({ deviceName, syscalls, driver, handle: out.u64 });
  }

  /** Why no work can be done in the context any more. */
  get lost(): HeadraceError | undefined {
    return this.#lost;
  }

  /** Whether the context is gone, and with it all that was allocated in it. */
  get destroyed(): boolean {
    return this.#destroyed;
  }

  override openWay(path: string): FileWay | undefined {
    return this.fileWays?.open(path);
  }

  override assertOpen(): void {
    super.assertOpen();
    if (this.#lost !== undefined) {
      throw new HeadraceError("DEVICE_LOST", this.#lost.message, { cause: this.#lost });
    }
  }

  /** Makes the context the calling thread's: a process may have several devices open. */
  use(): void {
    this.check("cuCtxSetCurrent", this.driver.symbols.cuCtxSetCurrent(this.handle));
  }

  /** Throws the failure of a call, and remembers one after which nothing works any more. */
  check(what: string, result: number): void {
    if (result !== 0) throw this.failure(what, result);
  }

  /** The failure of a call, remembered as {@link CudaContext.check} does. */
  failure(what: string, result: number): HeadraceError {
    const error = cudaError(this.driver, `${this.deviceName}: ${what}`, result);
    if (isSticky(result) && this.#lost === undefined) {
      this.#lost = error;
      // Whoever called is in the middle of something, and knows best what has failed: the others end after it.
      setImmediate(() => this.whenLost?.(error));
    }
    return error;
  }

  /** Runs a call that makes something, and gives it. */
  make(what: string, call: (out: Uint8Array) => number): number {
    this.check(what, call(this.out.clear()));
    return this.out.u64;
  }

  /** Work is in flight: the process stays alive for it until {@link CudaContext.finished}. */
  began(): void {
    if (this.#busy++ === 0) this.#alive.ref();
  }

  finished(): void {
    if (--this.#busy === 0) this.#alive.unref();
  }

  /** Frees the context with all that is in it. */
  destroy(): void {
    if (this.#destroyed) return;
    this.#destroyed = true;
    clearInterval(this.#alive);
    // A context that is lost may refuse even this; there is nothing left to do then.
    this.driver.symbols.cuCtxDestroy_v2(this.handle);
  }
}
