/**
 * How the library's completions reach JavaScript. They wait in a ring; a wake-up says that there are some, and
 * one call moves many out. There are two ways of waking: a socket that the event loop watches, and a Worker that
 * waits in the library. Which one works here is tried out when the device opens; until that is known a timer
 * looks as well, so that work can start at once.
 */

import type { HeadraceError } from "../../errors.ts";
import type { Completion, Ticket } from "../device.ts";
import { ROW, Row, Status } from "./abi.ts";
import { readCompletion } from "./completion.ts";
import type { MetalContext } from "./context.ts";
import { WaitWorker } from "./wait-worker.ts";
import { WakeSocket } from "./wake-socket.ts";

/** `auto` takes `wake` where a try of it is seen in time, else `worker`. */
export type CompletionWay = "auto" | "wake" | "worker";

/** Rows that one call moves. */
const ROWS = 256;
/** While nothing is known, the ring is looked at this often, in ms. */
const LOOK_MS = 2;
/** A wake-up that was not seen after so many looks and so many ms never comes. */
const LOOKS = 25;
const TRY_MS = 250;

/** Whoever wakes the event loop when rows wait. It does not keep the process alive. */
export interface Waker {
  /** Resolves when nothing of it is left. The device's handle has been closed before. */
  close(): Promise<void>;
}

/** Takes the rows of one queue. */
export interface RowReader {
  readRow(rows: Float64Array, at: number): void;
}

export class Completions {
  readonly #context: MetalContext;
  readonly #path: string;
  readonly #wakeFd: number;
  readonly #rows = new Float64Array(new ArrayBuffer(ROWS * ROW * 8));
  readonly #readers = new Map<number, RowReader>();
  /** From the library's clock to `performance.now()`. */
  readonly #offsetMs: number;
  #seenMs = 0;
  #waker: Waker | undefined;
  /** How rows come, once that is known. */
  #way: "testing" | "wake" | "worker" = "testing";
  #look: ReturnType<typeof setInterval> | undefined;
  /** Tickets in flight that keep the process alive; a timer does it, since a socket cannot be trusted to. */
  #busy = 0;
  readonly #alive = setInterval(() => {}, 2 ** 31 - 1);
  /** Whether the library has said that no more rows come. */
  #over = false;
  #draining = false;

  /** `path` is the library's, `wakeFd` borrowed. */
  constructor(context: MetalContext, path: string, wakeFd: number, way: CompletionWay) {
    this.#context = context;
    this.#path = path;
    this.#wakeFd = wakeFd;
    this.#offsetMs = clockOffset(context);
    this.#alive.unref();
    if (way === "worker") this.#useWorker();
    else this.#useSocket(way === "auto");
  }

  /** How rows come; `testing` for a moment after the device was opened. */
  get way(): "testing" | "wake" | "worker" {
    return this.#way;
  }

  register(queue: number, reader: RowReader): void {
    this.#readers.set(queue, reader);
  }

  /** No more rows of this queue come. */
  forget(queue: number): void {
    this.#readers.delete(queue);
  }

  /** A ticket is in flight: the process stays alive for it until {@link Completions.finished}. */
  began(): void {
    if (this.#busy++ === 0) this.#alive.ref();
  }

  finished(): void {
    if (--this.#busy === 0) this.#alive.unref();
  }

  /** The completion in a row of those that were just delivered. */
  read(rows: Float64Array, at: number, ticket: Ticket, error: HeadraceError | undefined): Completion {
    return readCompletion(rows, at, ticket, error, this.#offsetMs, this.#seenMs);
  }

  /** The completion in a row that did not come through the ring. */
  readNow(row: Float64Array, ticket: Ticket, error: HeadraceError | undefined): Completion {
    return readCompletion(row, 0, ticket, error, this.#offsetMs, performance.now());
  }

  /** After the device's handle was closed: resolves when all rows have come and nothing is left. */
  async close(): Promise<void> {
    clearInterval(this.#look);
    this.#look = undefined;
    this.#alive.ref();
    if (this.#way !== "worker") {
      for (this.#drain(); !this.#over; this.#drain()) await Bun.sleep(1);
    }
    await this.#waker?.close();
    clearInterval(this.#alive);
  }

  #useSocket(tryIt: boolean): void {
    const socket = new WakeSocket(this.#wakeFd, () => {
      if (this.#way === "testing") this.#decide();
      this.#drain();
    });
    this.#waker = socket;
    if (tryIt) {
      this.#context.symbols.hr_device_ping(this.#context.handle);
      const started = performance.now();
      let looks = 0;
      this.#startLooking(() => {
        this.#drain();
        // Both, since a program that was busy has not looked at its socket either.
        if (++looks < LOOKS || performance.now() - started < TRY_MS) return;
        void socket.close();
        this.#useWorker();
      });
    } else this.#way = "wake";
  }

  #decide(): void {
    clearInterval(this.#look);
    this.#look = undefined;
    this.#way = "wake";
  }

  #useWorker(): void {
    clearInterval(this.#look);
    this.#look = undefined;
    this.#way = "worker";
    const deliver = (rows: Float64Array) => {
      this.#seenMs = performance.now();
      this.#deliver(rows, rows.length / ROW);
    };
    const died = () => {
      this.#way = "testing";
      this.#startLooking(() => this.#drain());
    };
    this.#waker = new WaitWorker(this.#path, this.#context.handle, deliver, died);
  }

  #startLooking(look: () => void): void {
    this.#look = setInterval(look, LOOK_MS);
    this.#look.unref();
  }

  /** Moves all rows out. */
  #drain(): void {
    // A row's end may let somebody look again from within.
    if (this.#draining) return;
    this.#draining = true;
    const { symbols, handle } = this.#context;
    try {
      for (;;) {
        const count = symbols.hr_device_poll(handle, this.#rows, ROWS);
        if (count < Status.OK) this.#over = true;
        if (count <= 0) return;
        this.#seenMs = performance.now();
        this.#deliver(this.#rows, count);
      }
    } finally {
      this.#draining = false;
    }
  }

  #deliver(rows: Float64Array, count: number): void {
    for (let row = 0; row < count; row++) {
      const at = row * ROW;
      this.#readers.get(rows[at + Row.queue]!)?.readRow(rows, at);
    }
  }
}

/** Both clocks are read next to each other several times; the closest pair counts. */
function clockOffset({ symbols }: MetalContext): number {
  let best = Number.POSITIVE_INFINITY;
  let offset = 0;
  for (let round = 0; round < 8; round++) {
    const before = performance.now();
    const native = symbols.hr_clock_ms();
    const after = performance.now();
    if (after - before >= best) continue;
    best = after - before;
    offset = (before + after) / 2 - native;
  }
  return offset;
}
