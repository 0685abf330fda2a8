/** Builds what a queue is asked to do, as flat numbers: no object a request, so that batches of many small
 * rows cost nothing to describe. */
import { HeadraceError } from "../errors.ts";
import type { DeviceBuffer, DeviceEvent, DeviceFile, Pipeline, Sequence } from "./device.ts";

export const Op = {
  /** file → buffer */
  read: 1,
  /** buffer → file */
  write: 2,
  /** buffer → buffer */
  copy: 3,
  /** Makes written data of a file durable. */
  sync: 4,
  /** Everything before it in the submission ends before anything after it starts. */
  barrier: 5,
  dispatch: 6,
  signal: 7,
  wait: 8,
  replay: 9,
} as const;

/** Numbers a request: op, source, sourceOffset, target, targetOffset, byteLength. Source and target index
 * {@link RequestList.objects}; `signal` and `wait` keep the event's value in byteLength, `replay` the number of
 * its offsets, of which sourceOffset is the first in {@link RequestList.offsets}. */
export const FIELDS = 6;

/** What a request can refer to. */
export type RequestObject = DeviceFile | DeviceBuffer | DeviceEvent | DispatchCall | Sequence;

/** One argument of a kernel: a buffer from `offset` on, in bytes. */
export interface BufferBinding {
  readonly buffer: DeviceBuffer;
  readonly offset: number;
  /** In a {@link Sequence}: the number by which a replay may give another offset. Bindings with the same slot get
   * the same one. Without meaning in a submission. */
  readonly slot?: number;
}

/** One kernel launch. `buffers` are arguments 0, 1, …; the constants come after them. */
export interface DispatchCall {
  readonly pipeline: Pipeline;
  readonly buffers: readonly BufferBinding[];
  /** Bytes passed by value; at most 4 KiB. */
  readonly constants: Uint8Array;
  /** Of the whole grid. */
  readonly threads: number;
  /** Of one threadgroup; the device chooses without. */
  readonly threadsPerGroup?: number;
  /** Bytes of threadgroup memory. */
  readonly threadgroupBytes?: number;
}

/** The offset in bytes that a replay gives to a sequence's slot. */
export interface SlotOffset {
  readonly slot: number;
  readonly offset: number;
}

/** Numbers an offset in {@link RequestList.offsets}: slot, offset. */
export const OFFSET_FIELDS = 2;

/** A reusable list of requests. Filling it checks nothing; `submit` checks everything. */
export class RequestList {
  /** {@link FIELDS} numbers a request; valid up to `length * FIELDS`. */
  numbers = new Float64Array(64 * FIELDS);
  readonly objects: RequestObject[] = [];
  length = 0;
  /** {@link OFFSET_FIELDS} numbers each; valid up to `numOffsets * OFFSET_FIELDS`. */
  offsets = new Float64Array(16 * OFFSET_FIELDS);
  numOffsets = 0;
  readonly #indexOf = new Map<RequestObject, number>();
  /** The objects that the last request named: the next one most often names them too. */
  #lastSource: RequestObject | undefined;
  #lastSourceIndex = -1;
  #lastTarget: RequestObject | undefined;
  #lastTargetIndex = -1;

  clear(): void {
    this.length = 0;
    this.numOffsets = 0;
    this.objects.length = 0;
    this.#indexOf.clear();
    this.#lastSource = undefined;
    this.#lastTarget = undefined;
  }

  read(
    file: DeviceFile,
    fileOffset: number,
    buffer: DeviceBuffer,
    bufferOffset: number,
    byteLength: number,
  ): this {
    return this.#push(Op.read, file, fileOffset, buffer, bufferOffset, byteLength);
  }

  write(
    buffer: DeviceBuffer,
    bufferOffset: number,
    file: DeviceFile,
    fileOffset: number,
    byteLength: number,
  ): this {
    return this.#push(Op.write, buffer, bufferOffset, file, fileOffset, byteLength);
  }

  /** Source and target must not overlap. */
  copy(
    source: DeviceBuffer,
    sourceOffset: number,
    target: DeviceBuffer,
    targetOffset: number,
    byteLength: number,
  ): this {
    return this.#push(Op.copy, source, sourceOffset, target, targetOffset, byteLength);
  }

  sync(file: DeviceFile): this {
    return this.#push(Op.sync, file, 0, undefined, 0, 0);
  }

  barrier(): this {
    return this.#push(Op.barrier, undefined, 0, undefined, 0, 0);
  }

  dispatch(call: DispatchCall): this {
    return this.#push(Op.dispatch, call, 0, undefined, 0, 0);
  }

  /** Runs a sequence's dispatches in order. Slots that `offsets` does not name keep the offset they were made
   * with; where it names one twice the last counts. */
  replay(sequence: Sequence, offsets: readonly SlotOffset[] = []): this {
    const first = this.numOffsets;
    for (const { slot, offset } of offsets) {
      const at = this.numOffsets * OFFSET_FIELDS;
      if (at === this.offsets.length) this.offsets = doubled(this.offsets);
      this.offsets[at] = slot;
      this.offsets[at + 1] = offset;
      this.numOffsets++;
    }
    return this.#push(Op.replay, sequence, first, undefined, 0, offsets.length);
  }

  signal(event: DeviceEvent, value: number): this {
    return this.#push(Op.signal, event, 0, undefined, 0, value);
  }

  wait(event: DeviceEvent, value: number): this {
    return this.#push(Op.wait, event, 0, undefined, 0, value);
  }

  #index(object: RequestObject | undefined): number {
    if (object === undefined) return -1;
    let index = this.#indexOf.get(object);
    if (index === undefined) {
      index = this.objects.push(object) - 1;
      this.#indexOf.set(object, index);
    }
    return index;
  }

  #push(
    op: number,
    source: RequestObject | undefined,
    sourceOffset: number,
    target: RequestObject | undefined,
    targetOffset: number,
    byteLength: number,
  ): this {
    const at = this.length * FIELDS;
    if (at + FIELDS > this.numbers.length) this.numbers = doubled(this.numbers);
    const numbers = this.numbers;
    numbers[at] = op;
    if (source !== this.#lastSource || source === undefined) {
      this.#lastSource = source;
      this.#lastSourceIndex = this.#index(source);
    }
    if (target !== this.#lastTarget || target === undefined) {
      this.#lastTarget = target;
      this.#lastTargetIndex = this.#index(target);
    }
    numbers[at + 1] = this.#lastSourceIndex;
    numbers[at + 2] = sourceOffset;
    numbers[at + 3] = this.#lastTargetIndex;
    numbers[at + 4] = targetOffset;
    numbers[at + 5] = byteLength;
    this.length++;
    return this;
  }
}

function doubled(numbers: Float64Array<ArrayBuffer>): Float64Array<ArrayBuffer> {
  const larger = new Float64Array(numbers.length * 2);
  larger.set(numbers);
  return larger;
}

/** Throws `OUT_OF_RANGE` unless `[offset, offset + length)` lies in an object of `byteLength` bytes. */
export function checkRange(what: string, offset: number, length: number, byteLength: number): void {
  const whole = Number.isSafeInteger(offset) && Number.isSafeInteger(length);
  if (whole && offset >= 0 && length >= 0 && offset <= byteLength - length) return;
  throw new HeadraceError(
    "OUT_OF_RANGE",
    `${what}: bytes [${offset}, ${offset + length}) do not lie in its ${byteLength} bytes`,
  );
}
