/**
 * One step of a submission on the GPU: its operations are put into the queue's streams one after the other, and the
 * host is needed in between only for what is not registered with the driver yet.
 */
import { HeadraceError } from "../../errors.ts";
import { deviceError } from "../common/errors.ts";
import { type Running, type StepEnd, stepEnd } from "../host/execute.ts";
import type { LaneRun } from "../host/jobs.ts";
import type { CudaContext } from "./context.ts";
import type { Launcher } from "./launch.ts";
import { holdMappings } from "./mappings.ts";
import { WindowPins } from "./pins.ts";
import { type CudaProgram, type GpuOp, TRANSFER, Transfer } from "./program.ts";
import type { Registrar } from "./registrar.ts";
import { type StagedCopy, Staging } from "./staging.ts";
import type { Streams } from "./streams.ts";
import type { Table, Tables } from "./tables.ts";
import { Tail } from "./tail.ts";
import { type CopyStreams, FEW, SMALL_BYTES, type TransferParts, Transfers } from "./transfers.ts";
import type { Windows } from "./windows.ts";

export interface GpuRunParts extends TransferParts {
  readonly context: CudaContext;
  readonly launcher: Launcher;
  readonly tables: Tables;
  readonly registrar: Registrar;
  readonly streams: Streams;
  readonly aheadBytes: number;
  readonly pieceBytes: number;
  runLanes(
    program: CudaProgram,
    entries: Float64Array,
    numPieces: number,
    ended: (end: StepEnd) => void,
  ): LaneRun;
  stopLanes(run: LaneRun): void;
}

export class GpuRun implements Running {
  readonly #parts: GpuRunParts;
  readonly #program: CudaProgram;
  readonly #ops: readonly GpuOp[];
  readonly #ended: (end: StepEnd) => void;
  readonly #tail: Tail;
  readonly #pins: WindowPins;
  readonly #tables: Table[] = [];
  readonly #computeAlone: CopyStreams;
  #next = 0;
  #bytesDone = 0;
  #error: HeadraceError | undefined;
  #stopped = false;
  #staging: Staging | undefined;

  /** `ended` is called once, never within {@link GpuRun.start}. */
  constructor(
    parts: GpuRunParts,
    program: CudaProgram,
    ops: readonly GpuOp[],
    ended: (end: StepEnd) => void,
  ) {
    this.#parts = parts;
    this.#program = program;
    this.#ops = ops;
    this.#ended = ended;
    this.#tail = new Tail(parts.streams);
    this.#pins = new WindowPins(parts.registrar);
    const { compute } = parts.streams;
    this.#computeAlone = { upload: compute, download: compute };
  }

  /** Throws nothing: a failure ends the run. */
  start(): void {
    this.#parts.context.began();
    this.#advance();
  }

  stop(): void {
    this.#stopped = true;
    this.#staging?.stop();
  }

  /** Goes on until something has to be waited for. */
  #advance(): void {
    try {
      this.#parts.context.use();
      while (!this.#stopped && this.#error === undefined && this.#next < this.#ops.length) {
        const op = this.#ops[this.#next]!;
        if (!this.#start(op)) return;
        this.#next++;
      }
    } catch (error) {
      this.#error ??= deviceError(error);
    }
    this.#finish();
  }

  /** Returns whether the next operation may follow at once. */
  #start(op: GpuOp): boolean {
    if (op.kind === "transfers") return this.#transfer(op.first, op.end);
    const { launcher, registrar, streams } = this.#parts;
    const launches = op.kind === "dispatch" ? [op.dispatch] : op.sequence.withMappings;
    for (const launch of launches) {
      if (!holdMappings(registrar, this.#pins, launch, () => this.#advance())) return false;
    }
    const stream = streams.compute;
    this.#tail.behind(stream);
    if (op.kind === "dispatch") launcher.dispatch(stream.handle, op.dispatch);
    else op.graph.launch(stream.handle);
    this.#tail.become([stream]);
    return true;
  }

  /** Waits for what is in the streams, and ends. */
  #finish(): void {
    if (this.#tail.empty) {
      queueMicrotask(() => this.#end());
      return;
    }
    try {
      this.#parts.context.use();
      this.#tail.whenDone((error) => {
        this.#error ??= error;
        this.#end();
      }, this.#ops.some(isReplay));
    } catch (error) {
      this.#error ??= deviceError(error);
      this.#parts.streams.drain();
      queueMicrotask(() => this.#end());
    }
  }

  #end(): void {
    this.#pins.release();
    for (const table of this.#tables) this.#parts.tables.give(table);
    this.#parts.context.finished();
    const { lost } = this.#parts.context;
    const error = this.#withKernels(this.#error ?? lost);
    this.#ended(stepEnd(this.#bytesDone, error));
  }

  /** Names the kernels of the run in what ended the device: the driver tells only that something has, later. */
  #withKernels(error: HeadraceError | undefined): HeadraceError | undefined {
    if (error?.code !== "DEVICE_LOST") return error;
    const names = new Set(this.#ops.flatMap(namesOf));
    if (names.size === 0) return error;
    const message = `${error.message}; kernels of this ticket: ${[...names].join(", ")}`;
    return new HeadraceError(error.code, message, { cause: error });
  }

  #transfer(first: number, end: number): boolean {
    if (!this.#tail.empty && this.#mustStage(first, end)) {
      // Lanes are not ordered by streams: what they replace may be in use until all before has ended.
      this.#tail.whenDone((error) => {
        this.#error ??= error;
        this.#advance();
      });
      return false;
    }
    const count = end - first;
    const streams = this.#sharesStream(first, end) ? this.#computeAlone : this.#parts.streams;
    const group = new Transfers(this.#parts, streams, this.#tail, this.#tables, count);
    const staged: StagedCopy[] = [];
    try {
      this.#addTransfers(first, end, group, staged);
    } catch (error) {
      // Those before the one that failed are under way.
      group.end();
      throw error;
    }
    if (staged.length === 0) group.end();
    else this.#stage(staged, group);
    return staged.length === 0;
  }

  /** Whether copies go into the stream of the kernels that they are for: ones that are over sooner than streams have
   * told each other of them. */
  #sharesStream(first: number, end: number): boolean {
    if (end - first > FEW || !this.#ops.some(({ kind }) => kind !== "transfers")) return false;
    const { transfers } = this.#program;
    let byteLength = 0;
    for (let at = first * TRANSFER; at < end * TRANSFER; at += TRANSFER) {
      byteLength += transfers[at + Transfer.byteLength]!;
    }
    return byteLength <= SMALL_BYTES;
  }

  /** Starts transfers `[first, end)`, but for those that have to be staged. */
  #addTransfers(first: number, end: number, group: Transfers, staged: StagedCopy[]): void {
    const { transfers } = this.#program;
    const count = end - first;
    const { smallBytes } = group;
    let object = -1;
    let windows: Windows | undefined;
    let pinned = false;
    for (let transfer = first, at = first * TRANSFER; transfer < end; transfer++, at += TRANSFER) {
      // Most copies come from the same memory as the one before.
      if (transfers[at + Transfer.object] !== object) {
        object = transfers[at + Transfer.object]!;
        windows = this.#parts.registrar.windowsOf(this.#program.sourceOf(transfer));
        pinned = windows === undefined || (count >= FEW && this.#pinWhole(windows));
      }
      const source = transfers[at + Transfer.source]!;
      const target = transfers[at + Transfer.target]!;
      const byteLength = transfers[at + Transfer.byteLength]!;
      if (!pinned && windows !== undefined) {
        if (!windows.covers(source, byteLength)) {
          this.#cut(transfer, windows, group, staged);
          continue;
        }
        this.#pins.add(windows, source, byteLength);
      }
      if (byteLength <= smallBytes) group.addSmall(source, target, byteLength);
      else group.add(source, target, byteLength, transfers[at + Transfer.toHost] === 1, windows);
      this.#bytesDone += byteLength;
    }
    group.flush();
  }

  /** Whether all of a mapping is registered; then it is pinned. */
  #pinWhole(windows: Windows): boolean {
    if (windows.whole) this.#pins.addWhole(windows);
    return windows.whole;
  }

  #mustStage(first: number, end: number): boolean {
    const { transfers } = this.#program;
    for (let transfer = first; transfer < end; transfer++) {
      const at = transfer * TRANSFER;
      const windows = this.#parts.registrar.windowsOf(this.#program.sourceOf(transfer));
      if (windows === undefined) continue;
      if (!windows.covers(transfers[at + Transfer.source]!, transfers[at + Transfer.byteLength]!))
        return true;
    }
    return false;
  }

  /** Cuts a transfer at the borders of windows; a small one stays whole. What is registered starts at once, and so is
   * not released for the rest. */
  #cut(transfer: number, windows: Windows, group: Transfers, staged: StagedCopy[]): void {
    const { transfers } = this.#program;
    const at = transfer * TRANSFER;
    const source = transfers[at + Transfer.source]!;
    const target = transfers[at + Transfer.target]!;
    const byteLength = transfers[at + Transfer.byteLength]!;
    const region = this.#program.sourceOf(transfer);
    const { fd, base, fileOffset, object } = this.#program.fileOf(transfer);
    for (let done = 0; done < byteLength; ) {
      const whole = byteLength <= SMALL_BYTES;
      const length = whole ? byteLength : Math.min(byteLength - done, windows.restFrom(source + done));
      if (windows.covers(source + done, length)) {
        this.#pins.add(windows, source + done, length);
        group.add(source + done, target + done, length, false, windows);
        this.#bytesDone += length;
        done += length;
        continue;
      }
      staged.push({
        region,
        windows,
        source: source + done,
        target: target + done,
        byteLength: length,
        fd,
        fileOffset: fileOffset + (source + done - base),
        object,
      });
      done += length;
    }
  }

  #stage(staged: readonly StagedCopy[], group: Transfers): void {
    const { registrar, aheadBytes, pieceBytes, stopLanes } = this.#parts;
    this.#staging = new Staging(
      {
        registrar,
        aheadBytes,
        pieceBytes,
        runLanes: (entries, numPieces, ended) =>
          this.#parts.runLanes(this.#program, entries, numPieces, ended),
        stopLanes,
        copyRegistered: ({ windows, source, target, byteLength }) => {
          this.#parts.context.use();
          this.#pins.add(windows, source, byteLength);
          group.add(source, target, byteLength, false, windows);
          group.flush();
        },
        ended: ({ bytesDone, error }) => {
          this.#staging = undefined;
          this.#bytesDone += bytesDone;
          this.#error ??= error;
          group.end();
          this.#next++;
          this.#advance();
        },
      },
      staged,
    );
    this.#staging.start();
  }
}

function isReplay(op: GpuOp): boolean {
  return op.kind === "replay";
}

/** Of the kernels that an operation runs. */
function namesOf(op: GpuOp): string[] {
  if (op.kind === "transfers") return [];
  return op.kind === "dispatch" ? [op.dispatch.pipeline.name] : op.sequence.names;
}
