/**
 * The lanes seen from the JavaScript thread: Workers that make the blocking calls. They start when there is
 * work for them, sleep while there is none, and keep the process alive only while they work.
 */
import { HeadraceError } from "../../errors.ts";
import type { LaneStart } from "./lane.ts";
import {
  Control,
  createRing,
  DETAIL,
  Detail,
  distance,
  ENTRY,
  Field,
  LaneOp,
  type Ring,
  ROOM,
  SLOT,
  Slot,
  SlotState,
} from "./ring.ts";
import type { FaultPlan } from "./syscalls.ts";

/** Requests that run side by side. */
export interface Job {
  /** {@link ENTRY} numbers a request, with `slot` and `request` still open; unchanged until the end. */
  readonly program: Float64Array;
  /** Requests `[first, end)` of `program`. */
  readonly first: number;
  readonly end: number;
  /** Entries that the requests make when cut by {@link cutsInto}; at least 1. */
  readonly numPieces: number;
  /** Lanes that are worth waking. */
  readonly lanesWanted: number;
  /** Called once, when no lane touches the job's memory any more. */
  ended(end: JobEnd): void;
}

export interface JobEnd {
  readonly bytesDone: number;
  /** Absent on success and after {@link Lanes.stop}. */
  readonly failure?: JobFailure;
}

/** What a lane noted, or why there is no lane. */
export type JobFailure =
  | { readonly code: number; readonly request: number; readonly done: number; readonly fileOffset: number }
  | HeadraceError;

/** Pieces that a request of `byteLength` bytes is cut into. */
export function cutsInto(op: number, byteLength: number, pieceBytes: number): number {
  return op === LaneOp.sync ? 1 : Math.ceil(byteLength / pieceBytes);
}

/** The runtime's Worker: the standard one, and whether it keeps the process alive. */
interface LaneWorker extends Worker {
  ref(): void;
  unref(): void;
}

/** A job on its way through the ring. */
export interface LaneRun {
  readonly job: Job;
  /** -1 until there is a free one. */
  slot: number;
  /** The next request to cut, and what of it was cut already, in bytes. */
  request: number;
  cutBytes: number;
  /** Pieces not in the ring yet. */
  piecesLeft: number;
  over: boolean;
}

/** Whatever runs jobs: {@link Lanes}, or what stands in for them. */
export interface LaneSet {
  /** Takes a job; it ends later, never within this call. Throws `DEVICE_FAILED` where it can run none. */
  start(job: Job): LaneRun;
  /** Lets a job end early. What is under way ends first; then `ended` is called, which may be within this
   * call. */
  stop(run: LaneRun): void;
  /** Resolves when all jobs have ended and nothing runs any more. Stop the jobs first. */
  close(): Promise<void>;
}

export interface LanesOptions {
  readonly numLanes: number;
  /** A power of two. */
  readonly numEntries: number;
  readonly numSlots: number;
  readonly pieceBytes: number;
  readonly faults: FaultPlan | undefined;
  /** Of a Worker that takes a {@link LaneStart}; default the host's. */
  readonly worker?: URL;
  /** Gives what that Worker needs besides, which is copied to it. */
  readonly extra?: () => unknown;
}

export class Lanes implements LaneSet {
  readonly #options: LanesOptions;
  readonly #ring: Ring;
  readonly #mask: number;
  readonly #workers: LaneWorker[] = [];
  /** Of the Workers, those that know what to do. */
  #numStarted = 0;
  readonly #workersGone: Promise<void>[] = [];
  readonly #runOfSlot: (LaneRun | undefined)[];
  readonly #freeSlots: number[] = [];
  /** Runs with pieces that are not in the ring, oldest first. */
  #waiting: LaneRun[] = [];
  /** Runs that have not ended. */
  #numRuns = 0;
  #whenIdle: (() => void)[] = [];
  #broken: HeadraceError | undefined;
  #closing: Promise<void> | undefined;

  constructor(options: LanesOptions) {
    this.#options = options;
    this.#ring = createRing(options.numEntries, options.numSlots);
    this.#mask = options.numEntries - 1;
    this.#runOfSlot = new Array(options.numSlots).fill(undefined);
    for (let slot = options.numSlots - 1; slot >= 0; slot--) this.#freeSlots.push(slot);
  }

  start(job: Job): LaneRun {
    if (this.#broken !== undefined) throw this.#broken;
    const run: LaneRun = {
      job,
      slot: -1,
      request: job.first,
      cutBytes: 0,
      piecesLeft: job.numPieces,
      over: false,
    };
    // Each job under way may keep a lane busy, or stuck.
    this.#startWorkers(this.#numRuns + job.lanesWanted);
    if (this.#numRuns++ === 0) for (const worker of this.#workers) worker.ref();
    this.#waiting.push(run);
    this.#feed();
    return run;
  }

  stop(run: LaneRun): void {
    if (run.over) return;
    if (run.slot < 0) {
      this.#waiting = this.#waiting.filter((other) => other !== run);
      this.#end(run, { bytesDone: 0 });
      return;
    }
    const state = run.slot * SLOT + Slot.state;
    Atomics.compareExchange(this.#ring.slots, state, SlotState.running, SlotState.cancelled);
    if (run.piecesLeft === 0) return;
    this.#waiting = this.#waiting.filter((other) => other !== run);
    this.#withdraw(run);
  }

  /** Has the system make all Workers, so that they are there when there is work. */
  spawn(): void {
    while (this.#workers.length < this.#options.numLanes) this.#spawn();
  }

  /** Starts all Workers. */
  warm(): void {
    this.#startWorkers(this.#options.numLanes);
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    if (this.#numRuns > 0) await new Promise<void>((resolve) => this.#whenIdle.push(resolve));
    const { control } = this.#ring;
    Atomics.store(control, Control.stop, 1);
    Atomics.store(control, Control.narrow, 0);
    Atomics.notify(control, Control.narrow);
    Atomics.add(control, Control.wake, 1);
    Atomics.notify(control, Control.wake);
    for (const worker of this.#workers) {
      worker.ref();
      worker.terminate();
    }
    await Promise.all(this.#workersGone);
  }

  #startWorkers(wanted: number): void {
    const { numLanes, faults, extra } = this.#options;
    const numCores = Math.max(2, navigator.hardwareConcurrency);
    while (this.#numStarted < Math.min(wanted, numLanes)) {
      const index = this.#numStarted++;
      if (index === this.#workers.length) this.#spawn();
      const start: LaneStart = { ring: this.#ring, numLanes, index, numCores, faults, extra: extra?.() };
      this.#workers[index]!.postMessage(start);
    }
  }

  #spawn(): void {
    const url = this.#options.worker ?? new URL("./lane-worker.ts", import.meta.url);
    const worker = new Worker(url) as LaneWorker;
    if (this.#numRuns === 0) worker.unref();
    worker.onmessage = (event: MessageEvent<number>) => this.#onMessage(event.data);
    worker.onerror = (event) => this.#break(event.message);
    this.#workersGone.push(
      new Promise((resolve) => worker.addEventListener("close", () => resolve(), { once: true })),
    );
    this.#workers.push(worker);
  }

  #onMessage(message: number): void {
    if (message === ROOM) {
      this.#feed();
      return;
    }
    const run = this.#runOfSlot[message];
    if (run !== undefined) this.#endSlot(run);
  }

  /** Moves waiting runs into the ring as far as slots and room go. */
  #feed(): void {
    const { control } = this.#ring;
    let lanesWanted = 0;
    while (this.#waiting.length > 0) {
      const run = this.#waiting[0]!;
      if (run.slot < 0 && !this.#giveSlot(run)) break;
      lanesWanted += run.job.lanesWanted;
      if (this.#push(run)) {
        this.#waiting.shift();
        continue;
      }
      // A lane that makes room after this store posts ROOM; one that made it before is seen here.
      Atomics.store(control, Control.refill, 1);
      if (this.#room() <= this.#mask / 2) break;
      Atomics.store(control, Control.refill, 0);
    }
    if (lanesWanted > 0) this.#wake(lanesWanted);
  }

  #giveSlot(run: LaneRun): boolean {
    const slot = this.#freeSlots.pop();
    if (slot === undefined) return false;
    run.slot = slot;
    this.#runOfSlot[slot] = run;
    const { slots } = this.#ring;
    const base = slot * SLOT;
    Atomics.store(slots, base + Slot.bytesLow, 0);
    Atomics.store(slots, base + Slot.bytesHigh, 0);
    Atomics.store(slots, base + Slot.state, SlotState.running);
    // All pieces from the start, so that the count cannot reach zero while some are still outside.
    Atomics.store(slots, base + Slot.pending, run.job.numPieces);
    return true;
  }

  #room(): number {
    const { control } = this.#ring;
    const used = distance(Atomics.load(control, Control.head), Atomics.load(control, Control.tail));
    return this.#mask + 1 - used;
  }

  /** Cuts requests into entries while there is room. Returns whether all are in. */
  #push(run: LaneRun): boolean {
    const { control, entries } = this.#ring;
    const { program, end } = run.job;
    const { pieceBytes } = this.#options;
    let head = Atomics.load(control, Control.head);
    let room = this.#room();
    while (room > 0 && run.request < end) {
      const from = run.request * ENTRY;
      const op = program[from]!;
      const left = program[from + Field.byteLength]! - run.cutBytes;
      if (left <= 0 && op !== LaneOp.sync) {
        run.request++;
        run.cutBytes = 0;
        continue;
      }
      const at = (head & this.#mask) * ENTRY;
      // A copy from a mapping keeps the length of its file there, whatever the piece.
      const fileCut = op === LaneOp.copy ? 0 : run.cutBytes;
      entries[at] = op;
      entries[at + Field.fd] = program[from + Field.fd]!;
      entries[at + Field.fileOffset] = program[from + Field.fileOffset]! + fileCut;
      entries[at + Field.target] = program[from + Field.target]! + run.cutBytes;
      entries[at + Field.source] = program[from + Field.source]! + run.cutBytes;
      entries[at + Field.byteLength] = Math.min(left, pieceBytes);
      entries[at + Field.slot] = run.slot;
      entries[at + Field.request] = run.request;
      if (left > pieceBytes) {
        run.cutBytes += pieceBytes;
      } else {
        run.request++;
        run.cutBytes = 0;
      }
      head = (head + 1) | 0;
      room--;
      run.piecesLeft--;
    }
    Atomics.store(control, Control.head, head);
    return run.piecesLeft === 0;
  }

  #wake(wanted: number): void {
    const { control } = this.#ring;
    Atomics.add(control, Control.wake, 1);
    if (Atomics.load(control, Control.idle) > 0) Atomics.notify(control, Control.wake, wanted);
  }

  /** Takes back the pieces that never reached the ring. */
  #withdraw(run: LaneRun): void {
    const pending = run.slot * SLOT + Slot.pending;
    const left = run.piecesLeft;
    run.piecesLeft = 0;
    if (Atomics.sub(this.#ring.slots, pending, left) === left) this.#endSlot(run);
  }

  #endSlot(run: LaneRun): void {
    const { slots, details } = this.#ring;
    const base = run.slot * SLOT;
    const low = Atomics.load(slots, base + Slot.bytesLow) >>> 0;
    const bytesDone = (Atomics.load(slots, base + Slot.bytesHigh) >>> 0) * 2 ** 32 + low;
    const failed = Atomics.load(slots, base + Slot.state) === SlotState.failed;
    const detail = run.slot * DETAIL;
    const end: JobEnd = failed
      ? {
          bytesDone,
          failure: {
            code: details[detail + Detail.code]!,
            request: details[detail + Detail.request]!,
            done: details[detail + Detail.done]!,
            fileOffset: details[detail + Detail.fileOffset]!,
          },
        }
      : { bytesDone };
    this.#runOfSlot[run.slot] = undefined;
    this.#freeSlots.push(run.slot);
    this.#end(run, end);
    this.#feed();
  }

  #end(run: LaneRun, end: JobEnd): void {
    run.over = true;
    if (--this.#numRuns === 0) {
      for (const worker of this.#workers) worker.unref();
      for (const resolve of this.#whenIdle.splice(0)) resolve();
    }
    run.job.ended(end);
  }

  /** A lane died: what it had taken will never be counted down, so everything ends here. */
  async #break(message: string): Promise<void> {
    if (this.#broken !== undefined) return;
    const broken = new HeadraceError("DEVICE_FAILED", `host device: a lane has died: ${message}`);
    this.#broken = broken;
    for (const worker of this.#workers) worker.terminate();
    // A Worker in a system call is gone only when the call has returned; memory is in use until then.
    await Promise.all(this.#workersGone);
    const runs = [...this.#runOfSlot.filter((run) => run !== undefined), ...this.#waiting];
    this.#waiting = [];
    this.#runOfSlot.fill(undefined);
    for (const run of new Set(runs)) if (!run.over) this.#end(run, { bytesDone: 0, failure: broken });
  }
}
