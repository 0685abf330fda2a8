/** Rounds of several sides in turns, and the rows that come of them. */
import { compare, quantile, type Row } from "../harness.ts";

/** A row with all its figures and what it has to reach. */
export interface CudaRow extends Row {
  readonly min: number;
  readonly max: number;
  /** Every round's figure, in the order in which they were taken. */
  readonly ours: readonly number[];
  readonly theirs: readonly number[];
  readonly theirMedian: number;
  readonly theirMin: number;
  readonly theirMax: number;
  /** The ratio that is asked for. */
  readonly atLeast: number;
  readonly met: boolean;
  /** What a bare loop reaches that does all parts of the work at once, where that was measured too. */
  readonly ceiling?: number;
}

/** A row that this machine cannot give. */
export interface LeftOut {
  readonly name: string;
  readonly reason: string;
}

/** What a case's process gives back. */
export interface CaseResult {
  readonly rows: readonly CudaRow[];
  readonly leftOut: readonly LeftOut[];
  /** Figures beside the rows: sweeps, versions, limits. */
  readonly details: Readonly<Record<string, unknown>>;
}

export type Side = () => Promise<number> | number;

/** Says on stderr how far things are; stdout is the result's. */
export function progress(text: string): void {
  process.stderr.write(`${text}\n`);
}

/** Runs each side once to warm up, then `repeats` rounds of all, each round beginning with another side. */
export async function interleave<K extends string>(
  title: string,
  sides: Readonly<Record<K, Side>>,
  repeats: number,
  warmups = 1,
): Promise<Record<K, number[]>> {
  const names = Object.keys(sides) as K[];
  const figures = Object.fromEntries(names.map((name) => [name, [] as number[]])) as Record<K, number[]>;
  for (let round = -warmups; round < repeats; round++) {
    const said: string[] = [];
    for (let i = 0; i < names.length; i++) {
      const name = names[(i + Math.max(round, 0)) % names.length]!;
      const figure = await sides[name]();
      said.push(`${name} ${figure.toPrecision(3)}`);
      if (round >= 0) figures[name].push(figure);
    }
    progress(`${title}: ${round < 0 ? "warm-up" : `round ${round + 1} of ${repeats}`}: ${said.join(", ")}`);
  }
  return figures;
}

export interface RowText {
  readonly name: string;
  readonly unit: string;
  readonly against: string;
  readonly note: string;
  readonly atLeast: number;
  /** Default true: more is better. */
  readonly higherIsBetter?: boolean;
}

/** Rows that have to reach ten times their peer, or five where the machine forbids ten. */
const TENFOLD = "cuda.peer.safetensors";
const LESS = 5;

/** Lets {@link TENFOLD} reach {@link LESS} where ten times the peer is more than what the bare sweeps of the same run
 * allow: a first load goes the way of `cuda.read.link` or that of `cuda.map.first`, and is bounded by what that row is
 * held against, and by its ceiling. */
export function allowForMachine(rows: readonly CudaRow[]): CudaRow[] {
  const limits = rows.filter(({ name }) => name === "cuda.read.link" || name === "cuda.map.first");
  const most = Math.max(
    ...limits.map(({ theirMedian, ceiling = theirMedian }) => Math.min(theirMedian, ceiling)),
  );
  return rows.map((row) => {
    const wanted = row.theirMedian * row.atLeast;
    if (!row.name.startsWith(TENFOLD) || limits.length < 2 || wanted <= most) return row;
    const times = `${row.atLeast} times would be ${wanted.toPrecision(3)} GB/s`;
    const note = `${row.note}; ${times}, and the bare sweeps of this run allow ${most.toPrecision(3)}`;
    return { ...row, note, atLeast: LESS, met: row.ratio >= LESS };
  });
}

/** The row of figures that were taken in turns. */
export function judge(text: RowText, ours: readonly number[], theirs: readonly number[]): CudaRow {
  const { atLeast, higherIsBetter = true, ...rest } = text;
  const row = compare({ ...rest, higherIsBetter }, ours, theirs);
  return {
    ...row,
    min: Math.min(...ours),
    max: Math.max(...ours),
    ours,
    theirs,
    theirMedian: quantile(theirs, 0.5),
    theirMin: Math.min(...theirs),
    theirMax: Math.max(...theirs),
    atLeast,
    met: row.ratio >= atLeast,
  };
}

/** The name of the side with the smallest median: what bounds all others. */
export function smallest<K extends string>(
  figures: Readonly<Record<K, readonly number[]>>,
  names: readonly K[],
): K {
  return [...names].sort((a, b) => quantile(figures[a], 0.5) - quantile(figures[b], 0.5))[0]!;
}

/** The setting with the largest median of `runs` runs, and all medians by the setting's text. */
export async function sweep<S extends object>(
  title: string,
  settings: readonly S[],
  textOf: (setting: S) => string,
  run: (setting: S) => Promise<number> | number,
  runs = 3,
): Promise<{ best: S; text: string; medians: Record<string, number> }> {
  const medians: Record<string, number> = {};
  let best = settings[0]!;
  for (const setting of settings) {
    const rates: number[] = [];
    for (let i = 0; i < runs; i++) rates.push(await run(setting));
    const median = quantile(rates, 0.5);
    medians[textOf(setting)] = median;
    if (median > medians[textOf(best)]!) best = setting;
    progress(`${title}: ${textOf(setting)}: ${median.toPrecision(3)} GB/s`);
  }
  return { best, text: textOf(best), medians };
}
