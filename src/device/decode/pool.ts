/** The decoders of one device: Workers of their own, and the chunks that are kept. */
import { ptr } from "bun:ffi";
import { HeadraceError } from "../../errors.ts";
import { chunkAt } from "../../format/chunks.ts";
import type { ChunkTable } from "../../types.ts";
import { Closing } from "../common/closing.ts";
import { closedError, errnoError } from "../common/errors.ts";
import { shortReadError } from "../common/files.ts";
import { checkTimeout } from "../common/tickets.ts";
import type {
  ChunkDecoders,
  ChunkFile,
  DecodeOptions,
  DecodeRequest,
  Decoding,
  OpenChunksOptions,
} from "../decode.ts";
import type { DeviceBuffer } from "../device.ts";
import { HostContext } from "../host/context.ts";
import { HostFiles } from "../host/file.ts";
import { Lanes } from "../host/lanes.ts";
import { HostMemory } from "../host/memory.ts";
import { Failure } from "../host/ring.ts";
import { type FaultPlan, Syscalls } from "../host/syscalls.ts";
import { checkRange } from "../requests.ts";
import { ChunkCache, type Place } from "./cache.ts";
import { OpenChunks } from "./file.ts";
import { buildJob } from "./job.ts";
import { DecodePlan, isPlain } from "./plan.ts";
import { type DecodeExtra, FailureTexts, PlaceState } from "./records.ts";
import { MemoryRoom } from "./room.ts";
import { chunkError, Run, readError } from "./run.ts";
import { Scratch, ThreadDecoders } from "./thread.ts";

/** Jobs that lanes know of at once; more wait. */
const NUM_SLOTS = 64;
const NUM_ENTRIES = 1024;

export interface PoolOptions {
  /** For messages. */
  readonly deviceName: string;
  /** Failures to inject, for tests. */
  readonly faults?: FaultPlan | undefined;
  /** Default: one a core. */
  readonly lanes?: number | undefined;
  /** Bytes of decoded chunks that are kept at most, whatever a decoding allows; default no bound but the memory. */
  readonly cacheBytes?: number | undefined;
  /** Keeps a buffer's memory until the function that it gives is called. Throws `BAD_OPTION` for a buffer of another
   * device, `CLOSED`. */
  readonly retain: (buffer: DeviceBuffer) => () => void;
}

export class DecodePool extends Closing implements ChunkDecoders {
  readonly context: HostContext;
  readonly memory: HostMemory;
  readonly #options: PoolOptions;
  readonly #files: HostFiles;
  readonly #lanes: Lanes;
  readonly #numLanes: number;
  readonly #cache: ChunkCache;
  /** Bytes of chunks that are kept unless a decoding says how many. */
  readonly #most: number;
  readonly #failures = new FailureTexts(NUM_SLOTS);
  readonly #runs = new Set<Run>();
  readonly #plan = new DecodePlan<OpenChunks>();
  /** Of this thread, for what cannot wait. */
  readonly #decoders = new ThreadDecoders(true);
  readonly #stored: Scratch;
  readonly #decoded: Scratch;
  /** Decoded on this thread since the last decoding began. */
  #bytesHere = 0;
  #facts: ChunkDecoders["facts"] | undefined;

  /** Throws `DEVICE_UNAVAILABLE` where the C library cannot be bound. */
  constructor(options: PoolOptions) {
    super();
    const syscalls = new Syscalls(options.faults);
    this.#options = options;
    this.context = new HostContext(options.deviceName, syscalls);
    this.memory = new HostMemory(this.context, () => {});
    this.#files = new HostFiles(this.context);
    this.#stored = new Scratch(syscalls);
    this.#decoded = new Scratch(syscalls);
    const room = new MemoryRoom();
    const { total } = room;
    this.#most = total / 2;
    this.#cache = new ChunkCache(syscalls, room, Math.min(2 ** 28, total / 16));
    this.#cache.keepWithin(options.cacheBytes);
    this.#numLanes = options.lanes ?? Math.max(1, navigator.hardwareConcurrency);
    const extra: DecodeExtra = { states: this.#cache.states, failures: this.#failures.memory };
    this.#lanes = new Lanes({
      numLanes: this.#numLanes,
      numEntries: NUM_ENTRIES,
      numSlots: NUM_SLOTS,
      pieceBytes: Number.MAX_SAFE_INTEGER,
      faults: options.faults,
      worker: new URL("./decode-worker.ts", import.meta.url),
      extra: () => extra,
    });
  }

  get facts(): ChunkDecoders["facts"] {
    this.#facts ??= this.#decoders.of(true).facts;
    return this.#facts;
  }

  /** Files, and mappings of them, that are open. */
  get openResources(): number {
    return this.context.openResources;
  }

  /** Bytes of the chunks that are kept. */
  get cachedBytes(): number {
    return this.#cache.byteLength;
  }

  open(path: string, table: ChunkTable, options: OpenChunksOptions = {}): ChunkFile {
    this.context.assertOpen();
    const file = this.#files.open(path, "read");
    try {
      return new OpenChunks(this, file, table, options.checksums ?? true);
    } catch (error) {
      file.close();
      throw error;
    }
  }

  start(requests: readonly DecodeRequest[], options: DecodeOptions = {}): Decoding {
    const { timeoutMs, keepBytes, comeAgain } = options;
    this.context.assertOpen();
    checkTimeout(timeoutMs);
    const { cacheBytes = Number.POSITIVE_INFINITY } = this.#options;
    this.#cache.keepWithin(Math.min(keepBytes ?? this.#most, cacheBytes), comeAgain);
    const held: (() => void)[] = [];
    const releaseAll = () => {
      for (const release of held.splice(0)) release();
    };
    try {
      this.#takeRequests(requests, held);
      const built = buildJob(this.#plan, this.#cache, this.#numLanes);
      held.push(() => {
        for (const place of built.places) this.#cache.release(place);
      });
      const run: Run = new Run(built, this.#failures, timeoutMs, releaseAll, this.#bytesHere);
      this.#bytesHere = 0;
      held.push(() => this.#runs.delete(run));
      this.#runs.add(run);
      run.begin(this.#lanes);
      return run;
    } catch (error) {
      releaseAll();
      throw error;
    } finally {
      this.#plan.clear();
    }
  }

  /** Copies a small range of a file's logical bytes into fresh memory. Chunks come from the cache, or are decoded here:
   * into it, or where all of one is wanted straight to there. Throws as {@link ChunkFile.readSync}. */
  readSync(file: OpenChunks, byteOffset: number, byteLength: number): Uint8Array {
    const { table, path } = file;
    checkRange(path, byteOffset, byteLength, Number.MAX_SAFE_INTEGER);
    const left = Math.max(0, table.byteLength - byteOffset);
    if (byteLength > left) throw shortReadError(path, byteOffset, byteLength, left);
    const bytes = new Uint8Array(new ArrayBuffer(byteLength));
    let at = byteOffset;
    const end = byteOffset + byteLength;
    for (let chunk = byteLength === 0 ? 0 : chunkAt(table, at); at < end; chunk++) {
      const to = Math.min(end, table.starts[chunk + 1]!);
      const target = ptr(bytes) + at - byteOffset;
      this.#copyOut(file, chunk, at - table.starts[chunk]!, to - at, target);
      at = to;
    }
    return bytes;
  }

  closed(file: OpenChunks): void {
    this.#cache.drop(file);
  }

  protected override async end(): Promise<void> {
    this.context.closed = true;
    const runs = [...this.#runs];
    for (const run of runs) run.end(closedError(`the ${this.#options.deviceName} device`));
    await Promise.all(runs.map((run) => run.quiet));
    await this.#lanes.close();
    this.#files.closeAll();
    this.memory.closeAll();
    this.#cache.close();
    this.#decoders.close();
    this.#stored.free();
    this.#decoded.free();
  }

  /** Checks all requests and plans them; what they use is retained, and `held` releases it. */
  #takeRequests(requests: readonly DecodeRequest[], held: (() => void)[]): void {
    const files = new Set<OpenChunks>();
    const targets = new Set<DeviceBuffer>();
    // A shuffled batch has a request for each of its rows, nearly all of them of one target and many of one file.
    let lastFile: ChunkFile | undefined;
    let lastTarget: DeviceBuffer | undefined;
    for (const { file, byteOffset, byteLength, target, targetOffset } of requests) {
      if (!(file instanceof OpenChunks && file.isOf(this))) {
        throw new HeadraceError("BAD_OPTION", `${file.path}: is not a compressed file of this device`);
      }
      if (file !== lastFile && !files.has(file)) {
        file.assertOpen();
        file.retain();
        held.push(() => file.release());
        files.add(file);
      }
      lastFile = file;
      if (target !== lastTarget && !targets.has(target)) {
        if (target.hostAddress === 0 && target.byteLength > 0) {
          throw new HeadraceError("UNSUPPORTED", "chunks are decoded into memory that the host sees alone");
        }
        held.push(this.#options.retain(target));
        targets.add(target);
      }
      lastTarget = target;
      checkRange(file.path, byteOffset, byteLength, file.table.byteLength);
      checkRange("buffer", targetOffset, byteLength, target.byteLength);
      if (byteLength > 0) this.#plan.add(file, byteOffset, byteLength, target.hostAddress + targetOffset);
    }
  }

  /** Copies a part of a chunk to `target`. */
  #copyOut(file: OpenChunks, chunk: number, offset: number, byteLength: number, target: number): void {
    const { table } = file;
    if (isPlain(table, chunk)) {
      this.#read(file, chunk, table.fileOffset[chunk]! + offset, byteLength, target);
      return;
    }
    const length = table.starts[chunk + 1]! - table.starts[chunk]!;
    const whole = byteLength === length;
    const place = whole ? this.#cache.find(file, chunk) : this.#cache.acquire(file, chunk, length);
    if (place === undefined && whole) {
      this.#decode(file, chunk, target, length);
      return;
    }
    if (place === undefined) {
      this.context.syscalls.copy(target, this.#decodeApart(file, chunk, length) + offset, byteLength);
      this.#decoded.trim();
      return;
    }
    try {
      this.context.syscalls.copy(target, this.#decodedIn(place, file, chunk, length) + offset, byteLength);
    } finally {
      this.#decoded.trim();
      this.#cache.release(place);
    }
  }

  /** Address of a chunk's decoded bytes: its place, once it is decoded there. */
  #decodedIn(place: Place, file: OpenChunks, chunk: number, length: number): number {
    const { states } = this.#cache;
    const seen = Atomics.compareExchange(states, place.index, PlaceState.empty, PlaceState.busy);
    if (seen === PlaceState.ready) return place.address;
    // A lane is about it: decoding it once more is sooner done than waiting for a lane that may wait for a disk.
    if (seen === PlaceState.busy) return this.#decodeApart(file, chunk, length);
    let decoded = false;
    try {
      this.#decode(file, chunk, place.address, length);
      decoded = true;
    } finally {
      Atomics.store(states, place.index, decoded ? PlaceState.ready : PlaceState.empty);
      Atomics.notify(states, place.index);
    }
    return place.address;
  }

  #decodeApart(file: OpenChunks, chunk: number, length: number): number {
    const address = this.#scratch(this.#decoded, file, chunk, length);
    this.#decode(file, chunk, address, length);
    return address;
  }

  #decode(file: OpenChunks, chunk: number, target: number, length: number): void {
    const { table } = file;
    const fileLength = table.fileLength[chunk]!;
    const source = this.#scratch(this.#stored, file, chunk, fileLength);
    this.#read(file, chunk, table.fileOffset[chunk]!, fileLength, source);
    const extras = { planes: table.planes?.[chunk], checksum: table.checksums?.[chunk] };
    const decoder = this.#decoders.of(file.checksums);
    const error = decoder.decode(table.codec[chunk]!, source, fileLength, target, length, extras);
    this.#stored.trim();
    if (error !== undefined) throw chunkError(file, chunk, error.code, error.message);
    this.#bytesHere += length;
  }

  #scratch(scratch: Scratch, file: OpenChunks, chunk: number, byteLength: number): number {
    const address = scratch.ensure(byteLength);
    if (address < 0) throw errnoError(`${file.path}: memory for chunk ${chunk}`, -address);
    return address;
  }

  #read(file: OpenChunks, chunk: number, offset: number, byteLength: number, target: number): void {
    let done = 0;
    while (done < byteLength) {
      const count = this.context.syscalls.pread(file.fd, target + done, byteLength - done, offset + done);
      if (count > 0) done += count;
      else throw readError(file, chunk, count === 0 ? Failure.shortRead : -count, done);
    }
  }
}
