/** How large an engine is: its options, their defaults for a device, and what follows from them. */
import type { Capabilities } from "../../device/device.ts";
import { HeadraceError } from "../../errors.ts";
import { WEIGHT_BYTES, WEIGHT_TYPES, type WeightType } from "../../kernels/weights.ts";
import type { Strategy } from "../../types.ts";
import type { LlamaConfig } from "./config.ts";

/** Options of the engines over a Llama; all may be left out. */
export interface LlamaOptions {
  /** Sequences that run at once, 1 to 4096; default 16 on unified memory, 256 else. */
  readonly slots?: number | undefined;
  /** Most tokens of one sequence, prompt and output together, at most what the model knows; default that, up to 32,768,
   * and no more than the cache holds. */
  readonly contextLength?: number | undefined;
  /** Most tokens of one step, from `slots` to 65,536: larger steps fill long prompts faster, and let running rows wait
   * longer; default 512 on unified memory, 2048 else, or `slots` where that is more. */
  readonly tokensPerStep?: number | undefined;
  /** Tokens of one block of the cache, 1 to 1024; default 16. */
  readonly blockTokens?: number | undefined;
  /** Bytes of keys and values, taken when the engine is opened; default what all slots can fill, up to a quarter of
   * the device's working set on unified memory, and else to 80 % of what the weights leave of it. */
  readonly kvBytes?: number | undefined;
  /** What keys and values are rounded to; default F32. */
  readonly kvType?: WeightType | undefined;
  /** Whether the vendor's library makes the matrix products, where they have no biases: cuBLAS on CUDA. Then a row's last
   * digits, and so its tokens, may differ with the rows that run beside it; default false. Throws `UNSUPPORTED` on a
   * device without such a library. */
  readonly fast?: boolean | undefined;
  /** Whether the GPU's matrix units multiply, where it has some and weights are BF16; default where they do. Their sums are
   * as exact and as independent of other rows as those without, in another order. */
  readonly matrixUnits?: boolean | undefined;
  /** How the model's files are reached; default `auto`. */
  readonly strategy?: Strategy | "auto" | undefined;
  /** Ends loading. */
  readonly signal?: AbortSignal | undefined;
}

/** An engine's sizes. */
export interface Geometry {
  readonly slots: number;
  readonly contextLength: number;
  readonly tokensPerStep: number;
  readonly blockTokens: number;
  readonly numBlocks: number;
  readonly maxBlocksPerSlot: number;
  readonly kvType: WeightType;
  /** Whether the vendor's library makes the matrix products. */
  readonly fast: boolean;
  /** Whether matrix units are used for BF16 weights. */
  readonly matrixUnits: boolean;
  /** Rows of one pass whose logits can be had. */
  readonly logitRows: number;
}

/** Tokens of a context that nobody asked for, where the model knows more. */
export const DEFAULT_MAX_CONTEXT = 32_768;
const DEFAULT_BLOCK_TOKENS = 16;
/** Rows of logits that there is room for where slots are few, so that {@link LlamaOptions.slots} of 1 can still read the
 * logits of a text in reasonable pieces. */
const LEAST_LOGIT_ROWS = 16;

/** Bytes of one layer's keys, or values, of one token. */
export function kvRowBytes(config: LlamaConfig, kvType: WeightType): number {
  return config.numKvHeads * config.headSize * WEIGHT_BYTES[kvType];
}

/** Checks and completes `options` for a model whose weights take `weightBytes`. Throws `BAD_OPTION` naming the option,
 * its value and its bounds. */
export function resolveGeometry(
  config: LlamaConfig,
  device: Capabilities,
  weightBytes: number,
  options: LlamaOptions = {},
): Geometry {
  const { unifiedMemory, workingSet } = device;
  const slots = whole("slots", options.slots ?? (unifiedMemory ? 16 : 256), 1, 4096);
  const usualTokens = Math.max(slots, unifiedMemory ? 512 : 2048);
  const tokensPerStep = whole("tokensPerStep", options.tokensPerStep ?? usualTokens, slots, 65_536);
  const blockTokens = whole("blockTokens", options.blockTokens ?? DEFAULT_BLOCK_TOKENS, 1, 1024);
  const kvType = options.kvType ?? "F32";
  if (!WEIGHT_TYPES.includes(kvType)) throw bad("kvType", kvType, `one of ${WEIGHT_TYPES.join(", ")}`);
  const wanted = options.contextLength ?? Math.min(config.maxPositions, DEFAULT_MAX_CONTEXT);
  const context = whole("contextLength", wanted, 1, config.maxPositions);
  const blockBytes = 2 * config.numLayers * blockTokens * kvRowBytes(config, kvType);
  const most = slots * Math.ceil(context / blockTokens);
  const budget = unifiedMemory ? workingSet / 4 : Math.max(0, workingSet - weightBytes) * 0.8;
  const kvBytes = options.kvBytes ?? Math.max(blockBytes, Math.min(most * blockBytes, budget));
  if (options.contextLength === undefined) whole("kvBytes", Math.floor(kvBytes), blockBytes);
  const numBlocks = Math.min(most, Math.floor(kvBytes / blockBytes));
  const contextLength = Math.min(context, numBlocks * blockTokens);
  if (options.contextLength !== undefined && contextLength < options.contextLength) {
    const needed = Math.ceil(context / blockTokens) * blockBytes;
    const least = `at least ${needed} for one sequence of contextLength ${context}`;
    const otherwise = "or give a smaller contextLength";
    if (options.kvBytes !== undefined) throw bad("kvBytes", Math.floor(kvBytes), `${least}, ${otherwise}`);
    throw new HeadraceError(
      "BAD_OPTION",
      `${device.name} has room for ${Math.floor(kvBytes)} bytes of keys and values; give kvBytes of ${least}, ${otherwise}`,
    );
  }
  return {
    slots,
    contextLength,
    tokensPerStep,
    blockTokens,
    numBlocks,
    maxBlocksPerSlot: Math.ceil(contextLength / blockTokens),
    kvType,
    fast: options.fast ?? false,
    matrixUnits: options.matrixUnits ?? device.matrixUnits ?? false,
    logitRows: Math.min(tokensPerStep, Math.max(slots, LEAST_LOGIT_ROWS)),
  };
}

function whole(name: string, value: number, least: number, most = Number.MAX_SAFE_INTEGER): number {
  if (Number.isSafeInteger(value) && value >= least && value <= most) return value;
  throw bad(
    name,
    value,
    `a whole number from ${least}${most === Number.MAX_SAFE_INTEGER ? "" : ` to ${most}`}`,
  );
}

function bad(name: string, value: unknown, wanted: string): HeadraceError {
  return new HeadraceError("BAD_OPTION", `${name} is ${String(value)}; it must be ${wanted}`);
}
