/** What one trial is told: the whole of it travels to a process of its own as JSON. */
import type { CellKey } from "./record.ts";
import type { KnownSums } from "./sums.ts";

/** What is read before anything is prepared or timed: other files, of the same form. */
export interface RehearsalSpec {
  readonly paths: readonly string[];
  readonly bytes: number;
  readonly numSamples: number;
  readonly columns?: readonly string[] | undefined;
}

export interface TrialSpec {
  readonly cell: CellKey;
  /** -1 for the warm-up. */
  readonly round: number;
  /** The shards, in order. */
  readonly paths: readonly string[];
  readonly fileBytes: number;
  /** Bytes of values that are delivered, and samples. */
  readonly bytes: number;
  readonly numSamples: number;
  /** The columns that are delivered; all where absent. */
  readonly columns?: readonly string[] | undefined;
  /** Whether samples are tensors, whose keys are their names', or rows, whose keys are their numbers. */
  readonly tensors: boolean;
  readonly sums: KnownSums;
  /** Bytes of a batch, about. */
  readonly batchBytes: number;
  readonly prefetch: number;
  /** Of the order of this round. */
  readonly seed: number;
  /** Whether the path decompresses by itself: `zst` for containers. */
  readonly container?: "zst" | undefined;
  /** With it the device is busy for so long with each batch, ms. */
  readonly computeMs?: number | undefined;
  readonly ordinal?: number | undefined;
  /** Absent where it is left out. */
  readonly rehearsal?: RehearsalSpec | undefined;
  /** A memory group that the process joins first: the path of its list of processes. */
  readonly memoryGroup?: string | undefined;
}

/** The trial's way over the files of its rehearsal; undefined where there is none. */
export function rehearsalOf({ rehearsal, computeMs: _, ...trial }: TrialSpec): TrialSpec | undefined {
  return rehearsal === undefined ? undefined : { ...trial, columns: undefined, ...rehearsal };
}

/** Samples of a batch of rows that has about {@link TrialSpec.batchBytes}. */
export function batchSizeOf({ batchBytes, bytes, numSamples }: TrialSpec): number {
  return Math.max(1, Math.round((batchBytes * numSamples) / Math.max(1, bytes)));
}
