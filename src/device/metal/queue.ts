/** The queue: submissions go to the library in one call, and its rows become completions. */
import type { HeadraceError } from "../../errors.ts";
import { Closing } from "../common/closing.ts";
import { closedError } from "../common/errors.ts";
import { checkTimeout, early, OpenTicket, startDeadline, Tickets } from "../common/tickets.ts";
import type { Completion, DeviceQueue, SubmitOptions, Ticket } from "../device.ts";
import type { RequestList } from "../requests.ts";
import { CompletionFlag, ROW, Row, Status } from "./abi.ts";
import type { Completions, RowReader } from "./completions.ts";
import { cString, type MetalContext } from "./context.ts";
import { nativeError } from "./errors.ts";
import type { Program, RequestPaths } from "./program.ts";

/** What the queues of one device share. */
export interface QueueShared {
  readonly context: MetalContext;
  readonly completions: Completions;
  readonly program: Program;
}

/** One compression, as `hr_compress` takes it. */
export interface CompressJob {
  readonly source: string;
  readonly target: string;
  readonly codec: number;
  readonly chunkBytes: number;
}

class MetalTicket extends OpenTicket {
  readonly paths: RequestPaths;
  /** Why it was asked to end early. */
  reason: HeadraceError | undefined;
  timer: ReturnType<typeof setTimeout> | undefined;

  constructor(ticket: Ticket, paths: RequestPaths) {
    super(ticket);
    this.paths = paths;
  }

  end(completion: Completion): void {
    clearTimeout(this.timer);
    this.completion = completion;
    this.tellEnded();
  }

  becomeQuiet(): void {
    this.quiet = true;
    this.tellQuiet();
  }
}

export class MetalQueue extends Closing implements DeviceQueue, RowReader {
  readonly #shared: QueueShared;
  readonly #handle: number;
  readonly #background: boolean;
  readonly #onClose: () => void;
  readonly #tickets = new Tickets<MetalTicket>();
  /** The row of a submission that ended within the call. */
  readonly #endedRow = new Float64Array(new ArrayBuffer(ROW * 8));

  /** A `background` queue does not keep the process alive. Throws `OUT_OF_MEMORY`, `DEVICE_LOST`. */
  constructor(shared: QueueShared, background: boolean, onClose: () => void) {
    super();
    this.#shared = shared;
    this.#background = background;
    this.#onClose = onClose;
    const { symbols, handle, handleOut, error } = shared.context;
    this.#handle = shared.context.make("a queue", () =>
      symbols.hr_queue_create(handle, handleOut, error.bytes),
    );
    shared.completions.register(this.#handle, this);
  }

  get inFlight(): number {
    return this.#tickets.inFlight;
  }

  submit(list: RequestList, options?: SubmitOptions): Ticket {
    this.#assertOpen();
    const timeoutMs = options?.timeoutMs;
    checkTimeout(timeoutMs);
    const { context, program } = this.#shared;
    program.load(list);
    const { symbols, error } = context;
    const ticket = this.#tickets.next;
    error.clear();
    const status = symbols.hr_queue_submit(
      this.#handle,
      program.submission,
      ticket,
      this.#endedRow,
      error.bytes,
    );
    if (status < Status.OK) throw explain(status, error.message, error.osErrno, program.paths(list));
    if (status === 0) this.#take(ticket, program.paths(list), timeoutMs);
    else {
      const row = this.#endedRow;
      const failure = this.#failureOf(row, 0, ticket, row[Row.status]! < 0 ? program.paths(list) : undefined);
      this.#tickets.takeEnded(this.#shared.completions.readNow(row, ticket, failure));
    }
    return ticket;
  }

  /** Compresses a file; the completion counts the source's bytes. Throws as `submit`. */
  compress({ source, target, codec, chunkBytes }: CompressJob): Ticket {
    this.#assertOpen();
    const { context } = this.#shared;
    const ticket = this.#tickets.next;
    const [from, to] = [cString(source), cString(target)];
    context.run(source, () =>
      context.symbols.hr_compress(this.#handle, from, to, codec, chunkBytes, ticket, context.error.bytes),
    );
    this.#take(ticket, { pathOf: () => source }, undefined);
    return ticket;
  }

  /** Bytes of the source that a compression has done so far. */
  compressed(ticket: Ticket): number {
    const { context } = this.#shared;
    const out = new Float64Array(new ArrayBuffer(8));
    context.symbols.hr_compress_progress(this.#handle, ticket, out, context.error.bytes);
    return out[0]!;
  }

  completion(ticket: Ticket): Promise<Completion> {
    return this.#tickets.completion(ticket);
  }

  quiesced(ticket: Ticket): Promise<void> {
    return this.#tickets.quiesced(ticket);
  }

  cancel(ticket: Ticket): void {
    this.#stop(this.#tickets.find(ticket), Status.CANCELLED, early.cancelled(ticket));
  }

  /** Takes one row of this queue's. */
  readRow(rows: Float64Array, at: number): void {
    const ticket = rows[at + Row.ticket]!;
    const open = this.#tickets.find(ticket);
    if (open === undefined) return;
    const flags = rows[at + Row.flags]!;
    if ((flags & CompletionFlag.ENDED) !== 0 && open.completion === undefined) {
      const failure = this.#failureOf(rows, at, ticket, open.paths, open.reason);
      open.end(this.#shared.completions.read(rows, at, ticket, failure));
      this.#tickets.ended(ticket);
    }
    if ((flags & CompletionFlag.QUIET) !== 0) open.quiet = true;
    if (!open.quiet || open.completion === undefined) return;
    this.#tickets.quiet(ticket, open.completion);
    open.becomeQuiet();
    if (!this.#background) this.#shared.completions.finished();
  }

  #take(ticket: Ticket, paths: RequestPaths, timeoutMs: number | undefined): void {
    const open = new MetalTicket(ticket, paths);
    this.#tickets.take(open);
    open.timer = startDeadline(timeoutMs, () =>
      this.#stop(open, Status.TIMED_OUT, early.late(ticket, timeoutMs!)),
    );
    if (!this.#background) this.#shared.completions.began();
  }

  #stop(open: MetalTicket | undefined, status: number, reason: HeadraceError): void {
    if (open === undefined || open.completion !== undefined) return;
    open.reason ??= reason;
    // A ticket that has ended meanwhile keeps its outcome, whose row is on its way.
    this.#shared.context.symbols.hr_queue_cancel(this.#handle, open.ticket, status);
  }

  #failureOf(
    rows: Float64Array,
    at: number,
    ticket: Ticket,
    paths: RequestPaths | undefined,
    reason?: HeadraceError,
  ): HeadraceError | undefined {
    const status = rows[at + Row.status]!;
    if (status >= Status.OK) return undefined;
    if (status === Status.CANCELLED || status === Status.TIMED_OUT) return reason ?? early.cancelled(ticket);
    const { symbols, error } = this.#shared.context;
    error.clear();
    const known = symbols.hr_queue_error(this.#handle, ticket, error.bytes) === Status.OK;
    return explain(status, known ? error.message : "", rows[at + Row.osErrno]!, paths);
  }

  protected override async end(): Promise<void> {
    const { context, completions } = this.#shared;
    const open = this.#tickets.open();
    for (const ticket of open) ticket.reason ??= early.closed(ticket.ticket);
    context.symbols.hr_close(this.#handle);
    this.#onClose();
    await Promise.all(open.map((ticket) => ticket.whenQuiet()));
    completions.forget(this.#handle);
  }

  #assertOpen(): void {
    this.#shared.context.assertOpen();
    if (this.isClosing) throw closedError("the queue");
  }
}

/** The library numbers the request that failed; people want the file. */
function explain(
  status: number,
  text: string,
  osErrno: number,
  paths: RequestPaths | undefined,
): HeadraceError {
  const numbered = /^request (\d+): (.*)$/.exec(text);
  const path = paths?.pathOf(numbered === null ? undefined : Number(numbered[1]));
  return nativeError(status, numbered !== null && path !== undefined ? numbered[2]! : text, osErrno, path);
}
