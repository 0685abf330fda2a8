/** A submission for the CUDA device: what lanes do, as on the host, and runs of what the GPU does. */

import type { HostSequence } from "../host/dispatch.ts";
import type { Region } from "../host/memory.ts";
import type { ResolvedDispatch } from "../host/pipeline.ts";
import { type MoveStep, type OtherStep, Program, type SignalStep, type WaitStep } from "../host/program.ts";
import { ENTRY, Field, LaneOp } from "../host/ring.ts";
import { Op } from "../requests.ts";
import type { Graph } from "./graphs.ts";
import { CudaOp } from "./lane-ops.ts";
import { CudaSequence } from "./sequence.ts";

/** Numbers a transfer. */
export const TRANSFER = 5;
/** Fields of a transfer. */
export const Transfer = {
  source: 0,
  target: 1,
  byteLength: 2,
  /** Index of the source in the submission's objects. */
  object: 3,
  /** 1 where the target is memory of the host. */
  toHost: 4,
} as const;

/** What the GPU does, one after the other. */
export type GpuOp =
  /** Transfers `[first, end)`, side by side. */
  | { readonly kind: "transfers"; readonly first: number; readonly end: number }
  | { readonly kind: "dispatch"; readonly dispatch: ResolvedDispatch }
  /** All of a sequence at once. */
  | { readonly kind: "replay"; readonly sequence: CudaSequence; readonly graph: Graph };

/** Work of the GPU that needs no look at the host in between. */
export interface GpuStep extends OtherStep {
  readonly ops: GpuOp[];
  /** What lanes do meanwhile. */
  readonly lanes: MoveStep | undefined;
}

export class CudaProgram extends Program {
  /** {@link TRANSFER} numbers a copy that has device memory on one side. */
  transfers = new Float64Array(64 * TRANSFER);
  #numTransfers = 0;
  /** Transfers that belong to a step already. */
  #placed = 0;
  /** The step that more may be added to. */
  #open: GpuStep | undefined;

  /** Memory that a transfer comes from. */
  sourceOf(transfer: number): Region {
    return this.objects.regionOf(this.transfers[transfer * TRANSFER + Transfer.object]!)!;
  }

  /** The file behind a transfer's source: its descriptor, and where the mapping, at `base`, stands in it. */
  fileOf(transfer: number) {
    const object = this.transfers[transfer * TRANSFER + Transfer.object]!;
    const { base, fileOffset = 0 } = this.sourceOf(transfer).extent;
    return { fd: this.objects.mappedFdOf(object), base, fileOffset, object };
  }

  override clear(): void {
    super.clear();
    this.#numTransfers = 0;
    this.#placed = 0;
    this.#open = undefined;
  }

  protected override laneOp(op: number, source: number, target: number): number {
    if (op === Op.read) return this.#onDevice(target) ? LaneOp.upload : op;
    if (op === Op.write) return this.#onDevice(source) ? CudaOp.download : op;
    return op === Op.copy && (this.#onDevice(source) || this.#onDevice(target)) ? 0 : op;
  }

  protected override takeMove(request: number, source: number, target: number): void {
    const at = this.#numTransfers * TRANSFER;
    if (at === this.transfers.length) {
      const larger = new Float64Array(2 * at);
      larger.set(this.transfers);
      this.transfers = larger;
    }
    const { entries, transfers } = this;
    const from = request * ENTRY;
    if (entries[from + Field.byteLength] === 0) return;
    transfers[at + Transfer.source] = entries[from + Field.source]!;
    transfers[at + Transfer.target] = entries[from + Field.target]!;
    transfers[at + Transfer.byteLength] = entries[from + Field.byteLength]!;
    transfers[at + Transfer.object] = source;
    transfers[at + Transfer.toHost] = this.#onDevice(target) ? 0 : 1;
    this.#numTransfers++;
  }

  protected override addMoves(step: MoveStep | undefined): void {
    const first = this.#placed;
    const end = this.#numTransfers;
    this.#placed = end;
    if (step === undefined) {
      if (end > first) this.#openStep().ops.push({ kind: "transfers", first, end });
      return;
    }
    this.#open = undefined;
    if (end === first) super.addMoves(step);
    else {
      const both: GpuStep = { kind: "other", ops: [{ kind: "transfers", first, end }], lanes: step };
      this.steps.push(both);
    }
  }

  protected override addDispatch(dispatch: ResolvedDispatch): void {
    this.#openStep().ops.push({ kind: "dispatch", dispatch });
  }

  protected override addReplay(sequence: HostSequence, dispatches: readonly ResolvedDispatch[]): void {
    const graph =
      sequence instanceof CudaSequence && sequence.isUnchanged(dispatches) ? sequence.graph : undefined;
    if (graph === undefined) super.addReplay(sequence, dispatches);
    else this.#openStep().ops.push({ kind: "replay", sequence: sequence as CudaSequence, graph });
  }

  protected override addEvent(step: SignalStep | WaitStep): void {
    this.#open = undefined;
    super.addEvent(step);
  }

  #openStep(): GpuStep {
    if (this.#open === undefined) {
      this.#open = { kind: "other", ops: [], lanes: undefined };
      this.steps.push(this.#open);
    }
    return this.#open;
  }

  #onDevice(index: number): boolean {
    return this.objects.regionOf(index)?.extent.kind === "device";
  }
}
