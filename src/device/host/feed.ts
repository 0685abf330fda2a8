/**
 * The side of the ring that fills it, on the JavaScript thread: cuts jobs into entries, as far as slots and room go, and
 * reads how they ended.
 */
import type { Job, JobEnd, LaneRun } from "./jobs.ts";
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
  readsFile,
  SLOT,
  Slot,
  SlotState,
} from "./ring.ts";

export interface FeedOptions {
  /** A power of two. */
  readonly numEntries: number;
  /** Jobs that lanes know of at once; more wait. */
  readonly numSlots: number;
  /** Longer requests are cut. */
  readonly pieceBytes: number;
}

export class Feed {
  /** Shared with the lanes. */
  readonly ring: Ring;
  readonly #mask: number;
  readonly #pieceBytes: number;
  readonly #ended: (run: LaneRun, end: JobEnd) => void;
  readonly #runOfSlot: (LaneRun | undefined)[];
  readonly #freeSlots: number[] = [];
  /** Runs with pieces that are not in the ring, oldest first. */
  #waiting: LaneRun[] = [];

  /** `ended` is called once a run, when no lane touches its memory any more. */
  constructor({ numEntries, numSlots, pieceBytes }: FeedOptions, ended: (run: LaneRun, end: JobEnd) => void) {
    this.ring = createRing(numEntries, numSlots);
    this.#mask = numEntries - 1;
    this.#pieceBytes = pieceBytes;
    this.#ended = ended;
    this.#runOfSlot = new Array(numSlots).fill(undefined);
    for (let slot = numSlots - 1; slot >= 0; slot--) this.#freeSlots.push(slot);
  }

  /** Takes a job, which waits for room; {@link Feed.fill} starts it. */
  add(job: Job): LaneRun {
    const run: LaneRun = {
      job,
      slot: -1,
      request: job.first,
      cutBytes: 0,
      piecesLeft: job.numPieces,
      over: false,
    };
    this.#waiting.push(run);
    return run;
  }

  /** Lets a run that is not over end early; it may end within this call. */
  stop(run: LaneRun): void {
    if (run.slot < 0) {
      this.#waiting = this.#waiting.filter((other) => other !== run);
      this.#finish(run, { bytesDone: 0 });
      return;
    }
    const state = run.slot * SLOT + Slot.state;
    Atomics.compareExchange(this.ring.slots, state, SlotState.running, SlotState.cancelled);
    if (run.piecesLeft === 0) return;
    this.#waiting = this.#waiting.filter((other) => other !== run);
    this.#withdraw(run);
  }

  /** Moves waiting runs into the ring as far as slots and room go. */
  fill(): void {
    const { control } = this.ring;
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

  /** The lanes have done the last piece of the run in `slot`. */
  slotEnded(slot: number): void {
    const run = this.#runOfSlot[slot];
    if (run !== undefined) this.#endSlot(run);
  }

  /** Forgets all runs, which the lanes will never end, and gives those that are not over. */
  abandon(): LaneRun[] {
    const runs = new Set([...this.#runOfSlot.filter((run) => run !== undefined), ...this.#waiting]);
    this.#waiting = [];
    this.#runOfSlot.fill(undefined);
    return [...runs].filter((run) => !run.over);
  }

  #giveSlot(run: LaneRun): boolean {
    const slot = this.#freeSlots.pop();
    if (slot === undefined) return false;
    run.slot = slot;
    this.#runOfSlot[slot] = run;
    const { slots } = this.ring;
    const base = slot * SLOT;
    Atomics.store(slots, base + Slot.bytesLow, 0);
    Atomics.store(slots, base + Slot.bytesHigh, 0);
    Atomics.store(slots, base + Slot.state, SlotState.running);
    // All pieces from the start, so that the count cannot reach zero while some are still outside.
    Atomics.store(slots, base + Slot.pending, run.job.numPieces);
    return true;
  }

  #room(): number {
    const { control } = this.ring;
    const used = distance(Atomics.load(control, Control.head), Atomics.load(control, Control.tail));
    return this.#mask + 1 - used;
  }

  /** Cuts requests into entries while there is room. Returns whether all are in. */
  #push(run: LaneRun): boolean {
    const { control, entries } = this.ring;
    const { program, end } = run.job;
    const pieceBytes = this.#pieceBytes;
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
      entries[at + Field.source] = program[from + Field.source]! + (readsFile(op) ? 0 : run.cutBytes);
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
    const { control } = this.ring;
    Atomics.add(control, Control.wake, 1);
    if (Atomics.load(control, Control.idle) > 0) Atomics.notify(control, Control.wake, wanted);
  }

  /** Takes back the pieces that never reached the ring. */
  #withdraw(run: LaneRun): void {
    const pending = run.slot * SLOT + Slot.pending;
    const left = run.piecesLeft;
    run.piecesLeft = 0;
    if (Atomics.sub(this.ring.slots, pending, left) === left) this.#endSlot(run);
  }

  #endSlot(run: LaneRun): void {
    const { slots, details } = this.ring;
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
    this.#finish(run, end);
    this.fill();
  }

  #finish(run: LaneRun, end: JobEnd): void {
    run.over = true;
    this.#ended(run, end);
  }
}
