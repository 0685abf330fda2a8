/** What every benchmark of this project shares: interleaved rounds, honest statistics, one shape of results. */
import { execFileSync } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { cpus, release, totalmem } from "node:os";
import { dirname, join } from "node:path";

/** One line of a result file. `ratio` is ours over `against`, more is better (times are inverted). */
export interface Row {
  readonly name: string;
  readonly median: number;
  readonly p5: number;
  readonly p95: number;
  readonly unit: string;
  readonly against: string;
  readonly ratio: number;
  readonly note: string;
}

/** Something that can be timed against something else. Each run returns its figure in `unit`. */
export interface Trial {
  readonly name: string;
  readonly unit: string;
  readonly against: string;
  readonly higherIsBetter: boolean;
  readonly rounds?: number;
  /** Rounds of both before any is counted, while the engine still compiles; default 1. */
  readonly warmups?: number;
  readonly ours: () => Promise<number> | number;
  readonly theirs: () => Promise<number> | number;
  readonly note?: string;
}

const DEFAULT_ROUNDS = 15;

/** Runs both unmeasured to warm up, then rounds of both in changing order, and compares medians. */
export async function measure(trial: Trial): Promise<Row> {
  const { rounds = DEFAULT_ROUNDS, warmups = 1 } = trial;
  for (let i = 0; i < warmups; i++) {
    await trial.theirs();
    await trial.ours();
  }
  const ours: number[] = [];
  const theirs: number[] = [];
  for (let round = 0; round < rounds; round++) {
    const turns = [async () => ours.push(await trial.ours()), async () => theirs.push(await trial.theirs())];
    if (round % 2 === 1) turns.reverse();
    for (const turn of turns) await turn();
  }
  return compare(trial, ours, theirs);
}

/** The row of figures that were taken elsewhere, round by round. */
export function compare(
  trial: Pick<Trial, "name" | "unit" | "against" | "higherIsBetter" | "note">,
  ours: readonly number[],
  theirs: readonly number[],
): Row {
  const ratioOf = (a: readonly number[], b: readonly number[]) =>
    trial.higherIsBetter ? quantile(a, 0.5) / quantile(b, 0.5) : quantile(b, 0.5) / quantile(a, 0.5);
  const [low, high] = bootstrap(ours, theirs, ratioOf);
  const spread = `${quantile(theirs, 0.05).toPrecision(3)} to ${quantile(theirs, 0.95).toPrecision(3)}`;
  const against = `${trial.against}: ${quantile(theirs, 0.5).toPrecision(3)} ${trial.unit} (${spread})`;
  const interval = `${ours.length} rounds, 95% interval of the ratio ${low.toFixed(2)} to ${high.toFixed(2)}`;
  const row = {
    name: trial.name,
    median: quantile(ours, 0.5),
    p5: quantile(ours, 0.05),
    p95: quantile(ours, 0.95),
    unit: trial.unit,
    against,
    ratio: ratioOf(ours, theirs),
    note: trial.note === undefined ? interval : `${trial.note}; ${interval}`,
  };
  printRow(row);
  return row;
}

export function printRow(row: Row): void {
  const figures = `${row.median.toPrecision(3)} ${row.unit} (${row.p5.toPrecision(3)} to ${row.p95.toPrecision(3)})`;
  console.log(
    `${row.name.padEnd(34)} ratio ${row.ratio.toFixed(2).padStart(7)}  ${figures}  vs ${row.against}  ${row.note}`,
  );
}

/** Linear interpolation between the nearest two. */
export function quantile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  const at = (sorted.length - 1) * share;
  const low = Math.floor(at);
  const high = Math.min(low + 1, sorted.length - 1);
  return sorted[low]! + (sorted[high]! - sorted[low]!) * (at - low);
}

/** Percentile bootstrap of a statistic of two samples; seeded, so that a result file can be checked. */
function bootstrap(
  ours: readonly number[],
  theirs: readonly number[],
  statistic: (a: readonly number[], b: readonly number[]) => number,
): [number, number] {
  let seed = 12345;
  const random = () => {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    return seed / 2 ** 32;
  };
  const resample = (values: readonly number[]) =>
    values.map(() => values[Math.floor(random() * values.length)]!);
  const statistics = Array.from({ length: 1000 }, () => statistic(resample(ours), resample(theirs)));
  return [quantile(statistics, 0.025), quantile(statistics, 0.975)];
}

/** Writes `results/<name>.json` beside this file, or `path` where one is given; `more` stands beside the rows. Returns
 * where. */
export function writeResults(
  name: string,
  command: string,
  rows: readonly Row[],
  extra: Record<string, string>,
  path = join(import.meta.dir, "results", `${name}.json`),
  more: Readonly<Record<string, unknown>> = {},
): string {
  mkdirSync(dirname(path), { recursive: true });
  const result = {
    machine: machineText(),
    date: new Date().toISOString(),
    commit: commitText(),
    command,
    versions: { bun: Bun.version, ...extra },
    ...more,
    rows,
  };
  writeFileSync(path, `${JSON.stringify(result, null, 2)}\n`);
  return path;
}

function machineText(): string {
  const all = cpus();
  const memory = `${Math.round(totalmem() / 2 ** 30)} GiB`;
  return `${all[0]?.model.trim() ?? "unknown CPU"}, ${all.length} cores, ${memory}, ${process.platform} ${release()}`;
}

function commitText(): string {
  const git = (...args: string[]) => execFileSync("git", args, { encoding: "utf8" }).trim();
  try {
    return `${git("rev-parse", "--short", "HEAD")}${git("status", "--porcelain", "--", "src") === "" ? "" : " with changes"}`;
  } catch {
    return "unknown";
  }
}

/** Seconds that `work` takes. */
export async function seconds(work: () => Promise<unknown> | unknown): Promise<number> {
  const started = Bun.nanoseconds();
  await work();
  return (Bun.nanoseconds() - started) / 1e9;
}

/** Runs a script of this folder in a process of its own and returns the JSON on the last line it prints. */
export function runScript<T>(script: string, ...args: string[]): T {
  const output = execFileSync(process.execPath, [join(import.meta.dir, script), ...args], {
    encoding: "utf8",
    maxBuffer: 2 ** 26,
  });
  const lines = output.trimEnd().split("\n");
  const last = lines.pop()!;
  if (lines.length > 0) console.log(lines.join("\n"));
  return JSON.parse(last) as T;
}

/** Whether a file is there and as long as it should be, so that data is made once. */
export function hasBytes(path: string, byteLength: number): boolean {
  try {
    return Bun.file(path).size === byteLength;
  } catch {
    return false;
  }
}

/** The median of the peak resident bytes line of /proc, or of the system's own count. */
export function peakRss(): number {
  try {
    const match = /VmHWM:\s+(\d+) kB/.exec(readFileSync("/proc/self/status", "utf8"));
    if (match !== null) return Number(match[1]) * 1024;
  } catch {
    // Not Linux.
  }
  return process.resourceUsage().maxRSS;
}
