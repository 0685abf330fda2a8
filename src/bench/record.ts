/**
 * What a benchmark leaves: JSON lines. The first is a {@link RunRecord}; then come one {@link CeilingRecord} for each
 * ceiling, one {@link TrialRecord} for each trial in the order in which they ran, and one {@link CellRecord} for
 * each cell at the end.
 */

export const RECORD_VERSION = 1;

/** How shards are reached: by this project (`map`, `read`, `stream`, `mtlio-raw`, `mtlio-compressed`), or as users do
 * without it (`js-read`: plain reads into JavaScript memory; `apache-arrow`: its own reader), or by a peer. */
export type BenchPath = string;

/** One combination that is measured. */
export interface CellKey {
  /** Unique in the run: the parts below, joined. */
  readonly id: string;
  /** What was stored: `weights`, `tokens`, `images`, `embeddings`, or the user's own dataset's name. */
  readonly data: string;
  /** `safetensors`, `arrow`, `safetensors.zst-3`, `arrow.lz4-body`, … */
  readonly format: string;
  readonly path: BenchPath;
  readonly temperature: "cold" | "warm";
  readonly order: "sequential" | "block-shuffled" | "random";
  readonly lanes: number;
  /** Bytes of a read, where the path has such a setting. */
  readonly requestBytes?: number | undefined;
  readonly device: string;
  /** Set where a library other than this one did the work: `safetensors 0.6.2 (Python)`. */
  readonly peer?: string | undefined;
}

export interface RunRecord {
  readonly kind: "run";
  readonly version: typeof RECORD_VERSION;
  /** UTC, ISO 8601. */
  readonly date: string;
  /** What was typed. */
  readonly command: string;
  readonly machine: {
    readonly cpu: string;
    readonly cores: number;
    readonly memoryBytes: number;
    readonly os: string;
    readonly kernel: string;
    readonly arch: string;
    /** Where the files lay: file system and device, as far as the system tells. */
    readonly disk: string;
    /** Free bytes of memory when the run began. */
    readonly memoryFreeBytes: number;
    /** Load average over a minute when the run began. */
    readonly load: number;
    readonly gpu?: string | undefined;
    /** Power source, low-power mode, thermal state: where the system tells. */
    readonly power?: string | undefined;
  };
  /** By program or package: `headrace`, `bun`, `libzstd`, `pyarrow`, … */
  readonly versions: Readonly<Record<string, string>>;
  /** Of the run. `rehearsalBytes` are those that each trial's process read before its trial, about; 0 where there was no
   * rehearsal, so that `seconds` hold the start of threads and the compilation of code as well. */
  readonly settings: Readonly<Record<string, string | number | boolean | readonly string[]>>;
}

/** What the machine can do at best, measured in the same run. */
export interface CeilingRecord {
  readonly kind: "ceiling";
  /** `pread-warm`, `pread-cold`, `memcpy`, `link`, `fio`, `harness`, … */
  readonly name: string;
  readonly gigabytesPerSecond: Quantiles;
  readonly note: string;
}

export interface Quantiles {
  readonly median: number;
  readonly p5: number;
  readonly p95: number;
  /** Bootstrap 95 % interval of the median. */
  readonly low: number;
  readonly high: number;
}

/** One process that read the whole dataset once, after a rehearsal over other files. Of the figures below only
 * `peakRssBytes` is the process's as a whole; all others are of the trial alone. */
export interface TrialRecord {
  readonly kind: "trial";
  readonly cell: string;
  /** From 0; warm-ups are -1. */
  readonly round: number;
  /** From the first request to the last batch's checksum; opening is counted apart. */
  readonly seconds: number;
  /** Opening the device (which the rehearsal had already), the dataset and the loader. */
  readonly openSeconds: number;
  /** Bytes delivered, and bytes of the files behind them. */
  readonly bytes: number;
  readonly fileBytes: number;
  /** Of all bytes, in hex; the trial fails where it is not the known one. */
  readonly checksum: string;
  /** What was read first, by the same way; absent where the rehearsal was left out. */
  readonly rehearsal?:
    | {
        /** Of values that were delivered; its seconds are those of reading and of opening. */
        readonly bytes: number;
        readonly seconds: number;
        /** Why it came to no end: the trial then began as it would have without. */
        readonly error?: string | undefined;
      }
    | undefined;
  /** Part of the files that was in memory right before, 0 to 1; absent where the system does not tell. */
  readonly residency?: number | undefined;
  /** What the trial counts as: a cold one whose proof failed is warm. */
  readonly temperature: "cold" | "warm";
  readonly cpuSeconds: number;
  readonly minorFaults: number;
  readonly majorFaults: number;
  readonly peakRssBytes: number;
  readonly wiredBytes?: number | undefined;
  /** ms from asking for a batch to having it: quantiles 0, 0.05, 0.5, 0.95, 0.99, 1. */
  readonly batchMs: readonly number[];
  readonly numBatches: number;
  /** With a fixed compute time a batch: the share of the time in which the device was computing. */
  readonly busy?: { readonly computeMs: number; readonly share: number } | undefined;
  /** Why it failed; figures are zeros then. */
  readonly error?: string | undefined;
}

/** A cell's figures over its rounds. */
export interface CellRecord {
  readonly kind: "cell";
  readonly cell: CellKey;
  readonly rounds: number;
  readonly gigabytesPerSecond: Quantiles;
  readonly cpuSecondsPerGigabyte: number;
  readonly minorFaultsPerGigabyte: number;
  readonly majorFaultsPerGigabyte: number;
  readonly peakRssBytes: number;
  readonly wiredBytes?: number | undefined;
  /** Medians over the rounds of each trial's quantiles. */
  readonly batchMs: readonly number[];
  readonly busyShare?: Quantiles | undefined;
  /** Logical bytes over file bytes. */
  readonly compression: number;
  readonly residency?: number | undefined;
  /** Trials of a cold cell that were not proven cold: they are left out of its figures, unless none was proven. Then
   * the cell is warm here, whatever its id says. */
  readonly unproven?: number | undefined;
  /** The ceiling that bounds this cell, and the part of it that was reached. */
  readonly ceiling?: { readonly name: string; readonly part: number } | undefined;
  /** Against the peer or the cell named, where there is one in the run: the ratio of the rates. */
  readonly ratios?: readonly { readonly against: string; readonly ratio: Quantiles }[] | undefined;
  /** Why there are no figures: declined by the device, a peer that does not install, … */
  readonly skipped?: string | undefined;
}

export type BenchRecord = RunRecord | CeilingRecord | TrialRecord | CellRecord;
