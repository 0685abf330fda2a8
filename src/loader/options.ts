/** What a loader can be asked for, and the checks of it. */
import { totalmem } from "node:os";
import { HeadraceError } from "../errors.ts";
import type { SampleRange } from "../plan/select.ts";
import type { Tracer } from "./trace.ts";

/** All of it is optional. */
export interface LoaderOptions {
  /** Most samples of a batch. Default 64 rows or 1 tensor where no other limit is given. */
  readonly batchSize?: number | undefined;
  /** Most bytes of a batch's values and offsets; a larger sample comes alone. With `padTo` each sample
   * counts as much as the batch's largest. */
  readonly batchBytes?: number | undefined;
  /** Most elements of `lengthColumn` in a batch (with `padTo`, padding included). */
  readonly batchLength?: number | undefined;
  /** The ragged column that `batchLength` counts; may be left out where there is but one. */
  readonly lengthColumn?: string | undefined;
  /** What becomes of the last, incomplete batch of an epoch: `short` (default) delivers it as it is, `drop`
   * leaves it out (with several ranks: the whole incomplete step), `pad` fills it with zero rows and gives
   * `rowMask`. */
  readonly lastBatch?: "short" | "drop" | "pad" | undefined;
  /** Whether samples come in a random order; default false, or true where `seed` is given. */
  readonly shuffle?: boolean | undefined;
  /** Of the random order: a whole number from 0; default 0. */
  readonly seed?: number | undefined;
  /** Shuffle blocks of this many neighbouring samples, then samples inside a window of blocks: reads stay
   * near one another. */
  readonly blockSize?: number | undefined;
  /** Blocks of one window, at most 65,536; default 64. */
  readonly windowBlocks?: number | undefined;
  /** Epochs after which iteration ends, counted from the dataset's first; default 1, may be Infinity. */
  readonly epochs?: number | undefined;
  /** Only the first `limit` samples of each epoch's order. */
  readonly limit?: number | undefined;
  /** Only samples whose indices lie in these ranges `[start, end)`, which are sorted and do not overlap: the order is
   * over them, whatever else the dataset holds. Default all. Shards without any of them are not opened where a
   * manifest tells what they hold. */
  readonly ranges?: readonly SampleRange[] | undefined;
  /** This process among `worldSize`, from 0. */
  readonly rank?: number | undefined;
  readonly worldSize?: number | undefined;
  /** Batches that are made ready ahead of the one in use; default 2. The arena has one segment more. */
  readonly prefetch?: number | undefined;
  /** Most bytes of the arena and the decoded chunks of compressed shards that are kept, together; and of mapped pages
   * kept resident. Default a quarter of the machine's memory, and for decoded chunks half of it, if that leaves a quarter
   * available. Loaders of one device share what is kept, within the bound of whichever decoded last. */
  readonly memoryBytes?: number | undefined;
  /** Ragged columns come as `[rows, length]` with a mask, `length` a multiple of this. */
  readonly padTo?: number | undefined;
  /** What padding holds; default 0. */
  readonly padValue?: number | undefined;
  /** Fails a batch whose bytes take longer; default none. */
  readonly timeoutMs?: number | undefined;
  /** Ends iteration with `CANCELLED`; the state stays after the last batch delivered. */
  readonly signal?: AbortSignal | undefined;
  /** Records what happens when. */
  readonly tracer?: Tracer | undefined;
}

/** The options with their defaults. */
export interface ResolvedOptions {
  readonly maxSamples: number | undefined;
  readonly batchBytes: number | undefined;
  readonly batchLength: number | undefined;
  readonly lengthColumn: string | undefined;
  readonly lastBatch: "short" | "drop" | "pad";
  readonly seed: number | undefined;
  readonly blockSize: number | undefined;
  readonly windowBlocks: number | undefined;
  readonly epochs: number;
  readonly limit: number;
  readonly ranges: readonly SampleRange[] | undefined;
  readonly rank: number;
  readonly worldSize: number;
  readonly prefetch: number;
  readonly memoryBytes: number;
  /** Of the arena and of decoded chunks together; undefined: as many chunks as the device sees fit. */
  readonly keepBytes: number | undefined;
  readonly pad: { readonly multiple: number; readonly value: number } | undefined;
  readonly timeoutMs: number | undefined;
  readonly signal: AbortSignal | undefined;
  readonly tracer: Tracer | undefined;
}

/** Checks and completes `options`. Throws `BAD_OPTION` naming the option, its value and its bounds. */
export function resolveOptions(options: LoaderOptions, view: "rows" | "tensors"): ResolvedOptions {
  const limits = [options.batchSize, options.batchBytes, options.batchLength];
  const noLimit = limits.every((limit) => limit === undefined);
  whole("batchSize", options.batchSize, 1);
  whole("batchBytes", options.batchBytes, 1);
  whole("batchLength", options.batchLength, 1);
  whole("seed", options.seed, 0);
  whole("blockSize", options.blockSize, 1);
  whole("windowBlocks", options.windowBlocks, 1, 65536);
  if (options.epochs !== Number.POSITIVE_INFINITY) whole("epochs", options.epochs, 0);
  whole("limit", options.limit, 0);
  whole("worldSize", options.worldSize, 1);
  whole("rank", options.rank, 0);
  whole("prefetch", options.prefetch, 0, 1024);
  whole("memoryBytes", options.memoryBytes, 1);
  whole("padTo", options.padTo, 1);
  whole("timeoutMs", options.timeoutMs, 1);
  const worldSize = options.worldSize ?? 1;
  const rank = options.rank ?? 0;
  if (rank >= worldSize) bad("rank", rank, `below worldSize (${worldSize})`);
  const { lastBatch = "short" } = options;
  if (!["short", "drop", "pad"].includes(lastBatch)) bad("lastBatch", lastBatch, "short, drop or pad");
  if (options.batchBytes !== undefined && options.batchLength !== undefined) {
    throw new HeadraceError("BAD_OPTION", "batchBytes and batchLength exclude each other; give one");
  }
  const shuffle = options.shuffle ?? options.seed !== undefined;
  if (!shuffle && options.blockSize !== undefined) {
    throw new HeadraceError("BAD_OPTION", "blockSize is for a shuffled order; set shuffle too");
  }
  const padValue = options.padValue ?? 0;
  if (!Number.isFinite(padValue)) bad("padValue", padValue, "a finite number");
  return {
    maxSamples: options.batchSize ?? (noLimit ? (view === "rows" ? 64 : 1) : undefined),
    batchBytes: options.batchBytes,
    batchLength: options.batchLength,
    lengthColumn: options.lengthColumn,
    lastBatch,
    seed: shuffle ? (options.seed ?? 0) : undefined,
    blockSize: options.blockSize,
    windowBlocks: options.windowBlocks,
    epochs: options.epochs ?? 1,
    limit: options.limit ?? Number.POSITIVE_INFINITY,
    ranges: options.ranges,
    rank,
    worldSize,
    prefetch: options.prefetch ?? 2,
    memoryBytes: options.memoryBytes ?? Math.floor(totalmem() / 4),
    keepBytes: options.memoryBytes,
    pad: options.padTo === undefined ? undefined : { multiple: options.padTo, value: padValue },
    timeoutMs: options.timeoutMs,
    signal: options.signal,
    tracer: options.tracer,
  };
}

function whole(name: string, value: number | undefined, least: number, most = Number.MAX_SAFE_INTEGER): void {
  if (value === undefined) return;
  if (Number.isSafeInteger(value) && value >= least && value <= most) return;
  const upper = most === Number.MAX_SAFE_INTEGER ? "" : ` to ${most}`;
  bad(name, value, `a whole number from ${least}${upper}`);
}

function bad(name: string, value: unknown, wanted: string): never {
  throw new HeadraceError("BAD_OPTION", `${name} is ${String(value)}; it must be ${wanted}`);
}
