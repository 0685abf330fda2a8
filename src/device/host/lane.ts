/** One lane: takes work from the ring, makes blocking system calls, and sleeps when idle. Runs in a Worker. */
import {
  Control,
  DETAIL,
  Detail,
  distance,
  ENDED,
  ENTRY,
  Failure,
  Field,
  LaneOp,
  MAX_CLAIM,
  READY,
  type Ring,
  ROOM,
  SLOT,
  Slot,
  SlotState,
} from "./ring.ts";
import { type FaultPlan, Syscalls } from "./syscalls.ts";

/** The first and only message to a lane. */
export interface LaneStart {
  readonly ring: Ring;
  readonly numLanes: number;
  /** Of this lane, from 0. Lanes from `numCores` on rest while reads come from memory. */
  readonly index: number;
  readonly numCores: number;
  readonly faults: FaultPlan | undefined;
  /** {@link LanesOptions.extra}. */
  readonly extra: unknown;
}

/** Copies up to this many bytes are not looked at one by one for an early end. */
const QUICK_BYTES = 64 * 1024;

/** Shorter reads tell more of the call than of the disk. */
const TELLING_BYTES = 256 * 1024;
/** A read at more than this comes from the page cache, also where lanes share a core; one at less than the
 * other waits for a disk. */
const FAST_BYTES_PER_MS = 1.5e6;
const SLOW_BYTES_PER_MS = 0.75e6;

declare const self: Worker;

/** What {@link Lane.runOther} answers for an entry that it reports itself, later. */
export const DEFERRED = -1;

/** A lane of the host device; other devices add operations of their own. */
export class Lane {
  readonly #ring: Ring;
  readonly #numLanes: number;
  /** Whether there is a core for each lane before this one. */
  readonly #spare: boolean;
  protected readonly syscalls: Syscalls;
  readonly #mask: number;
  /** Entries taken from the ring. */
  protected readonly taken = new Float64Array(MAX_CLAIM * ENTRY);

  /** The file whose length was looked up last, for what was taken together; -1 for none. */
  #checkedFd = -1;
  #checkedLength = 0;

  constructor({ ring, numLanes, index, numCores, faults }: LaneStart) {
    this.#ring = ring;
    this.#numLanes = numLanes;
    this.#spare = index >= numCores;
    this.syscalls = new Syscalls(faults);
    this.#mask = ring.entries.length / ENTRY - 1;
  }

  /** Returns when the lanes are told to stop. */
  run(): void {
    self.postMessage(READY);
    this.#work();
    this.close();
    self.postMessage(ENDED);
  }

  /** Frees what the lane has of its own. */
  protected close(): void {}

  #work(): void {
    const { control } = this.#ring;
    for (;;) {
      const wake = Atomics.load(control, Control.wake);
      if (Atomics.load(control, Control.stop) !== 0) return;
      if (this.#spare && Atomics.load(control, Control.narrow) === 1) {
        while (this.settle());
        // Whoever woke this lane meant one that works: pass it on, or nobody takes the request.
        Atomics.notify(control, Control.wake, 1);
        Atomics.wait(control, Control.narrow, 1);
        continue;
      }
      const count = this.#claim();
      if (count > 0) {
        this.#runTaken(count);
      } else if (!this.settle()) {
        // A request added after `wake` was read changes it, and the wait returns at once.
        Atomics.add(control, Control.idle, 1);
        Atomics.wait(control, Control.wake, wake);
        Atomics.sub(control, Control.idle, 1);
      }
    }
  }

  /** Takes a share of what waits, which shrinks with it so that all lanes end together. Returns how many. */
  #claim(): number {
    const { control, entries } = this.#ring;
    const taken = this.taken;
    for (;;) {
      const tail = Atomics.load(control, Control.tail);
      const waiting = distance(Atomics.load(control, Control.head), tail);
      if (waiting === 0) return 0;
      const count = Math.min(MAX_CLAIM, Math.ceil(waiting / (2 * this.#numLanes)));
      const from = tail & this.#mask;
      const beforeEnd = Math.min(count, this.#mask + 1 - from);
      taken.set(entries.subarray(from * ENTRY, (from + beforeEnd) * ENTRY));
      if (beforeEnd < count) taken.set(entries.subarray(0, (count - beforeEnd) * ENTRY), beforeEnd * ENTRY);
      if (Atomics.compareExchange(control, Control.tail, tail, (tail + count) | 0) !== tail) continue;
      if (Atomics.load(control, Control.refill) === 1 && waiting - count <= (this.#mask + 1) / 2) {
        if (Atomics.compareExchange(control, Control.refill, 1, 0) === 1) self.postMessage(ROOM);
      }
      return count;
    }
  }

  /** Ends something that was {@link DEFERRED}; called when there is nothing else to do. Returns whether there was
   * any. */
  protected settle(): boolean {
    return false;
  }

  /** Runs the entry at `at` of {@link Lane.taken}, whose operation is none of the host's. Returns the bytes moved,
   * or {@link DEFERRED}. */
  protected runOther(at: number): number {
    // A hint: whatever goes wrong is met again by those who need the bytes.
    this.syscalls.populate(this.taken[at + Field.source]!, this.taken[at + Field.byteLength]!);
    return 0;
  }

  /** Called after the last entry of those that were taken together. */
  protected tookAll(): void {}

  #runTaken(count: number): void {
    const { slots } = this.#ring;
    const taken = this.taken;
    // Ends are reported once for each run of entries with the same slot.
    this.#checkedFd = -1;
    let slot = taken[Field.slot]!;
    let ended = 0;
    let bytes = 0;
    let running = false;
    for (let at = 0; at < count * ENTRY; at += ENTRY) {
      if (taken[at + Field.slot] !== slot) {
        this.report(slot, ended, bytes);
        slot = taken[at + Field.slot]!;
        ended = 0;
        bytes = 0;
        running = false;
      }
      // A few small copies are over sooner than anyone could stop them.
      const quick = taken[at] === LaneOp.copy && taken[at + Field.byteLength]! <= QUICK_BYTES;
      if (!(running && quick)) running = Atomics.load(slots, slot * SLOT + Slot.state) === SlotState.running;
      const moved = running ? this.#runOne(at) : 0;
      if (moved === DEFERRED) continue;
      bytes += moved;
      ended++;
    }
    this.report(slot, ended, bytes);
    this.tookAll();
  }

  /** Counts `ended` pieces of a job down, which moved `bytes`. */
  protected report(slot: number, ended: number, bytes: number): void {
    const { slots } = this.#ring;
    const base = slot * SLOT;
    if (bytes > 0) {
      // At most MAX_CLAIM pieces of 1 GiB: more than one 32-bit half, so both halves take their part.
      const low = bytes % 2 ** 32;
      const before = Atomics.add(slots, base + Slot.bytesLow, low | 0) >>> 0;
      const high = Math.floor(bytes / 2 ** 32) + (before + low >= 2 ** 32 ? 1 : 0);
      if (high > 0) Atomics.add(slots, base + Slot.bytesHigh, high);
    }
    if (ended > 0 && Atomics.sub(slots, base + Slot.pending, ended) === ended) self.postMessage(slot);
  }

  /** Returns the bytes moved. */
  #runOne(at: number): number {
    const taken = this.taken;
    const length = taken[at + Field.byteLength]!;
    switch (taken[at]) {
      case LaneOp.read:
        return this.#read(at, length);
      case LaneOp.write:
        return this.#write(at, length);
      case LaneOp.copy:
        return this.#copy(at, length);
      case LaneOp.sync: {
        const answer = this.syscalls.sync(taken[at + Field.fd]!);
        if (answer < 0) this.fail(at, -answer, 0);
        return 0;
      }
      default:
        return this.runOther(at);
    }
  }

  #read(at: number, length: number): number {
    const taken = this.taken;
    const fd = taken[at + Field.fd]!;
    const offset = taken[at + Field.fileOffset]!;
    const target = taken[at + Field.target]!;
    const startedMs = performance.now();
    // A long read from a disk goes out as one deep request instead of the kernel's small steps.
    const telling = length >= TELLING_BYTES;
    if (telling && Atomics.load(this.#ring.control, Control.narrow) === 0) {
      this.syscalls.readAhead(fd, offset, length);
    }
    let done = 0;
    while (done < length) {
      const count = this.syscalls.pread(fd, target + done, length - done, offset + done);
      if (count > 0) done += count;
      else return this.fail(at, count === 0 ? Failure.shortRead : -count, done);
    }
    if (telling) this.#judge(length / (performance.now() - startedMs));
    return done;
  }

  /** Wakes the spare lanes when a read had to wait for a disk, and rests them when it had not. */
  #judge(bytesPerMs: number): void {
    const { control } = this.#ring;
    const narrow = Atomics.load(control, Control.narrow);
    if (narrow === 0 && bytesPerMs > FAST_BYTES_PER_MS) Atomics.store(control, Control.narrow, 1);
    if (narrow === 1 && bytesPerMs < SLOW_BYTES_PER_MS) {
      Atomics.store(control, Control.narrow, 0);
      Atomics.notify(control, Control.narrow);
    }
  }

  #write(at: number, length: number): number {
    const taken = this.taken;
    const fd = taken[at + Field.fd]!;
    const offset = taken[at + Field.fileOffset]!;
    const source = taken[at + Field.source]!;
    let done = 0;
    while (done < length) {
      const count = this.syscalls.pwrite(fd, source + done, length - done, offset + done);
      if (count > 0) done += count;
      else return this.fail(at, count === 0 ? Failure.noProgress : -count, done);
    }
    return done;
  }

  #copy(at: number, length: number): number {
    const taken = this.taken;
    if (!this.sourceHolds(at)) return 0;
    this.syscalls.copy(taken[at + Field.target]!, taken[at + Field.source]!, length);
    return length;
  }

  /** Whether a copy's source may be touched; notes the failure where it may not. Touching a mapping past the end of
   * its file kills the process, so look right before; once is enough for what was taken together. */
  protected sourceHolds(at: number): boolean {
    const taken = this.taken;
    const fd = taken[at + Field.fd]!;
    if (fd < 0) return true;
    const now = fd === this.#checkedFd ? this.#checkedLength : this.syscalls.fileLength(fd);
    if (now >= taken[at + Field.fileOffset]!) {
      this.#checkedFd = fd;
      this.#checkedLength = now;
      return true;
    }
    if (now < 0) this.fail(at, -now, 0);
    else this.fail(at, Failure.shrunk, now);
    return false;
  }

  /** Notes the failure of the entry at `at`. Returns the bytes moved before it. */
  protected fail(at: number, code: number, done: number): number {
    const taken = this.taken;
    this.note(taken[at + Field.slot]!, taken[at + Field.request]!, code, done, taken[at + Field.fileOffset]!);
    return code === Failure.shrunk ? 0 : done;
  }

  /** Notes a job's first failure. */
  protected note(slot: number, request: number, code: number, done: number, fileOffset: number): void {
    const { slots, details } = this.#ring;
    const state = slot * SLOT + Slot.state;
    const first = Atomics.compareExchange(slots, state, SlotState.running, SlotState.failed);
    if (first !== SlotState.running) return;
    const base = slot * DETAIL;
    details[base + Detail.code] = code;
    details[base + Detail.request] = request;
    details[base + Detail.done] = done;
    details[base + Detail.fileOffset] = fileOffset;
  }
}
