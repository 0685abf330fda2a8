/** Types that weights and caches are stored in. Arithmetic over them is that of F32. */
import { decoderOf } from "./elements.ts";

/** In the order of the texts' numbers. */
export const WEIGHT_TYPES = ["F32", "F16", "BF16"] as const;
export type WeightType = (typeof WEIGHT_TYPES)[number];

/** Bytes of an element. */
export const WEIGHT_BYTES: Readonly<Record<WeightType, number>> = { F32: 4, F16: 2, BF16: 2 };

/** `count` elements from `start` on as floats: a view of them where they are F32, else a copy. */
export function floatsOf(type: WeightType, bytes: Uint8Array, start: number, count: number): Float32Array {
  const from = bytes.subarray(start * WEIGHT_BYTES[type]);
  if (type === "F32") return new Float32Array(from.buffer, from.byteOffset, count);
  const floats = new Float32Array(count);
  const bits = new Uint32Array(floats.buffer);
  const decode = decoderOf(type, from, count);
  for (let i = 0; i < count; i++) bits[i] = decode(i);
  return floats;
}
