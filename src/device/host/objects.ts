/** The files, buffers, events and kernel launches that a submission names, checked, as columns of numbers. */
import { HeadraceError } from "../../errors.ts";
import { closedError } from "../common/errors.ts";
import { checkRange, type DispatchCall, type RequestObject } from "../requests.ts";
import type { HostContext } from "./context.ts";
import { foreign, HostSequence, resolveDispatch } from "./dispatch.ts";
import { HostEvent } from "./event.ts";
import { type Descriptor, HostFile } from "./file.ts";
import { HostBuffer, type Region } from "./memory.ts";
import type { ResolvedDispatch } from "./pipeline.ts";

/** Kinds of objects; files and buffers that may be written to have a bit more. */
export const FILE = 1;
export const BUFFER = 2;
export const EVENT = 4;
export const DISPATCH = 8;
export const WRITABLE = 16;
export const SEQUENCE = 32;

const KIND_NAMES = [
  [FILE, "file"],
  [BUFFER, "buffer"],
  [EVENT, "event"],
  [DISPATCH, "dispatch"],
  [SEQUENCE, "sequence"],
] as const;

/** Of one submission. An object's index is its place in {@link RequestList.objects}. */
export class Objects {
  readonly #context: HostContext;
  readonly #regions = new Set<Region>();
  readonly #descriptors = new Set<Descriptor>();
  readonly #sequences = new Set<HostSequence>();
  #dispatches: (ResolvedDispatch | undefined)[] = [];
  readonly #paths: string[] = [];
  readonly #kinds: number[] = [];
  readonly #lengths: number[] = [];
  readonly #bases: number[] = [];
  #regionOf: (Region | undefined)[] = [];
  readonly #ways: number[] = [];
  readonly #mappedFds: number[] = [];
  readonly #mappedLengths: number[] = [];

  constructor(context: HostContext) {
    this.#context = context;
  }

  /** Throws `BAD_OPTION` for what is not of this device, `CLOSED`, and what a dispatch is checked for. */
  add(object: RequestObject): void {
    if (object instanceof HostBuffer) this.#addBuffer(object);
    else if (object instanceof HostFile) this.#addFile(object);
    else if (object instanceof HostEvent) this.#addEvent(object);
    else if (object instanceof HostSequence) this.#addSequence(object);
    else if (isDispatch(object)) this.#addDispatch(object);
    else throw foreign(this.#context, "an object");
  }

  /** Address of a buffer, descriptor of a file. */
  baseOf(index: number): number {
    return this.#bases[index]!;
  }

  /** The number of a file's further way, or 0. */
  wayOf(index: number): number {
    return this.#ways[index]!;
  }

  /** Of the file behind a mapping, else -1. */
  mappedFdOf(index: number): number {
    return this.#mappedFds[index]!;
  }

  /** Bytes that the file behind a mapping must have. */
  mappedLengthOf(index: number): number {
    return this.#mappedLengths[index]!;
  }

  /** Memory of a buffer. */
  regionOf(index: number): Region | undefined {
    return this.#regionOf[index];
  }

  dispatchOf(index: number): ResolvedDispatch {
    return this.#dispatches[index]!;
  }

  pathOf(index: number): string {
    return this.#paths[index] ?? "buffer";
  }

  checkFiles(): void {
    for (const region of this.#regions) region.checkFile();
    for (const sequence of this.#sequences) sequence.checkFiles();
  }

  retain(): void {
    for (const region of this.#regions) region.retain();
    for (const descriptor of this.#descriptors) descriptor.retain();
    for (const sequence of this.#sequences) sequence.retain();
  }

  release(): void {
    for (const region of this.#regions) region.release();
    for (const descriptor of this.#descriptors) descriptor.release();
    for (const sequence of this.#sequences) sequence.release();
  }

  clear(): void {
    this.#paths.length = 0;
    this.#regions.clear();
    this.#descriptors.clear();
    this.#sequences.clear();
    this.#dispatches = [];
    this.#kinds.length = 0;
    this.#lengths.length = 0;
    this.#bases.length = 0;
    this.#regionOf = [];
    this.#ways.length = 0;
    this.#mappedFds.length = 0;
    this.#mappedLengths.length = 0;
  }

  #addBuffer(buffer: HostBuffer): void {
    const { region } = buffer;
    if (buffer.context !== this.#context) throw foreign(this.#context, "a buffer");
    if (region.closed) throw closedError("a buffer of the submission");
    this.#regions.add(region);
    const writable = region.descriptor === undefined ? WRITABLE : 0;
    this.#push(BUFFER | writable, region.byteLength, region.address);
    const index = this.#kinds.length - 1;
    this.#regionOf[index] = region;
    if (region.descriptor === undefined) return;
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
    const index = this.#kinds.length - 1;
    this.#paths[index] = file.path;
    this.#ways[index] = file.descriptor.way?.number ?? 0;
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
    this.#sequences.add(sequence);
    this.#push(SEQUENCE, 0, 0);
  }

  #push(kind: number, length: number, base: number, dispatch?: ResolvedDispatch): void {
    this.#kinds.push(kind);
    this.#lengths.push(length);
    this.#bases.push(base);
    this.#ways.push(0);
    this.#mappedFds.push(-1);
    this.#mappedLengths.push(0);
    if (dispatch !== undefined) this.#dispatches[this.#kinds.length - 1] = dispatch;
  }

  /** Whether an object is of a kind and has the bytes: {@link Objects.need} and {@link Objects.range} say
   * what is wrong where it has not. */
  holds(index: number, kind: number, offset: number, byteLength: number): boolean {
    return (
      (this.#kinds[index]! & kind) === kind &&
      offset >= 0 &&
      byteLength >= 0 &&
      offset <= this.#lengths[index]! - byteLength &&
      Number.isInteger(offset) &&
      Number.isInteger(byteLength)
    );
  }

  need(index: number, kind: number, request: number): void {
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

  range(index: number, offset: number, byteLength: number, request: number): void {
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
