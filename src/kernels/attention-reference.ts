/** Attention as it is defined. */
import { ConstantReader } from "./constants.ts";
import { floatsOf, WEIGHT_BYTES, type WeightType } from "./weights.ts";

/** What a dispatch's constants hold. */
export interface AttentionShape {
  readonly numHeads: number;
  readonly numKvHeads: number;
  readonly headSize: number;
  readonly blockTokens: number;
  readonly tableStride: number;
  readonly rows: number;
  readonly scale: number;
}

/** Reads them; `rows` is what `info` says, at most the dispatch's `maxRows`. */
export function shapeOf(constants: Uint8Array, info: Uint8Array): AttentionShape {
  const read = new ConstantReader(constants);
  const numHeads = read.uint();
  const numKvHeads = read.uint();
  const headSize = read.uint();
  const blockTokens = read.uint();
  const tableStride = read.uint();
  const countAt = read.uint();
  const rows = Math.min(new Uint32Array(info.buffer, info.byteOffset, countAt + 1)[countAt]!, read.uint());
  return { numHeads, numKvHeads, headSize, blockTokens, tableStride, rows, scale: read.float() };
}

/** In double precision: slow, and what the other forms are held against. */
export function attentionReference(
  cacheType: WeightType,
  buffers: readonly Uint8Array[],
  constants: Uint8Array,
): void {
  const shape = shapeOf(constants, buffers[6]!);
  const { numHeads, numKvHeads, headSize, blockTokens, tableStride, rows, scale } = shape;
  const [qkv, kCache, vCache, table, slots, positions, , out] = buffers;
  const words = (bytes: Uint8Array, count: number) => new Uint32Array(bytes.buffer, bytes.byteOffset, count);
  const slotOf = words(slots!, rows);
  const positionOf = words(positions!, rows);
  const qStride = (numHeads + 2 * numKvHeads) * headSize;
  const queries = new Float32Array(qkv!.buffer, qkv!.byteOffset, rows * qStride);
  const results = new Float32Array(out!.buffer, out!.byteOffset, rows * numHeads * headSize);
  for (let row = 0; row < rows; row++) {
    const blocks = words(table!.subarray(slotOf[row]! * tableStride * 4), tableStride);
    for (let head = 0; head < numHeads; head++) {
      const kvHead = Math.floor((head * numKvHeads) / numHeads);
      const cached = (cache: Uint8Array, position: number) => {
        const block = blocks[Math.floor(position / blockTokens)]!;
        const at = (block * numKvHeads + kvHead) * blockTokens + (position % blockTokens);
        return floatsOf(cacheType, cache.subarray(at * headSize * WEIGHT_BYTES[cacheType]), 0, headSize);
      };
      const query = queries.subarray(row * qStride + head * headSize);
      const last = positionOf[row]!;
      const scores = new Float64Array(last + 1);
      for (let position = 0; position <= last; position++) {
        const key = cached(kCache!, position);
        let sum = 0;
        for (let d = 0; d < headSize; d++) sum += query[d]! * key[d]!;
        scores[position] = sum * scale;
      }
      const most = scores.reduce((a, b) => Math.max(a, b));
      const total = scores.reduce((sum, score) => sum + Math.exp(score - most), 0);
      const sums = new Float64Array(headSize);
      for (let position = 0; position <= last; position++) {
        const part = Math.exp(scores[position]! - most) / total;
        const value = cached(vCache!, position);
        for (let d = 0; d < headSize; d++) sums[d]! += part * value[d]!;
      }
      results.set(sums, (row * numHeads + head) * headSize);
    }
  }
}
