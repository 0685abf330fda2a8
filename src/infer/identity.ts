/** What a job is: all that its outputs follow from. Two runs with the same identity are runs of one job. */
import { HeadraceError } from "../errors.ts";
import { modelFingerprint } from "./fingerprint.ts";
import { findModel } from "./llama/model.ts";
import { DEFAULT_MAX_CONTEXT } from "./llama/options.ts";
import type { ResolvedInferOptions } from "./options.ts";
import type { PromptDataset } from "./prompts.ts";
import { openTokenizer, type Tokenizer } from "./tokenizer.ts";

/** Raised when the same options would give other outputs than before. */
const VERSION = 1;
/** A prompt's token, and one more. */
const LEAST_CONTEXT = 2;

/** What is known of a job's model before it is opened. */
export interface JobModel {
  /** Of the folder; undefined without one. */
  readonly fingerprint: string | undefined;
  readonly tokenizer: Tokenizer | undefined;
  /** Tokens that end a row. */
  readonly stopIds: readonly number[];
  /** Token ids are below it; undefined where nothing says so. */
  readonly vocabSize: number | undefined;
  /** Elements of a hidden state. */
  readonly hiddenSize: number | undefined;
  /** Most tokens of a sequence. */
  readonly maxPositions: number | undefined;
}

const NO_MODEL: JobModel = {
  fingerprint: undefined,
  tokenizer: undefined,
  stopIds: [],
  vocabSize: undefined,
  hiddenSize: undefined,
  maxPositions: undefined,
};

/** Reads a model's configuration and tokenizer. An engine that is not of this project is asked for neither, but for its
 * tokenizer where a folder is named. Throws `SOURCE_NOT_FOUND`, `BAD_MODEL`, `UNSUPPORTED`, `IO_ERROR`. */
export function describeModel({ model, engine }: ResolvedInferOptions): JobModel {
  if (model === undefined) return NO_MODEL;
  if (engine !== "llama" && engine !== "embed") {
    return { ...NO_MODEL, tokenizer: openTokenizer(model) };
  }
  const { folder, config } = findModel(model);
  return {
    fingerprint: modelFingerprint(folder),
    tokenizer: openTokenizer(folder),
    stopIds: config.eosTokenIds,
    vocabSize: config.vocabSize,
    hiddenSize: config.hiddenSize,
    maxPositions: config.maxPositions,
  };
}

/**
 * `options` with what the model decides: the context is always a given one then, so that outputs follow from it and not
 * from how much memory is there. Throws `BAD_OPTION` for a context that the model does not know.
 */
export function settleOptions(options: ResolvedInferOptions, model: JobModel): ResolvedInferOptions {
  const { maxPositions: most } = model;
  if (most === undefined) return options;
  const contextLength = options.contextLength ?? Math.min(most, DEFAULT_MAX_CONTEXT);
  if (options.contextLength !== undefined && !isWhole(contextLength, LEAST_CONTEXT, most)) {
    throw new HeadraceError(
      "BAD_OPTION",
      `contextLength is ${contextLength}; it must be a whole number from ${LEAST_CONTEXT} to ${most}`,
    );
  }
  return { ...options, contextLength, kvType: options.kvType ?? "F32" };
}

function isWhole(value: number, least: number, most: number): boolean {
  return Number.isSafeInteger(value) && value >= least && value <= most;
}

/** A job's identity as plain JSON, a key for each thing that may differ. `options` are settled. What was asked for in
 * words and what is so by default are the same. */
export function identityOf(
  options: ResolvedInferOptions,
  model: JobModel,
  prompts: PromptDataset,
): Record<string, string | number | boolean | null | readonly (string | number)[]> {
  const { engine, temperature = 0, limit = Number.POSITIVE_INFINITY } = options;
  const sampled = temperature > 0;
  const embeds = engine === "embed";
  return {
    version: VERSION,
    dataset: prompts.dataset.fingerprint,
    column: prompts.column,
    limit: limit < prompts.dataset.numSamples ? limit : null,
    engine: typeof engine === "string" ? engine : `own: ${engine.name}`,
    model: model.fingerprint ?? null,
    tokenizer: model.tokenizer?.fingerprint ?? null,
    order: options.order,
    contextLength: options.contextLength ?? null,
    kvType: options.kvType ?? null,
    fast: options.fast ?? false,
    ...(embeds
      ? { pooling: options.pooling ?? "mean", normalize: options.normalize ?? false }
      : {
          maxNewTokens: options.maxNewTokens,
          stop: options.stop ?? [],
          stopIds: options.stopIds ?? model.stopIds,
          logprobs: options.logprobs ?? false,
          repetitionPenalty: options.repetitionPenalty ?? 1,
          temperature,
          // A greedy choice takes no notice of these.
          topK: sampled ? (options.topK ?? 0) : null,
          topP: sampled ? (options.topP ?? 1) : null,
          minP: sampled ? (options.minP ?? 0) : null,
          seed: sampled ? (options.seed ?? 0) : null,
        }),
    ...(engine === "http"
      ? {
          // A model that has a name may move to another address.
          apiModel: options.apiModel ?? options.url ?? null,
          apiMode: options.apiMode ?? "completions",
        }
      : {}),
  };
}
