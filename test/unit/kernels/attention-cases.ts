/** Random caches and queries, and what attention has to come to. */
import { attentionCall, attentionKernel } from "../../../src/kernels/attention.ts";
import type { WeightType } from "../../../src/kernels/weights.ts";
import { randoms, stored } from "./matmul-cases.ts";
import type { Run } from "./runners.ts";

export interface AttentionCase {
  readonly cacheType: WeightType;
  readonly numHeads: number;
  readonly numKvHeads: number;
  readonly headSize: number;
  readonly blockTokens: number;
  /** Of each row: its slot and its position. */
  readonly rows: readonly (readonly [slot: number, position: number])[];
  readonly maxRows: number;
  /** What info says of the rows, where that is too many. */
  readonly claimed?: number;
  /** What scores are multiplied with; 1 / sqrt(headSize) without. */
  readonly scale?: number;
  readonly seed?: number;
  /** Slots' blocks come from the other end of the cache. */
  readonly isReversed?: boolean;
}

/** Keys, values and queries are the same for the same seed, wherever the blocks lie and whichever rows there are. */
export function operands(one: AttentionCase) {
  const { cacheType, numHeads, numKvHeads, headSize, blockTokens, rows, maxRows, seed = 1 } = one;
  const numSlots = 1 + Math.max(...rows.map(([slot]) => slot));
  const lengths = Array.from({ length: numSlots }, (_, slot) =>
    Math.max(0, ...rows.map(([of, position]) => (of === slot ? position + 1 : 0))),
  );
  const tableStride = Math.ceil(Math.max(...lengths) / blockTokens) + 1;
  // A block more than are used, which holds nothing.
  const used = lengths.reduce((sum, length) => sum + Math.ceil(length / blockTokens), 0);
  const numBlocks = used + 1;
  const table = new Uint32Array(numSlots * tableStride).fill(numBlocks - 1);
  let next = 0;
  const elementBytes = cacheType === "F32" ? 4 : 2;
  const cacheBytes = numBlocks * numKvHeads * blockTokens * headSize * elementBytes;
  const caches = [0, 1].map(() => new Uint8Array(new ArrayBuffer(cacheBytes)).fill(0xff));
  const contents = lengths.map((length, slot) =>
    [0, 1].map((which) =>
      stored(cacheType, length * numKvHeads * headSize, randoms(seed * 100 + slot * 2 + which)),
    ),
  );
  for (const [slot, length] of lengths.entries()) {
    for (let position = 0; position < length; position++) {
      const at = slot * tableStride + Math.floor(position / blockTokens);
      if (position % blockTokens === 0) table[at] = one.isReversed ? used - 1 - next++ : next++;
      for (let head = 0; head < numKvHeads; head++) {
        const row = (table[at]! * numKvHeads + head) * blockTokens + (position % blockTokens);
        const from = (position * numKvHeads + head) * headSize * elementBytes;
        for (const which of [0, 1]) {
          const bytes = contents[slot]![which]!.bytes.subarray(from, from + headSize * elementBytes);
          caches[which]!.set(bytes, row * headSize * elementBytes);
        }
      }
    }
  }
  const stride = (numHeads + 2 * numKvHeads) * headSize;
  const qkv = new Float32Array(maxRows * stride).fill(Number.NaN);
  for (const [row, [slot, position]] of rows.entries()) {
    const query = stored(
      "F32",
      numHeads * headSize,
      randoms(seed * 100 + 50 + slot * 1000 + position),
    ).values;
    qkv.set(query, row * stride);
  }
  return { numSlots, tableStride, numBlocks, table, caches, contents, stride, qkv };
}

/** What comes out, by `run`. */
export async function attentionOf(run: Run, one: AttentionCase): Promise<Float32Array> {
  const { numSlots, tableStride, numBlocks, table, caches, qkv } = operands(one);
  const { rows, maxRows, numHeads, headSize, scale = 1 / Math.sqrt(headSize) } = one;
  const words = (values: readonly number[]) => {
    const padded = new Uint32Array(maxRows).fill(0xffffffff);
    padded.set(values);
    return padded;
  };
  const out = new Float32Array(maxRows * numHeads * headSize).fill(Number.NaN);
  const args = [
    qkv,
    caches[0]!,
    caches[1]!,
    table,
    words(rows.map(([slot]) => slot)),
    words(rows.map(([, position]) => position)),
    Uint32Array.of(0xffff, one.claimed ?? rows.length),
    out,
  ].map((array) => ({ bytes: new Uint8Array(array.buffer.slice(0)) }));
  const after = await run(attentionKernel(one), args, (pipeline, places) => {
    const [q, kCache, vCache, blockTable, slots, positions, info, to] = places;
    return attentionCall(pipeline, {
      ...one,
      ...{ qkv: q!, kCache: kCache!, vCache: vCache!, blockTable: blockTable!, slots: slots! },
      ...{ positions: positions!, info: info!, out: to! },
      ...{ numBlocks, numSlots, tableStride, scale, countAt: 1 },
    });
  });
  for (const [i, { bytes }] of args.slice(0, -1).entries()) {
    if (Buffer.compare(bytes, after[i]!) !== 0) throw new Error(`argument ${i} was written to`);
  }
  const bytes = after.at(-1)!;
  return new Float32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
}

/** Says how a result is wrong, against double precision; undefined where it is right. */
export function wrongness(one: AttentionCase, got: Float32Array): string | undefined {
  const { contents, qkv, stride } = operands(one);
  const { rows, numHeads, numKvHeads, headSize, maxRows, scale = 1 / Math.sqrt(headSize) } = one;
  const unit = 2 ** -24;
  for (const [row, [slot, position]] of rows.entries()) {
    const [keys, values] = contents[slot]!;
    for (let head = 0; head < numHeads; head++) {
      const kvHead = Math.floor((head * numKvHeads) / numHeads);
      const at = (of: number) => (of * numKvHeads + kvHead) * headSize;
      let scoreError = 0;
      const scores = Array.from({ length: position + 1 }, (_, of) => {
        let sum = 0;
        let size = 0;
        for (let d = 0; d < headSize; d++) {
          const product = qkv[row * stride + head * headSize + d]! * keys!.values[at(of) + d]!;
          sum += product;
          size += Math.abs(product);
        }
        // Sums in single precision, the scale, and the difference from the largest score.
        scoreError = Math.max(
          scoreError,
          (headSize + 4) * unit * size * scale + 2 * unit * Math.abs(sum * scale),
        );
        return sum * scale;
      });
      const most = scores.reduce((a, b) => Math.max(a, b));
      const parts = scores.map((score) => Math.exp(score - most));
      const total = parts.reduce((sum, part) => sum + part, 0);
      // Of a part: twice the scores' error, the exponential's, and those of the factors that keep sums up to date.
      const chunks = Math.ceil((position + 1) / 32);
      const partError = Math.expm1(2 * scoreError) + (8 + 6 * chunks) * unit;
      for (let d = 0; d < headSize; d++) {
        let sum = 0;
        let size = 0;
        for (let of = 0; of <= position; of++) {
          const product = (parts[of]! / total) * values!.values[at(of) + d]!;
          sum += product;
          size += Math.abs(product);
        }
        const bound = size * (2 * partError + 2 * (position + 12) * unit);
        const index = (row * numHeads + head) * headSize + d;
        if (Math.abs(got[index]! - sum) <= bound) continue;
        return `row ${row}, head ${head}, element ${d} is ${got[index]}, not ${sum} within ${bound}`;
      }
    }
  }
  const written = got.subarray(rows.length * numHeads * headSize, maxRows * numHeads * headSize);
  return written.every(Number.isNaN) ? undefined : "a row beyond the count was written";
}
