/** What a queue knows of its tickets: which are open, how the others ended, and who waits for them. */
import { HeadraceError } from "../../errors.ts";
import type { Completion, Ticket } from "../device.ts";

/** Ended tickets that can still be asked for; older ones are forgotten. */
const ENDED_KEPT = 8192;
/** The longest that a timer of the runtime can wait, in ms; longer deadlines are as good as none. */
const MAX_TIMER = 2 ** 31 - 1;

/** A ticket that has not ended, or is not quiet yet. */
export class OpenTicket {
  readonly ticket: Ticket;
  /** Set once the ticket has ended. */
  completion: Completion | undefined;
  /** Whether no memory is in use any more. */
  quiet = false;
  /** Made when first asked for. */
  #whenEnded: PromiseWithResolvers<Completion> | undefined;
  #whenQuiet: PromiseWithResolvers<void> | undefined;

  constructor(ticket: Ticket) {
    this.ticket = ticket;
  }

  whenEnded(): Promise<Completion> {
    if (this.completion !== undefined) return Promise.resolve(this.completion);
    this.#whenEnded ??= Promise.withResolvers();
    return this.#whenEnded.promise;
  }

  whenQuiet(): Promise<void> {
    if (this.quiet) return Promise.resolve();
    this.#whenQuiet ??= Promise.withResolvers();
    return this.#whenQuiet.promise;
  }

  /** Tells who waits that {@link OpenTicket.completion} is there. */
  protected tellEnded(): void {
    if (this.completion !== undefined) this.#whenEnded?.resolve(this.completion);
  }

  /** Tells who waits that the ticket is {@link OpenTicket.quiet}. */
  protected tellQuiet(): void {
    this.#whenQuiet?.resolve();
  }
}

/** A ticket that has ended and is quiet. */
interface Ended {
  readonly completion: Completion;
}

/** The tickets of one queue, in order. */
export class Tickets<T extends OpenTicket> {
  readonly #records = new Map<Ticket, T | Ended>();
  #endedTickets: Ticket[] = [];
  #last: Ticket = 0;
  #inFlight = 0;

  /** Tickets that have not ended. */
  get inFlight(): number {
    return this.#inFlight;
  }

  /** The ticket after the last one that was taken. */
  get next(): Ticket {
    return this.#last + 1;
  }

  /** Takes {@link Tickets.next}, which is `open.ticket`. */
  take(open: T): void {
    this.#last = open.ticket;
    this.#records.set(open.ticket, open);
    this.#inFlight++;
  }

  /** Takes {@link Tickets.next}, which has ended already. */
  takeEnded(completion: Completion): void {
    this.#last = completion.ticket;
    this.#records.set(completion.ticket, { completion });
    this.#remember(completion.ticket);
  }

  /** The ticket has ended; it may be in use still. */
  ended(ticket: Ticket): void {
    this.#inFlight--;
    this.#remember(ticket);
  }

  /** The ticket is quiet: its record turns into its completion. */
  quiet(ticket: Ticket, completion: Completion): void {
    this.#records.set(ticket, { completion });
  }

  /** Tickets that have not ended or are not quiet. */
  open(): T[] {
    const open: T[] = [];
    for (const record of this.#records.values()) if (record instanceof OpenTicket) open.push(record);
    return open;
  }

  /** Undefined for one that has ended and is quiet. Throws `BAD_OPTION` for a ticket that was never given or is
   * forgotten. */
  find(ticket: Ticket): T | undefined {
    const record = this.#record(ticket);
    return record instanceof OpenTicket ? record : undefined;
  }

  /** Throws as {@link Tickets.find}. */
  completion(ticket: Ticket): Promise<Completion> {
    const record = this.#record(ticket);
    return record instanceof OpenTicket ? record.whenEnded() : Promise.resolve(record.completion);
  }

  /** Throws as {@link Tickets.find}. */
  quiesced(ticket: Ticket): Promise<void> {
    return this.find(ticket)?.whenQuiet() ?? Promise.resolve();
  }

  #remember(ticket: Ticket): void {
    this.#endedTickets.push(ticket);
    if (this.#endedTickets.length < 2 * ENDED_KEPT) return;
    const old = this.#endedTickets.splice(0, ENDED_KEPT);
    for (const ended of old) {
      // One that is not quiet still holds what it uses; it goes when the next ones do.
      if (this.#records.get(ended) instanceof OpenTicket) this.#endedTickets.push(ended);
      else this.#records.delete(ended);
    }
  }

  #record(ticket: Ticket): T | Ended {
    const record = this.#records.get(ticket);
    if (record !== undefined) return record;
    if (!(ticket >= 1 && ticket <= this.#last)) {
      throw new HeadraceError("BAD_OPTION", `ticket ${ticket} was not given by this queue`);
    }
    throw new HeadraceError(
      "BAD_OPTION",
      `ticket ${ticket} is forgotten: ${ENDED_KEPT} later ones have ended since`,
    );
  }
}

/** Throws `BAD_OPTION` for a deadline that is none. */
export function checkTimeout(timeoutMs: number | undefined): void {
  if (timeoutMs === undefined || timeoutMs >= 0) return;
  throw new HeadraceError("BAD_OPTION", `timeoutMs ${timeoutMs} is no number of milliseconds`);
}

/** Calls `late` once `timeoutMs` have passed; undefined where there is no deadline, or none that would come. */
export function startDeadline(
  timeoutMs: number | undefined,
  late: () => void,
): ReturnType<typeof setTimeout> | undefined {
  return timeoutMs === undefined || timeoutMs > MAX_TIMER ? undefined : setTimeout(late, timeoutMs);
}

/** Why a ticket ended early. */
export const early = {
  cancelled: (ticket: Ticket) => new HeadraceError("CANCELLED", `ticket ${ticket} was cancelled`),
  closed: (ticket: Ticket) =>
    new HeadraceError("CANCELLED", `ticket ${ticket} was cancelled: its queue was closed`),
  late: (ticket: Ticket, timeoutMs: number) =>
    new HeadraceError(
      "TIMED_OUT",
      `ticket ${ticket} has not ended within ${timeoutMs} ms; raise timeoutMs, or look at what it waits for: an event, a slow disk, work before it`,
    ),
};
