/** Runs the steps of one queue of a CUDA device: on its lanes, and in its streams. */
import { HeadraceError } from "../../errors.ts";
import {
  type Executor,
  HostExecutor,
  type HostExecutorParts,
  type Running,
  type StepEnd,
  stepEnd,
} from "../host/execute.ts";
import type { JobFailure, LaneRun, LaneSet } from "../host/jobs.ts";
import type { MoveStep, Program, WorkStep } from "../host/program.ts";
import { ENTRY } from "../host/ring.ts";
import { GpuRun, type GpuRunParts } from "./gpu-run.ts";
import { CudaOp, DRIVER_FAILURE } from "./lane-ops.ts";
import { CudaProgram, type GpuStep } from "./program.ts";
import type { Streams } from "./streams.ts";

export interface CudaExecutorParts
  extends HostExecutorParts,
    Omit<GpuRunParts, "streams" | "runLanes" | "stopLanes"> {
  readonly lanes: LaneSet;
}

export class CudaExecutor extends HostExecutor implements Executor {
  readonly #parts: CudaExecutorParts;
  readonly #streams: Streams;
  readonly #gpuParts: GpuRunParts;

  /** Owns `streams`. */
  constructor(parts: CudaExecutorParts, streams: Streams) {
    super(parts);
    this.#parts = parts;
    this.#streams = streams;
    const { lanes } = parts;
    this.#gpuParts = {
      ...parts,
      streams,
      runLanes: (program, entries, numPieces, ended) => this.#runLanes(program, entries, numPieces, ended),
      stopLanes: (run) => lanes.stop(run),
    };
  }

  override start(
    step: WorkStep,
    program: Program,
    first: boolean,
    ended: (end: StepEnd) => void,
  ): Running | number {
    if (step.kind !== "other") return super.start(step, program, first, ended);
    if (!(program instanceof CudaProgram))
      throw new HeadraceError("DEVICE_FAILED", "no program of this device");
    if (!first) program.checkFiles();
    const { ops, lanes } = step as GpuStep;
    return lanes === undefined ? this.#gpu(program, ops, ended) : this.#both(program, ops, lanes, ended);
  }

  override move(step: MoveStep, program: Program, ended: (end: StepEnd) => void): Running {
    const { context } = this.#parts;
    context.began();
    try {
      return super.move(step, program, (end) => {
        context.finished();
        ended(end);
      });
    } catch (error) {
      context.finished();
      throw error;
    }
  }

  async close(): Promise<void> {
    this.#streams.close();
  }

  #gpu(program: CudaProgram, ops: GpuStep["ops"], ended: (end: StepEnd) => void): Running {
    const run = new GpuRun(this.#gpuParts, program, ops, ended);
    run.start();
    return run;
  }

  /** Lanes and GPU side by side; the first failure stops the other. */
  #both(program: CudaProgram, ops: GpuStep["ops"], lanes: MoveStep, ended: (end: StepEnd) => void): Running {
    let left = 2;
    let bytesDone = 0;
    let error: HeadraceError | undefined;
    const stop = () => {
      for (const one of running) one.stop();
    };
    const oneEnded = (end: StepEnd) => {
      bytesDone += end.bytesDone;
      if (end.error !== undefined && error === undefined) {
        error = end.error;
        if (left === 2) stop();
      }
      if (--left === 0) ended(stepEnd(bytesDone, error));
    };
    const running: Running[] = [];
    running.push(this.move(lanes, program, oneEnded));
    running.push(this.#gpu(program, ops, oneEnded));
    return { stop };
  }

  #runLanes(
    program: CudaProgram,
    entries: Float64Array,
    numPieces: number,
    ended: (end: StepEnd) => void,
  ): LaneRun {
    return this.#parts.lanes.start({
      program: entries,
      first: 0,
      end: entries.length / ENTRY,
      numPieces,
      lanesWanted: numPieces,
      ended: ({ bytesDone, failure }) => {
        ended(stepEnd(bytesDone, failure && this.#explainStaged(failure, entries, program)));
      },
    });
  }

  /** The file behind a mapping was read instead: to the caller it has shrunk. */
  #explainStaged(failure: JobFailure, entries: Float64Array, program: CudaProgram): HeadraceError {
    const error = this.explain(failure, entries, (slot) => program.pathOf(slot));
    if (error.code !== "SHORT_READ") return error;
    try {
      program.checkFiles();
      return error;
    } catch (shrunk) {
      return shrunk as HeadraceError;
    }
  }

  protected override explain(
    failure: JobFailure,
    entries: Float64Array,
    pathOf: (slot: number) => string,
  ): HeadraceError {
    if (failure instanceof HeadraceError || failure.code > DRIVER_FAILURE) {
      return super.explain(failure, entries, pathOf);
    }
    return this.#parts.context.failure("a lane's copy", DRIVER_FAILURE - failure.code);
  }

  protected override verbOf(op: number): "sync" | "copy" | "writing" | "reading" {
    return op === CudaOp.download ? "writing" : super.verbOf(op);
  }
}
