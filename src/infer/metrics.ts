/** What an inference job has done, how fast, and what it waited for. */
import { Quantiles } from "./quantiles.ts";
import type { SchedulerCounts } from "./scheduling.ts";

/** Two of many durations, ms, to within 1 %; 0 where there is none. */
export interface Latency {
  readonly p50: number;
  readonly p99: number;
}

/** What was done in a span of time. */
export interface MetricsSnapshot {
  /** Its length. */
  readonly seconds: number;
  /** Rows that ended, the failed ones too. */
  readonly rows: number;
  readonly failedRows: number;
  /** Of rows that ended and have not failed. */
  readonly promptTokens: number;
  /** As they are made; those of rows that fail are taken back. */
  readonly outputTokens: number;
  readonly rowsPerSecond: number;
  readonly promptTokensPerSecond: number;
  readonly outputTokensPerSecond: number;
  readonly steps: number;
  /** Mean share of the slots that were in use during steps, weighted by the steps' time; 0 to 1. */
  readonly occupancy: number;
  /** From a row's admission to its first token; to its whole text with engines that give no tokens. */
  readonly firstTokenMs: Latency;
  readonly stepMs: Latency;
  /** Share of the time in which nothing could run, because the next row's data was not there; 0 to 1. */
  readonly dataWaitShare: number;
  /** Share of the time in which nothing ran, because nobody took the outputs; 0 to 1. */
  readonly outputWaitShare: number;
  /** Sequences that lost their slot for want of memory, and tries after a row's first. */
  readonly putBacks: number;
  readonly retries: number;
}

/** What a step was. Times are ms. */
export interface StepMeasure {
  readonly durationMs: number;
  readonly numRunning: number;
  readonly firstTokenMs: readonly number[];
}

const NO_COUNTS: SchedulerCounts = { promptTokens: 0, outputTokens: 0, putBacks: 0, retries: 0 };

/** Sums over one span of time. */
class Tally {
  readonly startMs: number;
  /** The counts when it began. */
  readonly #base: SchedulerCounts;
  readonly #stepMs = new Quantiles();
  readonly #firstTokenMs = new Quantiles();
  #rows = 0;
  #failedRows = 0;
  #steps = 0;
  #steppedMs = 0;
  #slotMs = 0;
  #dataWaitMs = 0;
  #outputWaitMs = 0;

  constructor(startMs: number, base: SchedulerCounts) {
    this.startMs = startMs;
    this.#base = { ...base };
  }

  row(failed: boolean): void {
    this.#rows++;
    if (failed) this.#failedRows++;
  }

  step({ durationMs, numRunning, firstTokenMs }: StepMeasure): void {
    this.#steps++;
    this.#steppedMs += durationMs;
    this.#slotMs += durationMs * numRunning;
    this.#stepMs.add(durationMs);
    for (const ms of firstTokenMs) this.#firstTokenMs.add(ms);
  }

  wait(what: "data" | "output", ms: number): void {
    if (what === "data") this.#dataWaitMs += ms;
    else this.#outputWaitMs += ms;
  }

  /** Its sums up to `nowMs`, when the counts are `counts`. */
  snapshot(nowMs: number, counts: SchedulerCounts, numSlots: number): MetricsSnapshot {
    const spanMs = Math.max(0, nowMs - this.startMs);
    const promptTokens = counts.promptTokens - this.#base.promptTokens;
    const outputTokens = counts.outputTokens - this.#base.outputTokens;
    const share = (ms: number) => (spanMs === 0 ? 0 : Math.min(1, ms / spanMs));
    const rate = (count: number) => (spanMs === 0 ? 0 : (1000 * count) / spanMs);
    return {
      seconds: spanMs / 1000,
      rows: this.#rows,
      failedRows: this.#failedRows,
      promptTokens,
      outputTokens,
      rowsPerSecond: rate(this.#rows),
      promptTokensPerSecond: rate(promptTokens),
      outputTokensPerSecond: rate(outputTokens),
      steps: this.#steps,
      occupancy: this.#steppedMs === 0 ? 0 : this.#slotMs / this.#steppedMs / numSlots,
      firstTokenMs: latencyOf(this.#firstTokenMs),
      stepMs: latencyOf(this.#stepMs),
      dataWaitShare: share(this.#dataWaitMs),
      outputWaitShare: share(this.#outputWaitMs),
      putBacks: counts.putBacks - this.#base.putBacks,
      retries: counts.retries - this.#base.retries,
    };
  }
}

function latencyOf(durations: Quantiles): Latency {
  return { p50: durations.at(0.5), p99: durations.at(0.99) };
}

/** The measures of one job: as a whole, and since they were last asked for. Has no clock of its own; all times are ms on
 * one that never goes back. */
export class Metrics {
  readonly #numSlots: number;
  readonly #counts: SchedulerCounts;
  #whole: Tally;
  #recent: Tally;
  #endMs: number | undefined;

  /** `counts` are the scheduler's own, which change. */
  constructor(numSlots: number, counts: SchedulerCounts, nowMs: number) {
    this.#numSlots = numSlots;
    this.#counts = counts;
    this.#whole = new Tally(nowMs, NO_COUNTS);
    this.#recent = new Tally(nowMs, NO_COUNTS);
  }

  /** The job begins only now. */
  begin(nowMs: number): void {
    this.#whole = new Tally(nowMs, NO_COUNTS);
    this.#recent = new Tally(nowMs, NO_COUNTS);
  }

  /** The job has ended: time stands still from here on. */
  end(nowMs: number): void {
    this.#endMs ??= nowMs;
  }

  row(failed: boolean): void {
    this.#whole.row(failed);
    this.#recent.row(failed);
  }

  step(measure: StepMeasure): void {
    this.#whole.step(measure);
    this.#recent.step(measure);
  }

  wait(what: "data" | "output", ms: number): void {
    this.#whole.wait(what, ms);
    this.#recent.wait(what, ms);
  }

  /** Since the job began. */
  snapshot(nowMs: number): MetricsSnapshot {
    return this.#whole.snapshot(this.#endMs ?? nowMs, this.#counts, this.#numSlots);
  }

  /** Since the last call, or since the job began. */
  interval(nowMs: number): MetricsSnapshot {
    const endMs = this.#endMs ?? nowMs;
    const snapshot = this.#recent.snapshot(endMs, this.#counts, this.#numSlots);
    this.#recent = new Tally(endMs, this.#counts);
    return snapshot;
  }
}
