/** What a run has measured so far; all of it is written down as it comes. */
import type { Cell } from "./matrix.ts";
import type { BenchRecord, CeilingRecord, CellRecord, TrialRecord } from "./record.ts";
import { countedTrials, summarize } from "./summary.ts";

/** The trials and ceilings of one run, and why cells have none. */
export class Ledger {
  readonly ceilings: CeilingRecord[] = [];
  /** Trials that failed, of this run and not of the one that it goes on with: those are tried again. */
  readonly failures: TrialRecord[] = [];
  readonly #trials = new Map<string, TrialRecord[]>();
  readonly #skipped = new Map<string, string>();
  readonly #write: (record: BenchRecord) => void;

  /** `known` are records of the run that is gone on with; `write` takes all others. */
  constructor(write: (record: BenchRecord) => void, known: readonly BenchRecord[] = []) {
    this.#write = write;
    for (const record of known) {
      if (record.kind === "ceiling") this.ceilings.push(record);
      if (record.kind === "trial" && record.error === undefined) this.#keep(record);
    }
  }

  addCeiling(ceiling: CeilingRecord): void {
    this.ceilings.push(ceiling);
    this.#write(ceiling);
  }

  /** After a failure nothing more is measured of the cell. */
  addTrial(trial: TrialRecord): void {
    this.#write(trial);
    if (trial.error === undefined) this.#keep(trial);
    else {
      this.failures.push(trial);
      this.skip(trial.cell, `failed: ${trial.error}`);
    }
  }

  skip(cell: string, reason: string): void {
    this.#skipped.set(cell, reason);
  }

  isSkipped(cell: string): boolean {
    return this.#skipped.has(cell);
  }

  /** Whether the trial of `cell` in `round` is there. */
  has(cell: string, round: number, busy: boolean): boolean {
    const trials = this.#trials.get(cell) ?? [];
    return trials.some((one) => one.round === round && (one.busy !== undefined) === busy);
  }

  counted(cell: Cell): TrialRecord[] {
    return countedTrials(cell, { trials: this.#trials });
  }

  /** Sums up and writes down the figures of all `cells`. The seed is that of the intervals. */
  close(cells: readonly Cell[], seed: number): CellRecord[] {
    const results = { trials: this.#trials, skipped: this.#skipped, ceilings: this.ceilings };
    const figures = summarize(cells, results, seed);
    for (const figure of figures) this.#write(figure);
    return figures;
  }

  #keep(trial: TrialRecord): void {
    const all = this.#trials.get(trial.cell) ?? [];
    all.push(trial);
    this.#trials.set(trial.cell, all);
  }
}
