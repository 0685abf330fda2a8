/** `infer`: runs a model over a dataset, and writes what it answers to shards. */
import { Command, InvalidArgumentError, Option } from "commander";
import {
  type Device,
  HeadraceError,
  type InferOptions,
  type InferReport,
  infer,
  openDevice,
  saveText,
  TraceRecorder,
} from "../index.ts";
import { InferProgressBar, printReport } from "./infer-report.ts";
import {
  anyNumber,
  byteCount,
  ExitCode,
  MAX_ORDINAL,
  ORDINAL_HELP,
  printable,
  printLine,
  wholeNumber,
} from "./output.ts";
import { OnSignal } from "./signals.ts";

/** What was asked for on the command line. */
export interface InferFlags {
  readonly model?: string;
  readonly out: string;
  readonly engine: "llama" | "embed" | "http";
  readonly column?: string;
  readonly limit?: number;
  readonly slots?: number;
  readonly maxNewTokens?: number;
  readonly temperature?: number;
  readonly topK?: number;
  readonly topP?: number;
  readonly minP?: number;
  readonly repetitionPenalty?: number;
  readonly seed?: number;
  readonly stop?: string[];
  readonly logprobs?: true;
  readonly order: "input" | "completion";
  readonly scheduler: "continuous" | "static";
  readonly admit: "fifo" | "longest-first";
  readonly timeout?: number;
  readonly retries?: number;
  readonly fast?: true;
  readonly resume: boolean;
  readonly retryFailed?: true;
  readonly context?: number;
  readonly tokensPerStep?: number;
  readonly kvMemory?: number;
  readonly kvType?: "f32" | "f16" | "bf16";
  readonly pooling?: "mean" | "last" | "first";
  readonly normalize?: true;
  readonly url?: string;
  readonly apiModel?: string;
  readonly chat?: true;
  readonly device: string;
  readonly ordinal?: number;
  readonly progress?: true;
  readonly trace?: string;
  readonly json?: true;
}

/** The variable with the key of a server: options are seen by everybody on the machine. */
const KEY_VARIABLE = "HEADRACE_API_KEY";

const NOTES = `
Outputs are *.arrow files below --out, one for each shard of the source, with columns row, shard, tokens, text, finish
(stop, length or error), error, and on request logprobs or embedding. Every row comes once, whatever happens: run the
same command again and it goes on. Rows that failed are counted, have their reason in column error, and stand in
errors.jsonl; --retry-failed runs them again.

Examples:
  headrace infer datasets/prose --model datasets/tiny-llama --out out/
  headrace infer data/ --model models/SmolLM2-135M --column text --max-new-tokens 256 --out out/
  headrace infer data/ --model models/llama --temperature 0.8 --top-p 0.95 --seed 7 --stop '\\n\\n' --out out/
  headrace infer data/ --model models/llama --device cuda --slots 256 --admit longest-first --out out/
  headrace infer data/ --model models/llama --engine embed --pooling mean --normalize --out vectors/
  headrace infer data/ --engine http --url http://localhost:8000/v1 --api-model my-model --slots 64 --out out/

A server's key is taken from ${KEY_VARIABLE}.

Exit codes: 0 done, rows that failed included; 1 failed, or every row of the run or of the job failed; 2 bad usage, a column
that is not there included; 130 after Ctrl-C and 143
after SIGTERM with what was finished committed. A second Ctrl-C ends at once; nothing that was finished is lost by it.
`;

/** The command, ready to be added to a program. */
export function inferCommand(): Command {
  const command = new Command("infer")
    .description("Run a model over a dataset, and write what it answers to shards.")
    .argument("<source>", "dataset with the prompts: shard, folder, glob or dataset.json")
    .requiredOption("--out <folder>", "where the outputs go; the same job there is gone on with")
    .option("--model <folder>", "config.json, *.safetensors and tokenizer.json, in the Hugging Face layout")
    .addOption(
      new Option("--engine <name>", "what runs the model: this project's llama or embed, or a server by http")
        .choices(["llama", "embed", "http"])
        .default("llama"),
    )
    .option("--column <name>", "the prompts: lists of integers, or text (default: tokens, else text)")
    .option("--limit <rows>", "only the first rows", anyNumber);
  addSampling(command);
  addRunning(command);
  addEngines(command);
  return command
    .option("--progress", "a line every 5 s on stderr, also where it is no terminal")
    .option("--trace <file>", "write a trace for Perfetto or chrome://tracing")
    .option("--json", "one JSON object on stdout instead of a table")
    .addHelpText("after", NOTES)
    .action(run);
}

function addSampling(command: Command): void {
  command
    .option("--max-new-tokens <count>", "tokens after which a row ends (default: 64)", anyNumber)
    .option("--temperature <value>", "0 takes the likeliest token (default: 0)", anyNumber)
    .option("--top-k <count>", "sample among so many; 0: among all (default: 0)", anyNumber)
    .option("--top-p <share>", "sample among the likeliest that make up this much (default: 1)", anyNumber)
    .option(
      "--min-p <share>",
      "sample among those at least so likely as the likeliest (default: 0)",
      anyNumber,
    )
    .option("--repetition-penalty <factor>", "weakens tokens that were there (default: 1)", anyNumber)
    .option("--seed <number>", "with the row's number, all that sampling depends on (default: 0)", anyNumber)
    .option(
      "--stop <text>",
      "ends a row before it; may be given again; \\n, \\t and \\\\ are understood",
      stopText,
    )
    .option("--logprobs", "put out each token's log probability");
}

function addRunning(command: Command): void {
  command
    .option("--slots <count>", "sequences, or requests, at the same time (default: 16)", anyNumber)
    .addOption(choice("--order <way>", "rows of an output shard", ["input", "completion"], "input"))
    .addOption(
      choice(
        "--scheduler <way>",
        "static: batch by batch, to compare",
        ["continuous", "static"],
        "continuous",
      ),
    )
    .addOption(choice("--admit <way>", "which waiting row goes first", ["fifo", "longest-first"], "fifo"))
    .option("--timeout <ms>", "a row that takes longer fails", anyNumber)
    .option("--retries <count>", "more tries of a row, where they may help (default: 3)", anyNumber)
    .option("--resume", "go on where the same job ended; the default", true)
    .option("--no-resume", "refuse a folder that has outputs already")
    .option("--retry-failed", "run those rows again, too, that failed in earlier runs");
}

function addEngines(command: Command): void {
  command
    .option("--device <name>", "auto, host, metal or cuda, as 'headrace load --help' says", "auto")
    .option("--ordinal <number>", ORDINAL_HELP, wholeNumber(0, MAX_ORDINAL))
    .option("--fast", "the vendor's matrix products where there are; rounding may differ with the batch")
    .option("--context <tokens>", "most tokens of a sequence (default: the model's, up to 32,768)", anyNumber)
    .option("--tokens-per-step <count>", "most tokens of a step (default: the engine's)", anyNumber)
    .option("--kv-memory <bytes>", "for keys and values, such as 4GiB (default: by the device)", byteCount)
    .addOption(
      new Option("--kv-type <type>", "of keys and values (default: f32)").choices(["f32", "f16", "bf16"]),
    )
    .addOption(
      new Option("--pooling <way>", "with --engine embed (default: mean)").choices(["mean", "last", "first"]),
    )
    .option("--normalize", "with --engine embed: to unit length")
    .option("--url <url>", "with --engine http: the server, such as http://localhost:8000/v1")
    .option("--api-model <name>", "with --engine http: the model's name there")
    .option("--chat", "with --engine http: as one message of a chat");
}

function choice(flags: string, description: string, choices: string[], initial: string): Option {
  return new Option(flags, description).choices(choices).default(initial);
}

const ESCAPES: Readonly<Record<string, string>> = { n: "\n", t: "\t", r: "\r", "\\": "\\" };

function stopText(text: string, before: string[] = []): string[] {
  if (text === "") throw new InvalidArgumentError("It must not be empty.");
  return [...before, text.replaceAll(/\\([ntr\\])/g, (_, letter: string) => ESCAPES[letter]!)];
}

async function run(source: string, flags: InferFlags): Promise<void> {
  if (flags.ordinal !== undefined && flags.device !== "cuda") {
    throw new HeadraceError("BAD_OPTION", "--ordinal means nothing without --device cuda");
  }
  const tracer = flags.trace === undefined ? undefined : new TraceRecorder();
  // Written before anything runs: a path that cannot be written fails now, not after hours.
  if (tracer !== undefined) saveText(flags.trace!, tracer.toJSON());
  using bar = new InferProgressBar(flags);
  const drain = new AbortController();
  using signals = new OnSignal(
    (signal) => {
      drain.abort(signal);
      bar.stop();
      console.error("headrace: ending: rows that run are finished and committed; once more ends at once");
    },
    () => bar.stop(),
  );
  let device: Device | undefined;
  let report: InferReport;
  try {
    const { ordinal } = flags;
    device = openDevice(flags.device, ordinal === undefined ? {} : { ordinal });
    report = await infer({
      ...optionsOf(source, flags, device),
      drain: drain.signal,
      onProgress: (progress) => bar.updateRows(progress),
      tracer,
    });
  } finally {
    bar.stop();
    await device?.close();
    if (tracer !== undefined) saveText(flags.trace!, tracer.toJSON());
  }
  if (flags.json) printLine(JSON.stringify(report));
  else printReport(report);
  process.exitCode = sayHowItEnded(report, signals.received);
}

/** The exit code. */
function sayHowItEnded(report: InferReport, signal: NodeJS.Signals | undefined): number {
  const { rows, failedRows, resumedRows, resumedFailedRows, interrupted } = report;
  if (failedRows > 0) {
    const count = `${failedRows.toLocaleString("en-US")} of ${rows.toLocaleString("en-US")} rows failed`;
    const { deadLetters } = report;
    console.error(`headrace: ${count}${deadLetters === undefined ? "" : `; see ${printable(deadLetters)}`}`);
  }
  if (resumedFailedRows > 0) {
    const count = resumedFailedRows.toLocaleString("en-US");
    console.error(
      `headrace: ${count} rows of earlier runs failed, and keep their errors; --retry-failed runs them again`,
    );
  }
  if (interrupted) {
    const left = (report.totalRows - report.rows - report.resumedRows).toLocaleString("en-US");
    console.error(`headrace: interrupted with ${left} rows to go; the same command goes on from there`);
    return signal === "SIGTERM" ? ExitCode.terminated : ExitCode.interrupted;
  }
  const allFailed = failedRows + resumedFailedRows === rows + resumedRows;
  const noneGood = (rows > 0 && failedRows === rows) || (resumedRows > 0 && allFailed);
  return noneGood ? ExitCode.failed : ExitCode.done;
}

const KV_TYPES = { f32: "F32", f16: "F16", bf16: "BF16" } as const;

function optionsOf(source: string, flags: InferFlags, device: Device): InferOptions {
  const { context, kvMemory, kvType, timeout, chat, url } = flags;
  return {
    source,
    out: flags.out,
    device,
    model: flags.model,
    engine: flags.engine,
    column: flags.column,
    limit: flags.limit,
    slots: flags.slots,
    maxNewTokens: flags.maxNewTokens,
    temperature: flags.temperature,
    topK: flags.topK,
    topP: flags.topP,
    minP: flags.minP,
    repetitionPenalty: flags.repetitionPenalty,
    seed: flags.seed,
    stop: flags.stop,
    logprobs: flags.logprobs,
    order: flags.order,
    scheduler: flags.scheduler,
    admit: flags.admit,
    timeoutMs: timeout,
    retries: flags.retries,
    fast: flags.fast,
    resume: flags.resume,
    retryFailed: flags.retryFailed,
    contextLength: context,
    tokensPerStep: flags.tokensPerStep,
    kvBytes: kvMemory,
    kvType: kvType === undefined ? undefined : KV_TYPES[kvType],
    pooling: flags.pooling,
    normalize: flags.normalize,
    url,
    apiModel: flags.apiModel,
    apiMode: chat ? "chat" : undefined,
    apiKey: flags.engine === "http" ? process.env[KEY_VARIABLE] : undefined,
  };
}
