/** Cases of a benchmark, each in a process of its own: running them, and showing what came of all. */
import { type CaseResult, type CudaRow, type LeftOut, progress } from "./rounds.ts";

/** What all cases came to. */
export interface Everything {
  rows: CudaRow[];
  leftOut: LeftOut[];
  /** Rows that could not be measured because something of ours failed. */
  failures: { readonly name: string; readonly error: string }[];
  /** By the name of the case. */
  details: Record<string, unknown>;
}

/** What went wrong stands on stderr. */
export class CaseFailed extends Error {
  readonly exitCode: number | null;

  constructor(message: string, exitCode: number | null) {
    super(message);
    this.exitCode = exitCode;
  }
}

/** Runs `script`, which says all of the case's result on the last line of its stdout; other lines are shown. Throws
 * {@link CaseFailed}, also where it takes longer than `timeoutMs`. */
export async function runCase(
  script: string,
  args: readonly string[],
  timeoutMs: number,
): Promise<CaseResult> {
  const child = Bun.spawn([process.execPath, script, ...args], {
    stdin: "ignore",
    stdout: "pipe",
    stderr: "inherit",
    timeout: timeoutMs,
    killSignal: "SIGKILL",
  });
  const output = await new Response(child.stdout).text();
  await child.exited;
  const lines = output.trimEnd().split("\n");
  const last = lines.pop()!;
  for (const line of lines) progress(line);
  if (child.exitCode === 0) return JSON.parse(last) as CaseResult;
  if (last !== "") progress(last);
  const how =
    child.signalCode === "SIGKILL"
      ? `longer than ${timeoutMs / 1000} s, or out of memory`
      : `its process ended with ${child.exitCode ?? child.signalCode}; what it said stands above`;
  throw new CaseFailed(how, child.exitCode);
}

/** Runs the cases one after another; one that fails does not keep the others from it. */
export async function measureAll(
  names: readonly string[],
  run: (name: string) => Promise<CaseResult>,
): Promise<Everything> {
  const all: Everything = { rows: [], leftOut: [], failures: [], details: {} };
  for (const name of names) {
    const started = performance.now();
    try {
      const result = await run(name);
      all.rows.push(...result.rows);
      all.leftOut.push(...result.leftOut);
      all.details[name] = result.details;
    } catch (error) {
      all.failures.push({ name, error: error instanceof Error ? error.message : String(error) });
    }
    progress(`${name}: ${((performance.now() - started) / 1000).toFixed(1)} s`);
  }
  return all;
}

export function printTable({ rows, leftOut, failures }: Everything): void {
  const figure = (value: number) =>
    Math.abs(value) >= 1000 ? Math.round(value).toLocaleString("en") : value.toPrecision(3);
  const spread = (median: number, min: number, max: number) =>
    min === max ? figure(median) : `${figure(median)} (${figure(min)} to ${figure(max)})`;
  const lines = [
    ["row", "ours", "", "against", "ratio", "at least", ""],
    ...rows.map((row) => [
      row.name,
      spread(row.median, row.min, row.max),
      row.unit,
      spread(row.theirMedian, row.theirMin, row.theirMax),
      row.ratio.toFixed(2),
      String(row.atLeast),
      row.met ? "" : "below",
    ]),
  ];
  const widths = lines[0]!.map((_, i) => Math.max(...lines.map((line) => line[i]!.length)));
  for (const line of lines) {
    const cells = line.map((text, i) => text.padEnd(widths[i]!));
    console.log(cells.join("  ").trimEnd());
  }
  for (const { name, reason } of leftOut) console.log(`${name}: left out: ${reason}`);
  for (const { name, error } of failures) console.log(`${name}: FAILED: ${error}`);
}
