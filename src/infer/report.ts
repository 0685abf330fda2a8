/** What a job tells of itself while it runs and at its end. */

/** Two of many durations, ms. */
interface Durations {
  readonly p50: number;
  readonly p99: number;
}

/** How a job went. What is counted is this run's, unless it says otherwise. */
export interface InferReport {
  /** Rows that ended, the failed ones too. */
  readonly rows: number;
  /** Of rows that did not fail. */
  readonly promptTokens: number;
  /** Of rows that did not fail. */
  readonly outputTokens: number;
  /** From the first row that was asked for to the last output; opening the model and the last commit are not in it. */
  readonly seconds: number;
  readonly outputTokensPerSecond: number;
  /** Mean share of the slots in use while the engine stepped, 0 to 1. */
  readonly occupancy: number;
  /** Share of the time in which the engine could not run because the next row's data was not there, 0 to 1. */
  readonly dataWaitShare: number;
  /** Rows that earlier runs of the job had finished. */
  readonly resumedRows: number;
  readonly failedRows: number;
  /** Of `resumedRows`, those that failed; `retryFailed` runs them again. */
  readonly resumedFailedRows: number;
  /** Shards of outputs that were finished, and were made again because their file was gone or not as it was. */
  readonly remadeShards: number;
  /** Rows of the whole job. */
  readonly totalRows: number;
  /** Whether `drain` ended it before its last row. */
  readonly interrupted: boolean;
  /** Share of the time in which the engine did not run because outputs waited for the disk, 0 to 1. */
  readonly outputWaitShare: number;
  readonly steps: number;
  readonly stepMs: Durations;
  /** From a row's admission. */
  readonly firstTokenMs: Durations;
  /** Sequences that were taken out of their slot for want of memory, to be run again. */
  readonly putBacks: number;
  /** Tries of rows beyond their first. */
  readonly retries: number;
  /** From the call to its end. */
  readonly totalSeconds: number;
  readonly dataset: string;
  readonly column: string;
  readonly engine: string;
  /** With engine `http`, the host of the server's address. */
  readonly device: string;
  readonly out: string;
  /** The file with the rows that failed: where there are any, once their shards are whole. */
  readonly deadLetters?: string | undefined;
}

/** Where a job stands. */
export interface InferProgress {
  /** Rows that this run has finished. */
  readonly rows: number;
  /** Rows of the whole job, those of earlier runs included. */
  readonly totalRows: number;
  readonly resumedRows: number;
  /** Over the last second. */
  readonly outputTokensPerSecond: number;
  /** Share of slots in use over the last second, 0 to 1. */
  readonly occupancy: number;
}
