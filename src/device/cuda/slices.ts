/** The pinned memory of one lane, and its way to the device and from there. */
import type { Syscalls } from "../host/syscalls.ts";
import { OutCell } from "./cells.ts";
import { type CudaDriver, openDriver } from "./driver.ts";
import { NOT_READY } from "./errors.ts";
import { EVENT_BLOCKING, REGISTER_SHARED } from "./flags.ts";
import { type CudaLaneExtra, SCRATCH_BYTES, sliceStride, slicesLength } from "./lane-ops.ts";

/** What a slice carries for one piece of a request. */
export interface Carried {
  readonly slot: number;
  readonly request: number;
  readonly fileOffset: number;
  readonly byteLength: number;
}

export interface Slice {
  readonly address: number;
  /** A CUevent. */
  readonly event: number;
  readonly entries: Carried[];
  /** Bytes that were put in. */
  used: number;
  /** Bytes before them that are not wanted. */
  skipped: number;
  /** Where they go on the device. */
  target: number;
  /** The driver's failure to start it, or 0. */
  result: number;
  /** Where they go in a file, when they come from the device. */
  write: { readonly fd: number; readonly offset: number } | undefined;
}

/** Slices are taken in turn, filled, sent and given back; at most one is being filled. */
export class Slices {
  /** Bytes of one slice. */
  readonly byteLength: number;
  /** The driver's result that kept the slices from being made, or 0. */
  readonly failed: number;
  readonly #driver: CudaDriver;
  readonly #free: Slice[] = [];
  readonly #underWay: Slice[] = [];
  readonly #upload: number;
  readonly #download: number;
  #current: Slice | undefined;

  /** Pins the slices of lane `index`, about a millisecond for each 4 MiB. */
  constructor(extra: CudaLaneExtra, index: number, syscalls: Syscalls) {
    this.byteLength = extra.sliceBytes;
    this.#driver = openDriver(extra.library);
    this.#upload = extra.upload;
    this.#download = extra.download;
    this.failed = this.#make(extra, index, syscalls);
  }

  #make(extra: CudaLaneExtra, index: number, { pageSize }: Syscalls): number {
    const { symbols } = this.#driver;
    const out = new OutCell();
    const stride = sliceStride(extra.sliceBytes, pageSize);
    const length = slicesLength(extra.sliceBuffers, extra.sliceBytes, pageSize);
    const base = extra.slices + index * length;
    let result = symbols.cuCtxSetCurrent(extra.context);
    if (result === 0) result = symbols.cuMemHostRegister_v2(base, length, REGISTER_SHARED);
    if (result !== 0) return result;
    for (let i = 0; i < extra.sliceBuffers && result === 0; i++) {
      result = symbols.cuEventCreate(out.clear(), EVENT_BLOCKING);
      if (result === 0) this.#free.push(newSlice(base + i * stride, out.u64));
    }
    if (result === 0) result = this.#warm(extra.scratch);
    if (result === 0) return 0;
    // Whoever tries again begins anew.
    for (const { event } of this.#free.splice(0)) symbols.cuEventDestroy_v2(event);
    symbols.cuMemHostUnregister(base);
    return result;
  }

  /** One small copy from each slice: a thread's first copy, record and wait take the driver milliseconds. */
  #warm(scratch: number): number {
    const { symbols } = this.#driver;
    for (const { address, event } of this.#free) {
      let result = symbols.cuMemcpyHtoDAsync_v2(scratch, address, SCRATCH_BYTES, this.#upload);
      if (result === 0) result = symbols.cuEventRecord(event, this.#upload);
      if (result === 0) result = symbols.cuEventSynchronize(event);
      if (result !== 0) return result;
    }
    return 0;
  }

  /** The slice that is being filled. */
  get current(): Slice | undefined {
    return this.#current;
  }

  /** Of those under way. */
  get oldest(): Slice | undefined {
    return this.#underWay[0];
  }

  /** An empty slice, which becomes the current one; undefined where all are under way. */
  take(target: number): Slice | undefined {
    const slice = this.#free.pop();
    if (slice === undefined) return undefined;
    slice.target = target;
    this.#current = slice;
    return slice;
  }

  /** Host to device. */
  send(slice: Slice): void {
    const { symbols } = this.#driver;
    const { address, skipped, target, used } = slice;
    const result = symbols.cuMemcpyHtoDAsync_v2(target, address + skipped, used, this.#upload);
    this.#start(slice, this.#upload, result);
  }

  /** Device to host. */
  fetch(slice: Slice, source: number): void {
    const { symbols } = this.#driver;
    const result = symbols.cuMemcpyDtoHAsync_v2(slice.address, source, slice.used, this.#download);
    this.#start(slice, this.#download, result);
  }

  isDone(slice: Slice): boolean {
    return slice.result !== 0 || this.#driver.symbols.cuEventQuery(slice.event) !== NOT_READY;
  }

  /** Sleeps until the slice has arrived. Returns the driver's result. */
  wait(slice: Slice): number {
    if (slice.result !== 0) return slice.result;
    const result = this.#driver.symbols.cuEventSynchronize(slice.event);
    if (result !== 0) this.#drain(slice.write === undefined ? this.#upload : this.#download);
    return result;
  }

  giveBack(slice: Slice): void {
    if (slice === this.#current) this.#current = undefined;
    const at = this.#underWay.indexOf(slice);
    if (at >= 0) this.#underWay.splice(at, 1);
    slice.entries.length = 0;
    slice.used = 0;
    slice.skipped = 0;
    slice.result = 0;
    slice.write = undefined;
    this.#free.push(slice);
  }

  #start(slice: Slice, stream: number, result: number): void {
    slice.result = result;
    if (result === 0) {
      slice.result = this.#driver.symbols.cuEventRecord(slice.event, stream);
      if (slice.result !== 0) this.#drain(stream);
    }
    this.#current = undefined;
    this.#underWay.push(slice);
  }

  /** Waits for all of a stream: a copy whose event failed may be under way, and its memory in use. */
  #drain(stream: number): void {
    this.#driver.symbols.cuStreamSynchronize(stream);
  }
}

function newSlice(address: number, event: number): Slice {
  return { address, event, entries: [], used: 0, skipped: 0, target: 0, result: 0, write: undefined };
}
