/** Puts kernels into streams. */
import { HeadraceError } from "../../errors.ts";
import { GROUP_SIZE } from "../../kernels/portable.ts";
import type { ResolvedDispatch } from "../host/pipeline.ts";
import { LaunchArguments } from "./arguments.ts";
import type { CudaContext } from "./context.ts";
import { CudaMatmul, type Workspace } from "./matmul.ts";
import { CudaPipeline } from "./pipeline.ts";
import type { Workspaces } from "./workspaces.ts";

/** Of a grid's first dimension. */
const MAX_GROUPS = 2 ** 31 - 1;

/** Launches for one device, one at a time. */
export class Launcher {
  readonly #context: CudaContext;
  readonly #workspaces: Workspaces;
  readonly #arguments = new LaunchArguments();

  constructor(context: CudaContext, workspaces: Workspaces) {
    this.#context = context;
    this.#workspaces = workspaces;
  }

  /** Puts a checked dispatch into `stream`, a CUstream. `workspace` is for matrix products; that of the stream without.
   * Throws `BAD_OPTION` for threads or memory of a threadgroup that the device does not have, `DEVICE_LOST`,
   * `DEVICE_FAILED`. */
  dispatch(stream: number, dispatch: ResolvedDispatch, workspace?: Workspace): void {
    const { pipeline, buffers, constants, threads } = dispatch;
    if (pipeline instanceof CudaMatmul) {
      pipeline.launch(stream, workspace ?? this.#workspaces.of(stream), dispatch);
      return;
    }
    if (!(pipeline instanceof CudaPipeline)) {
      throw new HeadraceError("BAD_OPTION", `kernel ${pipeline.name} is not of this device`);
    }
    const parameters = this.#arguments.start(buffers.length, constants, threads);
    for (const [index, { region, offset }] of buffers.entries()) {
      this.#arguments.setBuffer(index, region.address + offset);
    }
    this.#launch(stream, pipeline, parameters, shapeOf(dispatch));
  }

  /** Throws what {@link Launcher.dispatch} would throw before it launches anything. */
  check(dispatch: ResolvedDispatch): void {
    const { pipeline, buffers, constants, threads } = dispatch;
    if (!(pipeline instanceof CudaPipeline)) return;
    this.#arguments.start(buffers.length, constants, threads);
    this.#prepare(pipeline, shapeOf(dispatch));
  }

  /** Puts a kernel into `stream` that gets `addresses` and `constants`, in groups of {@link GROUP_SIZE}. */
  run(
    stream: number,
    pipeline: CudaPipeline,
    addresses: readonly number[],
    constants: Uint8Array,
    threads: number,
  ): void {
    const parameters = this.#arguments.start(addresses.length, constants, threads);
    for (const [index, address] of addresses.entries()) this.#arguments.setBuffer(index, address);
    this.#launch(stream, pipeline, parameters, { threads, threadsPerGroup: GROUP_SIZE, threadgroupBytes: 0 });
  }

  #launch(stream: number, pipeline: CudaPipeline, parameters: number, shape: Shape): void {
    if (shape.threads === 0) return;
    const groups = this.#prepare(pipeline, shape);
    const { threadsPerGroup, threadgroupBytes } = shape;
    const { cuLaunchKernel } = this.#context.driver.symbols;
    const [one, none] = [1, 0];
    this.#context.check(
      `launching kernel ${pipeline.name}`,
      cuLaunchKernel(
        pipeline.functionHandle,
        groups,
        one,
        one,
        threadsPerGroup,
        one,
        one,
        threadgroupBytes,
        stream,
        parameters,
        none,
      ),
    );
  }

  /** Checks a launch, and has the kernel take the memory that it asks for. Returns its threadgroups. */
  #prepare(pipeline: CudaPipeline, { threads, threadsPerGroup, threadgroupBytes }: Shape): number {
    const most = pipeline.maxThreadsPerBlock;
    if (!Number.isSafeInteger(threadsPerGroup) || threadsPerGroup < 1 || threadsPerGroup > most) {
      const text = `kernel ${pipeline.name}: ${threadsPerGroup} threads a group are not an integer from 1 to ${most}`;
      throw new HeadraceError("BAD_OPTION", text);
    }
    const groups = Math.ceil(threads / threadsPerGroup);
    if (groups > MAX_GROUPS) {
      throw new HeadraceError(
        "BAD_OPTION",
        `kernel ${pipeline.name}: ${groups} groups are over ${MAX_GROUPS}`,
      );
    }
    pipeline.allowGroupBytes(threadgroupBytes);
    return groups;
  }
}

interface Shape {
  readonly threads: number;
  readonly threadsPerGroup: number;
  readonly threadgroupBytes: number;
}

function shapeOf({ threads, threadsPerGroup = GROUP_SIZE, threadgroupBytes = 0 }: ResolvedDispatch): Shape {
  return { threads, threadsPerGroup, threadgroupBytes };
}
