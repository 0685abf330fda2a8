/**
 * `bun test/bench/cuda/bench.ts [options]`, or `bun run bench:cuda`: the CUDA device and the loader over it against the
 * machine's limits and against PyTorch's loaders. Makes its data, runs each row in a process of its own, both sides of
 * a ratio in the same one and in turns, checks every byte on the GPU, prints a table, and writes
 * `test/bench/results/cuda.json`, or what `--out` names. Options: see {@link USAGE}. Ends with 1 where a row failed, with
 * 69 where there is no GPU.
 */
import { join } from "node:path";
import { HeadraceError } from "../../../src/index.ts";
import { writeResults } from "../harness.ts";
import { busy } from "./busy-case.ts";
import { rows, weights } from "./data.ts";
import { twoGpus } from "./gpus-case.ts";
import { type Case, mapFirst, mapLink, readLink } from "./link-cases.ts";
import { argumentsFor, type BenchOptions, parseOptions, USAGE, UsageError } from "./options.ts";
import { openBenchDevice } from "./ours.ts";
import { dataloader, safetensors } from "./peer-cases.ts";
import { allowForMachine, type CaseResult, type CudaRow, type LeftOut, progress } from "./rounds.ts";

/** By the name of their first row. */
const CASES: Readonly<Record<string, Case>> = {
  "cuda.map.link": mapLink,
  "cuda.map.first": mapFirst,
  "cuda.read.link": readLink,
  "cuda.peer.safetensors": safetensors,
  "cuda.peer.dataloader": dataloader,
  "cuda.busy": busy,
  "cuda.two-gpus": twoGpus,
};
/** A case that hangs must not take the others' time with it. */
const CASE_TIMEOUT_MS = 240_000;
const UNAVAILABLE = 69;

/** A row that could not be measured because something of ours failed. */
interface Failure {
  readonly name: string;
  readonly error: string;
}

interface Everything {
  rows: CudaRow[];
  leftOut: LeftOut[];
  failures: Failure[];
  details: Record<string, unknown>;
}

async function runCase(options: BenchOptions, name: string): Promise<CaseResult> {
  const child = Bun.spawn([process.execPath, import.meta.path, ...argumentsFor(options, name)], {
    stdin: "ignore",
    stdout: "pipe",
    stderr: "inherit",
    timeout: CASE_TIMEOUT_MS,
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
    child.signalCode === "SIGKILL" ? `longer than ${CASE_TIMEOUT_MS / 1000} s, or out of memory` : "";
  throw new CaseFailed(
    how === "" ? `its process ended with ${child.exitCode ?? child.signalCode}` : how,
    child.exitCode,
  );
}

/** What went wrong stands on stderr. */
class CaseFailed extends Error {
  readonly exitCode: number | null;

  constructor(message: string, exitCode: number | null) {
    super(message);
    this.exitCode = exitCode;
  }
}

/** What a process of its own says: all of its result on the last line of stdout. */
async function answerCase(options: BenchOptions, name: string): Promise<void> {
  const run = name === "about" ? about : CASES[name];
  if (run === undefined) throw new UsageError(`there is no case ${name}`);
  console.log(JSON.stringify(await run(options)));
}

/** The device, in a process of its own, so that this one holds nothing of it. */
async function about(options: BenchOptions): Promise<CaseResult> {
  await using own = openBenchDevice(options);
  const { capabilities, facts } = own.device;
  return { rows: [], leftOut: [], details: { gpu: capabilities.name, facts } };
}

function chosen(options: BenchOptions): string[] {
  const names = Object.keys(CASES);
  if (options.rows.length === 0) return names;
  const picked = names.filter((name) =>
    options.rows.some((wanted) => name.startsWith(wanted) || wanted.startsWith(`${name}.`)),
  );
  if (picked.length === 0) {
    throw new UsageError(`--rows ${options.rows.join(",")} names none of ${names.join(", ")}`);
  }
  return picked;
}

async function measureAll(options: BenchOptions, names: readonly string[]): Promise<Everything> {
  const all: Everything = { rows: [], leftOut: [], failures: [], details: {} };
  for (const name of names) {
    const started = performance.now();
    try {
      const result = await runCase(options, name);
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

function printTable({ rows: found, leftOut, failures }: Everything): void {
  const figure = (value: number) =>
    value >= 1000 ? Math.round(value).toLocaleString("en") : value.toPrecision(3);
  const lines = [
    ["row", "ours", "", "against", "ratio", "at least", ""],
    ...found.map((row) => [
      row.name,
      `${figure(row.median)} (${figure(row.min)} to ${figure(row.max)})`,
      row.unit,
      `${figure(row.theirMedian)} (${figure(row.theirMin)} to ${figure(row.theirMax)})`,
      row.ratio.toFixed(2),
      String(row.atLeast),
      row.met ? "" : "below",
    ]),
  ];
  const widths = lines[0]!.map((_, i) => Math.max(...lines.map((line) => line[i]!.length)));
  for (const line of lines)
    console.log(
      line
        .map((text, i) => text.padEnd(widths[i]!))
        .join("  ")
        .trimEnd(),
    );
  for (const { name, reason } of leftOut) console.log(`${name}: left out: ${reason}`);
  for (const { name, error } of failures) console.log(`${name}: FAILED: ${error}`);
}

async function main(args: readonly string[]): Promise<number> {
  if (args.includes("--help") || args.includes("-h")) {
    console.log(USAGE);
    return 0;
  }
  const options = parseOptions(args);
  if (options.case !== undefined) {
    await answerCase(options, options.case);
    return 0;
  }
  const names = chosen(options);
  const started = performance.now();
  const { details: found } = await runCase(options, "about");
  await weights(options.dataFolder, options.sizeBytes);
  if (names.includes("cuda.peer.dataloader")) await rows(options.dataFolder, options.sizeBytes / 2);
  const all = await measureAll(options, names);
  all.rows = allowForMachine(all.rows);
  printTable(all);
  const command = ["bun run bench:cuda", ...args].join(" ");
  const seconds = Math.round((performance.now() - started) / 1000);
  const { sizeBytes, repeats } = options;
  const { rows: measured, ...others } = all;
  const path = options.out ?? join(import.meta.dir, "../results/cuda.json");
  const more = { ...found, sizeBytes, repeats, seconds, ...others };
  writeResults("cuda", command, measured, { device: options.device }, path, more);
  console.log(`${seconds} s; written to ${path}`);
  return all.failures.length === 0 ? 0 : 1;
}

try {
  process.exitCode = await main(process.argv.slice(2));
} catch (error) {
  if (error instanceof UsageError) {
    console.error(`${error.message}\n${USAGE}`);
    process.exitCode = 64;
  } else if (error instanceof HeadraceError && error.code === "DEVICE_UNAVAILABLE") {
    console.error(error.message);
    process.exitCode = UNAVAILABLE;
  } else if (error instanceof CaseFailed && error.exitCode === UNAVAILABLE) {
    process.exitCode = UNAVAILABLE;
  } else throw error;
}
process.exit();
