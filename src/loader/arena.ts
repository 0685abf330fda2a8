/** The staging memory: a fixed number of segments that batches take turns in. */
import type { Device, DeviceBuffer, DeviceEvent, Storage } from "../device/device.ts";
import { HeadraceError } from "../errors.ts";

/** Segments grow by whole multiples of this, so that batches of nearly one size do not remake them. */
const GROWTH = 1024 * 1024;

/** Longest delay that timers take, in ms. */
const MAX_TIMER = 2 ** 31 - 1;

/** The part of the arena that one batch uses. */
export class Segment {
  /** Host-visible memory: on unified memory all of the batch, else what the host computes of it. */
  host: DeviceBuffer | undefined;
  /** What kernels read: {@link Segment.host} itself on unified memory, else private memory. */
  device: DeviceBuffer | undefined;
  /** Where coalesced reads land before their pieces are copied on. */
  staging: DeviceBuffer | undefined;
  /** Signalled when the host has filled {@link Segment.staging}; each batch of the segment has the next value. */
  filled: DeviceEvent | undefined;
  fillings = 0;
  #view: ArrayBuffer | undefined;
  #viewed: DeviceBuffer | undefined;

  /** {@link Segment.host} as the loader itself writes to it, at most its first 4 GiB. Kept from batch to batch
   * and never handed out: a fresh view of some size costs the collector more than the writing. */
  get view(): ArrayBuffer {
    const { host } = this;
    if (this.#view === undefined || this.#viewed !== host) {
      this.#view = host!.view(0, Math.min(host!.byteLength, 2 ** 32));
      this.#viewed = host;
    }
    return this.#view;
  }

  get byteLength(): number {
    const own = this.device === this.host ? 0 : (this.device?.byteLength ?? 0);
    return (this.host?.byteLength ?? 0) + own + (this.staging?.byteLength ?? 0);
  }
}

/** Owns the segments. Memory is created when it is first needed and then reused until {@link Arena.close}. */
export class Arena {
  readonly numSegments: number;
  readonly #device: Device;
  readonly #limit: number;
  readonly #free: Segment[] = [];
  readonly #all: Segment[] = [];
  #numReturning = 0;
  #onReturn: (() => void) | undefined;

  /** `limit` in bytes bounds all segments together. */
  constructor(device: Device, numSegments: number, limit: number) {
    this.#device = device;
    this.#limit = limit;
    this.numSegments = numSegments;
    for (let i = 0; i < numSegments; i++) {
      const segment = new Segment();
      this.#all.push(segment);
      this.#free.push(segment);
    }
  }

  /** Bytes of all segments now. */
  get byteLength(): number {
    return this.#all.reduce((total, segment) => total + segment.byteLength, 0);
  }

  get numFree(): number {
    return this.#free.length;
  }

  /** A free segment, or undefined; the caller gives it back by {@link Arena.release}. */
  acquire(): Segment | undefined {
    return this.#free.pop();
  }

  /** Nothing may use the segment's memory any more. */
  release(segment: Segment): void {
    this.#free.push(segment);
  }

  /** Releases `segment` once `quiet` resolves: a read that was stopped may still write to it. */
  async releaseAfter(segment: Segment, quiet: Promise<void>): Promise<void> {
    this.#numReturning++;
    await quiet;
    this.#numReturning--;
    this.release(segment);
    this.#onReturn?.();
  }

  /** Segments that will be free without anybody's doing. */
  get numReturning(): number {
    return this.#numReturning;
  }

  /** Waits for one of {@link Arena.numReturning}, or for `signal`. Throws `TIMED_OUT`. One caller at a time. */
  async returned(timeoutMs?: number, signal?: AbortSignal): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const late = () => {
      const text = `${this.#numReturning} reads that were stopped still hold their memory after ${timeoutMs} ms`;
      reject(new HeadraceError("TIMED_OUT", text));
    };
    const timer = timeoutMs !== undefined && timeoutMs <= MAX_TIMER ? setTimeout(late, timeoutMs) : undefined;
    const stop = () => resolve();
    signal?.addEventListener("abort", stop);
    this.#onReturn = stop;
    try {
      await promise;
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener("abort", stop);
      this.#onReturn = undefined;
    }
  }

  /** Makes `segment` hold `deviceBytes`, of them, or on memory apart beside them, `hostBytes` that the host
   * sees; what it held is lost. Throws `BATCH_TOO_LARGE`. */
  ensure(segment: Segment, deviceBytes: number, hostBytes: number): void {
    if (this.#device.capabilities.unifiedMemory) {
      if (deviceBytes <= lengthOf(segment.host)) return;
      segment.host?.close();
      segment.host = undefined;
      segment.device = undefined;
      segment.host = this.#create(segment, "shared", deviceBytes, [deviceBytes]);
      segment.device = segment.host;
      return;
    }
    const both = [
      Math.max(hostBytes, lengthOf(segment.host)),
      Math.max(deviceBytes, lengthOf(segment.device)),
    ];
    if (hostBytes > lengthOf(segment.host)) {
      segment.host?.close();
      segment.host = undefined;
      segment.host = this.#create(segment, "shared", hostBytes, both);
    }
    if (deviceBytes > lengthOf(segment.device)) {
      segment.device?.close();
      segment.device = undefined;
      segment.device = this.#create(segment, "private", deviceBytes, both);
    }
  }

  /** Whether staging of `byteLength` bytes, without which `segment` can do, leaves every segment room for twice as much as
   * this one has with it. */
  canSpare(segment: Segment, byteLength: number): boolean {
    const own = segment.byteLength - lengthOf(segment.staging);
    return 2 * this.numSegments * (own + grown(byteLength)) <= this.#limit;
  }

  /** Makes `segment.staging` hold `byteLength` bytes. */
  ensureStaging(segment: Segment, byteLength: number): DeviceBuffer {
    if (byteLength > lengthOf(segment.staging)) {
      segment.staging?.close();
      segment.staging = undefined;
      const others = segment.device === segment.host ? [segment.host] : [segment.host, segment.device];
      segment.staging = this.#create(segment, "shared", byteLength, [...others.map(lengthOf), byteLength]);
    }
    return segment.staging!;
  }

  /** The event and the value that say that the batch in `segment` is in its staging. */
  nextFilling(segment: Segment): { readonly event: DeviceEvent; readonly value: number } {
    segment.filled ??= this.#device.createEvent();
    return { event: segment.filled, value: ++segment.fillings };
  }

  close(): void {
    for (const segment of this.#all) {
      segment.filled?.close();
      segment.host?.close();
      segment.device?.close();
      segment.staging?.close();
    }
  }

  /** A buffer for `byteLength` bytes, which the arena has room for; with it the batch needs `lengths`, a buffer each,
   * beside the segment's staging. */
  #create(segment: Segment, storage: Storage, byteLength: number, lengths: readonly number[]): DeviceBuffer {
    const size = grown(byteLength);
    const total = this.byteLength + size;
    if (total > this.#limit) throw this.#tooLarge(segment, byteLength, total, lengths);
    return this.#device.createBuffer(size, storage);
  }

  /** What it advises depends on whether smaller batches would take less: a buffer has one step of growth at least. */
  #tooLarge(segment: Segment, byteLength: number, total: number, lengths: readonly number[]): HeadraceError {
    const needed = lengths.filter((length) => length > 0);
    const one = Math.max(sum(needed.map(grown)), segment.byteLength + grown(byteLength));
    const least = sum(this.#all.map((other) => (other === segment ? one : Math.max(one, other.byteLength))));
    const { numSegments } = this;
    const steps =
      numSegments * needed.length * GROWTH > this.#limit || numSegments * sum(needed) <= this.#limit;
    const text = `a batch needs ${byteLength} bytes, which brings the arena of ${numSegments} segments to ${total}, over memoryBytes (${this.#limit})`;
    const why = steps ? `: each segment has ${one}, as memory grows by whole ${GROWTH}` : "";
    const advice = [
      ...(steps ? [] : ["smaller batches"]),
      ...(numSegments > 1 && one <= this.#limit ? ["a lower prefetch"] : []),
      `a memoryBytes of at least ${least}`,
    ];
    return new HeadraceError("BATCH_TOO_LARGE", `${text}${why}; use ${advice.join(" or ")}`);
  }
}

function grown(byteLength: number): number {
  return Math.ceil(byteLength / GROWTH) * GROWTH;
}

function lengthOf(buffer: DeviceBuffer | undefined): number {
  return buffer?.byteLength ?? 0;
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
