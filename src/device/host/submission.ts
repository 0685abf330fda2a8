/** One ticket on its way: steps a checked program forward, and ends once, whatever comes first. */
import { HeadraceError } from "../../errors.ts";
import { errnoError } from "../common/errors.ts";
import { shortReadError, shrunkError } from "../common/files.ts";
import { early, OpenTicket, startDeadline } from "../common/tickets.ts";
import type { Ticket } from "../device.ts";
import type { InlineCopies } from "./inline.ts";
import type { Job, JobEnd, JobFailure, LaneRun, LaneSet } from "./lanes.ts";
import { runDispatch } from "./pipeline.ts";
import type { Program, Step } from "./program.ts";
import { ENTRY, Failure, Field, LaneOp } from "./ring.ts";
import type { Syscalls } from "./syscalls.ts";

/** What submissions of one queue share. */
export interface Runner {
  readonly lanes: LaneSet;
  readonly syscalls: Syscalls;
  readonly inline: InlineCopies;
  /** Runs `submission.advance()` soon, and not within another submission's. */
  schedule(submission: Submission): void;
  /** The ticket has ended. */
  ended(submission: Submission): void;
  /** Nothing of the program is in use any more. */
  quiesced(submission: Submission): void;
}

export class Submission extends OpenTicket {
  readonly program: Program;
  readonly #runner: Runner;
  readonly #submittedMs = performance.now();
  #bytesDone = 0;
  #step = 0;
  #run: LaneRun | undefined;
  #stopWaiting: (() => void) | undefined;
  #advancing = false;
  readonly #timer: ReturnType<typeof setTimeout> | undefined;

  /** `program` is loaded, retained, and the submission's own until it is quiet. */
  constructor(runner: Runner, ticket: Ticket, program: Program, timeoutMs: number | undefined) {
    super(ticket);
    this.#runner = runner;
    this.program = program;
    this.#timer = startDeadline(timeoutMs, () => this.end(early.late(ticket, timeoutMs!)));
  }

  /** Runs steps until one has to be waited for. */
  advance(): void {
    const { steps } = this.program;
    // A kernel may cancel its own ticket; its memory stays until it has returned.
    this.#advancing = true;
    try {
      while (this.completion === undefined && this.#run === undefined && this.#stopWaiting === undefined) {
        const step = steps[this.#step];
        if (step === undefined) {
          this.end(undefined);
          break;
        }
        this.#step++;
        this.#start(step);
      }
    } catch (error) {
      this.end(error instanceof HeadraceError ? error : new HeadraceError("DEVICE_FAILED", String(error)));
    }
    this.#advancing = false;
    this.#quiesceIfIdle();
  }

  /** Ends the ticket unless it has ended. What the lanes are in the middle of quiets down later. */
  end(error: HeadraceError | undefined): void {
    if (this.completion !== undefined) return;
    clearTimeout(this.#timer);
    const times = { submittedMs: this.#submittedMs, completedMs: performance.now() };
    const done = { ticket: this.ticket, bytesDone: this.#bytesDone, ...times };
    this.completion = error === undefined ? done : { ...done, error };
    this.#stopWaiting?.();
    this.#runner.ended(this);
    this.tellEnded();
    if (this.#run === undefined) this.#quiesceIfIdle();
    else this.#runner.lanes.stop(this.#run);
  }

  #quiesceIfIdle(): void {
    if (this.quiet || this.#advancing || this.#run !== undefined || this.completion === undefined) return;
    this.quiet = true;
    this.#runner.quiesced(this);
    this.tellQuiet();
  }

  #start(step: Step): void {
    switch (step.kind) {
      case "signal":
        step.event.signal(step.value);
        return;
      case "wait":
        this.#wait(step);
        return;
      case "dispatch":
        runDispatch(step.dispatch);
        return;
      default:
        if (step.copiesOnly && this.#runner.inline.allow(step.bytes)) this.#copyInline(step);
        else this.#move(step);
    }
  }

  #wait(step: Extract<Step, { kind: "wait" | "signal" }>): void {
    if (!step.event.closed && step.event.value >= step.value) return;
    const takeBack = step.event.whenReached(step.value, (error) => {
      this.#stopWaiting = undefined;
      if (error === undefined) this.#runner.schedule(this);
      else this.end(error);
    });
    if (!step.event.closed) this.#stopWaiting = takeBack;
  }

  #copyInline(step: Extract<Step, { kind: "move" }>): void {
    // Loading the program has looked at the files right before its first step.
    if (this.#step > 1) this.program.checkFiles();
    const { entries } = this.program;
    const { syscalls, inline } = this.#runner;
    const startedMs = performance.now();
    for (let at = step.first * ENTRY; at < step.end * ENTRY; at += ENTRY) {
      const byteLength = entries[at + Field.byteLength]!;
      if (byteLength > 0) syscalls.copy(entries[at + Field.target]!, entries[at + Field.source]!, byteLength);
    }
    inline.took(step.bytes, performance.now() - startedMs);
    this.#bytesDone += step.bytes;
  }

  #move(step: Extract<Step, { kind: "move" }>): void {
    const job: Job = {
      program: this.program.entries,
      first: step.first,
      end: step.end,
      numPieces: step.numPieces,
      lanesWanted: step.lanesWanted,
      ended: (end) => this.#moved(end),
    };
    this.#run = this.#runner.lanes.start(job);
  }

  #moved(end: JobEnd): void {
    this.#run = undefined;
    if (this.completion !== undefined) {
      this.#quiesceIfIdle();
      return;
    }
    this.#bytesDone += end.bytesDone;
    if (end.failure !== undefined) this.end(this.#explain(end.failure));
    else this.#runner.schedule(this);
  }

  #explain(failure: JobFailure): HeadraceError {
    if (failure instanceof HeadraceError) return failure;
    const { entries } = this.program;
    const at = failure.request * ENTRY;
    const op = entries[at + Field.op]!;
    const byteLength = entries[at + Field.byteLength]!;
    const fileOffset = entries[at + Field.fileOffset]!;
    const path = this.program.pathOf(entries[at + Field.slot]!);
    if (failure.code === Failure.shrunk) return shrunkError(path, failure.done, fileOffset);
    const failedAt = failure.fileOffset + failure.done;
    if (failure.code === Failure.shortRead) {
      // Pieces run side by side, and the one that met the end need not be the first one past it.
      const now = this.#runner.syscalls.fileLength(entries[at + Field.fd]!);
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
    if (op === LaneOp.sync) return errnoError(`${path}: making written data durable`, failure.code);
    if (op === LaneOp.copy) return errnoError(`${path}: finding the length`, failure.code);
    const verb = op === LaneOp.write ? "writing" : "reading";
    return errnoError(`${path}: ${verb} ${range}, at byte ${failedAt}`, failure.code);
  }
}
