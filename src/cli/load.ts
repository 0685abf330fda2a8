/** `load`: runs through a dataset as a training or inference job would, and reports how fast it came. */
import { createHash, type Hash } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { Command, InvalidArgumentError, Option } from "commander";
import {
  type Batch,
  HeadraceError,
  type Loader,
  type LoaderState,
  openLoader,
  type Strategy,
  saveText,
  TraceRecorder,
  type View,
} from "../index.ts";
import {
  byteCount,
  bytesText,
  countText,
  ExitCode,
  nameList,
  printTable,
  timeText,
  wholeNumber,
} from "./output.ts";
import { openProgress } from "./progress.ts";

/** Loaded where no source is named: beside this package, whatever the current folder is. */
const DEFAULT_SOURCE = "datasets/prose";
/** How often `--state` is written while loading, ms. */
const STATE_EVERY_MS = 5000;
/** Bytes between the touches that bring a mapped page in. */
const TOUCH_STRIDE = 4096;

interface LoadFlags {
  readonly device: string;
  readonly strategy: Strategy | "auto";
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

const EXAMPLES = `
Examples:
  headrace load                                    the dataset that comes along
  headrace load data/ --shuffle 7 --batch-size 256
  headrace load model.safetensors --view tensors --digest --json
  headrace load data/ --columns tokens --batch-bytes 4MiB --pad-to 64
  headrace load data/ --state run.json             Ctrl-C, then:
  headrace load data/ --resume run.json --state run.json
`;

/** The command, ready to be added to a program. */
export function loadCommand(): Command {
  return new Command("load")
    .description("Load a dataset, batch after batch, and report samples and bytes a second.")
    .argument("[source]", `shard, folder, glob, index json or dataset.json (default: ${DEFAULT_SOURCE})`)
    .option("--device <name>", "auto, host, null, metal, cuda", "auto")
    .addOption(choice("--strategy <way>", "how bytes get in", ["auto", "map", "read"], "auto"))
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
    .option("--window <blocks>", "blocks of one window (default: 64)", wholeNumber(1))
    .option("--epochs <count>", "times through the dataset", wholeNumber(0), 1)
    .option("--limit <samples>", "only the first of each epoch's order", wholeNumber(0))
    .option("--rank <rank>", "this process among --world-size", wholeNumber(0), 0)
    .option("--world-size <count>", "processes that share the dataset", wholeNumber(1), 1)
    .option("--prefetch <batches>", "batches made ready ahead", wholeNumber(0), 2)
    .option("--memory <bytes>", "bound of the arena (default: a quarter of memory)", byteCount)
    .option("--pad-to <multiple>", "ragged columns to one length, with a mask", wholeNumber(1))
    .option("--pad-value <value>", "what padding holds (default: 0)", Number)
    .option("--timeout <ms>", "fail a batch whose bytes take longer", wholeNumber(1))
    .option("--state <file>", "save where the run stands: at its end, on Ctrl-C, every 5 s")
    .option("--resume <file>", "go on from a saved state")
    .option("--digest", "sha256 of each column's values, in order")
    .option("--json", "one JSON object on stdout instead of a table")
    .option("--trace <file>", "write a trace for Perfetto or chrome://tracing")
    .addHelpText("after", EXAMPLES)
    .action(load);
}

function choice(flags: string, description: string, choices: string[], initial: string): Option {
  return new Option(flags, description).choices(choices).default(initial);
}

function seedValue(text: string): number {
  if (/^\d+$/.test(text) && Number.isSafeInteger(Number(text))) return Number(text);
  throw new InvalidArgumentError("The seed must be a whole number; name the source before --shuffle.");
}

async function load(source: string | undefined, flags: LoadFlags): Promise<void> {
  const tracer = flags.trace === undefined ? undefined : new TraceRecorder();
  const abort = new AbortController();
  const interrupt = () => abort.abort(new Error("SIGINT"));
  process.once("SIGINT", interrupt);
  const started = performance.now();
  const loader = await openLoader(source ?? defaultSource(), {
    device: flags.device,
    strategy: flags.strategy,
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
    signal: abort.signal,
    tracer,
  });
  try {
    const run = new Run(loader, flags, started);
    const interrupted = await run.consume();
    if (tracer !== undefined) saveText(flags.trace!, tracer.toJSON());
    if (flags.json) console.log(JSON.stringify(run.report(interrupted)));
    else await run.print();
    if (interrupted) {
      const hint =
        flags.state === undefined
          ? "; with --state FILE it could be resumed"
          : `; go on with --resume ${flags.state}`;
      console.error(`headrace: interrupted after ${countText(loader.stats.samples)} samples${hint}`);
      process.exitCode = ExitCode.interrupted;
    }
  } finally {
    process.off("SIGINT", interrupt);
    await loader.close();
  }
}

function defaultSource(): string {
  const beside = join(import.meta.dir, "../..", DEFAULT_SOURCE);
  return existsSync(DEFAULT_SOURCE) ? DEFAULT_SOURCE : beside;
}

function readState(path: string): unknown {
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (cause) {
    throw new HeadraceError(
      "SOURCE_NOT_FOUND",
      `${path}: the state cannot be read: ${(cause as Error).message}`,
    );
  }
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new HeadraceError("STATE_MISMATCH", `${path}: not a saved state: ${(cause as Error).message}`);
  }
}

/** One run through a loader, with all that is measured on the way. */
class Run {
  readonly #loader: Loader;
  readonly #flags: LoadFlags;
  readonly #started: number;
  readonly #hashes = new Map<string, Hash>();
  readonly #waits: number[] = [];
  #firstBatchMs = 0;
  #endedMs = 0;
  #stateSavedMs: number;

  constructor(loader: Loader, flags: LoadFlags, startedMs: number) {
    this.#loader = loader;
    this.#flags = flags;
    this.#started = startedMs;
    this.#stateSavedMs = startedMs;
  }

  /** Takes every batch; true where Ctrl-C ended it. The state is saved however it ends. */
  async consume(): Promise<boolean> {
    const loader = this.#loader;
    const total = Math.min(loader.samplesPerEpoch * this.#flags.epochs, Number.MAX_SAFE_INTEGER);
    const progress = await openProgress(Math.ceil(total / this.#flags.worldSize), !this.#flags.json);
    try {
      let asked = performance.now();
      for await (using batch of loader) {
        const now = performance.now();
        if (this.#waits.length === 0) this.#firstBatchMs = now - this.#started;
        this.#waits.push(now - asked);
        this.#take(batch);
        progress?.update(loader.stats.samples, loader.stats.bytes);
        if (now - this.#stateSavedMs > STATE_EVERY_MS) this.#saveState(now);
        asked = performance.now();
      }
      return false;
    } catch (error) {
      if (error instanceof HeadraceError && error.code === "CANCELLED") return true;
      throw error;
    } finally {
      this.#endedMs = performance.now();
      progress?.stop();
      this.#saveState(this.#endedMs);
    }
  }

  report(interrupted: boolean) {
    const { stats } = this.#loader;
    const seconds = (this.#endedMs - this.#started) / 1000;
    const sorted = Float64Array.from(this.#waits).sort();
    const counts = pathCounts(this.#loader);
    return {
      dataset: this.#loader.dataset.title,
      device: this.#loader.device.capabilities.name,
      strategy: strategyText(counts),
      samples: stats.samples,
      batches: stats.batches,
      bytes: stats.bytes,
      seconds,
      firstBatchMs: this.#firstBatchMs,
      samplesPerSecond: stats.samples / seconds,
      bytesPerSecond: stats.bytes / seconds,
      batchMsP50: percentile(sorted, 0.5),
      batchMsP99: percentile(sorted, 0.99),
      peakRssBytes: peakRssBytes(),
      epochs: this.#loader.state().epoch,
      state: this.#loader.state(),
      paths: Object.fromEntries(counts),
      ...(interrupted ? { interrupted } : {}),
      ...(this.#flags.digest ? { digests: this.#digests() } : {}),
    };
  }

  async print(): Promise<void> {
    const report = this.report(false);
    const rows: [string, string][] = [
      ["dataset", `${report.dataset} (${countText(this.#loader.dataset.numShards)} shards)`],
      ["device", report.device],
      ...Object.entries(report.paths).map(([path, count]): [string, string] => [
        "path",
        `${path}, ${count} shards`,
      ]),
      ["samples", `${countText(report.samples)} in ${countText(report.batches)} batches`],
      ["bytes", bytesText(report.bytes)],
      ["time", `${timeText(report.seconds * 1000)}, first batch after ${timeText(report.firstBatchMs)}`],
      ["rate", `${countText(report.samplesPerSecond)} samples/s, ${bytesText(report.bytesPerSecond)}/s`],
      ["wait for a batch", `${timeText(report.batchMsP50)} median, ${timeText(report.batchMsP99)} p99`],
      ["peak memory", bytesText(report.peakRssBytes)],
      ["position", `epoch ${report.state.epoch}, sample ${countText(report.state.position)}`],
      ...Object.entries(report.digests ?? {}).map(([name, digest]): [string, string] => [
        `sha256 ${name}`,
        digest,
      ]),
    ];
    await printTable(rows);
  }

  /** Brings every byte in: a mapped page that nobody touched was not loaded. */
  #take(batch: Batch): void {
    for (const column of batch.columns.values()) {
      if (!column.hostVisible) continue;
      if (this.#flags.digest) {
        let hash = this.#hashes.get(column.name);
        if (hash === undefined) {
          hash = createHash("sha256");
          this.#hashes.set(column.name, hash);
        }
        for (const bytes of column.chunks()) hash.update(bytes);
      } else if (column.mapped) {
        for (const bytes of column.chunks())
          for (let at = 0; at < bytes.length; at += TOUCH_STRIDE) bytes[at];
      }
    }
  }

  #digests(): Record<string, string> {
    return Object.fromEntries([...this.#hashes].map(([name, hash]) => [name, hash.copy().digest("hex")]));
  }

  #saveState(now: number): void {
    if (this.#flags.state === undefined) return;
    const state: LoaderState = this.#loader.state();
    saveText(this.#flags.state, `${JSON.stringify(state)}\n`);
    this.#stateSavedMs = now;
  }
}

/** Shards by the path that they took, and why. */
function pathCounts(loader: Loader): Map<string, number> {
  const counts = new Map<string, number>();
  for (const { strategy, reason } of loader.dataset.paths.values()) {
    const key = `${strategy} (${reason})`;
    counts.set(key, (counts.get(key) ?? 0) + 1);
  }
  return counts;
}

function strategyText(counts: ReadonlyMap<string, number>): string {
  const strategies = new Set([...counts.keys()].map((key) => key.split(" ")[0]!));
  return strategies.size === 1 ? [...strategies][0]! : "mixed";
}

function percentile(sorted: Float64Array, share: number): number {
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0;
}

/** The system counts it in kB on Linux and in bytes on macOS. */
function peakRssBytes(): number {
  const { maxRSS } = process.resourceUsage();
  return Math.max(process.platform === "darwin" ? maxRSS : maxRSS * 1024, process.memoryUsage.rss());
}
