/**
 * Attention over a paged cache: row t looks at positions `[0, positions[t]]` of its slot.
 *
 * A row's result depends on its query and those positions alone, to the last bit: not on other rows, nor on where the
 * cache's blocks lie. Prefill and decode are the same.
 */
import type { KernelSource, Pipeline } from "../device/device.ts";
import type { DispatchCall } from "../device/requests.ts";
import { HeadraceError } from "../errors.ts";
import { attentionOnHost } from "./attention-host.ts";
import { ATTENTION_TEXT, ATTENTION_THREADS, attentionGroups, MAX_HEAD_SIZE } from "./attention-text.ts";
import { bindPlace, checkInteger, MAX_THREADS, type Place, packConstants } from "./constants.ts";
import { WEIGHT_BYTES, WEIGHT_TYPES, type WeightType } from "./weights.ts";

export interface AttentionKernelOptions {
  readonly cacheType: WeightType;
}

/**
 * Buffers: qkv (F32, `[rows, (numHeads + 2 * numKvHeads) * headSize]`, of which the queries are read), kCache and vCache
 * (`[blocks, numKvHeads, blockTokens, headSize]`), blockTable (uint32, `[slots, tableStride]`: a slot's blocks in order),
 * slots and positions (uint32, one a row), info (uint32; word `countAt` holds the number of rows), out (F32, `[rows,
 * numHeads * headSize]`). Rows from the count on are neither read nor written. Nothing checks what the tables hold.
 */
export function attentionKernel({ cacheType }: AttentionKernelOptions): KernelSource {
  checkType(cacheType);
  return {
    name: "attention",
    host: attentionOnHost(cacheType),
    text: ATTENTION_TEXT,
    functionConstants: [{ index: 0, type: "uint", value: WEIGHT_TYPES.indexOf(cacheType) }],
  };
}

function checkType(cacheType: WeightType): void {
  if (WEIGHT_TYPES.includes(cacheType)) return;
  const message = `attention: cacheType ${cacheType} is none of ${WEIGHT_TYPES.join(", ")}`;
  throw new HeadraceError("BAD_OPTION", message);
}

export interface AttentionOptions extends AttentionKernelOptions {
  /** At a multiple of 16 bytes, as are the caches. */
  readonly qkv: Place;
  readonly kCache: Place;
  readonly vCache: Place;
  /** Words at a multiple of 4 bytes, as are the four that follow. */
  readonly blockTable: Place;
  readonly slots: Place;
  readonly positions: Place;
  readonly info: Place;
  /** It must overlap nothing else. */
  readonly out: Place;
  readonly numHeads: number;
  /** Divides `numHeads`: so many query heads in a row share a key and value head. */
  readonly numKvHeads: number;
  /** A multiple of 8 from 16 to 256. */
  readonly headSize: number;
  /** Positions of a block of the cache. */
  readonly blockTokens: number;
  /** Blocks that each cache has. */
  readonly numBlocks: number;
  /** Slots that the table has. */
  readonly numSlots: number;
  /** Most blocks of a slot: words of a row of the table. */
  readonly tableStride: number;
  /** What scores are multiplied with, before the softmax: 1 / sqrt(headSize) most often. */
  readonly scale: number;
  /** The word of info that holds the number of rows; a larger one than `maxRows` counts as that. */
  readonly countAt: number;
  readonly maxRows: number;
}

/** A dispatch of {@link attentionKernel}. Throws `BAD_OPTION`, `OUT_OF_RANGE`. */
export function attentionCall(pipeline: Pipeline, options: AttentionOptions): DispatchCall {
  checkShape(options);
  const { numHeads, numKvHeads, headSize, blockTokens, tableStride, countAt, maxRows } = options;
  const { cacheType, numBlocks, numSlots, scale } = options;
  const cacheBytes = numBlocks * numKvHeads * blockTokens * headSize * WEIGHT_BYTES[cacheType];
  const threads = attentionGroups(maxRows, numHeads, numKvHeads) * ATTENTION_THREADS;
  checkInteger(`attention: threads for ${maxRows} rows`, threads, 0, MAX_THREADS);
  return {
    pipeline,
    buffers: [
      bindPlace("attention: qkv", options.qkv, maxRows * (numHeads + 2 * numKvHeads) * headSize * 4, 16),
      bindPlace("attention: kCache", options.kCache, cacheBytes, 16),
      bindPlace("attention: vCache", options.vCache, cacheBytes, 16),
      bindPlace("attention: blockTable", options.blockTable, numSlots * tableStride * 4, 4),
      bindPlace("attention: slots", options.slots, maxRows * 4, 4),
      bindPlace("attention: positions", options.positions, maxRows * 4, 4),
      bindPlace("attention: info", options.info, (countAt + 1) * 4, 4),
      bindPlace("attention: out", options.out, maxRows * numHeads * headSize * 4, 4),
    ],
    constants: packConstants([
      ...[numHeads, numKvHeads, headSize, blockTokens, tableStride, countAt, maxRows],
      { float: scale },
    ]),
    threads,
    threadsPerGroup: ATTENTION_THREADS,
  };
}

function checkShape(options: AttentionOptions): void {
  const { numHeads, numKvHeads, headSize, blockTokens, numBlocks, numSlots, tableStride } = options;
  checkType(options.cacheType);
  checkInteger("attention: numHeads", numHeads, 1, 2 ** 16);
  checkInteger("attention: numKvHeads", numKvHeads, 1, numHeads);
  if (numHeads % numKvHeads !== 0) {
    const message = `attention: numKvHeads ${numKvHeads} does not divide numHeads ${numHeads}`;
    throw new HeadraceError("BAD_OPTION", message);
  }
  checkInteger("attention: headSize", headSize, 16, MAX_HEAD_SIZE);
  if (headSize % 8 !== 0) {
    throw new HeadraceError("BAD_OPTION", `attention: headSize ${headSize} is no multiple of 8`);
  }
  checkInteger("attention: blockTokens", blockTokens, 1, 2 ** 16);
  checkInteger("attention: numBlocks", numBlocks, 0, MAX_THREADS);
  checkInteger("attention: numSlots", numSlots, 0, MAX_THREADS);
  checkInteger("attention: tableStride", tableStride, 0, MAX_THREADS);
  checkInteger("attention: countAt", options.countAt, 0, 2 ** 24);
  checkInteger("attention: maxRows", options.maxRows, 0, MAX_THREADS);
  if (Number.isFinite(options.scale)) return;
  throw new HeadraceError("BAD_OPTION", `attention: scale ${options.scale} is no finite number`);
}
