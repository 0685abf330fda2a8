/**
 * A checked submission: requests resolved to descriptors and addresses, in the layout of the ring, cut at
 * the requests that order others. Checking has no effect; only {@link Program.retain} has.
 */
import { HeadraceError, withContext } from "../../errors.ts";
import { assertEventValue } from "../common/checks.ts";
import { closedError } from "../common/errors.ts";
import {
  checkRange,
  type DispatchCall,
  FIELDS,
  Op,
  type RequestList,
  type RequestObject,
} from "../requests.ts";
import type { HostContext } from "./context.ts";
import { foreign, HostSequence, resolveDispatch } from "./dispatch.ts";
import { HostEvent } from "./event.ts";
import { type Descriptor, HostFile } from "./file.ts";
import { cutsInto } from "./lanes.ts";
import { HostBuffer, type Region } from "./memory.ts";
import type { HostDispatch } from "./pipeline.ts";
import { ENTRY, Field } from "./ring.ts";

/** Bytes of a copy that make it worth waking one more lane. */
const COPY_BYTES_PER_LANE = 128 * 1024;

/** Kinds of objects; files and buffers that may be written to have a bit more. */
const FILE = 1;
const BUFFER = 2;
const EVENT = 4;
const DISPATCH = 8;
const WRITABLE = 16;
const SEQUENCE = 32;

const KIND_NAMES = [
  [FILE, "file"],
  [BUFFER, "buffer"],
  [EVENT, "event"],
  [DISPATCH, "dispatch"],
  [SEQUENCE, "sequence"],
] as const;

/** Requests between two ordering ones, or one ordering request. */
export type Step =
  | {
      readonly kind: "move";
      readonly first: number;
      readonly end: number;
      readonly numPieces: number;
      readonly lanesWanted: number;
      readonly bytes: number;
      /** No request but copies. */
      readonly copiesOnly: boolean;
    }
  | { readonly kind: "signal" | "wait"; readonly event: HostEvent; readonly value: number }
  | { readonly kind: "dispatch"; readonly dispatch: HostDispatch };

/** Reusable; one submission at a time. */
export class Program {
  /** {@link ENTRY} numbers a request; `slot` holds what {@link Program.pathOf} takes. */
  entries = new Float64Array(64 * ENTRY);
  readonly steps: Step[] = [];
  readonly #context: HostContext;
  readonly #pieceBytes: number;
  readonly #copyLanes: number;
  readonly #regions = new Set<Region>();
  readonly #descriptors = new Set<Descriptor>();
  #dispatches: (HostDispatch | undefined)[] = [];
  readonly #paths: string[] = [];
  readonly #kinds: number[] = [];
  readonly #lengths: number[] = [];
  /** Addresses of buffers, descriptors of files. */
  readonly #bases: number[] = [];
  /** Of the file behind a mapping, else -1; and its length. */
  readonly #mappedFds: number[] = [];
  readonly #mappedLengths: number[] = [];

  /** `copyLanes` bounds the lanes that share copies between buffers. */
  constructor(context: HostContext, pieceBytes: number, copyLanes: number) {
    this.#context = context;
    this.#pieceBytes = pieceBytes;
    this.#copyLanes = copyLanes;
  }

  /** Throws `OUT_OF_RANGE`, `CLOSED`, `BAD_OPTION`, `UNSUPPORTED` or `FILE_CHANGED`; then nothing is kept. */
  load(list: RequestList): void {
    this.clear();
    try {
      for (const object of list.objects) this.#addObject(object);
      if (this.entries.length < list.length * ENTRY) {
        this.entries = new Float64Array(2 ** Math.ceil(Math.log2(list.length * ENTRY)));
      }
      this.#addRequests(list);
      this.checkFiles();
    } catch (error) {
      this.clear();
      throw error;
    }
  }

  /** Throws `FILE_CHANGED` where the file behind a mapping has shrunk. */
  checkFiles(): void {
    for (const region of this.#regions) region.checkFile();
  }

  /** Of the file, or of the one behind the mapping, that a request uses. */
  pathOf(slot: number): string {
    return this.#paths[slot] ?? "buffer";
  }

  /** Keeps all memory and files in place until {@link Program.release}. */
  retain(): void {
    for (const region of this.#regions) region.retain();
    for (const descriptor of this.#descriptors) descriptor.retain();
  }

  release(): void {
    for (const region of this.#regions) region.release();
    for (const descriptor of this.#descriptors) descriptor.release();
    this.clear();
  }

  clear(): void {
    this.steps.length = 0;
    this.#paths.length = 0;
    this.#regions.clear();
    this.#descriptors.clear();
    this.#dispatches = [];
    this.#kinds.length = 0;
    this.#lengths.length = 0;
    this.#bases.length = 0;
    this.#mappedFds.length = 0;
    this.#mappedLengths.length = 0;
  }

  #addObject(object: RequestObject): void {
    if (object instanceof HostBuffer) this.#addBuffer(object);
    else if (object instanceof HostFile) this.#addFile(object);
    else if (object instanceof HostEvent) this.#addEvent(object);
    else if (object instanceof HostSequence) this.#addSequence(object);
    else if (isDispatch(object)) this.#addDispatch(object);
    else throw foreign(this.#context, "an object");
  }

  #addBuffer(buffer: HostBuffer): void {
    const { region } = buffer;
    if (buffer.context !== this.#context) throw foreign(this.#context, "a buffer");
    if (region.closed) throw closedError("a buffer of the submission");
    this.#regions.add(region);
    const writable = region.descriptor === undefined ? WRITABLE : 0;
    this.#push(BUFFER | writable, region.byteLength, region.address);
    if (region.descriptor === undefined) return;
    const index = this.#kinds.length - 1;
    this.#mappedFds[index] = region.descriptor.fd;
    this.#mappedLengths[index] = region.fileLength;
    this.#paths[index] = region.descriptor.path;
  }

  #addFile(file: HostFile): void {
    if (file.context !== this.#context) throw foreign(this.#context, `the file ${file.path}`);
    if (file.closed) throw closedError(`the file ${file.path}`);
    this.#descriptors.add(file.descriptor);
    // What was written may be read back, so only the end of the file bounds a read of it.
    const length = file.writable ? Number.MAX_SAFE_INTEGER : file.byteLength;
    this.#push(FILE | (file.writable ? WRITABLE : 0), length, file.descriptor.fd);
    this.#paths[this.#kinds.length - 1] = file.path;
  }

  #addEvent(event: HostEvent): void {
    if (event.context !== this.#context) throw foreign(this.#context, "an event");
    if (event.closed) throw closedError("an event of the submission");
    this.#push(EVENT, 0, 0);
  }

  #addDispatch(call: DispatchCall): void {
    const dispatch = resolveDispatch(this.#context, call);
    for (const { region } of dispatch.buffers) this.#regions.add(region);
    this.#push(DISPATCH, 0, 0, dispatch);
  }

  #addSequence(sequence: HostSequence): void {
    if (sequence.context !== this.#context) throw foreign(this.#context, "a sequence");
    if (sequence.closed) throw closedError("a sequence of the submission");
    for (const region of sequence.regions) this.#regions.add(region);
    this.#push(SEQUENCE, 0, 0);
  }

  #push(kind: number, length: number, base: number, dispatch?: HostDispatch): void {
    this.#kinds.push(kind);
    this.#lengths.push(length);
    this.#bases.push(base);
    this.#mappedFds.push(-1);
    this.#mappedLengths.push(0);
    if (dispatch !== undefined) this.#dispatches[this.#kinds.length - 1] = dispatch;
  }

  #addRequests(list: RequestList): void {
    const { numbers, objects } = list;
    let first = 0;
    for (let request = 0; request < list.length; request++) {
      const at = request * FIELDS;
      const op = numbers[at]!;
      if (op <= Op.sync) {
        this.#addMove(op, request, numbers, at);
        continue;
      }
      this.#endMoves(first, request);
      first = request + 1;
      if (op === Op.barrier) continue;
      const index = numbers[at + 1]!;
      if (op === Op.signal || op === Op.wait) {
        this.#need(index, EVENT, request);
        const value = numbers[at + 5]!;
        assertEventValue(value);
        const kind = op === Op.signal ? "signal" : "wait";
        this.steps.push({ kind, event: objects[index] as HostEvent, value });
      } else if (op === Op.dispatch) {
        this.#need(index, DISPATCH, request);
        this.steps.push({ kind: "dispatch", dispatch: this.#dispatches[index]! });
      } else if (op === Op.replay) this.#addReplay(index, request, list);
      else throw unknownOp(op, request);
    }
    this.#endMoves(first, list.length);
  }

  #addReplay(index: number, request: number, list: RequestList): void {
    this.#need(index, SEQUENCE, request);
    const first = list.numbers[request * FIELDS + 2]!;
    const count = list.numbers[request * FIELDS + 5]!;
    const dispatches = withContext(`request ${request}`, () =>
      (list.objects[index] as HostSequence).at(list.offsets, first, count),
    );
    for (const dispatch of dispatches) this.steps.push({ kind: "dispatch", dispatch });
  }

  /** Hot: one call a request. */
  #addMove(op: number, request: number, numbers: Float64Array, at: number): void {
    const entries = this.entries;
    const to = request * ENTRY;
    const source = numbers[at + 1]!;
    const sourceOffset = numbers[at + 2]!;
    const target = numbers[at + 3]!;
    const targetOffset = numbers[at + 4]!;
    const byteLength = numbers[at + 5]!;
    entries[to + Field.op] = op;
    entries[to + Field.byteLength] = byteLength;
    if (op === Op.copy) {
      if (!this.#holds(source, BUFFER, sourceOffset, byteLength)) {
        this.#need(source, BUFFER, request);
        this.#range(source, sourceOffset, byteLength, request);
      }
      if (!this.#holds(target, BUFFER | WRITABLE, targetOffset, byteLength)) {
        this.#need(target, BUFFER | WRITABLE, request);
        this.#range(target, targetOffset, byteLength, request);
      }
      if (source === target && Math.abs(sourceOffset - targetOffset) < byteLength) throw overlap(request);
      entries[to + Field.fd] = this.#mappedFds[source]!;
      entries[to + Field.fileOffset] = this.#mappedLengths[source]!;
      entries[to + Field.source] = this.#bases[source]! + sourceOffset;
      entries[to + Field.target] = this.#bases[target]! + targetOffset;
      entries[to + Field.slot] = source;
      return;
    }
    const isRead = op === Op.read;
    const file = op === Op.write ? target : source;
    const fileOffset = op === Op.write ? targetOffset : sourceOffset;
    this.#need(file, op === Op.write ? FILE | WRITABLE : FILE, request);
    entries[to + Field.fd] = this.#bases[file]!;
    entries[to + Field.fileOffset] = fileOffset;
    entries[to + Field.slot] = file;
    entries[to + Field.source] = 0;
    entries[to + Field.target] = 0;
    if (op === Op.sync) return;
    if (!isRead && op !== Op.write) throw unknownOp(op, request);
    const buffer = isRead ? target : source;
    const bufferOffset = isRead ? targetOffset : sourceOffset;
    this.#need(buffer, isRead ? BUFFER | WRITABLE : BUFFER, request);
    this.#range(file, fileOffset, byteLength, request);
    this.#range(buffer, bufferOffset, byteLength, request);
    entries[to + (isRead ? Field.target : Field.source)] = this.#bases[buffer]! + bufferOffset;
  }

  /** Closes the run of moves `[first, end)`. */
  #endMoves(first: number, end: number): void {
    const entries = this.entries;
    let numPieces = 0;
    let bytes = 0;
    let copyBytes = 0;
    let ioPieces = 0;
    for (let request = first; request < end; request++) {
      const op = entries[request * ENTRY + Field.op]!;
      const byteLength = entries[request * ENTRY + Field.byteLength]!;
      const whole = op !== Op.sync && byteLength > 0 && byteLength <= this.#pieceBytes;
      const pieces = whole ? 1 : cutsInto(op, byteLength, this.#pieceBytes);
      numPieces += pieces;
      bytes += byteLength;
      if (op === Op.copy) copyBytes += byteLength;
      else ioPieces += pieces;
    }
    if (numPieces === 0) return;
    const copyLanes = Math.min(this.#copyLanes, Math.ceil(copyBytes / COPY_BYTES_PER_LANE));
    const copiesOnly = ioPieces === 0;
    const lanesWanted = Math.max(ioPieces, copyLanes);
    this.steps.push({ kind: "move", first, end, numPieces, lanesWanted, bytes, copiesOnly });
  }

  /** Whether an object is of a kind and has the bytes: {@link Program.#need} and {@link Program.#range} say
   * what is wrong where it has not. */
  #holds(index: number, kind: number, offset: number, byteLength: number): boolean {
    return (
      (this.#kinds[index]! & kind) === kind &&
      offset >= 0 &&
      byteLength >= 0 &&
      offset <= this.#lengths[index]! - byteLength &&
      Number.isInteger(offset) &&
      Number.isInteger(byteLength)
    );
  }

  #need(index: number, kind: number, request: number): void {
    const found = this.#kinds[index];
    if (found !== undefined && (found & kind) === kind) return;
    const wanted = KIND_NAMES.find(([bit]) => (kind & bit) !== 0)![1];
    const access =
      found !== undefined && found & kind & ~WRITABLE ? ", which is read-only" : `, which is no ${wanted}`;
    throw new HeadraceError(
      "BAD_OPTION",
      `request ${request}: needs ${wanted === "event" ? "an" : "a"} ${wanted} to use${access}`,
    );
  }

  #range(index: number, offset: number, byteLength: number, request: number): void {
    const length = this.#lengths[index]!;
    if (
      Number.isSafeInteger(offset) &&
      Number.isSafeInteger(byteLength) &&
      offset >= 0 &&
      byteLength >= 0 &&
      offset <= length - byteLength
    ) {
      return;
    }
    checkRange(`request ${request}: ${this.pathOf(index)}`, offset, byteLength, length);
  }
}

function isDispatch(object: RequestObject): object is DispatchCall {
  return typeof object === "object" && object !== null && "pipeline" in object;
}

function overlap(request: number): HeadraceError {
  return new HeadraceError("BAD_OPTION", `request ${request}: source and target of the copy overlap`);
}

function unknownOp(op: number, request: number): HeadraceError {
  return new HeadraceError("BAD_OPTION", `request ${request}: unknown operation ${op}`);
}
