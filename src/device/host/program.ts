/**
 * A checked submission: requests resolved to descriptors and addresses, in the layout of the ring, cut at
 * the requests that order others. Checking has no effect; only {@link Program.retain} has.
 */
import { HeadraceError, withContext } from "../../errors.ts";
import { assertEventValue } from "../common/checks.ts";
import { FIELDS, Op, type RequestList } from "../requests.ts";
import type { HostContext } from "./context.ts";
import type { HostSequence } from "./dispatch.ts";
import type { HostEvent } from "./event.ts";
import { cutsInto } from "./jobs.ts";
import { BUFFER, DISPATCH, EVENT, FILE, Objects, SEQUENCE, WRITABLE } from "./objects.ts";
import type { ResolvedDispatch } from "./pipeline.ts";
import { ENTRY, Field } from "./ring.ts";

/** Bytes of a copy that make it worth waking one more lane. */
const COPY_BYTES_PER_LANE = 128 * 1024;

/** Requests between two ordering ones, which lanes run. */
export interface MoveStep {
  readonly kind: "move";
  readonly first: number;
  readonly end: number;
  readonly numPieces: number;
  readonly lanesWanted: number;
  readonly bytes: number;
  /** No request but copies. */
  readonly copiesOnly: boolean;
}

export interface SignalStep {
  readonly kind: "signal";
  readonly event: HostEvent;
  readonly value: number;
}

export interface WaitStep {
  readonly kind: "wait";
  readonly event: HostEvent;
  readonly value: number;
}

export interface DispatchStep {
  readonly kind: "dispatch";
  readonly dispatch: ResolvedDispatch;
}

/** What devices other than the host make of requests. */
export interface OtherStep {
  readonly kind: "other";
}

/** What an executor runs. */
export type WorkStep = MoveStep | DispatchStep | OtherStep;

export type Step = WorkStep | SignalStep | WaitStep;

/** Reusable; one submission at a time. */
export class Program {
  /** {@link ENTRY} numbers a request; `slot` holds what {@link Program.pathOf} takes. */
  entries = new Float64Array(64 * ENTRY);
  readonly steps: Step[] = [];
  protected readonly context: HostContext;
  readonly #pieceBytes: number;
  readonly #copyLanes: number;
  protected readonly objects: Objects;

  /** `copyLanes` bounds the lanes that share copies between buffers. */
  constructor(context: HostContext, pieceBytes: number, copyLanes: number) {
    this.context = context;
    this.objects = new Objects(context);
    this.#pieceBytes = pieceBytes;
    this.#copyLanes = copyLanes;
  }

  /** Throws `OUT_OF_RANGE`, `CLOSED`, `BAD_OPTION`, `UNSUPPORTED` or `FILE_CHANGED`; then nothing is kept. */
  load(list: RequestList): void {
    this.clear();
    try {
      for (const object of list.objects) this.objects.add(object);
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
    this.objects.checkFiles();
  }

  /** Of the file, or of the one behind the mapping, that a request uses. */
  pathOf(slot: number): string {
    return this.objects.pathOf(slot);
  }

  /** Keeps all memory and files in place until {@link Program.release}. */
  retain(): void {
    this.objects.retain();
  }

  release(): void {
    this.objects.release();
    this.clear();
  }

  clear(): void {
    this.steps.length = 0;
    this.objects.clear();
  }

  #addRequests(list: RequestList): void {
    const { numbers } = list;
    const { objects } = this;
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
        objects.need(index, EVENT, request);
        const value = numbers[at + 5]!;
        assertEventValue(value);
        const kind = op === Op.signal ? "signal" : "wait";
        this.addEvent({ kind, event: list.objects[index] as HostEvent, value });
      } else if (op === Op.dispatch) {
        objects.need(index, DISPATCH, request);
        this.addDispatch(this.objects.dispatchOf(index));
      } else if (op === Op.replay) this.#addReplay(index, request, list);
      else throw unknownOp(op, request);
    }
    this.#endMoves(first, list.length);
  }

  #addReplay(index: number, request: number, list: RequestList): void {
    this.objects.need(index, SEQUENCE, request);
    const first = list.numbers[request * FIELDS + 2]!;
    const count = list.numbers[request * FIELDS + 5]!;
    const sequence = list.objects[index] as HostSequence;
    const dispatches = withContext(`request ${request}`, () => sequence.at(list.offsets, first, count));
    this.addReplay(sequence, dispatches);
  }

  /** What a lane is asked for a move between two objects, by their indices. 0: nothing, and
   * {@link Program.takeMove} gets the move instead. */
  protected laneOp(op: number, _source: number, _target: number): number {
    return op;
  }

  /** Takes a move of a buffer to another one, whose entry is complete. */
  protected takeMove(_request: number, _source: number, _target: number): void {}

  /** Takes the requests between two ordering ones: `step` is what lanes are asked for, if anything. */
  protected addMoves(step: MoveStep | undefined): void {
    if (step !== undefined) this.steps.push(step);
  }

  protected addDispatch(dispatch: ResolvedDispatch): void {
    this.steps.push({ kind: "dispatch", dispatch });
  }

  /** Takes a replay: `dispatches` are the sequence's own, or copies with other offsets. */
  protected addReplay(_sequence: HostSequence, dispatches: readonly ResolvedDispatch[]): void {
    for (const dispatch of dispatches) this.addDispatch(dispatch);
  }

  protected addEvent(step: SignalStep | WaitStep): void {
    this.steps.push(step);
  }

  /** Hot: one call a request. */
  #addMove(op: number, request: number, numbers: Float64Array, at: number): void {
    const { entries, objects } = this;
    const to = request * ENTRY;
    const source = numbers[at + 1]!;
    const sourceOffset = numbers[at + 2]!;
    const target = numbers[at + 3]!;
    const targetOffset = numbers[at + 4]!;
    const byteLength = numbers[at + 5]!;
    entries[to + Field.op] = this.laneOp(op, source, target);
    entries[to + Field.byteLength] = byteLength;
    if (op === Op.copy) {
      if (!objects.holds(source, BUFFER, sourceOffset, byteLength)) {
        objects.need(source, BUFFER, request);
        objects.range(source, sourceOffset, byteLength, request);
      }
      if (!objects.holds(target, BUFFER | WRITABLE, targetOffset, byteLength)) {
        objects.need(target, BUFFER | WRITABLE, request);
        objects.range(target, targetOffset, byteLength, request);
      }
      if (source === target && Math.abs(sourceOffset - targetOffset) < byteLength) throw overlap(request);
      entries[to + Field.fd] = objects.mappedFdOf(source);
      entries[to + Field.fileOffset] = objects.mappedLengthOf(source);
      entries[to + Field.source] = objects.baseOf(source) + sourceOffset;
      entries[to + Field.target] = objects.baseOf(target) + targetOffset;
      entries[to + Field.slot] = source;
      if (entries[to + Field.op] === 0) {
        this.takeMove(request, source, target);
        entries[to + Field.byteLength] = 0;
      }
      return;
    }
    const isRead = op === Op.read;
    const file = op === Op.write ? target : source;
    const fileOffset = op === Op.write ? targetOffset : sourceOffset;
    objects.need(file, op === Op.write ? FILE | WRITABLE : FILE, request);
    entries[to + Field.fd] = objects.baseOf(file);
    entries[to + Field.fileOffset] = fileOffset;
    entries[to + Field.slot] = file;
    entries[to + Field.source] = op === Op.read ? objects.wayOf(file) : 0;
    entries[to + Field.target] = 0;
    if (op === Op.sync) return;
    if (!isRead && op !== Op.write) throw unknownOp(op, request);
    const buffer = isRead ? target : source;
    const bufferOffset = isRead ? targetOffset : sourceOffset;
    objects.need(buffer, isRead ? BUFFER | WRITABLE : BUFFER, request);
    objects.range(file, fileOffset, byteLength, request);
    objects.range(buffer, bufferOffset, byteLength, request);
    entries[to + (isRead ? Field.target : Field.source)] = objects.baseOf(buffer) + bufferOffset;
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
    if (numPieces === 0) {
      if (end > first) this.addMoves(undefined);
      return;
    }
    const copyLanes = Math.min(this.#copyLanes, Math.ceil(copyBytes / COPY_BYTES_PER_LANE));
    const copiesOnly = ioPieces === 0;
    const lanesWanted = Math.max(ioPieces, copyLanes);
    this.addMoves({ kind: "move", first, end, numPieces, lanesWanted, bytes, copiesOnly });
  }
}

function overlap(request: number): HeadraceError {
  return new HeadraceError("BAD_OPTION", `request ${request}: source and target of the copy overlap`);
}

function unknownOp(op: number, request: number): HeadraceError {
  return new HeadraceError("BAD_OPTION", `request ${request}: unknown operation ${op}`);
}
