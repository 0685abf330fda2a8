/** `load`: runs through a dataset as a training or inference job would, and reports how fast it came. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { Command, InvalidArgumentError, Option } from "commander";
import {
  type DEVICE_NAMES,
  type Device,
  HeadraceError,
  type OpenDeviceOptions,
  type OpenOptions,
  openDevice,
  openLoader,
  type Strategy,
  saveText,
  TraceRecorder,
  type View,
} from "../index.ts";
import {
  amountText,
  anyNumber,
  byteCount,
  MAX_ORDINAL,
  nameList,
  ORDINAL_HELP,
  printable,
  wholeNumber,
} from "./output.ts";
import { prepareStreams } from "./prepare.ts";
import { RECOMMENDED_HELP, type RecommendedFlags, readRecommended, warnUnused } from "./recommended.ts";
import { Run } from "./run.ts";
import { exitCodeOf, OnSignal } from "./signals.ts";
import { atEndText, readState } from "./state.ts";

/** Codecs of compressed streams. */
const CODECS: readonly StreamCodec[] = ["lz4", "lzfse", "zlib", "lzma", "lzbitmap"];
/** Loaded where no source is named: beside this package, whatever the current folder is. */
const DEFAULT_SOURCE = "datasets/prose";

type StreamCodec = NonNullable<NonNullable<OpenDeviceOptions["stream"]>["codec"]>;

/** What was asked for on the command line. */
export interface LoadFlags extends RecommendedFlags {
  readonly device: string;
  readonly strategy: Strategy | "auto";
  readonly checksums?: boolean;
  readonly ordinal?: number;
  readonly lanes?: number;
  readonly streamCodec?: StreamCodec;
  readonly streamCache?: string;
  readonly view: View | "auto";
  readonly columns?: string[];
  readonly batchSize?: number;
  readonly batchBytes?: number;
  readonly batchLength?: number;
  readonly lengthColumn?: string;
  readonly lastBatch: "short" | "drop" | "pad";
  readonly shuffle?: number | true;
  readonly block?: number;
  readonly window?: number;
  readonly epochs: number;
  readonly limit?: number;
  readonly rank: number;
  readonly worldSize: number;
  readonly prefetch: number;
  readonly memory?: number;
  readonly padTo?: number;
  readonly padValue?: number;
  readonly timeout?: number;
  readonly state?: string;
  readonly resume?: string;
  readonly digest?: true;
  readonly json?: true;
  readonly trace?: string;
}

/** For the help; whoever adds a device says here what it is for. */
const DEVICES: Readonly<Record<(typeof DEVICE_NAMES)[number], string>> = {
  auto: "metal on Apple silicon where its library is there, else host",
  host: "this machine's own memory; everywhere",
  metal: "GPUs of Macs; 'bun run native' builds its library",
  cuda: "NVIDIA GPUs; by name only: its batches lie in memory that the host cannot see; see HostReader",
  null: "moves no bytes: shows what planning alone costs, for work on the loader itself",
};

const NOTES = `
Devices:
${Object.entries(DEVICES)
  .map(([name, what]) => `  ${name.padEnd(6)} ${what}`)
  .join("\n")}

Examples:
  headrace load                                    the dataset that comes along
  headrace load data/ --shuffle 7 --batch-size 256
  headrace load model.safetensors --view tensors --digest --json
  headrace load data/ --columns tokens --batch-bytes 4MiB --pad-to 64
  headrace load data/ --device metal --strategy read --lanes 12
  headrace load data/ --device metal --strategy stream --stream-codec lz4
  headrace load data/ --device cuda --ordinal 1
  headrace load data/ --state run.json             Ctrl-C, then:
  headrace load data/ --resume run.json --state run.json

Exit codes: 0 done, 1 failed, 2 bad usage, 130 after Ctrl-C and 143 after SIGTERM with the state saved.
`;

/** The command, ready to be added to a program. */
export function loadCommand(): Command {
  return new Command("load")
    .description("Load a dataset, batch after batch, and report samples and bytes a second.")
    .argument("[source]", `shard, folder, glob, index json or dataset.json (default: ${DEFAULT_SOURCE})`)
    .option("--device <name>", "auto, host, metal or cuda; see below", "auto")
    .option("--ordinal <number>", ORDINAL_HELP, wholeNumber(0, MAX_ORDINAL))
    .addOption(choice("--strategy <way>", "how bytes get in", ["auto", "map", "read", "stream"], "auto"))
    .option("--recommended <file>", RECOMMENDED_HELP)
    .option("--no-recommended", "let --strategy auto go by its own rule")
    .option("--lanes <count>", "reads at the same time, 1 to 64 (default: the device's)", wholeNumber(1, 64))
    .addOption(
      new Option(
        "--stream-codec <codec>",
        "with --strategy stream: compress the shards into a cache first, and stream from there",
      ).choices(CODECS),
    )
    .option("--stream-cache <folder>", "where that cache is (default: the device's)")
    .addOption(choice("--view <view>", "what a sample is", ["auto", "rows", "tensors"], "auto"))
    .option("--columns <names>", "only these columns or tensors: names or patterns, with commas", nameList)
    .option(
      "--batch-size <samples>",
      "most samples of a batch (default: 64 rows or 1 tensor)",
      wholeNumber(1),
    )
    .option("--batch-bytes <bytes>", "most bytes of a batch, such as 4MiB", byteCount)
    .option("--batch-length <elements>", "most elements of a ragged column in a batch", wholeNumber(1))
    .option("--length-column <name>", "the column that --batch-length counts")
    .addOption(
      choice(
        "--last-batch <way>",
        "what becomes of the last, incomplete one",
        ["short", "drop", "pad"],
        "short",
      ),
    )
    .option("--shuffle [seed]", "random order (seed: 0 where none is given)", seedValue)
    .option("--block <samples>", "shuffle blocks of neighbours, then within a window", wholeNumber(1))
    .option("--window <blocks>", "blocks of one window (default: 64)", wholeNumber(1, 65_536))
    .option("--epochs <count>", "times through the dataset", wholeNumber(0), 1)
    .option("--limit <samples>", "only the first of each epoch's order", wholeNumber(0))
    .option("--rank <rank>", "this process among --world-size", wholeNumber(0), 0)
    .option("--world-size <count>", "processes that share the dataset", wholeNumber(1), 1)
    .option("--no-checksums", "do not verify the checksums of compressed shards")
    .option("--prefetch <batches>", "batches made ready ahead", wholeNumber(0, 1024), 2)
    .option(
      "--memory <bytes>",
      "bound of the arena (default: a quarter of memory), and if given of decoded chunks with it",
      byteCount,
    )
    .option("--pad-to <multiple>", "ragged columns to one length, with a mask", wholeNumber(1))
    .option("--pad-value <value>", "what padding holds (default: 0)", anyNumber)
    .option("--timeout <ms>", "fail a batch whose bytes take longer", wholeNumber(1))
    .option("--state <file>", "save where the run stands: at its start and end, on Ctrl-C, every 5 s")
    .option("--resume <file>", "go on from a saved state")
    .option("--digest", "sha256 of each column's values, in order")
    .option("--json", "one JSON object on stdout instead of a table")
    .option("--trace <file>", "write a trace for Perfetto or chrome://tracing")
    .addHelpText("after", NOTES)
    .action(load);
}

function choice(flags: string, description: string, choices: string[], initial: string): Option {
  return new Option(flags, description).choices(choices).default(initial);
}

function seedValue(text: string): number {
  if (/^\d+$/.test(text) && Number.isSafeInteger(Number(text))) return Number(text);
  throw new InvalidArgumentError("It must be a whole number from 0; name the source before --shuffle.");
}

async function load(source: string | undefined, flags: LoadFlags): Promise<void> {
  checkTogether(flags);
  const started = performance.now();
  const tracer = flags.trace === undefined ? undefined : new TraceRecorder();
  const abort = new AbortController();
  let run: Run | undefined;
  using _ = new OnSignal(
    (signal) => abort.abort(signal),
    () => run?.abandon(),
  );
  const from = source ?? defaultSource();
  const kept = flags.strategy === "auto" ? readRecommended(flags) : undefined;
  let device: Device | undefined;
  try {
    device = await openDevice(flags.device, deviceOptionsOf(flags));
    const { streamCodec } = flags;
    const prepared =
      streamCodec === undefined ? undefined : await prepareStreams(device, from, streamCodec, abort.signal);
    await using loader = await openLoader(from, {
      ...optionsOf(flags),
      recommended: kept?.recommended,
      device,
      signal: abort.signal,
      tracer,
    }).catch((error: unknown) => {
      const ofState = error instanceof HeadraceError && error.code === "STATE_MISMATCH";
      throw ofState && flags.resume !== undefined ? error.within(flags.resume) : error;
    });
    warnUnused(loader.dataset, kept);
    if (flags.resume !== undefined) {
      const atEnd = atEndText(loader, flags.resume, flags.epochs);
      if (atEnd !== undefined) console.error(`headrace: ${atEnd}`);
    }
    // Written before anything is loaded: a path that cannot be written fails now, not after hours.
    if (tracer !== undefined) saveText(flags.trace!, tracer.toJSON());
    run = new Run(loader, flags, started, abort.signal, prepared);
    run.saveState();
    try {
      await run.consume();
    } finally {
      if (tracer !== undefined) saveTrace(flags.trace!, tracer);
    }
    if (flags.json) console.log(JSON.stringify(run.report()));
    else run.print();
    if (run.interrupted) reportInterrupt(loader.stats.samples, flags, abort.signal.reason);
  } catch (error) {
    const cancelled = error instanceof HeadraceError && error.code === "CANCELLED" && abort.signal.aborted;
    if (!cancelled) throw error;
    console.error(`headrace: ${printable(error.message)}`);
    process.exitCode = exitCodeOf(abort.signal.reason);
  } finally {
    await device?.close();
  }
}

function deviceOptionsOf({ ordinal, lanes, streamCodec: codec, streamCache: cacheFolder }: LoadFlags) {
  return {
    ...(ordinal === undefined ? {} : { ordinal }),
    ...(lanes === undefined ? {} : { lanes }),
    ...(codec === undefined
      ? {}
      : { stream: { codec, ...(cacheFolder === undefined ? {} : { cacheFolder }) } }),
  };
}

function optionsOf(flags: LoadFlags): OpenOptions {
  return {
    strategy: flags.strategy,
    checksums: flags.checksums,
    view: flags.view,
    columns: flags.columns,
    batchSize: flags.batchSize,
    batchBytes: flags.batchBytes,
    batchLength: flags.batchLength,
    lengthColumn: flags.lengthColumn,
    lastBatch: flags.lastBatch,
    shuffle: flags.shuffle !== undefined,
    seed: typeof flags.shuffle === "number" ? flags.shuffle : undefined,
    blockSize: flags.block,
    windowBlocks: flags.window,
    epochs: flags.epochs,
    limit: flags.limit,
    rank: flags.rank,
    worldSize: flags.worldSize,
    prefetch: flags.prefetch,
    memoryBytes: flags.memory,
    padTo: flags.padTo,
    padValue: flags.padValue,
    timeoutMs: flags.timeout,
    resume: flags.resume === undefined ? undefined : readState(flags.resume),
  };
}

/** Options that mean nothing alone would be ignored in silence. */
function checkTogether(flags: LoadFlags): void {
  const needs = (flag: string, value: unknown, other: string, otherValue: unknown) => {
    if (value === undefined || otherValue !== undefined) return;
    throw new HeadraceError("BAD_OPTION", `${flag} means nothing without ${other}`);
  };
  const named = typeof flags.recommended === "string" ? flags.recommended : undefined;
  needs("--recommended", named, "--strategy auto", flags.strategy === "auto" || undefined);
  needs("--ordinal", flags.ordinal, "--device cuda", flags.device === "cuda" || undefined);
  needs("--block", flags.block, "--shuffle", flags.shuffle);
  needs("--window", flags.window, "--block", flags.block);
  needs("--pad-value", flags.padValue, "--pad-to", flags.padTo);
  needs("--stream-codec", flags.streamCodec, "--strategy stream", flags.strategy === "stream" || undefined);
  needs("--stream-cache", flags.streamCache, "--stream-codec", flags.streamCodec);
  needs("--length-column", flags.lengthColumn, "--batch-length", flags.batchLength);
  if (flags.digest && flags.device === "null") {
    throw new HeadraceError(
      "BAD_OPTION",
      "--digest has nothing to read on device null, which moves no bytes",
    );
  }
}

function saveTrace(path: string, tracer: TraceRecorder): void {
  saveText(path, tracer.toJSON());
  if (tracer.dropped === 0) return;
  console.error(`headrace: the trace is full and lacks the last ${amountText(tracer.dropped, "span")}`);
}

function reportInterrupt(samples: number, flags: LoadFlags, signal: unknown): void {
  const hint =
    flags.state === undefined
      ? "with --state FILE it could be resumed"
      : `go on with --resume ${printable(flags.state)}`;
  console.error(`headrace: interrupted after ${amountText(samples, "sample")}; ${hint}`);
  process.exitCode = exitCodeOf(signal);
}

function defaultSource(): string {
  const beside = join(import.meta.dir, "../..", DEFAULT_SOURCE);
  return existsSync(DEFAULT_SOURCE) ? DEFAULT_SOURCE : beside;
}
