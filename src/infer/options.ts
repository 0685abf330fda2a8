/** What a job can be asked for, and the checks of it. */
import type { Device } from "../device/device.ts";
import { HeadraceError } from "../errors.ts";
import type { Tracer } from "../loader/trace.ts";
import type { Engine, SamplingOptions } from "./engine.ts";
import { checkEmbeds, checkShape } from "./option-shape.ts";
import type { InferProgress } from "./report.ts";
import { whyBadSampling } from "./sampling.ts";

/** An engine of the caller's own, which stays the caller's. */
export interface OwnEngine {
  readonly engine: Engine;
  /** Names what decides its answers (model, version, settings): part of the job's identity. */
  readonly name: string;
  /** Elements of the vectors that it gives as embeddings; absent where it gives none. */
  readonly vectorLength?: number | undefined;
}

/** Options of `infer`. What decides outputs is part of the job's identity: source, model, column, limit, engine, all of
 * sampling, stops, what is put out and in which order. How it runs (device, slots, scheduler, limits of time and memory)
 * may change from one run of a job to the next. */
export interface InferOptions extends SamplingOptions {
  /** As `openDataset` takes it. */
  readonly source: string | readonly string[];
  /** The folder that the outputs go to; made where it is not there. */
  readonly out: string;
  /** Borrowed. */
  readonly device: Device;
  /** Folder of the model, in the Hugging Face layout. Not wanted by `http`, nor by an engine of one's own, which take its
   * tokenizer from there where it is given. */
  readonly model?: string | undefined;
  /** Default `llama`. */
  readonly engine?: "llama" | "embed" | "http" | OwnEngine | undefined;
  /** The column with the prompts: lists of integers or text; default `tokens`, else `text`. */
  readonly column?: string | undefined;
  /** Only the first rows of the dataset. */
  readonly limit?: number | undefined;
  /** Sequences that run at once (`http`: requests in flight), 1 to 4096; default the engine's: 16, and 256 on devices with
   * memory of their own. An engine of one's own is used for so many at most. */
  readonly slots?: number | undefined;
  /** Tokens after which a row ends with `length`; default 64. */
  readonly maxNewTokens?: number | undefined;
  /** Texts that end a row with `stop`. */
  readonly stop?: readonly string[] | undefined;
  /** Token ids that end a row with `stop`; default those that the model's configuration names. */
  readonly stopIds?: readonly number[] | undefined;
  /** Whether each token's log probability is put out; default false. */
  readonly logprobs?: boolean | undefined;
  /** Rows of an output shard in the order of the source (default), or in that of their completion. */
  readonly order?: "input" | "completion" | undefined;
  /** `static` admits a batch and runs it until all of it has ended: for comparison. Default `continuous`. */
  readonly scheduler?: "continuous" | "static" | undefined;
  /** Which of the waiting rows goes first; default `fifo`. */
  readonly admit?: "fifo" | "longest-first" | undefined;
  /** From a row's admission; it then ends with an error. Default none. */
  readonly timeoutMs?: number | undefined;
  /** Lets the engine take the vendor's matrix products: faster, and the last digits may differ with the batch. */
  readonly fast?: boolean | undefined;
  /** False refuses a folder that holds outputs already, be it of the same job; default true. */
  readonly resume?: boolean | undefined;
  /** Runs those rows again, too, that failed in earlier runs of the job; default false: they keep their error. */
  readonly retryFailed?: boolean | undefined;
  /** Of `llama` and `embed`: most tokens of a sequence, from 2 to the model's own; default that, up to 32,768. Part of
   * the identity either way. */
  readonly contextLength?: number | undefined;
  /** Of `llama` and `embed`: most tokens of a step. */
  readonly tokensPerStep?: number | undefined;
  /** Of `llama` and `embed`: bytes of keys and values, at least those of one sequence of `contextLength`. */
  readonly kvBytes?: number | undefined;
  /** Of `llama` and `embed`: their type; default F32. */
  readonly kvType?: "F32" | "F16" | "BF16" | undefined;
  /** Of `embed`; default `mean`. */
  readonly pooling?: "mean" | "last" | "first" | undefined;
  /** Of `embed`: to unit length; default false. */
  readonly normalize?: boolean | undefined;
  /** Of `http`: where the server is, such as `http://localhost:8000/v1`. */
  readonly url?: string | undefined;
  /** Of `http`: the model's name there. */
  readonly apiModel?: string | undefined;
  /** Of `http`: sent as a bearer token. */
  readonly apiKey?: string | undefined;
  /** Of `http`: which of the server's ways is used; default `completions`. */
  readonly apiMode?: "completions" | "chat" | undefined;
  /** Tries of a row beyond the first, where the engine says that one may help; default 3. */
  readonly retries?: number | undefined;
  /** Ends the job well: nothing more is admitted, what runs ends, and all is committed. */
  readonly drain?: AbortSignal | undefined;
  /** Ends the job at once with `CANCELLED`; what was finished is kept. */
  readonly signal?: AbortSignal | undefined;
  /** Called about once a second, and at the end. */
  readonly onProgress?: ((progress: InferProgress) => void) | undefined;
  readonly tracer?: Tracer | undefined;
}

/** Options that have a default. */
type Defaulted = "engine" | "maxNewTokens" | "order" | "scheduler" | "admit" | "retries" | "resume";

/** Options with their defaults, but for those that the model decides. */
export type ResolvedInferOptions = InferOptions & {
  readonly [Name in Defaulted]: NonNullable<InferOptions[Name]>;
};

const MOST_SLOTS = 4096;
const DEFAULT_NEW_TOKENS = 64;
const DEFAULT_RETRIES = 3;
/** Tokens of a sequence, at most, whatever the model: positions are 32-bit integers. */
const MOST_TOKENS = 2 ** 31 - 1;

/** Options that belong to some of the engines. */
const OF_ENGINES: readonly [keyof InferOptions, readonly string[]][] = [
  ["url", ["http"]],
  ["apiModel", ["http"]],
  ["apiKey", ["http"]],
  ["apiMode", ["http"]],
  ["pooling", ["embed"]],
  ["normalize", ["embed"]],
  ["contextLength", ["llama", "embed"]],
  ["tokensPerStep", ["llama", "embed"]],
  ["kvBytes", ["llama", "embed"]],
  ["kvType", ["llama", "embed"]],
  ["fast", ["llama", "embed"]],
];

/** Checks and completes `options`. Throws `BAD_OPTION` naming the option, its value and its bounds. */
export function resolveInferOptions(options: InferOptions): ResolvedInferOptions {
  checkShape(options);
  const engine = options.engine ?? "llama";
  const kind = typeof engine === "string" ? engine : "own";
  whole("slots", options.slots, 1, MOST_SLOTS);
  whole("maxNewTokens", options.maxNewTokens, 1, MOST_TOKENS);
  whole("limit", options.limit, 0);
  whole("seed", options.seed, 0);
  whole("topK", options.topK, 0, MOST_TOKENS);
  whole("timeoutMs", options.timeoutMs, 1);
  whole("retries", options.retries, 0, 100);
  whole("tokensPerStep", options.tokensPerStep, 1, MOST_TOKENS);
  whole("kvBytes", options.kvBytes, 1);
  checkSampling(options);
  oneOf("engine", kind, ["llama", "embed", "http", "own"]);
  oneOf("order", options.order, ["input", "completion"]);
  oneOf("scheduler", options.scheduler, ["continuous", "static"]);
  oneOf("admit", options.admit, ["fifo", "longest-first"]);
  oneOf("kvType", options.kvType, ["F32", "F16", "BF16"]);
  oneOf("pooling", options.pooling, ["mean", "last", "first"]);
  oneOf("apiMode", options.apiMode, ["completions", "chat"]);
  if (options.stop?.some((text) => text === "")) bad("stop", '""', "a text of at least one character");
  for (const [name, kinds] of OF_ENGINES) {
    if (options[name] === undefined || options[name] === false || kinds.includes(kind)) continue;
    throw new HeadraceError(
      "BAD_OPTION",
      `${name} means nothing to engine ${kind}; it is for ${kinds.join(" and ")}`,
    );
  }
  checkWanted(options, kind);
  if (options.retryFailed && options.resume === false) {
    throw new HeadraceError(
      "BAD_OPTION",
      "retryFailed goes on with an earlier run, which resume: false refuses; give one of them",
    );
  }
  checkPlaces(options);
  return {
    ...options,
    engine,
    maxNewTokens: options.maxNewTokens ?? DEFAULT_NEW_TOKENS,
    order: options.order ?? "input",
    scheduler: options.scheduler ?? "continuous",
    admit: options.admit ?? "fifo",
    retries: options.retries ?? DEFAULT_RETRIES,
    resume: options.resume ?? true,
  };
}

function checkWanted(options: InferOptions, kind: string): void {
  if ((kind === "llama" || kind === "embed") && options.model === undefined) {
    throw new HeadraceError(
      "BAD_OPTION",
      `engine ${kind} wants a model: a folder with config.json and safetensors`,
    );
  }
  if (kind === "http" && options.url === undefined) {
    throw new HeadraceError("BAD_OPTION", "engine http wants a url, such as http://localhost:8000/v1");
  }
  checkEmbeds(options);
}

function checkSampling(options: InferOptions): void {
  const wrong = whyBadSampling(options);
  if (wrong !== undefined) throw new HeadraceError("BAD_OPTION", wrong);
}

function checkPlaces({ out, device }: InferOptions): void {
  if (out === "") bad("out", '""', "the path of a folder");
  if (device.capabilities.name === "null") {
    throw new HeadraceError(
      "BAD_OPTION",
      "device null moves and computes nothing, so that it has no outputs; take another",
    );
  }
}

function whole(name: string, value: number | undefined, least: number, most = Number.MAX_SAFE_INTEGER): void {
  if (value === undefined) return;
  if (Number.isSafeInteger(value) && value >= least && value <= most) return;
  bad(name, value, `a whole number from ${least} to ${most}`);
}

function oneOf(name: string, value: string | undefined, choices: readonly string[]): void {
  if (value === undefined || choices.includes(value)) return;
  bad(name, value, `one of ${choices.join(", ")}`);
}

function bad(name: string, value: unknown, wanted: string): never {
  throw new HeadraceError("BAD_OPTION", `${name} is ${String(value)}; it must be ${wanted}`);
}
