/** The records of one run, put together: each cell with its trials. */
import { HeadraceError } from "../index.ts";
import { keyOfId } from "./matrix.ts";
import type { BenchRecord, CeilingRecord, CellKey, CellRecord, RunRecord, TrialRecord } from "./record.ts";
import { summarize } from "./summary.ts";
import { amountText } from "./text.ts";

/** Ways of this project itself, beside those of MTLIO; the others are there to be compared with. */
const OWN_PATHS = ["map", "read", "stream"];

/** That a run was interrupted, and what its figures are of then; undefined of one that came to its end. */
export function interruptionText({
  cells,
  unfinished,
}: Pick<Results, "cells" | "unfinished">): string | undefined {
  if (unfinished.length === 0) return undefined;
  const late = cells.filter(({ key }) => unfinished.includes(key.id));
  const without = unfinished.length - late.length;
  const parts = [
    ...(late.length === 0
      ? []
      : [`the figures of ${amountText(late.length, "cell")} are of the trials that it came to`]),
    ...(without === 0 ? [] : [`${amountText(without, "cell")} had begun and have no figures`]),
  ];
  return `the run was interrupted: ${parts.join("; ")}`;
}

/** One cell of a run. */
export interface CellResult {
  readonly key: CellKey;
  readonly record: CellRecord;
  /** Those that count: no warm-ups, no failures, and with the temperature that was wanted. In order. */
  readonly trials: readonly TrialRecord[];
  /** Of those, in 10^9 bytes a second. */
  readonly rates: readonly number[];
  readonly failed: readonly TrialRecord[];
  /** All rounds that ended well, also those with the wrong temperature. */
  readonly done: readonly TrialRecord[];
  /** Rounds that were to be cold and of which that could not be shown. */
  readonly unproven: number;
  /** See {@link isOwn}. */
  readonly own: boolean;
}

/** A whole run, or what there is of one. */
export interface Results {
  readonly run: RunRecord;
  readonly ceilings: readonly CeilingRecord[];
  /** Those with figures. */
  readonly cells: readonly CellResult[];
  /** Those without, and why. */
  readonly skipped: readonly { readonly key: CellKey; readonly reason: string }[];
  /** Ids of cells with trials alone: the run was interrupted before it summed them up, and their figures are made here. */
  readonly unfinished: readonly string[];
}

/** Puts `records` together; of a run that was interrupted, what its trials say. Throws `BAD_RESULTS` where there is no run's
 * record, or a cell comes twice. */
export function resultsOf(records: readonly BenchRecord[]): Results {
  const run = records.find((record) => record.kind === "run");
  if (run === undefined) throw new HeadraceError("BAD_RESULTS", "there is no record of the run itself");
  const trials = Map.groupBy(standingTrials(records), ({ cell }) => cell);
  const ceilings = records.filter((record) => record.kind === "ceiling");
  const written = cellRecords(records);
  const unfinished = [...trials.keys()].filter((id) => !written.has(id));
  const late = lateRecords([...written.keys()], unfinished, { run, trials, ceilings });
  const cells: CellResult[] = [];
  const skipped: { key: CellKey; reason: string }[] = [];
  for (const record of [...written.values(), ...late]) {
    const cell = cellOf(record, trials.get(record.cell.id) ?? []);
    const reason = reasonWithout(cell);
    if (reason === undefined) cells.push(cell);
    else skipped.push({ key: record.cell, reason });
  }
  return { run, ceilings, cells, skipped, unfinished };
}

/** The trials in `records` without failures that a run which was gone on with made good: those before a trial of the same
 * cell and round, as busy as they, that did not fail. */
export function standingTrials(records: readonly BenchRecord[]): TrialRecord[] {
  const done = new Set<string>();
  const trials = records.filter((record) => record.kind === "trial");
  const standing = trials.toReversed().filter(({ cell, round, busy, error }) => {
    const job = JSON.stringify([cell, round, busy !== undefined]);
    if (error === undefined) done.add(job);
    return error === undefined || !done.has(job);
  });
  return standing.reverse();
}

function cellRecords(records: readonly BenchRecord[]): Map<string, CellRecord> {
  const found = new Map<string, CellRecord>();
  for (const record of records) {
    if (record.kind !== "cell") continue;
    const { id } = record.cell;
    if (found.has(id)) throw new HeadraceError("BAD_RESULTS", `cell ${id} comes twice`);
    found.set(id, record);
  }
  return found;
}

/** What the run would have written of cells `unfinished`, had it ended where it was interrupted. */
function lateRecords(
  written: readonly string[],
  unfinished: readonly string[],
  {
    run,
    trials,
    ceilings,
  }: Pick<Results, "run" | "ceilings"> & { trials: ReadonlyMap<string, TrialRecord[]> },
): CellRecord[] {
  const seed = Number(run.settings.seed ?? 0) + 1;
  const cells = [...unfinished, ...written].flatMap((id) => {
    const key = keyOfId(id);
    return key === undefined ? [] : [{ key }];
  });
  const all = unfinished.length === 0 ? [] : summarize(cells, { trials, skipped: new Map(), ceilings }, seed);
  return all.filter(({ cell }) => unfinished.includes(cell.id));
}

function cellOf(record: CellRecord, all: readonly TrialRecord[]): CellResult {
  const { cell: key } = record;
  // What kept the device busy on purpose was no test of the rate.
  const rounds = all.filter((trial) => trial.round >= 0 && trial.busy === undefined);
  const done = rounds.filter((trial) => trial.error === undefined);
  const trials = done.filter((trial) => trial.temperature === key.temperature && trial.seconds > 0);
  return {
    key,
    record,
    trials,
    rates: trials.map(({ bytes, seconds }) => bytes / seconds / 1e9),
    done,
    failed: rounds.filter((trial) => trial.error !== undefined),
    unproven: key.temperature === "cold" ? done.filter((trial) => trial.temperature === "warm").length : 0,
    own: isOwn(key),
  };
}

/** Whether this project does the work in a cell. */
export function isOwn({ peer, path }: CellKey): boolean {
  return peer === undefined && (OWN_PATHS.includes(path) || path.startsWith("mtlio-"));
}

function reasonWithout({ record, trials, failed, unproven }: CellResult): string | undefined {
  if (record.skipped !== undefined) return record.skipped;
  if (record.gigabytesPerSecond.median > 0 && (trials.length > 0 || unproven + failed.length === 0))
    return undefined;
  if (failed.length > 0) return `all trials failed: ${failed[0]!.error}`;
  if (unproven > 0) return `none of ${unproven} trials could be shown to be cold`;
  return "no trial counted";
}

/** The cells that differ in nothing but how their bytes were stored and reached. */
export interface Group {
  readonly data: string;
  readonly temperature: CellKey["temperature"];
  readonly order: CellKey["order"];
  readonly cells: readonly CellResult[];
}

const ORDERS: readonly CellKey["order"][] = ["sequential", "block-shuffled", "random"];

/** Groups of cells: by data as it came, cold before warm, sequential first. */
export function groupsOf(cells: readonly CellResult[]): Group[] {
  const data = [...new Set(cells.map(({ key }) => key.data))];
  const groups: Group[] = [];
  for (const name of data) {
    for (const temperature of ["cold", "warm"] as const) {
      for (const order of ORDERS) {
        const members = cells.filter(
          ({ key }) => key.data === name && key.temperature === temperature && key.order === order,
        );
        if (members.length > 0) groups.push({ data: name, temperature, order, cells: members });
      }
    }
  }
  return groups;
}

/** A cell that stands for others, which differ from it in lanes and bytes of a request alone. */
export interface BestCell extends CellResult {
  /** How many settings were tried, this one included. */
  readonly settings: number;
}

/** Of each format, way, device and peer the settings with the highest median, the fastest first. */
export function bestSettings(cells: readonly CellResult[]): BestCell[] {
  const kinds = Map.groupBy(cells, ({ key }) =>
    JSON.stringify([key.format, key.path, key.device, key.peer ?? ""]),
  );
  return [...kinds.values()]
    .map((members) => ({ ...fastestFirst(members)[0]!, settings: members.length }))
    .sort((a, b) => medianOf(b) - medianOf(a));
}

/** Median rate in 10^9 bytes a second. */
export function medianOf({ record }: CellResult): number {
  return record.gigabytesPerSecond.median;
}

export function fastestFirst(cells: readonly CellResult[]): CellResult[] {
  return cells.toSorted((a, b) => medianOf(b) - medianOf(a));
}

/** Whether the interval of the one median lies above that of the other. */
export function clearlyFaster(one: CellResult, other: CellResult): boolean {
  return one.record.gigabytesPerSecond.low > other.record.gigabytesPerSecond.high;
}
