/** From trials to figures: one record a cell, beside what bounds it and what it is held against. */
import type { Cell } from "./matrix.ts";
import type { CeilingRecord, CellKey, CellRecord, TrialRecord } from "./record.ts";
import { median, quantilesOf, ratioOf } from "./stats.ts";

/** What was measured, by cell. */
export interface Results {
  readonly trials: ReadonlyMap<string, readonly TrialRecord[]>;
  /** Why there are no figures. */
  readonly skipped: ReadonlyMap<string, string>;
  readonly ceilings: readonly CeilingRecord[];
}

/** A cell as its figures see it. */
type Keyed = Pick<Cell, "key">;

/** The records of all `cells`, in their order. The seed is that of the intervals. */
export function summarize(cells: readonly Keyed[], results: Results, seed: number): CellRecord[] {
  return cells.map((cell) => cellRecord(cell, cells, results, seed));
}

/** Trials of a cell that count for its rate: no warm-up, nothing that kept the device busy on purpose, and none at all
 * where one has failed; of a cold cell the proven ones, unless none is. */
export function countedTrials(cell: Keyed, { trials }: Pick<Results, "trials">): TrialRecord[] {
  const every = trials.get(cell.key.id) ?? [];
  if (every.some(({ error }) => error !== undefined)) return [];
  const all = every.filter(({ round, busy }) => round >= 0 && busy === undefined);
  const proven = all.filter(({ temperature }) => temperature === cell.key.temperature);
  return proven.length > 0 ? proven : all;
}

function cellRecord(cell: Keyed, cells: readonly Keyed[], results: Results, seed: number): CellRecord {
  const { key } = cell;
  const counted = countedTrials(cell, results);
  const first = counted[0];
  if (first === undefined) {
    const skipped = results.skipped.get(key.id) ?? failureOf(results.trials.get(key.id) ?? []);
    return { ...NOTHING, cell: key, skipped };
  }
  const rates = counted.map(rateOf);
  const perGigabyte = (of: (trial: TrialRecord) => number) =>
    median(counted.map((trial) => (1e9 * of(trial)) / trial.bytes));
  const busy = (results.trials.get(key.id) ?? []).flatMap(({ round, error, busy }) =>
    round >= 0 && error === undefined && busy !== undefined ? [busy.share] : [],
  );
  const measured = (results.trials.get(key.id) ?? []).filter(
    ({ round, busy }) => round >= 0 && busy === undefined,
  );
  const unproven = measured.filter(({ temperature }) => temperature !== key.temperature).length;
  const residencies = counted.flatMap(({ residency }) => (residency === undefined ? [] : [residency]));
  const wired = counted.flatMap(({ wiredBytes }) => (wiredBytes === undefined ? [] : [wiredBytes]));
  const ceiling = ceilingOf(cell, first, median(rates), results.ceilings);
  const ratios = ratiosOf(cell, cells, results, rates, seed);
  return {
    kind: "cell",
    // A cell of which no trial was proven cold is warm.
    cell: { ...key, temperature: first.temperature },
    rounds: counted.length,
    gigabytesPerSecond: quantilesOf(rates, seed),
    cpuSecondsPerGigabyte: perGigabyte((trial) => trial.cpuSeconds),
    minorFaultsPerGigabyte: perGigabyte((trial) => trial.minorFaults),
    majorFaultsPerGigabyte: perGigabyte((trial) => trial.majorFaults),
    peakRssBytes: Math.max(...counted.map(({ peakRssBytes }) => peakRssBytes)),
    ...(wired.length === 0 ? {} : { wiredBytes: Math.max(...wired) }),
    batchMs: first.batchMs.map((_, i) => median(counted.map(({ batchMs }) => batchMs[i]!))),
    ...(busy.length === 0 ? {} : { busyShare: quantilesOf(busy, seed) }),
    compression: first.bytes / first.fileBytes,
    ...(residencies.length === 0 ? {} : { residency: Math.max(...residencies) }),
    ...(unproven === 0 ? {} : { unproven }),
    ...(ceiling === undefined ? {} : { ceiling }),
    ...(ratios.length === 0 ? {} : { ratios }),
  };
}

function failureOf(trials: readonly TrialRecord[]): string {
  const failed = trials.filter(({ error }) => error !== undefined);
  const [first] = failed;
  if (first === undefined)
    return trials.length > 0 ? "the run came to its warm-up alone" : "no trial of it ended well";
  return `${failed.length} of its ${trials.length} trials failed, so that none counts: ${first.error}`;
}

const ZERO = { median: 0, p5: 0, p95: 0, low: 0, high: 0 };

const NOTHING = {
  kind: "cell",
  rounds: 0,
  gigabytesPerSecond: ZERO,
  cpuSecondsPerGigabyte: 0,
  minorFaultsPerGigabyte: 0,
  majorFaultsPerGigabyte: 0,
  peakRssBytes: 0,
  batchMs: [],
  compression: 1,
} as const;

/** GB/s of values delivered. */
function rateOf({ bytes, seconds }: TrialRecord): number {
  return bytes / seconds / 1e9;
}

/** The lowest of the ceilings that apply: reading the file's bytes where the path reads them, the sum where the host
 * makes it, the link where there is one. */
function ceilingOf(
  { key }: Keyed,
  { bytes, fileBytes, temperature }: TrialRecord,
  rate: number,
  ceilings: readonly CeilingRecord[],
): CellRecord["ceiling"] {
  const applies = (name: string) => {
    if (name === `pread-${temperature}`) return key.path !== "map" || temperature === "cold";
    if (name === "checksum") return key.peer === undefined && key.device === "host";
    return name === "link" && key.device !== "host";
  };
  const bounds = ceilings
    .filter(({ name }) => applies(name))
    .map(({ name, gigabytesPerSecond }) => {
      // A read ceiling counts bytes of files.
      const scale = name.startsWith("pread") ? bytes / fileBytes : 1;
      return { name, rate: gigabytesPerSecond.median * scale };
    });
  const lowest = bounds.toSorted((a, b) => a.rate - b.rate)[0];
  return lowest === undefined ? undefined : { name: lowest.name, part: rate / lowest.rate };
}

/** Against each way that users take without this project, over the same data in the same order and temperature. */
function ratiosOf(
  { key }: Keyed,
  cells: readonly Keyed[],
  results: Results,
  rates: readonly number[],
  seed: number,
): NonNullable<CellRecord["ratios"]> {
  const isOther = ({ path }: CellKey) => path === "js-read" || path === "apache-arrow" || path === "peer";
  if (isOther(key)) return [];
  return cells.flatMap((other) => {
    const { data, temperature, order, path, format } = other.key;
    const same = data === key.data && temperature === key.temperature && order === key.order;
    if (!same || !isOther(other.key)) return [];
    // Their own reading of the same file, or their reading of the plain one.
    if (format !== key.format && format !== "safetensors" && format !== "arrow") return [];
    const theirs = countedTrials(other, results).map(rateOf);
    if (theirs.length === 0) return [];
    return [{ against: `${other.key.peer ?? path} of ${format}`, ratio: ratioOf(rates, theirs, seed) }];
  });
}
