/** What runs the steps of a submission: on the host, lanes, the calling thread for small copies, and kernels in
 * their TypeScript form. */
import { HeadraceError } from "../../errors.ts";
import { errnoError } from "../common/errors.ts";
import { shortReadError, shrunkError } from "../common/files.ts";
import type { InlineCopies } from "./inline.ts";
import type { JobFailure, LaneSet } from "./jobs.ts";
import { runDispatch } from "./pipeline.ts";
import type { MoveStep, Program, WorkStep } from "./program.ts";
import { ENTRY, Failure, Field, LaneOp } from "./ring.ts";
import type { Syscalls } from "./syscalls.ts";

/** How a step ended. */
export interface StepEnd {
  readonly bytesDone: number;
  readonly error?: HeadraceError;
}

export function stepEnd(bytesDone: number, error: HeadraceError | undefined): StepEnd {
  return error === undefined ? { bytesDone } : { bytesDone, error };
}

/** A step under way. */
export interface Running {
  /** Lets it end early. What is under way ends first; then `ended` is called, which may be within this call. */
  stop(): void;
}

/** One for each device. */
export interface Executor {
  /** Starts a step of a program that stays loaded and retained until it has ended. `first` tells the program's first
   * step. Returns the bytes moved where it is over already; else `ended` is called once, never within this call. */
  start(step: WorkStep, program: Program, first: boolean, ended: (end: StepEnd) => void): Running | number;
  /** Called once, when the queue is closed and nothing of it runs any more. */
  close?(): Promise<void>;
}

export interface HostExecutorParts {
  readonly lanes: LaneSet;
  readonly syscalls: Syscalls;
  readonly inline: InlineCopies;
}

export class HostExecutor implements Executor {
  readonly #lanes: LaneSet;
  readonly #syscalls: Syscalls;
  readonly #inline: InlineCopies;

  constructor({ lanes, syscalls, inline }: HostExecutorParts) {
    this.#lanes = lanes;
    this.#syscalls = syscalls;
    this.#inline = inline;
  }

  start(step: WorkStep, program: Program, first: boolean, ended: (end: StepEnd) => void): Running | number {
    if (step.kind === "dispatch") {
      runDispatch(step.dispatch);
      return 0;
    }
    if (step.kind !== "move") throw new HeadraceError("DEVICE_FAILED", `the host has no steps ${step.kind}`);
    if (step.copiesOnly && this.#inline.allow(step.bytes)) return this.#copyInline(step, program, first);
    return this.move(step, program, ended);
  }

  /** Has lanes run a step. */
  move(step: MoveStep, program: Program, ended: (end: StepEnd) => void): Running {
    const run = this.#lanes.start({
      program: program.entries,
      first: step.first,
      end: step.end,
      numPieces: step.numPieces,
      lanesWanted: step.lanesWanted,
      ended: ({ bytesDone, failure }) => {
        const error = failure && this.explain(failure, program.entries, (slot) => program.pathOf(slot));
        ended(stepEnd(bytesDone, error));
      },
    });
    return { stop: () => this.#lanes.stop(run) };
  }

  #copyInline(step: MoveStep, program: Program, first: boolean): number {
    // Loading the program has looked at the files right before its first step.
    if (!first) program.checkFiles();
    const { entries } = program;
    const startedMs = performance.now();
    for (let at = step.first * ENTRY; at < step.end * ENTRY; at += ENTRY) {
      const byteLength = entries[at + Field.byteLength]!;
      if (byteLength > 0) {
        this.#syscalls.copy(entries[at + Field.target]!, entries[at + Field.source]!, byteLength);
      }
    }
    this.#inline.took(step.bytes, performance.now() - startedMs);
    return step.bytes;
  }

  /** What a lane noted, in words. */
  protected explain(
    failure: JobFailure,
    entries: Float64Array,
    pathOf: (slot: number) => string,
  ): HeadraceError {
    if (failure instanceof HeadraceError) return failure;
    const at = failure.request * ENTRY;
    const op = entries[at + Field.op]!;
    const byteLength = entries[at + Field.byteLength]!;
    const fileOffset = entries[at + Field.fileOffset]!;
    const path = pathOf(entries[at + Field.slot]!);
    if (failure.code === Failure.shrunk) return shrunkError(path, failure.done, fileOffset);
    const failedAt = failure.fileOffset + failure.done;
    if (failure.code === Failure.shortRead) {
      // Pieces run side by side, and the one that met the end need not be the first one past it.
      const now = this.#syscalls.fileLength(entries[at + Field.fd]!);
      const end = now < 0 ? failedAt : Math.min(now, failedAt);
      return shortReadError(path, fileOffset, byteLength, Math.max(0, end - fileOffset));
    }
    const range = `bytes [${fileOffset}, ${fileOffset + byteLength})`;
    if (failure.code === Failure.noProgress) {
      return new HeadraceError(
        "IO_ERROR",
        `${path}: writing ${range}: the system took 0 bytes at ${failedAt}`,
      );
    }
    const verb = this.verbOf(op);
    if (verb === "sync") return errnoError(`${path}: making written data durable`, failure.code);
    if (verb === "copy") return errnoError(`${path}: finding the length`, failure.code);
    return errnoError(`${path}: ${verb} ${range}, at byte ${failedAt}`, failure.code);
  }

  /** What a lane's operation is called in errors. */
  protected verbOf(op: number): "sync" | "copy" | "writing" | "reading" {
    if (op === LaneOp.sync) return "sync";
    if (op === LaneOp.copy) return "copy";
    return op === LaneOp.write ? "writing" : "reading";
  }
}
