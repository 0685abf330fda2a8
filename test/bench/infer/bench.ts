/**
 * `bun test/bench/infer/bench.ts [options]`, or `bun run bench:infer`: inference on this machine's processor and on a GPU,
 * against its bars and against Hugging Face transformers. Makes its data, runs each row in a process of its own, prints
 * a table, and writes `test/bench/results/infer.json`, or what `--out` names. Options: see {@link USAGE}. Ends with 1
 * where a row failed; rows for a GPU are left out where there is none.
 */
import { join } from "node:path";
import { measureAll, printTable, runCase } from "../cuda/cases.ts";
import { UsageError } from "../cuda/options.ts";
import type { CaseResult } from "../cuda/rounds.ts";
import { writeResults } from "../harness.ts";
import { continuousStatic, dataWait, hostRate } from "./host-cases.ts";
import { argumentsFor, type InferBenchOptions, parseOptions, USAGE } from "./options.ts";
import { oursOnGpu } from "./ours.ts";
import { transformers } from "./peer-case.ts";
import { stepParts } from "./step-case.ts";
import { writeBack } from "./write-case.ts";

/** By the name of their first row. */
const CASES: Readonly<Record<string, (options: InferBenchOptions) => Promise<CaseResult>>> = {
  "infer.host": hostRate,
  "infer.continuous-static": continuousStatic,
  "infer.data-wait": dataWait,
  "infer.write-back": writeBack,
  "infer.peer.transformers": transformers,
  "infer.step": stepParts,
  // Sides of the rows above, in processes of their own.
  "side.ours": oursOnGpu,
};
/** A case that hangs must not take the others' time with it. */
const CASE_TIMEOUT_MS = 540_000;

function chosen(options: InferBenchOptions): string[] {
  const names = Object.keys(CASES).filter((name) => !name.startsWith("side."));
  if (options.rows.length === 0) return names;
  const picked = names.filter((name) => options.rows.some((wanted) => name.startsWith(wanted)));
  if (picked.length > 0) return picked;
  throw new UsageError(`--rows ${options.rows.join(",")} names none of ${names.join(", ")}`);
}

async function main(args: readonly string[]): Promise<number> {
  if (args.includes("--help") || args.includes("-h")) {
    console.log(USAGE);
    return 0;
  }
  const options = parseOptions(args);
  if (options.case !== undefined) {
    const run = CASES[options.case];
    if (run === undefined) throw new UsageError(`there is no case ${options.case}`);
    console.log(JSON.stringify(await run(options)));
    return 0;
  }
  const started = performance.now();
  const { rows, ...others } = await measureAll(chosen(options), (name) =>
    runCase(import.meta.path, argumentsFor(options, name), CASE_TIMEOUT_MS),
  );
  printTable({ rows, ...others });
  const command = ["bun run bench:infer", ...args].join(" ");
  const seconds = Math.round((performance.now() - started) / 1000);
  const { requests, slots, repeats } = options;
  const path = options.out ?? join(import.meta.dir, "../results/infer.json");
  const more = { requests, slots, repeats, seconds, ...others };
  writeResults("infer", command, rows, { device: options.device }, path, more);
  console.log(`${seconds} s; written to ${path}`);
  return others.failures.length === 0 ? 0 : 1;
}

try {
  process.exitCode = await main(process.argv.slice(2));
} catch (error) {
  if (!(error instanceof UsageError)) throw error;
  console.error(`${error.message}\n${USAGE}`);
  process.exitCode = 64;
}
process.exit();
