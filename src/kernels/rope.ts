/**
 * Rotary positions, and the write into a paged cache: queries are rotated where they are, keys on their way into the
 * cache, and values go there as they are.
 *
 * Element `j` of a head's first half makes a pair with element `j` of its second half, as in Hugging Face's models:
 * with the cosine c and the sine s of position and j, `(a, b)` becomes `(a c - b s, b c + a s)`, each product and sum
 * rounded to the nearest F32. The block `blockTable[slot, floor(position / blockTokens)]` of a cache holds the position.
 */
import type { KernelSource, Pipeline } from "../device/device.ts";
import type { DispatchCall } from "../device/requests.ts";
import { HeadraceError } from "../errors.ts";
import {
  bindPlace,
  ConstantReader,
  checkInteger,
  MAX_THREADS,
  type Place,
  packConstants,
} from "./constants.ts";
import { encoderOf } from "./elements.ts";
import {
  bindRows,
  checkThreads,
  checkType,
  FLOATS_TEXT,
  float32Of,
  ROWS_TEXT,
  rowsOf,
  type StepRows,
  typeConstant,
  wordsOf,
} from "./step.ts";
import { WEIGHT_BYTES, type WeightType } from "./weights.ts";

const TEXT = `${ROWS_TEXT}${FLOATS_TEXT}
struct RopeConstants {
  uint32_t numHeads; uint32_t numKvHeads; uint32_t headSize; uint32_t contextLength;
  uint32_t blockTokens; uint32_t numBlocks; uint32_t numSlots; uint32_t tableStride;
  uint32_t countAt; uint32_t maxRows;
};

HR_FN void put(HR_DEVICE uint8_t *cache, uint64_t index, float value) {
  if (TYPE == F32) hr_store<uint32_t>(cache + index * 4u, HR_BITS_OF(value));
  else hr_store<uint16_t>(cache + index * 2u, TYPE == F16 ? hr_to_half(value).bits : hr_to_bfloat(value).bits);
}

HR_KERNEL(rope_cache, HR_OUT(0, float, qkv), HR_IN(1, float, cosSin), HR_IN(2, uint32_t, positions),
          HR_IN(3, uint32_t, slots), HR_IN(4, uint32_t, blockTable), HR_IN(5, uint32_t, info),
          HR_OUT(6, uint8_t, kCache), HR_OUT(7, uint8_t, vCache), HR_CONSTANTS(8, RopeConstants, c)) {
  if (hr_thread >= hr_threads) return;
  uint32_t pairs = c.headSize / 2u, heads = c.numHeads + 2u * c.numKvHeads;
  uint32_t row = hr_thread / (heads * pairs), unit = hr_thread % (heads * pairs);
  if (row >= rows_of(info, c.countAt, c.maxRows)) return;
  uint32_t head = unit / pairs, j = unit % pairs;
  uint32_t position = positions[row], slot = slots[row], page = position / c.blockTokens, block = c.numBlocks;
  if (position < c.contextLength && slot < c.numSlots && page < c.tableStride) {
    block = blockTable[uint64_t(slot) * c.tableStride + page];
  }
  HR_DEVICE float *first = qkv + ((uint64_t(row) * heads + head) * c.headSize + j);
  HR_DEVICE float *second = first + pairs;
  if (block >= c.numBlocks) {
    if (head < c.numHeads) *first = *second = HR_FLOAT_OF(0x7fc00000u);
    return;
  }
  float a = *first, b = *second;
  if (head < c.numHeads + c.numKvHeads) {
    const HR_DEVICE float *turn = cosSin + (uint64_t(position) * pairs + j) * 2u;
    float cosine = turn[0], sine = turn[1];
    float x = a * cosine - b * sine, y = b * cosine + a * sine;
    a = x;
    b = y;
  }
  if (head < c.numHeads) {
    *first = a;
    *second = b;
    return;
  }
  bool isKey = head < c.numHeads + c.numKvHeads;
  uint32_t own = head - c.numHeads - (isKey ? 0u : c.numKvHeads), place = position % c.blockTokens;
  uint64_t at = ((uint64_t(block) * c.numKvHeads + own) * c.blockTokens + place) * c.headSize + j;
  put(isKey ? kCache : vCache, at, a);
  put(isKey ? kCache : vCache, at + pairs, b);
}
`;

export interface RopeCacheKernelOptions {
  /** Of both caches. */
  readonly cacheType: WeightType;
}

/**
 * Buffers: qkv (F32, `[rows, (numHeads + 2 * numKvHeads) * headSize]`: queries, keys and values of a row), cosSin (F32,
 * `[contextLength, headSize / 2, 2]`), positions and slots (uint32, one a row), blockTable (uint32, `[numSlots,
 * tableStride]`), info, kCache and vCache (`[numBlocks, numKvHeads, blockTokens, headSize]`). Of qkv the queries alone
 * are written to. A row whose position, slot or block is out of range writes to no cache, and its queries become NaN,
 * and so does what is computed of them. Throws `BAD_OPTION` for another type.
 */
export function ropeCacheKernel({ cacheType }: RopeCacheKernelOptions): KernelSource {
  checkType("rope_cache: cacheType", cacheType);
  return {
    name: "rope_cache",
    host: (buffers, constants) => ropeOnHost(cacheType, buffers, constants),
    text: TEXT,
    functionConstants: [typeConstant(cacheType)],
  };
}

function ropeOnHost(
  cacheType: WeightType,
  [qkv, cosSin, positions, slots, blockTable, info, kCache, vCache]: readonly Uint8Array[],
  constants: Uint8Array,
): void {
  const read = new ConstantReader(constants);
  const [numHeads, numKvHeads, headSize, contextLength] = [
    read.uint(),
    read.uint(),
    read.uint(),
    read.uint(),
  ];
  const [blockTokens, numBlocks, numSlots, stride] = [read.uint(), read.uint(), read.uint(), read.uint()];
  const rows = rowsOf(info!, read.uint(), read.uint());
  const width = (numHeads + 2 * numKvHeads) * headSize;
  const values = float32Of(qkv!, rows * width);
  const turns = float32Of(cosSin!, contextLength * headSize);
  const position = wordsOf(positions!, rows);
  const slot = wordsOf(slots!, rows);
  const table = wordsOf(blockTable!, numSlots * stride);
  const cacheLength = numBlocks * numKvHeads * blockTokens * headSize;
  const k = cacheOf(cacheType, kCache!, cacheLength, headSize);
  const v = cacheOf(cacheType, vCache!, cacheLength, headSize);
  for (let row = 0; row < rows; row++) {
    const at = row * width;
    const p = position[row]!;
    const page = Math.floor(p / blockTokens);
    const isKnown = p < contextLength && slot[row]! < numSlots && page < stride;
    const block = isKnown ? table[slot[row]! * stride + page]! : numBlocks;
    if (block >= numBlocks) {
      values.fill(Number.NaN, at, at + numHeads * headSize);
      continue;
    }
    for (let head = 0; head < numHeads; head++) {
      const query = at + head * headSize;
      rotate(values, query, turns, p * headSize, headSize / 2, values, query);
    }
    for (let head = 0; head < numKvHeads; head++) {
      const to = ((block * numKvHeads + head) * blockTokens + (p % blockTokens)) * headSize;
      const key = at + (numHeads + head) * headSize;
      rotate(values, key, turns, p * headSize, headSize / 2, k.floats, k.store === undefined ? to : 0);
      k.store?.(to);
      const value = key + numKvHeads * headSize;
      const first = v.store === undefined ? to : 0;
      for (let j = 0; j < headSize; j++) v.floats[first + j] = values[value + j]!;
      v.store?.(to);
    }
  }
}

/** One head of twice `pairs` elements from `values[at]` on, to `out[to]` on, which may be the same place. */
function rotate(
  values: Float32Array,
  at: number,
  turns: Float32Array,
  turn: number,
  pairs: number,
  out: Float32Array,
  to: number,
): void {
  const { fround } = Math;
  for (let j = 0; j < pairs; j++) {
    const a = values[at + j]!;
    const b = values[at + pairs + j]!;
    const cosine = turns[turn + 2 * j]!;
    const sine = turns[turn + 2 * j + 1]!;
    out[to + j] = fround(a * cosine) - fround(b * sine);
    out[to + pairs + j] = fround(b * cosine) + fround(a * sine);
  }
}

/** Where one head is written: a cache of F32 itself, or memory for one head, which `store` then narrows. */
interface HostCache {
  readonly floats: Float32Array;
  /** Moves the head to the cache's element `to`. */
  readonly store?: (to: number) => void;
}

function cacheOf(type: WeightType, cache: Uint8Array, length: number, headSize: number): HostCache {
  if (type === "F32") return { floats: float32Of(cache, length) };
  const floats = new Float32Array(headSize);
  const bits = new Uint32Array(floats.buffer);
  const encode = encoderOf(type, cache, length);
  const store = (to: number) => {
    for (let j = 0; j < headSize; j++) encode(to + j, bits[j]!);
  };
  return { floats, store };
}

export interface RopeCacheOptions extends RopeCacheKernelOptions, StepRows {
  /** F32 at a multiple of 4 bytes, as is `cosSin`. */
  readonly qkv: Place;
  /** The cosine and the sine of each position and pair. */
  readonly cosSin: Place;
  /** Words at a multiple of 4 bytes, as are the two that follow. */
  readonly positions: Place;
  readonly slots: Place;
  readonly blockTable: Place;
  /** At a multiple of the element's size, as is `vCache`. No two rows may be of the same slot and position. */
  readonly kCache: Place;
  readonly vCache: Place;
  readonly numHeads: number;
  readonly numKvHeads: number;
  /** Even. */
  readonly headSize: number;
  /** Positions that `cosSin` has. */
  readonly contextLength: number;
  /** Positions of a block of the cache. */
  readonly blockTokens: number;
  /** Blocks that each cache has. */
  readonly numBlocks: number;
  /** Slots that the table has. */
  readonly numSlots: number;
  /** Most blocks of a slot: words of a row of the table. */
  readonly tableStride: number;
}

/** A dispatch of {@link ropeCacheKernel} of the same type. Throws `BAD_OPTION`, `OUT_OF_RANGE`. */
export function ropeCacheCall(pipeline: Pipeline, options: RopeCacheOptions): DispatchCall {
  const { numHeads, numKvHeads, headSize, contextLength, blockTokens, numBlocks } = options;
  const { cacheType, numSlots, tableStride, countAt, maxRows } = options;
  checkShape(options);
  const info = bindRows("rope_cache", options);
  const heads = numHeads + 2 * numKvHeads;
  const size = WEIGHT_BYTES[cacheType];
  const cacheBytes = numBlocks * numKvHeads * blockTokens * headSize * size;
  return {
    pipeline,
    buffers: [
      bindPlace("rope_cache: qkv", options.qkv, maxRows * heads * headSize * 4, 4),
      bindPlace("rope_cache: cosSin", options.cosSin, contextLength * headSize * 4, 4),
      bindPlace("rope_cache: positions", options.positions, maxRows * 4, 4),
      bindPlace("rope_cache: slots", options.slots, maxRows * 4, 4),
      bindPlace("rope_cache: blockTable", options.blockTable, numSlots * tableStride * 4, 4),
      info,
      bindPlace("rope_cache: kCache", options.kCache, cacheBytes, size),
      bindPlace("rope_cache: vCache", options.vCache, cacheBytes, size),
    ],
    constants: packConstants([
      ...[numHeads, numKvHeads, headSize, contextLength],
      ...[blockTokens, numBlocks, numSlots, tableStride],
      ...[countAt, maxRows],
    ]),
    threads: checkThreads("rope_cache", maxRows, (maxRows * heads * headSize) / 2),
  };
}

function checkShape(options: RopeCacheOptions): void {
  const { cacheType, numHeads, numKvHeads, headSize } = options;
  checkType("rope_cache: cacheType", cacheType);
  checkInteger("rope_cache: numHeads", numHeads, 1, 2 ** 16);
  checkInteger("rope_cache: numKvHeads", numKvHeads, 1, 2 ** 16);
  checkInteger("rope_cache: headSize", headSize, 2, 2 ** 16);
  if (headSize % 2 !== 0) {
    throw new HeadraceError("BAD_OPTION", `rope_cache: headSize ${headSize} is odd, and has no halves`);
  }
  checkInteger("rope_cache: contextLength", options.contextLength, 0, MAX_THREADS);
  checkInteger("rope_cache: blockTokens", options.blockTokens, 1, 2 ** 16);
  checkInteger("rope_cache: numBlocks", options.numBlocks, 0, MAX_THREADS);
  checkInteger("rope_cache: numSlots", options.numSlots, 0, MAX_THREADS);
  checkInteger("rope_cache: tableStride", options.tableStride, 0, MAX_THREADS);
}
