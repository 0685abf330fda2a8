/**
 * Brings to the device what lies in mappings whose windows are not registered. Lanes read the files instead, which
 * costs no page fault, from the front; meanwhile the registrar works from the back, and what it has done by the time
 * that it is due goes by the copy engines.
 */
import { deviceError } from "../common/errors.ts";
import { type StepEnd, stepEnd } from "../host/execute.ts";
import type { LaneRun } from "../host/jobs.ts";
import type { Region } from "../host/memory.ts";
import { ENTRY, Field, LaneOp } from "../host/ring.ts";
import type { Registrar } from "./registrar.ts";
import { SMALL_BYTES } from "./transfers.ts";
import { WindowState, type Windows } from "./windows.ts";

/** A copy out of a mapping, within one window unless it is small. */
export interface StagedCopy {
  readonly region: Region;
  readonly windows: Windows;
  readonly source: number;
  readonly target: number;
  readonly byteLength: number;
  /** Descriptor of the file, and where the source stands in it. */
  readonly fd: number;
  readonly fileOffset: number;
  /** What names it in errors. */
  readonly object: number;
}

export interface StagingParts {
  readonly registrar: Registrar;
  /** Bytes that lanes are given at once. */
  readonly aheadBytes: number;
  /** Bytes of one piece of a lane. */
  readonly pieceBytes: number;
  /** Starts entries on the lanes, which call `ended` when all have ended, never within the call. */
  runLanes(entries: Float64Array, numPieces: number, ended: (end: StepEnd) => void): LaneRun;
  stopLanes(run: LaneRun): void;
  /** Has the copy engines do one whose window is registered. */
  copyRegistered(copy: StagedCopy): void;
  /** All are over, but for what the copy engines do. Called once, never within {@link Staging.start}. */
  ended(end: StepEnd): void;
}

export class Staging {
  readonly #parts: StagingParts;
  readonly #copies: readonly StagedCopy[];
  readonly #runs = new Set<LaneRun>();
  #next = 0;
  #aheadBytes = 0;
  /** Copies that wait for their window. */
  #waiting = 0;
  #bytesDone = 0;
  #error: StepEnd["error"];
  #stopped = false;
  #over = false;

  /** `copies` in the order in which they are due. */
  constructor(parts: StagingParts, copies: readonly StagedCopy[]) {
    this.#parts = parts;
    this.#copies = copies;
  }

  start(): void {
    this.#parts.registrar.wantEach(this.#copies);
    this.#feed();
  }

  /** Starts nothing more. */
  stop(): void {
    this.#stopped = true;
    for (const run of [...this.#runs]) this.#parts.stopLanes(run);
    this.#endIfOver();
  }

  #feed(): void {
    this.#guard(() => this.#startNext());
    this.#endIfOver();
  }

  /** Runs what may fail: called by those who wait, it has nobody to throw to. */
  #guard(work: () => void): void {
    try {
      work();
    } catch (error) {
      this.#error ??= deviceError(error);
      this.stop();
    }
  }

  /** As many as lanes may be given. */
  #startNext(): void {
    const small: StagedCopy[] = [];
    while (!this.#stopped && this.#next < this.#copies.length) {
      if (this.#aheadBytes >= this.#parts.aheadBytes) break;
      const copy = this.#copies[this.#next++]!;
      if (copy.windows.covers(copy.source, copy.byteLength)) this.#copyRegistered(copy);
      else if (copy.byteLength <= SMALL_BYTES) {
        small.push(copy);
        this.#aheadBytes += copy.byteLength;
      } else this.#stageOrWait(copy);
    }
    if (small.length > 0) this.#stage(small);
  }

  #stageOrWait(copy: StagedCopy): void {
    const { windows, source } = copy;
    const index = windows.indexOf(source);
    this.#aheadBytes += copy.byteLength;
    if (windows.states[index] !== WindowState.registering) {
      // It is registered for the next time, when nothing is due.
      if (this.#parts.registrar.takeBack(windows, index)) {
        this.#parts.registrar.want(copy.region, windows.addressOf(index), 1, true);
      }
      this.#stage([copy]);
      return;
    }
    this.#waiting++;
    windows.whenSettled(index, () => {
      this.#waiting--;
      if (this.#stopped) this.#endIfOver();
      else if (windows.states[index] === WindowState.registered) {
        this.#guard(() => this.#copyRegistered(copy));
        this.#done(copy.byteLength);
      } else this.#guard(() => this.#stage([copy]));
    });
  }

  #copyRegistered(copy: StagedCopy): void {
    this.#parts.copyRegistered(copy);
    this.#bytesDone += copy.byteLength;
  }

  #stage(copies: readonly StagedCopy[]): void {
    const entries = new Float64Array(copies.length * ENTRY);
    let numPieces = 0;
    let bytes = 0;
    for (const [index, copy] of copies.entries()) {
      const at = index * ENTRY;
      entries[at + Field.op] = LaneOp.upload;
      entries[at + Field.fd] = copy.fd;
      entries[at + Field.fileOffset] = copy.fileOffset;
      entries[at + Field.target] = copy.target;
      entries[at + Field.byteLength] = copy.byteLength;
      entries[at + Field.slot] = copy.object;
      numPieces += Math.ceil(copy.byteLength / this.#parts.pieceBytes);
      bytes += copy.byteLength;
    }
    const run: LaneRun = this.#parts.runLanes(entries, numPieces, ({ bytesDone, error }) => {
      this.#runs.delete(run);
      this.#bytesDone += bytesDone;
      if (error !== undefined) {
        this.#error ??= error;
        this.#stopped = true;
      }
      this.#done(bytes);
    });
    this.#runs.add(run);
  }

  #done(bytes: number): void {
    this.#aheadBytes -= bytes;
    this.#feed();
  }

  #endIfOver(): void {
    const left = this.#stopped ? 0 : this.#copies.length - this.#next;
    if (this.#over || left > 0 || this.#runs.size > 0 || this.#waiting > 0) return;
    this.#over = true;
    const { ended } = this.#parts;
    const end = stepEnd(this.#bytesDone, this.#error);
    queueMicrotask(() => ended(end));
  }
}
