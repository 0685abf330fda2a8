/**
 * The memory that the JavaScript thread and the lanes share: a ring of work and a table of slots.
 *
 * One thread writes the ring, all lanes take from it. A lane copies entries out first and then moves `tail`
 * past them by compare-and-exchange: the writer never touches an entry before `tail` has passed it, so a
 * successful exchange proves the copies whole. `head` and `tail` count up and wrap at 2^32.
 *
 * A slot is one job: the requests between two ordering points of one submission. Lanes count its pieces
 * down; whoever reaches zero posts the slot's number to the JavaScript thread.
 */

/** What an entry asks of a lane; requests keep the numbers of `Op`. `upload` reads into memory that only a device
 * sees. */
export const LaneOp = { read: 1, write: 2, copy: 3, sync: 4, populate: 100, upload: 101 } as const;

/** Whether an entry reads a file: its `source` is then no address, but the number of a further way to the file, or
 * 0. */
export function readsFile(op: number): boolean {
  return op === LaneOp.read || op === LaneOp.upload;
}

/** Float64 numbers an entry. */
export const ENTRY = 8;
/** Fields of an entry. A copy from a mapping names its file in `fd` and the length that the file must still
 * have in `fileOffset`; `fd` is -1 for other copies. */
export const Field = {
  op: 0,
  fd: 1,
  fileOffset: 2,
  target: 3,
  source: 4,
  byteLength: 5,
  slot: 6,
  /** Index of the request in its submission. */
  request: 7,
} as const;

/** Int32 indices of the control words, each on a cache line of its own. */
export const Control = {
  /** Entries written so far. */
  head: 0,
  /** Entries taken so far. */
  tail: 16,
  /** Changes with every addition; lanes sleep on it. */
  wake: 32,
  /** Lanes that sleep or are about to. */
  idle: 48,
  /** 1 while the JavaScript thread waits for room. */
  refill: 64,
  /** 1 when lanes must end. */
  stop: 80,
  /** 1 while reads come from memory: then more lanes than cores only get into one another's way, and the rest
   * sleep on it. */
  narrow: 96,
} as const;
const CONTROL_WORDS = 112;

/** Int32 words a slot: one cache line. */
export const SLOT = 16;
export const Slot = {
  /** Pieces that have not ended. */
  pending: 0,
  /** One of {@link SlotState}. */
  state: 1,
  /** Bytes moved, as two unsigned halves. */
  bytesLow: 2,
  bytesHigh: 3,
} as const;

/** Anything but `running` makes lanes skip what is left of a job. */
export const SlotState = { running: 0, cancelled: 1, failed: 2 } as const;

/** Float64 numbers a slot that describe its first failure; written by one lane before it counts down. */
export const DETAIL = 4;
export const Detail = {
  /** An errno, or one of {@link Failure}. */
  code: 0,
  request: 1,
  /** Bytes of the request's piece that were done before it failed; for `shrunk` the file's length. */
  done: 2,
  /** Where the piece starts in its file. */
  fileOffset: 3,
} as const;

/** Failures that have no errno. */
export const Failure = { shortRead: -1, shrunk: -2, noProgress: -3 } as const;

/** What is posted instead of a slot's number when the ring has room again. */
export const ROOM = -1;
/** What is posted instead of a slot's number when a lane can work. */
export const READY = -2;
/** What is posted instead of a slot's number when a lane has ended and holds nothing any more. */
export const ENDED = -3;

/** Entries that a lane takes at once at most. */
export const MAX_CLAIM = 16;

export interface Ring {
  readonly control: Int32Array<SharedArrayBuffer>;
  /** A power of two of entries. */
  readonly entries: Float64Array<SharedArrayBuffer>;
  readonly slots: Int32Array<SharedArrayBuffer>;
  readonly details: Float64Array<SharedArrayBuffer>;
}

/** `numEntries` is a power of two. */
export function createRing(numEntries: number, numSlots: number): Ring {
  return {
    control: new Int32Array(new SharedArrayBuffer(CONTROL_WORDS * 4)),
    entries: new Float64Array(new SharedArrayBuffer(numEntries * ENTRY * 8)),
    slots: new Int32Array(new SharedArrayBuffer(numSlots * SLOT * 4)),
    details: new Float64Array(new SharedArrayBuffer(numSlots * DETAIL * 8)),
  };
}

/** Entries between two wrapping counters. */
export function distance(head: number, tail: number): number {
  return (head - tail) >>> 0;
}
