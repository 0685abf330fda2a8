/** The queue: submissions in, completions by ticket out. */
import type { HeadraceError } from "../../errors.ts";
import { Closing } from "../common/closing.ts";
import { closedError } from "../common/errors.ts";
import { checkTimeout, early, Tickets } from "../common/tickets.ts";
import type { Completion, DeviceQueue, SubmitOptions, Ticket } from "../device.ts";
import type { RequestList } from "../requests.ts";
import type { HostContext } from "./context.ts";
import type { Executor } from "./execute.ts";
import type { Program } from "./program.ts";
import { type Runner, Submission } from "./submission.ts";

/** Programs kept for reuse, and the numbers of the largest one worth keeping. */
const PROGRAMS_KEPT = 32;
const LARGEST_KEPT = 2 ** 16;

/** What the queues of one device share. */
export interface QueueShared {
  readonly context: HostContext;
  /** A program to be loaded, for one queue after another. */
  readonly createProgram: () => Program;
  /** Submissions that can go on, of all queues, in order. */
  readonly ready: ReadyList;
}

/** Steps submissions forward one after the other: an event that one of them signals wakes others, and none
 * runs inside another. */
export class ReadyList {
  readonly #ready: Submission[] = [];
  #draining = false;

  add(submission: Submission): void {
    this.#ready.push(submission);
    if (this.#draining) return;
    this.#draining = true;
    try {
      for (let next = this.#ready.shift(); next !== undefined; next = this.#ready.shift()) next.advance();
    } finally {
      this.#draining = false;
    }
  }
}

export class HostQueue extends Closing implements DeviceQueue {
  readonly #shared: QueueShared;
  readonly #onClose: () => void;
  readonly #runner: Runner;
  readonly #tickets = new Tickets<Submission>();
  readonly #programs: Program[] = [];

  constructor(shared: QueueShared, executor: Executor, onClose: () => void) {
    super();
    this.#shared = shared;
    this.#onClose = onClose;
    this.#runner = {
      executor,
      schedule: (submission) => shared.ready.add(submission),
      ended: (submission) => this.#tickets.ended(submission.ticket),
      quiesced: (submission) => this.#quiesced(submission),
    };
  }

  get inFlight(): number {
    return this.#tickets.inFlight;
  }

  submit(list: RequestList, options?: SubmitOptions): Ticket {
    this.#assertOpen();
    const timeoutMs = options?.timeoutMs;
    checkTimeout(timeoutMs);
    const { createProgram, ready } = this.#shared;
    const program = this.#programs.pop() ?? createProgram();
    try {
      program.load(list);
    } catch (error) {
      this.#programs.push(program);
      throw error;
    }
    program.retain();
    const submission = new Submission(this.#runner, this.#tickets.next, program, timeoutMs);
    this.#tickets.take(submission);
    ready.add(submission);
    return submission.ticket;
  }

  completion(ticket: Ticket): Promise<Completion> {
    return this.#tickets.completion(ticket);
  }

  quiesced(ticket: Ticket): Promise<void> {
    return this.#tickets.quiesced(ticket);
  }

  cancel(ticket: Ticket): void {
    this.#tickets.find(ticket)?.end(early.cancelled(ticket));
  }

  /** Ends all tickets with one failure: nothing can run any more. */
  fail(error: HeadraceError): void {
    for (const submission of this.#tickets.open()) submission.end(error);
  }

  protected override async end(): Promise<void> {
    const open = this.#tickets.open();
    for (const submission of open) submission.end(early.closed(submission.ticket));
    this.#onClose();
    await Promise.all(open.map((submission) => submission.whenQuiet()));
    await this.#runner.executor.close?.();
  }

  #quiesced(submission: Submission): void {
    const { program, completion, ticket } = submission;
    program.release();
    if (this.#programs.length < PROGRAMS_KEPT && program.entries.length <= LARGEST_KEPT) {
      this.#programs.push(program);
    }
    if (completion !== undefined) this.#tickets.quiet(ticket, completion);
  }

  #assertOpen(): void {
    this.#shared.context.assertOpen();
    if (this.isClosing) throw closedError("the queue");
  }
}
