/** A lane that decodes: it brings chunks of files to where they are wanted, or to a place from which it copies the parts
 * that are. */
import { type Pointer, read } from "bun:ffi";
import type { HeadraceError } from "../../errors.ts";
import { Lane, type LaneStart } from "../host/lane.ts";
import { Failure, Field } from "../host/ring.ts";
import {
  CHUNK_FAILED,
  type DecodeExtra,
  DecodeOp,
  FailureTexts,
  LONG_CHUNK,
  PART_BYTES,
  PlaceState,
  Rec,
} from "./records.ts";
import { Scratch, ThreadDecoders } from "./thread.ts";

/** What a step answers that has failed and noted why. */
const FAILED = -1;

export class DecodeLane extends Lane {
  readonly #decoders = new ThreadDecoders();
  readonly #states: Int32Array<SharedArrayBuffer>;
  readonly #failures: FailureTexts;
  /** Of the file's bytes, and of decoded ones that have no other place. */
  readonly #stored: Scratch;
  readonly #decoded: Scratch;

  constructor(start: LaneStart) {
    super(start);
    const extra = start.extra as DecodeExtra;
    this.#states = extra.states;
    this.#failures = new FailureTexts(extra.failures);
    this.#stored = new Scratch(this.syscalls);
    this.#decoded = new Scratch(this.syscalls);
  }

  /** The decoded bytes of the entry at `at`: of a chunk all, also where only a part of it is wanted. */
  protected override runOther(at: number): number {
    const record = this.taken[at + Field.source]!;
    switch (this.taken[at]) {
      case DecodeOp.chunk:
        return Math.max(0, this.#chunk(at, record));
      case DecodeOp.stored:
        return this.#plain(at, record);
      default:
        return super.runOther(at);
    }
  }

  protected override close(): void {
    this.#decoders.close();
    this.#stored.free();
    this.#decoded.free();
  }

  #chunk(at: number, record: number): number {
    const target = number(record, Rec.target);
    const state = number(record, Rec.state);
    if (target !== 0) {
      const decoded = state < 0 ? this.#decode(at, record, target) : this.#share(at, record, target, state);
      if (decoded >= 0) this.#copyParts(record, target);
      return decoded;
    }
    const length = number(record, Rec.byteLength);
    const isLong = length > LONG_CHUNK;
    if (isLong) this.#lock();
    const scratch = this.#decoded.ensure(length);
    const decoded = scratch < 0 ? this.#noMemory(at, scratch) : this.#decode(at, record, scratch);
    if (decoded >= 0) this.#copyParts(record, scratch);
    if (isLong) {
      this.#decoded.free();
      this.#unlock();
    }
    return decoded;
  }

  /** Decodes into a place of the cache unless another lane has, or waits for one that is about it. */
  #share(at: number, record: number, target: number, state: number): number {
    const states = this.#states;
    for (;;) {
      const seen = Atomics.compareExchange(states, state, PlaceState.empty, PlaceState.busy);
      if (seen === PlaceState.ready) return 0;
      if (seen === PlaceState.empty) break;
      Atomics.wait(states, state, PlaceState.busy);
    }
    this.syscalls.provide(target, number(record, Rec.byteLength));
    const decoded = this.#decode(at, record, target);
    Atomics.store(states, state, decoded < 0 ? PlaceState.empty : PlaceState.ready);
    Atomics.notify(states, state);
    return decoded;
  }

  #decode(at: number, record: number, target: number): number {
    const source = this.#source(at, record);
    if (source < 0) return FAILED;
    const length = number(record, Rec.byteLength);
    const planes = number(record, Rec.planes);
    const checksum = number(record, Rec.checksum);
    const error = this.#decoders
      .of(number(record, Rec.verify) !== 0)
      .decode(
        number(record, Rec.codec),
        source,
        number(record, Rec.fileLength),
        target,
        length,
        planes > 1 || checksum >= 0 ? { planes, ...(checksum >= 0 ? { checksum } : {}) } : undefined,
      );
    this.#stored.trim();
    return error === undefined ? length : this.#refused(at, error);
  }

  /** Address of the chunk's bytes in the file; below 0 where they are not to be had. */
  #source(at: number, record: number): number {
    const fd = this.taken[at + Field.fd]!;
    const start = this.taken[at + Field.fileOffset]!;
    const length = number(record, Rec.fileLength);
    const mapped = number(record, Rec.mapped);
    if (mapped !== 0) return this.#isThere(at, fd, start + length) ? mapped : FAILED;
    const ahead = number(record, Rec.ahead);
    if (ahead > 0) this.syscalls.readAhead(fd, start, ahead);
    const scratch = this.#stored.ensure(length);
    if (scratch < 0) return this.#noMemory(at, scratch);
    return this.#read(at, fd, start, scratch, length) ? scratch : FAILED;
  }

  /** Copies parts of a chunk that is stored as it is. Returns their bytes. */
  #plain(at: number, record: number): number {
    const fd = this.taken[at + Field.fd]!;
    const start = this.taken[at + Field.fileOffset]!;
    const mapped = number(record, Rec.mapped);
    const ahead = number(record, Rec.ahead);
    if (mapped !== 0) {
      if (!this.#isThere(at, fd, start + number(record, Rec.fileLength))) return 0;
      return this.#copyParts(record, mapped);
    }
    if (ahead > 0) this.syscalls.readAhead(fd, start, ahead);
    const parts = number(record, Rec.parts);
    const numParts = number(record, Rec.numParts);
    let done = 0;
    for (let part = parts; part < parts + numParts * PART_BYTES; part += PART_BYTES) {
      const length = number(part, 16);
      if (!this.#read(at, fd, start + number(part, 0), number(part, 8), length)) break;
      done += length;
    }
    return done;
  }

  /** Returns the bytes copied. */
  #copyParts(record: number, source: number): number {
    const parts = number(record, Rec.parts);
    const numParts = number(record, Rec.numParts);
    let done = 0;
    for (let part = parts; part < parts + numParts * PART_BYTES; part += PART_BYTES) {
      const length = number(part, 16);
      this.syscalls.copy(number(part, 8), source + number(part, 0), length);
      done += length;
    }
    return done;
  }

  #read(at: number, fd: number, offset: number, target: number, length: number): boolean {
    let done = 0;
    while (done < length) {
      const count = this.syscalls.pread(fd, target + done, length - done, offset + done);
      if (count > 0) done += count;
      else {
        this.fail(at, count === 0 ? Failure.shortRead : -count, done);
        return false;
      }
    }
    return true;
  }

  /** Whether a mapping may be touched up to file offset `end`. Touching what the file has lost kills the process, so each
   * chunk asks right before. */
  #isThere(at: number, fd: number, end: number): boolean {
    const now = this.syscalls.fileLength(fd);
    if (now >= end) return true;
    this.fail(at, now < 0 ? -now : Failure.shrunk, Math.max(0, now));
    return false;
  }

  #refused(at: number, error: HeadraceError): number {
    const slot = this.taken[at + Field.slot]!;
    this.#failures.note(slot, this.taken[at + Field.request]!, error.code, error.message);
    this.fail(at, CHUNK_FAILED, 0);
    return FAILED;
  }

  #noMemory(at: number, errno: number): number {
    this.fail(at, -errno, 0);
    return FAILED;
  }

  #lock(): void {
    const word = this.#states.length - 1;
    while (Atomics.compareExchange(this.#states, word, 0, 1) !== 0) Atomics.wait(this.#states, word, 1);
  }

  #unlock(): void {
    const word = this.#states.length - 1;
    Atomics.store(this.#states, word, 0);
    Atomics.notify(this.#states, word, 1);
  }
}

function number(address: number, byteOffset: number): number {
  return read.f64(address as Pointer, byteOffset);
}
