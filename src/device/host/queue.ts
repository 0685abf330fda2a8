/** The queue: submissions in, completions by ticket out. */
import { HeadraceError } from "../../errors.ts";
import type { Completion, DeviceQueue, SubmitOptions, Ticket } from "../device.ts";
import type { RequestList } from "../requests.ts";
import type { HostContext } from "./context.ts";
import { closedError } from "./errors.ts";
import type { InlineCopies } from "./inline.ts";
import type { LaneSet } from "./lanes.ts";
import { Program } from "./program.ts";
import { type Runner, Submission } from "./submission.ts";

/** Ended tickets that can still be asked for; older ones are forgotten. */
const ENDED_KEPT = 8192;
/** Programs kept for reuse, and the numbers of the largest one worth keeping. */
const PROGRAMS_KEPT = 8;
const LARGEST_KEPT = 2 ** 16;

/** What the queues of one device share. */
export interface QueueShared {
  readonly context: HostContext;
  readonly lanes: LaneSet;
  readonly pieceBytes: number;
  readonly copyLanes: number;
  readonly inline: InlineCopies;
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

/** A ticket that has ended and is quiet. */
interface Ended {
  readonly completion: Completion;
}

export class HostQueue implements DeviceQueue {
  readonly #shared: QueueShared;
  readonly #onClose: () => void;
  readonly #runner: Runner;
  /** In the order of tickets. A submission turns into its completion when it is quiet. */
  readonly #records = new Map<Ticket, Submission | Ended>();
  readonly #programs: Program[] = [];
  #endedTickets: Ticket[] = [];
  #lastTicket: Ticket = 0;
  #inFlight = 0;
  #closing: Promise<void> | undefined;

  constructor(shared: QueueShared, onClose: () => void) {
    this.#shared = shared;
    this.#onClose = onClose;
    this.#runner = {
      lanes: shared.lanes,
      syscalls: shared.context.syscalls,
      inline: shared.inline,
      schedule: (submission) => shared.ready.add(submission),
      ended: (submission) => this.#ended(submission),
      quiesced: (submission) => this.#quiesced(submission),
    };
  }

  get inFlight(): number {
    return this.#inFlight;
  }

  submit(list: RequestList, options?: SubmitOptions): Ticket {
    this.#assertOpen();
    const timeoutMs = options?.timeoutMs;
    if (timeoutMs !== undefined && !(timeoutMs >= 0)) {
      throw new HeadraceError("BAD_OPTION", `timeoutMs ${timeoutMs} is no number of milliseconds`);
    }
    const { context, pieceBytes, copyLanes, ready } = this.#shared;
    const program = this.#programs.pop() ?? new Program(context, pieceBytes, copyLanes);
    try {
      program.load(list);
    } catch (error) {
      this.#programs.push(program);
      throw error;
    }
    program.retain();
    const ticket = ++this.#lastTicket;
    const submission = new Submission(this.#runner, ticket, program, timeoutMs);
    this.#records.set(ticket, submission);
    this.#inFlight++;
    ready.add(submission);
    return ticket;
  }

  /** Throws `BAD_OPTION` for a ticket that was never given or is forgotten. */
  completion(ticket: Ticket): Promise<Completion> {
    const record = this.#record(ticket);
    return record instanceof Submission ? record.whenEnded() : Promise.resolve(record.completion);
  }

  /** Throws `BAD_OPTION` for a ticket that was never given or is forgotten. */
  quiesced(ticket: Ticket): Promise<void> {
    const record = this.#record(ticket);
    return record instanceof Submission ? record.whenQuiet() : Promise.resolve();
  }

  cancel(ticket: Ticket): void {
    const record = this.#record(ticket);
    if (record instanceof Submission) {
      record.end(new HeadraceError("CANCELLED", `ticket ${ticket} was cancelled`));
    }
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  [Symbol.dispose](): void {
    void this.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #close(): Promise<void> {
    const open = [...this.#records.values()].filter((record) => record instanceof Submission);
    for (const submission of open) {
      submission.end(
        new HeadraceError("CANCELLED", `ticket ${submission.ticket} was cancelled: its queue was closed`),
      );
    }
    this.#onClose();
    await Promise.all(open.map((submission) => submission.whenQuiet()));
  }

  #ended(submission: Submission): void {
    this.#inFlight--;
    this.#endedTickets.push(submission.ticket);
    if (this.#endedTickets.length < 2 * ENDED_KEPT) return;
    const old = this.#endedTickets.splice(0, ENDED_KEPT);
    for (const ticket of old) {
      // One that is not quiet still holds its program; it goes when the next ones do.
      if (this.#records.get(ticket) instanceof Submission) this.#endedTickets.push(ticket);
      else this.#records.delete(ticket);
    }
  }

  #quiesced(submission: Submission): void {
    const { program, completion, ticket } = submission;
    program.release();
    if (this.#programs.length < PROGRAMS_KEPT && program.entries.length <= LARGEST_KEPT) {
      this.#programs.push(program);
    }
    if (completion !== undefined) this.#records.set(ticket, { completion });
  }

  #record(ticket: Ticket): Submission | Ended {
    const record = this.#records.get(ticket);
    if (record !== undefined) return record;
    if (!(ticket >= 1 && ticket <= this.#lastTicket)) {
      throw new HeadraceError("BAD_OPTION", `ticket ${ticket} was not given by this queue`);
    }
    throw new HeadraceError(
      "BAD_OPTION",
      `ticket ${ticket} is forgotten: ${ENDED_KEPT} later ones have ended since`,
    );
  }

  #assertOpen(): void {
    this.#shared.context.assertOpen();
    if (this.#closing !== undefined) throw closedError("the queue");
  }
}
