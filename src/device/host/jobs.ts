/** What lanes are asked for: jobs, and how they end. */
import type { HeadraceError } from "../../errors.ts";
import { LaneOp } from "./ring.ts";

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
  /** Absent on success and after {@link LaneSet.stop}. */
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

/** Whatever runs jobs: lanes, or what stands in for them. */
export interface LaneSet {
  /** Takes a job; it ends later, never within this call. Throws `DEVICE_FAILED` where it can run none. */
  start(job: Job): LaneRun;
  /** Lets a job end early. What is under way ends first; then `ended` is called, which may be within this
   * call. */
  stop(run: LaneRun): void;
  /** Resolves when all jobs have ended and nothing runs any more. Stop the jobs first. */
  close(): Promise<void>;
}
