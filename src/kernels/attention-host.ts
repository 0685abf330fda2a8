/** The host's attention: by WebAssembly, with positions of the cache copied to its memory chunk by chunk. */
import type { KernelSource } from "../device/device.ts";
import { type AttentionShape, shapeOf } from "./attention-reference.ts";
import { Simd } from "./wasm/simd.ts";
import { WEIGHT_BYTES, type WeightType } from "./weights.ts";

/** Positions of a chunk at most. The softmax goes from chunk to chunk, so results depend on it, and on the cache's blocks
 * where they are larger or do not fill it. */
const CHUNK = 128;
/** Rows of one slot that share what is copied. */
const MAX_ROWS = 256;
/** Floats behind a row of scores that are written without being one. */
const SLACK = 8;

/** The host form. A row's result has the same bits whatever other rows there are, and wherever blocks lie. */
export function attentionOnHost(cacheType: WeightType): NonNullable<KernelSource["host"]> {
  let attention: HostAttention | undefined;
  return (buffers, constants) => {
    attention ??= new HostAttention(cacheType);
    attention.run(buffers, shapeOf(constants, buffers[6]!));
  };
}

/** Where things lie in the memory, in bytes. */
interface Layout {
  /** Positions of a piece of a cache that is copied at once, and those of a chunk. */
  readonly piece: number;
  readonly chunk: number;
  /** In the copies, from a piece to the next, and from a head of a piece to the next. */
  readonly pieceBytes: number;
  readonly headBytes: number;
  /** Elements of a piece. */
  readonly pieceLength: number;
  /** Queries, `[kvHead, row, head of it, element]`. */
  readonly queries: number;
  /** Largest score and total, for each row and head. */
  readonly states: number;
  /** `[row, head, element]`. */
  readonly sums: number;
  /** `[row, head of a kvHead, position]`, so many bytes a head. */
  readonly scores: number;
  readonly scoreBytes: number;
  readonly keys: number;
  readonly values: number;
  /** A piece as it is stored. */
  readonly raw: number;
}

/** Rows `[first, first + count)`, all of one slot, and the blocks of that. */
interface Run {
  readonly first: number;
  readonly count: number;
  readonly blocks: Uint32Array;
  readonly positions: Uint32Array;
}

/** Positions `[start, start + count)` of a slot, as far as any row looks, of a chunk of `length`. */
interface Chunk {
  readonly start: number;
  readonly length: number;
  readonly count: number;
}

class HostAttention {
  readonly #type: WeightType;
  readonly #simd = new Simd();

  constructor(type: WeightType) {
    this.#type = type;
  }

  run(buffers: readonly Uint8Array[], shape: AttentionShape): void {
    const { rows, tableStride } = shape;
    const slots = wordsOf(buffers[4]!, 0, rows);
    const positions = wordsOf(buffers[5]!, 0, rows);
    for (let first = 0; first < rows; ) {
      let count = 1;
      while (count < MAX_ROWS && first + count < rows && slots[first + count] === slots[first]) count++;
      const blocks = wordsOf(buffers[3]!, slots[first]! * tableStride, tableStride);
      this.#attend(buffers, shape, {
        ...{ first, count, blocks },
        positions: positions.subarray(first, first + count),
      });
      first += count;
    }
  }

  #attend(buffers: readonly Uint8Array[], shape: AttentionShape, run: Run): void {
    const layout = this.#layoutFor(shape, run.count);
    this.#start(buffers[0]!, shape, run, layout);
    const end = 1 + run.positions.reduce((most, one) => Math.max(most, one), 0);
    for (let start = 0; start < end; ) {
      // Where blocks are longer than a chunk, chunks begin anew with each.
      const left = shape.blockTokens - (start % shape.blockTokens);
      const length = shape.blockTokens > CHUNK ? Math.min(CHUNK, left) : layout.chunk;
      const chunk = { start, length, count: Math.min(length, end - start) };
      this.#copy(buffers[1]!, shape, run, layout, chunk, layout.keys);
      this.#copy(buffers[2]!, shape, run, layout, chunk, layout.values);
      for (let kvHead = 0; kvHead < shape.numKvHeads; kvHead++) {
        this.#takeIn(shape, run, layout, chunk, kvHead);
      }
      start += length;
    }
    this.#finish(buffers[7]!, shape, run, layout);
  }

  #layoutFor(shape: AttentionShape, rows: number): Layout {
    const { numHeads, numKvHeads, headSize, blockTokens } = shape;
    const piece = Math.min(blockTokens, CHUNK);
    const pieces = Math.floor(CHUNK / piece);
    const headBytes = piece * headSize * 4;
    const pieceLength = numKvHeads * piece * headSize;
    const queryBytes = rows * numHeads * headSize * 4;
    const scoreBytes = (pieces * piece + SLACK) * 4;
    let at = 0;
    const place = (bytes: number) => {
      at += Math.ceil(bytes / 16) * 16;
      return at - Math.ceil(bytes / 16) * 16;
    };
    const layout = {
      ...{ piece, chunk: pieces * piece, pieceBytes: pieceLength * 4, headBytes, pieceLength, scoreBytes },
      queries: place(queryBytes),
      states: place(rows * numHeads * 8),
      sums: place(queryBytes),
      scores: place((rows * numHeads * scoreBytes) / numKvHeads),
      // Products are taken four positions at a time.
      keys: place(pieces * pieceLength * 4 + 3 * headSize * 4),
      values: place(pieces * pieceLength * 4),
      raw: place(this.#type === "F32" ? 0 : pieceLength * 2),
    };
    this.#simd.reserve(at);
    return layout;
  }

  /** Copies the queries, and sets sums and states to those of no position. */
  #start(qkv: Uint8Array, shape: AttentionShape, { first, count }: Run, layout: Layout): void {
    const { numHeads, numKvHeads, headSize } = shape;
    const { bytes, floats } = this.#simd;
    const shared = (numHeads / numKvHeads) * headSize * 4;
    const rowBytes = (numHeads + 2 * numKvHeads) * headSize * 4;
    for (let row = 0; row < count; row++) {
      for (let kvHead = 0; kvHead < numKvHeads; kvHead++) {
        const from = (first + row) * rowBytes + kvHead * shared;
        bytes.set(qkv.subarray(from, from + shared), layout.queries + (kvHead * count + row) * shared);
      }
    }
    floats.fill(0, layout.sums / 4, layout.sums / 4 + count * numHeads * headSize);
    for (let i = 0; i < count * numHeads; i++) {
      floats[layout.states / 4 + 2 * i] = Number.NEGATIVE_INFINITY;
      floats[layout.states / 4 + 2 * i + 1] = 0;
    }
  }

  /** Brings a chunk of a cache into the memory as floats: `[piece, kvHead, position, element]`. */
  #copy(
    cache: Uint8Array,
    shape: AttentionShape,
    { blocks }: Run,
    layout: Layout,
    chunk: Chunk,
    to: number,
  ): void {
    const { numKvHeads, headSize, blockTokens } = shape;
    const elementBytes = WEIGHT_BYTES[this.#type];
    for (let at = 0; at < chunk.count; at += layout.piece) {
      const block = blocks[Math.floor((chunk.start + at) / blockTokens)]!;
      const target = to + (at / layout.piece) * layout.pieceBytes;
      const first = block * numKvHeads * blockTokens * headSize * elementBytes;
      if (layout.piece === blockTokens) {
        this.#widen(cache, first, layout.pieceLength, target, layout);
        continue;
      }
      const inBlock = chunk.start % blockTokens;
      for (let kvHead = 0; kvHead < numKvHeads; kvHead++) {
        const from = first + (kvHead * blockTokens + inBlock) * headSize * elementBytes;
        this.#widen(cache, from, chunk.count * headSize, target + kvHead * layout.headBytes, layout);
      }
    }
  }

  #widen(cache: Uint8Array, from: number, count: number, to: number, layout: Layout): void {
    const { bytes, run } = this.#simd;
    const source = cache.subarray(from, from + count * WEIGHT_BYTES[this.#type]);
    bytes.set(source, this.#type === "F32" ? to : layout.raw);
    if (this.#type === "BF16") run.widenBfloats(layout.raw, to, count);
    if (this.#type === "F16") run.widenHalves(layout.raw, to, count);
  }

  /** A chunk's positions into the softmax of all query heads of one key and value head, for the rows that see them. */
  #takeIn(shape: AttentionShape, run: Run, layout: Layout, chunk: Chunk, kvHead: number): void {
    const { numHeads, numKvHeads, headSize, scale } = shape;
    const { run: simd } = this.#simd;
    const { count, positions } = run;
    const shared = numHeads / numKvHeads;
    const elementBytes = headSize * 4;
    const ofHead = kvHead * layout.headBytes;
    let first = 0;
    while (positions[first]! < chunk.start) first++;
    const queries = layout.queries + (kvHead * count + first) * shared * elementBytes;
    for (let at = 0; at < chunk.count; at += layout.piece) {
      const keys = layout.keys + (at / layout.piece) * layout.pieceBytes + ofHead;
      const width = Math.ceil(Math.min(layout.piece, chunk.count - at) / 4) * 4;
      const scores = layout.scores + first * shared * layout.scoreBytes + at * 4;
      simd.dots(queries, (count - first) * shared, keys, width, elementBytes, scores, layout.scoreBytes);
    }
    const skip = layout.pieceBytes - layout.headBytes;
    for (let row = first; row < count; row++) {
      const seen = Math.min(chunk.length, positions[row]! - chunk.start + 1);
      if (seen <= 0) continue;
      for (let head = 0; head < shared; head++) {
        const index = row * numHeads + kvHead * shared + head;
        const scores = layout.scores + (row * shared + head) * layout.scoreBytes;
        const [state, sums] = [layout.states + index * 8, layout.sums + index * elementBytes];
        const values = layout.values + ofHead;
        simd.attend(scores, seen, scale, state, sums, elementBytes, values, layout.piece, skip);
      }
    }
  }

  #finish(out: Uint8Array, shape: AttentionShape, { first, count }: Run, layout: Layout): void {
    const { numHeads, headSize } = shape;
    const { floats } = this.#simd;
    const length = count * numHeads * headSize;
    const results = new Float32Array(out.buffer, out.byteOffset + first * numHeads * headSize * 4, length);
    for (let i = 0; i < count * numHeads; i++) {
      const total = floats[layout.states / 4 + 2 * i + 1]!;
      for (let at = i * headSize; at < (i + 1) * headSize; at++) {
        results[at] = floats[layout.sums / 4 + at]! / total;
      }
    }
  }
}

function wordsOf(bytes: Uint8Array, first: number, count: number): Uint32Array {
  return new Uint32Array(bytes.buffer, bytes.byteOffset + first * 4, count);
}
