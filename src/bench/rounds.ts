/** The rounds of a run: every cell in each, in changing order. */
import { existsSync } from "node:fs";
import { HeadraceError } from "../index.ts";
import type { Datasets } from "./datasets.ts";
import type { BenchHooks } from "./hooks.ts";
import type { Ledger } from "./ledger.ts";
import type { Cell } from "./matrix.ts";
import type { PlacedPlan } from "./options.ts";
import { runInProcess } from "./processes.ts";
import { Random, seedFor } from "./random.ts";
import type { TrialRecord } from "./record.ts";
import type { TrialSpec } from "./spec.ts";
import { median, quantilesOf } from "./stats.ts";

/** The harness alone must take less than this part of the shortest cell. */
const HARNESS_PART = 0.01;

/** What trials need. */
export interface Bench {
  readonly plan: PlacedPlan;
  readonly datasets: Datasets;
  readonly ledger: Ledger;
  readonly hooks: BenchHooks;
  /** The interpreter of peers. */
  readonly python: string;
  /** The list of processes of the group that each trial joins. */
  readonly memoryGroup?: string | undefined;
}

/** One trial to come. */
interface Job {
  readonly cell: Cell;
  readonly busy: boolean;
}

/** A warm-up, then the rounds that count; each in an order of its own, so that no cell always follows the same one. Throws
 * `CANCELLED`, and `FILE_CHANGED` where the data is taken away. */
export async function runRounds(bench: Bench, cells: readonly Cell[]): Promise<void> {
  const { plan, ledger, hooks } = bench;
  const { rounds, seed, computeMs } = plan;
  const jobs: Job[] = cells.flatMap((cell) =>
    // A peer has no device to keep busy.
    computeMs === undefined || cell.key.peer !== undefined
      ? [{ cell, busy: false }]
      : [false, true].map((busy) => ({ cell, busy })),
  );
  const total = jobs.length * (rounds + 1);
  const started = performance.now();
  let done = 0;
  let ran = 0;
  for (let round = -1; round < rounds; round++) {
    for (const job of new Random(seedFor(seed, `round ${round}`)).shuffle([...jobs])) {
      if (await runJob(bench, job, round)) ran++;
      done++;
      const msEach = ran === 0 ? 0 : (performance.now() - started) / ran;
      const left = jobs.filter(({ cell }) => !ledger.isSkipped(cell.key.id)).length / jobs.length;
      const secondsLeft = ((total - done) * left * msEach) / 1000;
      hooks.onEvent({ kind: "trial", cell: job.cell.key.id, round, done, total, secondsLeft });
    }
  }
}

/** Whether a trial ran: not where the cell is skipped, or the trial is one that an earlier run had. */
async function runJob(bench: Bench, { cell, busy }: Job, round: number): Promise<boolean> {
  const { datasets, ledger, hooks, python, memoryGroup } = bench;
  const { id } = cell.key;
  if (ledger.isSkipped(id) || ledger.has(id, round, busy)) return false;
  const spec = datasets.specOf(cell, { round, busy, memoryGroup });
  const outcome = await runInProcess(spec, python, hooks.signal);
  checkThere(spec);
  if ("skipped" in outcome) {
    ledger.skip(id, outcome.skipped);
    return true;
  }
  ledger.addTrial(outcome.trial);
  warnOf(outcome.trial, hooks);
  return true;
}

function warnOf({ cell, rehearsal, error }: TrialRecord, { onEvent }: BenchHooks): void {
  if (rehearsal?.error !== undefined) {
    onEvent({ kind: "warning", text: `${cell}: no rehearsal: ${rehearsal.error}` });
  }
  if (error !== undefined) onEvent({ kind: "warning", text: `${cell}: ${error}` });
}

/** Data that is taken away says nothing of a cell: the run ends, with what it has. */
function checkThere({ paths }: TrialSpec): void {
  const gone = paths.find((path) => !existsSync(path));
  if (gone === undefined) return;
  throw new HeadraceError(
    "FILE_CHANGED",
    `${gone}: is gone, in the middle of the run; give each run a --data-folder of its own`,
  );
}

/** Measures the trial's own loop around nothing, beside the shortest cell, where a run before did not. */
export async function measureHarness(bench: Bench, cells: readonly Cell[]): Promise<void> {
  const { plan, datasets, ledger, hooks, python, memoryGroup } = bench;
  if (!plan.ceilings || ledger.ceilings.some(({ name }) => name === "harness")) return;
  const shortest = cells
    .map((cell) => ({ cell, seconds: median(ledger.counted(cell).map(({ seconds }) => seconds)) }))
    .filter(({ seconds }) => Number.isFinite(seconds))
    .toSorted((a, b) => a.seconds - b.seconds)[0];
  if (shortest === undefined) return;
  hooks.onEvent({ kind: "step", text: "ceiling: the harness alone" });
  const { cell } = shortest;
  const key = { ...cell.key, id: "harness", path: "harness", temperature: "warm", peer: undefined } as const;
  const seconds: number[] = [];
  for (let round = 0; round < plan.rounds; round++) {
    const spec = { ...datasets.specOf(cell, { round, busy: false, memoryGroup }), cell: key };
    const outcome = await runInProcess(spec, python, hooks.signal);
    if ("trial" in outcome && outcome.trial.error === undefined) seconds.push(outcome.trial.seconds);
  }
  if (seconds.length === 0) return;
  const bytes = datasets.bytesOf(cell);
  const part = median(seconds) / shortest.seconds;
  const percent = `${(100 * part).toPrecision(2)} %`;
  const note = `the trial's loop over as many empty batches: ${percent} of the shortest cell's time (${cell.key.id})`;
  const rates = seconds.map((one) => bytes / one / 1e9);
  ledger.addCeiling({ kind: "ceiling", name: "harness", gigabytesPerSecond: quantilesOf(rates), note });
  if (part > HARNESS_PART) {
    const text = `the harness takes ${percent} of ${cell.key.id}, over 1 %: make the data larger`;
    hooks.onEvent({ kind: "warning", text });
  }
}
