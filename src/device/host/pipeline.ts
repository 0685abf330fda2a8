/** Kernels in their TypeScript form: a dispatch runs on the JavaScript thread. */
import { HeadraceError } from "../../errors.ts";
import { viewOf } from "../common/views.ts";
import type { KernelSource, Pipeline } from "../device.ts";
import type { HostContext } from "./context.ts";
import type { Region } from "./memory.ts";

/** Bytes of the largest element of a typed array. */
const LARGEST_ELEMENT = 8;

/** A kernel's host form. */
export type HostKernel = NonNullable<KernelSource["host"]>;

/** What dispatches name: compiled once for one device. */
export abstract class EnginePipeline implements Pipeline {
  readonly context: HostContext;
  readonly name: string;
  closed = false;

  constructor(context: HostContext, name: string) {
    this.context = context;
    this.name = name;
  }

  /** Throws `BAD_OPTION` where the kernel cannot take these buffers and constants for so many threads. */
  checkCall(_buffers: ResolvedDispatch["buffers"], _constants: Uint8Array, _threads: number): void {}

  close(): void {
    this.closed = true;
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

export class HostPipeline extends EnginePipeline {
  readonly kernel: HostKernel;

  /** Throws `UNSUPPORTED` where the kernel has no host form. */
  constructor(context: HostContext, source: KernelSource) {
    if (typeof source.host !== "function") {
      throw new HeadraceError(
        "UNSUPPORTED",
        `kernel ${source.name}: has no host form, which this device runs`,
      );
    }
    super(context, source.name);
    this.kernel = source.host;
  }
}

/** One checked launch, with a copy of what the caller may change after submission. */
export interface ResolvedDispatch {
  readonly pipeline: EnginePipeline;
  readonly buffers: readonly { readonly region: Region; readonly offset: number }[];
  readonly constants: Uint8Array;
  readonly threads: number;
  /** As the caller gave them. */
  readonly threadsPerGroup: number | undefined;
  readonly threadgroupBytes: number | undefined;
}

/** Runs all threads of `dispatch`. Throws `DEVICE_FAILED` where the kernel throws, `FILE_CHANGED` where the
 * file behind a mapping has shrunk. */
export function runDispatch(dispatch: ResolvedDispatch): void {
  const { pipeline } = dispatch;
  if (!(pipeline instanceof HostPipeline))
    throw new HeadraceError("DEVICE_FAILED", "no pipeline of the host");
  const views: ArrayBuffer[] = [];
  try {
    const bytes = dispatch.buffers.map(({ region, offset }) => {
      region.checkFile();
      // Arrays of any type can start there.
      const whole = offset % LARGEST_ELEMENT === 0 ? region.wholeView() : undefined;
      if (whole !== undefined) return new Uint8Array(whole, offset);
      const length = region.byteLength - offset;
      const view = length === 0 ? new ArrayBuffer(0) : viewOf(region.address + offset, length);
      views.push(view);
      return new Uint8Array(view);
    });
    pipeline.kernel(bytes, dispatch.constants, dispatch.threads);
  } catch (error) {
    if (error instanceof HeadraceError) throw error;
    const message = error instanceof Error ? error.message : String(error);
    throw new HeadraceError("DEVICE_FAILED", `kernel ${pipeline.name}: ${message}`, { cause: error });
  } finally {
    // The memory may be unmapped once the dispatch has ended, so that a view must not outlive it. The one that is kept
    // ends with the memory.
    for (const view of views) if (!view.detached) view.transfer(0);
  }
}
