/**
 * A lane of the CUDA device: it carries bytes between files and device memory through a few pinned slices of its own.
 * While one slice is on its way to the device the next is filled, and while one is written to a file the next comes
 * from the device.
 */
import { DEFERRED, Lane, type LaneStart } from "../host/lane.ts";
import { Failure, Field, LaneOp } from "../host/ring.ts";
import { gdsRead, openCuFile } from "./gds.ts";
import { type CudaLaneExtra, CudaOp, DRIVER_FAILURE, wayNumbers } from "./lane-ops.ts";
import { type Slice, Slices } from "./slices.ts";

/** O_DIRECT wants offsets, lengths and addresses in multiples of this. */
const DIRECT_ALIGNMENT = 4096;

export class CudaLane extends Lane {
  readonly #extra: CudaLaneExtra;
  readonly #index: number;
  #slices: Slices;
  #cufile: ReturnType<typeof openCuFile> | undefined;

  constructor(start: LaneStart) {
    super(start);
    this.#extra = start.extra as CudaLaneExtra;
    this.#index = start.index;
    // Pinning takes milliseconds, which the first piece would wait for.
    this.#slices = new Slices(this.#extra, this.#index, this.syscalls);
  }

  /** Whether there are slices: what kept them from being made may be over. */
  #hasSlices(): boolean {
    if (this.#slices.failed !== 0) this.#slices = new Slices(this.#extra, this.#index, this.syscalls);
    return this.#slices.failed === 0;
  }

  protected override runOther(at: number): number {
    switch (this.taken[at]) {
      case LaneOp.upload:
        return this.#upload(at);
      case CudaOp.download:
        return this.#download(at);
      default:
        return super.runOther(at);
    }
  }

  protected override tookAll(): void {
    const slices = this.#slices;
    if (slices.current !== undefined) this.#send(slices.current);
    while (slices.oldest !== undefined && slices.isDone(slices.oldest)) this.#finish(slices.oldest);
  }

  protected override settle(): boolean {
    const oldest = this.#slices.oldest;
    if (oldest === undefined) return false;
    this.#finish(oldest);
    return true;
  }

  /** Puts the bytes of an entry into a slice, behind those that go to the place before its own. */
  #upload(at: number): number {
    const taken = this.taken;
    const length = taken[at + Field.byteLength]!;
    const target = taken[at + Field.target]!;
    if (this.#gdsRead(at)) return length;
    if (!this.#hasSlices()) return this.fail(at, DRIVER_FAILURE - this.#slices.failed, 0);
    const slices = this.#slices;
    let slice = slices.current;
    if (
      slice !== undefined &&
      (slice.target + slice.used !== target || slice.used + length > slices.byteLength)
    ) {
      this.#send(slice);
      slice = undefined;
    }
    slice ??= this.#take(target);
    const done = this.#read(at, slice);
    if (done < length) return done;
    slice.entries.push(this.#entry(at));
    slice.used += length;
    if (slice.used === slices.byteLength) this.#send(slice);
    return DEFERRED;
  }

  /** Whether GPUDirect Storage has read all of an entry; what it does not do goes the other way. */
  #gdsRead(at: number): boolean {
    const taken = this.taken;
    const handle = wayNumbers.handleOf(taken[at + Field.source]!);
    if (handle === 0 || this.#extra.cufile === undefined) return false;
    if (this.#cufile === undefined) {
      // The lane's thread has the context from here on.
      if (!this.#hasSlices()) return false;
      this.#cufile = openCuFile({ library: this.#extra.cufile });
    }
    if ("declined" in this.#cufile) return false;
    const byteLength = taken[at + Field.byteLength]!;
    const fileOffset = taken[at + Field.fileOffset]!;
    const base = taken[at + Field.target]!;
    const transfer = { handle, base, memoryOffset: 0, byteLength, fileOffset };
    return gdsRead(this.#cufile, transfer, () => 0) === byteLength;
  }

  #read(at: number, slice: Slice): number {
    const taken = this.taken;
    const fd = taken[at + Field.fd]!;
    const offset = taken[at + Field.fileOffset]!;
    const length = taken[at + Field.byteLength]!;
    const direct = wayNumbers.directOf(taken[at + Field.source]!);
    if (direct >= 0 && slice.used === 0 && this.#readDirect(direct, slice, offset, length)) return length;
    const address = slice.address + slice.skipped + slice.used;
    let done = 0;
    while (done < length) {
      const count = this.syscalls.pread(fd, address + done, length - done, offset + done);
      if (count > 0) done += count;
      else {
        this.fail(at, count === 0 ? Failure.shortRead : -count, done);
        return done;
      }
    }
    return done;
  }

  /** Reads past the page cache, with what lies around on both sides; false where that does not work. */
  #readDirect(fd: number, slice: Slice, offset: number, length: number): boolean {
    const skipped = offset % DIRECT_ALIGNMENT;
    const wanted = Math.ceil((skipped + length) / DIRECT_ALIGNMENT) * DIRECT_ALIGNMENT;
    let done = 0;
    while (done < skipped + length) {
      const count = this.syscalls.pread(fd, slice.address + done, wanted - done, offset - skipped + done);
      if (count <= 0) return false;
      done += count;
      if (done < skipped + length && done % DIRECT_ALIGNMENT !== 0) return false;
    }
    slice.skipped = skipped;
    return true;
  }

  /** Has the bytes of an entry come from the device; they are written to the file when they are there. */
  #download(at: number): number {
    if (!this.#hasSlices()) return this.fail(at, DRIVER_FAILURE - this.#slices.failed, 0);
    const slices = this.#slices;
    if (slices.current !== undefined) this.#send(slices.current);
    const slice = this.#take(0);
    slice.entries.push(this.#entry(at));
    slice.used = this.taken[at + Field.byteLength]!;
    slice.write = { fd: this.taken[at + Field.fd]!, offset: this.taken[at + Field.fileOffset]! };
    slices.fetch(slice, this.taken[at + Field.source]!);
    return DEFERRED;
  }

  #entry(at: number) {
    const taken = this.taken;
    return {
      slot: taken[at + Field.slot]!,
      request: taken[at + Field.request]!,
      fileOffset: taken[at + Field.fileOffset]!,
      byteLength: taken[at + Field.byteLength]!,
    };
  }

  /** An empty slice for what goes to `target`. */
  #take(target: number): Slice {
    const slices = this.#slices;
    for (;;) {
      const slice = slices.take(target);
      if (slice !== undefined) return slice;
      this.#finish(slices.oldest!);
    }
  }

  /** Starts a slice's way to the device. */
  #send(slice: Slice): void {
    if (slice.used === 0) this.#slices.giveBack(slice);
    else this.#slices.send(slice);
  }

  /** Waits for the oldest slice on its way and reports what it carried. */
  #finish(slice: Slice): void {
    const slices = this.#slices;
    const result = slices.wait(slice);
    for (const entry of slice.entries) {
      let moved = entry.byteLength;
      if (result !== 0) {
        this.note(entry.slot, entry.request, DRIVER_FAILURE - result, 0, entry.fileOffset);
        moved = 0;
      } else if (slice.write !== undefined) moved = this.#write(slice, slice.write, entry);
      this.report(entry.slot, 1, moved);
    }
    slices.giveBack(slice);
  }

  #write(slice: Slice, { fd, offset }: NonNullable<Slice["write"]>, entry: Slice["entries"][number]): number {
    let done = 0;
    while (done < slice.used) {
      const count = this.syscalls.pwrite(fd, slice.address + done, slice.used - done, offset + done);
      if (count > 0) done += count;
      else {
        const code = count === 0 ? Failure.noProgress : -count;
        this.note(entry.slot, entry.request, code, done, entry.fileOffset);
        return done;
      }
    }
    return done;
  }
}
