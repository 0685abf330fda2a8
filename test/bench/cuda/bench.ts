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
import { CaseFailed, measureAll, printTable, runCase } from "./cases.ts";
import { rows, weights } from "./data.ts";
import { twoGpus } from "./gpus-case.ts";
import { type Case, mapFirst, mapLink, readLink } from "./link-cases.ts";
import { argumentsFor, type BenchOptions, parseOptions, USAGE, UsageError } from "./options.ts";
import { openBenchDevice } from "./ours.ts";
import { dataloader, safetensors } from "./peer-cases.ts";
import { allowForMachine, type CaseResult } from "./rounds.ts";

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
  const run = (name: string) => runCase(import.meta.path, argumentsFor(options, name), CASE_TIMEOUT_MS);
  const { details: found } = await run("about");
  await weights(options.dataFolder, options.sizeBytes);
  if (names.includes("cuda.peer.dataloader")) await rows(options.dataFolder, options.sizeBytes / 2);
  const all = await measureAll(names, run);
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
