/** `bench`: measures formats and ways to load them on this machine; its subcommands read what it wrote. */
import { Command, InvalidArgumentError, Option } from "commander";
import { type BenchOptions, type BenchPlan, ORDERS, planBench, TEMPERATURES } from "../bench/options.ts";
import { PEER_NAMES } from "../bench/peers.ts";
import { HeadraceError } from "../index.ts";
import { benchCompareCommand } from "./bench-compare.ts";
import { benchRecommendCommand } from "./bench-recommend.ts";
import { benchReportCommand } from "./bench-report.ts";
import { checkSource } from "./bench-source.ts";
import { byteCount, MAX_ORDINAL, nameList, ORDINAL_HELP, wholeNumber } from "./output.ts";

/** What was asked for on the command line. */
export interface BenchFlags
  extends Omit<BenchOptions, "source" | "byteLength" | "folder" | "rehearsalBytes"> {
  readonly size?: number;
  readonly rehearsal?: number;
  readonly dataFolder?: string;
  readonly out: string;
  readonly resume?: string;
  readonly list?: true;
  readonly json?: true;
}

const EXAMPLES = `
Examples:
  headrace bench                                       weights and tokens, 256 MB each, all that applies here
  headrace bench --quick                               a few cells, to see that all works
  headrace bench data/ --formats arrow,arrow.lz4-body  a dataset of one's own
  headrace bench --size 4GB --paths read --lanes 1,2,4,8,16 --request-bytes 1MiB,4MiB,16MiB
  headrace bench --data tokens --orders random --peers pyarrow,dataloader
  headrace bench --compute-ms 20                       also the share of time in which the device is busy
  headrace bench --list                                the cells and about how long they take
  headrace bench report results/FILE.jsonl             then: the figures as a page

Exit codes: 0 done, 1 failed or a trial delivered wrong bytes, 2 bad usage, 130 after Ctrl-C, 143 after SIGTERM;
what was measured by then stays, and --resume goes on.
`;

/** The command with its subcommands, ready to be added to a program. */
export function benchCommand(): Command {
  return (
    measuring(new Command("bench"), "Measure shard formats and the ways to load them; see which to use.")
      // What stands behind a subcommand's name is its own.
      .enablePositionalOptions()
      .addCommand(measuring(new Command("run"), "Measure: the same without 'run'."), { hidden: true })
      .addCommand(benchReportCommand())
      .addCommand(benchCompareCommand())
      .addCommand(benchRecommendCommand())
  );
}

function measuring(command: Command, description: string): Command {
  return command
    .description(description)
    .argument("[source]", "a dataset of plain shards (default: data that is made here)")
    .allowExcessArguments()
    .option("--data <kinds>", "weights, tokens, images, embeddings (default: weights,tokens)", nameList)
    .option("--size <bytes>", "of each kind of data, such as 1GB (default: 256MB)", byteCount)
    .option("--formats <names>", "such as safetensors,safetensors.zst-9,arrow.lz4-body", nameList)
    .option("--paths <names>", "map, read, stream, mtlio-raw, mtlio-CODEC, js-read, apache-arrow", nameList)
    .option("--temperatures <names>", TEMPERATURES.join(", "), nameList)
    .option("--orders <names>", ORDERS.join(", "), nameList)
    .option("--lanes <counts>", "reads at the same time; each a cell of its own (default: 8)", countList)
    .option("--request-bytes <sizes>", "of a read, for the path read; each a cell of its own", byteCountList)
    .addOption(
      new Option("--device <name>", "auto, host, metal or cuda")
        .choices(["auto", "host", "metal", "cuda"])
        .default("auto"),
    )
    .option("--ordinal <number>", ORDINAL_HELP, wholeNumber(0, MAX_ORDINAL))
    .option("--rounds <count>", "rounds that count, 5 at least; one more warms up", wholeNumber(5, 1000))
    .option("--compute-ms <ms>", "also keep the device busy so long with each batch", milliseconds)
    .option("--batch-bytes <bytes>", "of a batch, about (default: 4MiB)", byteCount)
    .option("--prefetch <batches>", "batches made ready ahead (default: 2)", wholeNumber(0, 1024))
    .option("--peers <names>", `other projects' readers: ${PEER_NAMES.join(", ")}`, nameList)
    .option("--python <path>", "the interpreter of peers (default: HEADRACE_PYTHON, else python3)")
    .option(
      "--larger-than-memory [bytes]",
      "data of twice the memory, cold; with a number, 512MiB at least: twice that, in a group of processes with no more memory",
      byteCount,
    )
    .option(
      "--rehearsal <bytes>",
      "of other files, read by each trial's process before its trial; 0 for none (default: 16MiB)",
      (text) => (text === "0" ? 0 : byteCount(text)),
    )
    .option("--seed <number>", "of data and orders (default: 0)", wholeNumber(0, 2 ** 32 - 1))
    .option(
      "--data-folder <folder>",
      "where data lies and stays (default: HEADRACE_BENCH_DIR, else below --out, and removed at the end)",
    )
    .option("--out <folder>", "where results go", "results")
    .option("--resume <file>", "go on with a run that was interrupted, by the settings that FILE has")
    .option("--no-ceilings", "measure the cells alone, and not what the machine gives at best")
    .option("--quick", "32 MB of weights in three formats")
    .option("--list", "print the cells and about how long they take, and measure nothing")
    .option("--json", "one JSON object on stdout instead of a table")
    .addHelpText("after", EXAMPLES)
    .action(bench);
}

async function bench(source: string | undefined, flags: BenchFlags, command: Command): Promise<void> {
  checkSource(command);
  if (flags.resume !== undefined) {
    checkAlone(source, command);
    const { resumeCells } = await import("./bench-run.ts");
    return await resumeCells(flags.resume, flags);
  }
  if (source !== undefined) {
    for (const name of ["data", "size", "largerThanMemory"] as const) {
      if (flags[name] === undefined) continue;
      const flag = `--${name.replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;
      throw new HeadraceError("BAD_OPTION", `${flag} is for data that is made, and ${source} is named`);
    }
  }
  const plan = planOf(source, flags);
  // Loaded now and not before: other commands need none of it.
  const { listCells, runCells } = await import("./bench-run.ts");
  if (flags.list) await listCells(plan, flags);
  else await runCells(plan, flags);
}

/** What may stand beside `--resume`: nothing that figures depend on. */
const BESIDE_RESUME = ["resume", "dataFolder", "python", "json", "debug"];

/** A run that goes on has its settings. */
function checkAlone(source: string | undefined, command: Command): void {
  const given = command.options.find(
    (option) =>
      !BESIDE_RESUME.includes(option.attributeName()) &&
      command.getOptionValueSource(option.attributeName()) === "cli",
  );
  const named = given?.long ?? source;
  if (named === undefined) return;
  throw new HeadraceError("BAD_OPTION", `--resume takes all settings from its file; leave out ${named}`);
}

function planOf(
  source: string | undefined,
  { size, dataFolder, rehearsal, ...options }: BenchFlags,
): BenchPlan {
  return planBench({ ...options, source, byteLength: size, folder: dataFolder, rehearsalBytes: rehearsal });
}

function countList(text: string): number[] {
  return nameList(text).map(wholeNumber(1, 64));
}

function byteCountList(text: string): number[] {
  return nameList(text).map(byteCount);
}

function milliseconds(text: string): number {
  const value = Number(text);
  if (text.trim() !== "" && value > 0 && value <= 60_000) return value;
  throw new InvalidArgumentError("It must be a number of milliseconds above 0, and 60000 at most.");
}
