/** One ticket on its way: steps a checked program forward, and ends once, whatever comes first. */
import type { HeadraceError } from "../../errors.ts";
import { deviceError } from "../common/errors.ts";
import { early, OpenTicket, startDeadline } from "../common/tickets.ts";
import type { Ticket } from "../device.ts";
import type { Executor, Running, StepEnd } from "./execute.ts";
import type { Program, Step, WaitStep } from "./program.ts";

/** What submissions of one queue share. */
export interface Runner {
  readonly executor: Executor;
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
  #running: Running | undefined;
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
      while (
        this.completion === undefined &&
        this.#running === undefined &&
        this.#stopWaiting === undefined
      ) {
        const step = steps[this.#step];
        if (step === undefined) {
          this.end(undefined);
          break;
        }
        this.#step++;
        this.#start(step);
      }
    } catch (error) {
      this.end(deviceError(error));
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
    if (this.#running === undefined) this.#quiesceIfIdle();
    else this.#running.stop();
  }

  #quiesceIfIdle(): void {
    if (this.quiet || this.#advancing || this.#running !== undefined || this.completion === undefined) return;
    this.quiet = true;
    this.#runner.quiesced(this);
    this.tellQuiet();
  }

  #start(step: Step): void {
    if (step.kind === "signal") step.event.signal(step.value);
    else if (step.kind === "wait") this.#wait(step);
    else {
      const { executor } = this.#runner;
      const started = executor.start(step, this.program, this.#step === 1, (end) => this.#ended(end));
      if (typeof started === "number") this.#bytesDone += started;
      else this.#running = started;
    }
  }

  #wait(step: WaitStep): void {
    if (!step.event.closed && step.event.value >= step.value) return;
    const takeBack = step.event.whenReached(step.value, (error) => {
      this.#stopWaiting = undefined;
      if (error === undefined) this.#runner.schedule(this);
      else this.end(error);
    });
    if (!step.event.closed) this.#stopWaiting = takeBack;
  }

  #ended(end: StepEnd): void {
    this.#running = undefined;
    if (this.completion !== undefined) {
      this.#quiesceIfIdle();
      return;
    }
    this.#bytesDone += end.bytesDone;
    if (end.error !== undefined) this.end(end.error);
    else this.#runner.schedule(this);
  }
}
