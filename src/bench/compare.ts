/** Two runs side by side: two machines, or two versions on one. */

import type { BenchRecord, CellKey, Quantiles, RunRecord } from "./record.ts";
import { type CellResult, type Results, resultsOf, standingTrials } from "./results.ts";
import { settingName, settingText } from "./settings-text.ts";
import { ratioOf } from "./stats.ts";

/** Trials of a cell from which a median's interval means something. */
const LEAST_TRIALS = 3;

/** `b` against `a`; `unclear` where the interval of their ratio holds 1, or there are too few trials. */
export type Verdict = "faster" | "slower" | "unclear";

/** A cell that both runs have. */
export interface ComparedCell {
  /** As run `b` has it. */
  readonly key: CellKey;
  readonly a: Quantiles;
  readonly b: Quantiles;
  /** Trials that counted. */
  readonly trials: { readonly a: number; readonly b: number };
  /** Of `b` to `a`: above 1 where `b` was faster. Absent where there are too few trials. */
  readonly ratio?: Quantiles | undefined;
  readonly verdict: Verdict;
  /** Why it is unclear, or what makes the two less than comparable; empty where nothing does. */
  readonly note: string;
}

/** Something that is not the same in both runs. */
export interface Difference {
  /** `cpu`, `bun`, `--rounds`, … */
  readonly what: string;
  readonly a: string;
  readonly b: string;
}

/** Trials of a cell that failed, warm-ups too. */
export interface FailedTrials {
  readonly run: "A" | "B";
  /** The cell's id. */
  readonly cell: string;
  readonly count: number;
  /** Why the first of them did. */
  readonly error: string;
}

/** What comparing gave. */
export interface Comparison {
  readonly a: RunRecord;
  readonly b: RunRecord;
  readonly differences: readonly Difference[];
  readonly cells: readonly ComparedCell[];
  /** Cells with figures in one run alone. */
  readonly onlyA: readonly CellKey[];
  readonly onlyB: readonly CellKey[];
  readonly counts: Readonly<Record<Verdict, number>>;
  readonly failed: readonly FailedTrials[];
}

/** Compares run `b` with run `a`, cell by cell. Cells are the same where all that was asked for is; of a peer the version
 * may differ. Throws `BAD_RESULTS` as {@link resultsOf} does. */
export function compareRuns(a: readonly BenchRecord[], b: readonly BenchRecord[]): Comparison {
  const [resultsA, resultsB] = [resultsOf(a), resultsOf(b)];
  const before = byIdentity(resultsA);
  const after = byIdentity(resultsB);
  const cells: ComparedCell[] = [];
  for (const [identity, cell] of after) {
    const other = before.get(identity);
    if (other !== undefined) cells.push(compareCells(other, cell));
  }
  const counts = { faster: 0, slower: 0, unclear: 0 };
  for (const { verdict } of cells) counts[verdict]++;
  return {
    a: resultsA.run,
    b: resultsB.run,
    differences: differencesOf(resultsA.run, resultsB.run),
    cells,
    onlyA: [...before].filter(([identity]) => !after.has(identity)).map(([, { key }]) => key),
    onlyB: [...after].filter(([identity]) => !before.has(identity)).map(([, { key }]) => key),
    counts,
    failed: [...failedIn(a, "A"), ...failedIn(b, "B")],
  };
}

function failedIn(records: readonly BenchRecord[], run: FailedTrials["run"]): FailedTrials[] {
  const failed = standingTrials(records).filter(({ error }) => error !== undefined);
  const cells = Map.groupBy(failed, ({ cell }) => cell);
  return [...cells].map(([cell, trials]) => ({ run, cell, count: trials.length, error: trials[0]!.error! }));
}

function byIdentity({ cells }: Results): Map<string, CellResult> {
  return new Map(cells.map((cell) => [identityOf(cell.key), cell]));
}

function identityOf({ id: _, peer, ...rest }: CellKey): string {
  const { data, format, path, temperature, order, lanes, requestBytes = null, device } = rest;
  // `safetensors 0.6.2 (Python)` and its next version are one peer.
  const name = peer?.replace(/ v?\d[\w.+-]*/, "") ?? null;
  return JSON.stringify([data, format, path, temperature, order, lanes, requestBytes, device, name]);
}

function compareCells(a: CellResult, b: CellResult): ComparedCell {
  const trials = { a: a.rates.length, b: b.rates.length };
  const figures = { a: a.record.gigabytesPerSecond, b: b.record.gigabytesPerSecond };
  const base = { key: b.key, ...figures, trials };
  if (Math.min(trials.a, trials.b) < LEAST_TRIALS) {
    const note = `too few trials: ${trials.a} and ${trials.b}, of ${LEAST_TRIALS} that it takes`;
    return { ...base, verdict: "unclear", note };
  }
  const ratio = ratioOf(b.rates, a.rates);
  const verdict = ratio.low > 1 ? "faster" : ratio.high < 1 ? "slower" : "unclear";
  return { ...base, ratio, verdict, note: noteOf(a, b, verdict) };
}

function noteOf(a: CellResult, b: CellResult, verdict: Verdict): string {
  const notes: string[] = [];
  if (a.key.peer !== b.key.peer) notes.push(`${a.key.peer} against ${b.key.peer}`);
  const [one, other] = [a.trials[0]!, b.trials[0]!];
  if (one.bytes !== other.bytes) notes.push(`other data: ${one.bytes} against ${other.bytes} bytes`);
  else if (one.checksum !== other.checksum) notes.push("other data: the checksums differ");
  if (verdict === "unclear") notes.push("no clear difference");
  return notes.join("; ");
}

/** What the machines, versions and settings differ in. What changes by the minute (free memory, load) is told only where
 * it may matter. */
function differencesOf(a: RunRecord, b: RunRecord): Difference[] {
  const pairs = [
    ...pairsOf(a.machine, b.machine, (name) => name !== "memoryFreeBytes" && name !== "load"),
    ...pairsOf(a.versions, b.versions),
    ...settingPairs(a.settings, b.settings),
  ].filter((pair) => pair.a !== pair.b);
  if (Math.abs(a.machine.load - b.machine.load) > 0.5) {
    pairs.push({ what: "load when it began", a: String(a.machine.load), b: String(b.machine.load) });
  }
  return pairs;
}

function pairsOf(a: object, b: object, counts: (name: string) => boolean = () => true): Difference[] {
  const [one, other] = [a, b] as [Record<string, unknown>, Record<string, unknown>];
  const names = [...new Set([...Object.keys(a), ...Object.keys(b)])].filter(counts);
  return names.map((what) => ({ what, a: valueText(one[what]), b: valueText(other[what]) }));
}

/** Settings in words; numbers that their words do not tell apart stay numbers. */
function settingPairs(a: RunRecord["settings"], b: RunRecord["settings"]): Difference[] {
  const text = (name: string, value: RunRecord["settings"][string] | undefined) =>
    value === undefined ? "-" : settingText(name, value) || "none";
  return pairsOf(a, b)
    .filter((pair) => pair.a !== pair.b)
    .map((pair) => {
      const [one, other] = [text(pair.what, a[pair.what]), text(pair.what, b[pair.what])];
      const what = settingName(pair.what);
      return one === other ? { ...pair, what } : { what, a: one, b: other };
    });
}

function valueText(value: unknown): string {
  if (value === undefined) return "-";
  return Array.isArray(value) ? value.join(", ") : String(value);
}
