/** Collects the bytes that a batch needs copied, from mappings, by reads or by decoding, and says what to ask for. */
import type { DecodeRequest } from "../device/decode.ts";
import type { DeviceBuffer, DeviceEvent } from "../device/device.ts";
import type { RequestList } from "../device/requests.ts";
import { PieceList, planReads } from "../plan/read.ts";
import type { Arena, Segment } from "./arena.ts";
import { Decodes } from "./decodes.ts";
import type { OpenShard } from "./shard.ts";
import { ShortReads } from "./short-reads.ts";

/** Bytes between two pieces that are read along rather than seeking: below it one request is cheaper. */
const MAX_GAP = 16 * 1024;
/** Bytes of the longest merged read; lanes cut it further. */
const MAX_READ = 32 * 1024 * 1024;
/** What lies side by side in staging begins at a multiple of this. */
const STAGING_ALIGNMENT = 64;

/** What tells requests that bytes are decoded. */
export interface Arrival {
  readonly event: DeviceEvent;
  readonly value: number;
}

/** What a batch asks for. */
export interface Gathered {
  /** Borrowed until the next batch. */
  readonly requests: RequestList;
  readonly decodes: readonly DecodeRequest[];
  /** To signal after the decodes; absent where no request waits for them. */
  readonly arrival: Arrival | undefined;
}

/** The copies of one batch. Reused from batch to batch. */
export class Gather {
  readonly #requests: RequestList;
  readonly #pieces = new PieceList();
  readonly #short = new ShortReads();
  readonly #files: OpenShard[] = [];
  readonly #decodes = new Decodes();
  #target: DeviceBuffer | undefined;
  /** Where uploads come from, and the one that may still grow. */
  #host: DeviceBuffer | undefined;
  #apart = false;
  #uploadFrom = 0;
  #uploadTo = 0;
  #uploadBytes = 0;
  #lastFile = -1;
  /** The mapping that was used last: most pieces lie in the same one. */
  #window: DeviceBuffer | undefined;
  #windowShard: OpenShard | undefined;
  #windowStart = 0;
  #windowEnd = 0;

  constructor(requests: RequestList) {
    this.#requests = requests;
  }

  /** Starts a batch whose bytes go to `target`; where that is memory `apart`, those that the host computes go by way of
   * `host`, and those that are decoded by way of staging. What was asked before must have been submitted. */
  begin(target: DeviceBuffer | undefined, host: DeviceBuffer | undefined, apart: boolean): void {
    this.#requests.clear();
    this.#pieces.clear();
    this.#files.length = 0;
    this.#decodes.clear();
    this.#lastFile = -1;
    this.#target = target;
    this.#host = host;
    this.#apart = apart;
    this.#uploadBytes = 0;
    this.#windowShard = undefined;
  }

  /** Asks for bytes `[start, start + byteLength)` of a shard at `targetOffset` of the target. */
  add(shard: OpenShard, start: number, byteLength: number, targetOffset: number): void {
    if (byteLength === 0) return;
    if (shard.chunkFile !== undefined) {
      this.#decodes.add(shard.chunkFile, start, byteLength, this.#target!, targetOffset);
      return;
    }
    const known =
      shard === this.#windowShard && start >= this.#windowStart && start + byteLength <= this.#windowEnd;
    if (known || this.#findWindow(shard, start, start + byteLength)) {
      this.#requests.copy(this.#window!, start - this.#windowStart, this.#target!, targetOffset, byteLength);
      return;
    }
    if (shard.path.strategy === "map" && shard.windowEnd(start) < start + byteLength) {
      this.#addAcross(shard, start, byteLength, targetOffset);
      return;
    }
    if (this.#files[this.#lastFile] !== shard) {
      const known = this.#files.indexOf(shard);
      this.#lastFile = known >= 0 ? known : this.#files.push(shard) - 1;
    }
    this.#pieces.push(this.#lastFile, start, byteLength, targetOffset);
  }

  /** Asks for a copy of host memory `[hostOffset, hostOffset + byteLength)` at `targetOffset` of the target. Ranges
   * that follow one another in both become one copy. No range of the target may be asked for twice. */
  upload(hostOffset: number, targetOffset: number, byteLength: number): void {
    const length = this.#uploadBytes;
    if (hostOffset === this.#uploadFrom + length && targetOffset === this.#uploadTo + length) {
      this.#uploadBytes = length + byteLength;
      return;
    }
    this.#flushUpload();
    this.#uploadFrom = hostOffset;
    this.#uploadTo = targetOffset;
    this.#uploadBytes = byteLength;
  }

  /**
   * Asks for `count` pieces that lie one after another in a shard, each to a place of its own: piece `i` is
   * items `[offsets[first + i], offsets[first + i + 1])` of `itemBytes` bytes, counted from `start`, and goes
   * to `targetOffset + i * stride`.
   */
  addEach(
    shard: OpenShard,
    start: number,
    offsets: Float64Array,
    first: number,
    count: number,
    itemBytes: number,
    targetOffset: number,
    stride: number,
  ): void {
    const from = start + offsets[first]! * itemBytes;
    const end = start + offsets[first + count]! * itemBytes;
    const requests = this.#requests;
    const target = this.#target!;
    if (!this.#findWindow(shard, from, end)) {
      for (let i = 0; i < count; i++) {
        const at = offsets[first + i]!;
        const byteLength = (offsets[first + i + 1]! - at) * itemBytes;
        this.add(shard, start + at * itemBytes, byteLength, targetOffset + i * stride);
      }
      return;
    }
    const window = this.#window!;
    const base = start - this.#windowStart;
    for (let i = 0; i < count; i++) {
      const at = offsets[first + i]!;
      const byteLength = (offsets[first + i + 1]! - at) * itemBytes;
      if (byteLength > 0)
        requests.copy(window, base + at * itemBytes, target, targetOffset + i * stride, byteLength);
    }
  }

  /** Turns the pieces into requests: reads first, then from staging what was read with gaps, or too short to go to memory
   * apart by itself. All that need not wait for another comes before the only barrier. */
  finish(arena: Arena, segment: Segment): Gathered {
    this.#flushUpload();
    const requests = this.#requests;
    const decodes = this.#decodes;
    const filledFrom = this.#addReads(arena, segment, this.#apart ? decodes.byteLength : 0);
    if (decodes.length === 0) return { requests, decodes: [], arrival: undefined };
    if (!this.#apart) return { requests, decodes: decodes.direct(), arrival: undefined };
    const arrival = arena.nextFilling(segment);
    requests.wait(arrival.event, arrival.value);
    const staging = segment.staging!;
    decodes.eachRange((from, to, byteLength) => {
      requests.copy(staging, filledFrom + from, this.#target!, to, byteLength);
    });
    return { requests, decodes: decodes.intoOneAfterAnother(staging, filledFrom), arrival };
  }

  /** Asks for the reads. The segment's staging gets `filledBytes` besides what they need; gives where these begin. */
  #addReads(arena: Arena, segment: Segment, filledBytes: number): number {
    if (this.#pieces.length === 0) {
      if (filledBytes > 0) arena.ensureStaging(segment, filledBytes);
      return 0;
    }
    const plan = planReads(this.#pieces, { maxGap: MAX_GAP, maxRead: MAX_READ });
    const short = this.#short;
    const target = this.#target!;
    const shortFrom = aligned(plan.stagingBytes);
    const hasRoom = (byteLength: number) => arena.canSpare(segment, shortFrom + byteLength + filledBytes);
    const shortBytes = this.#apart ? short.place(this.#pieces, plan, hasRoom) : 0;
    const filledFrom = aligned(shortFrom + shortBytes);
    const stagingBytes = filledFrom + filledBytes;
    const staging = stagingBytes > 0 ? arena.ensureStaging(segment, stagingBytes) : target;
    for (let i = 0; i < plan.length; i++) {
      const place = shortBytes > 0 ? short.placeOf(i) : -1;
      const into = plan.direct[i] === 1 && place < 0 ? target : staging;
      const at = place < 0 ? plan.targetOffset[i]! : shortFrom + place;
      this.#requests.read(
        this.#files[plan.file[i]!]!.source,
        plan.fileOffset[i]!,
        into,
        at,
        plan.byteLength[i]!,
      );
    }
    if (plan.stagingBytes + shortBytes === 0) return filledFrom;
    this.#requests.barrier();
    if (shortBytes > 0) {
      short.eachRange(plan, (from, to, byteLength) => {
        this.#requests.copy(staging, shortFrom + from, target, to, byteLength);
      });
    }
    this.#scatter(plan, staging, target);
    return filledFrom;
  }

  #flushUpload(): void {
    if (this.#uploadBytes === 0) return;
    this.#requests.copy(this.#host!, this.#uploadFrom, this.#target!, this.#uploadTo, this.#uploadBytes);
    this.#uploadBytes = 0;
  }

  /** Cuts what no window shows whole at the windows' ends. */
  #addAcross(shard: OpenShard, start: number, byteLength: number, targetOffset: number): void {
    const end = start + byteLength;
    for (let at = start; at < end; ) {
      const next = Math.min(end, shard.windowEnd(at));
      this.add(shard, at, next - at, targetOffset + at - start);
      at = next;
    }
  }

  #findWindow(shard: OpenShard, start: number, end: number): boolean {
    const window = shard.window(start, end);
    if (window === undefined) return false;
    this.#window = window;
    this.#windowShard = shard;
    this.#windowStart = shard.windowStart;
    this.#windowEnd = shard.windowStart + window.byteLength;
    return true;
  }

  #scatter(plan: ReturnType<typeof planReads>, staging: DeviceBuffer, target: DeviceBuffer): void {
    const pieces = this.#pieces;
    for (let i = 0; i < plan.length; i++) {
      if (plan.direct[i] === 1) continue;
      const first = plan.firstPiece[i]!;
      const shift = plan.targetOffset[i]! - plan.fileOffset[i]!;
      for (let k = first; k < first + plan.numPieces[i]!; k++) {
        const piece = plan.order[k]!;
        const at = pieces.fileOffset[piece]! + shift;
        this.#requests.copy(staging, at, target, pieces.targetOffset[piece]!, pieces.byteLength[piece]!);
      }
    }
  }
}

function aligned(byteLength: number): number {
  return Math.ceil(byteLength / STAGING_ALIGNMENT) * STAGING_ALIGNMENT;
}
