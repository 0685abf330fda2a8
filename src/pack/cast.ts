/**
 * Numbers of one dtype as numbers of another.
 *
 * - Into F16, BF16, F32 and F64: the nearest, ties to even, rounded once; what is too large becomes infinite, NaN stays NaN.
 * - Into integers: the nearest, ties to even. What does not fit is reported, or becomes the nearest that does (NaN 0).
 * - Into BOOL: 0 for zero, 1 for all else, NaN too.
 */
import { typedView } from "../format/dtype.ts";
import type { DType, TypedArray } from "../types.ts";

const BYTES = {
  BOOL: 1,
  U8: 1,
  I8: 1,
  I16: 2,
  U16: 2,
  F16: 2,
  BF16: 2,
  I32: 4,
  U32: 4,
  F32: 4,
  F64: 8,
  I64: 8,
  U64: 8,
} as const;

/** Dtypes that can be cast. */
export type CastType = keyof typeof BYTES;

const LIMITS: Partial<Record<CastType, readonly [least: number, past: number]>> = {
  U8: [0, 2 ** 8],
  I8: [-(2 ** 7), 2 ** 7],
  I16: [-(2 ** 15), 2 ** 15],
  U16: [0, 2 ** 16],
  I32: [-(2 ** 31), 2 ** 31],
  U32: [0, 2 ** 32],
  I64: [-(2 ** 63), 2 ** 63],
  U64: [0, 2 ** 64],
};

/** Elements in hand at once: 64 KiB of doubles stay in a core's nearest cache but one. */
const BLOCK = 8192;
/** From here on, whole numbers have doubles of their own no more. */
const EXACT = 2 ** 53;

/** All dtypes that {@link Caster} takes. */
export const CAST_TYPES = Object.keys(BYTES) as readonly CastType[];

export function isCastType(dtype: string): dtype is CastType {
  return Object.hasOwn(BYTES, dtype);
}

/** Bytes of one element. */
export function castBytes(dtype: CastType): number {
  return BYTES[dtype];
}

/** The first element that an integer type cannot hold: its index, and its value for a message. */
export interface Misfit {
  readonly index: number;
  readonly value: string;
}

/** Casts arrays from one dtype to another, a block of elements at a time. Holds 192 KiB. */
export class Caster {
  readonly from: CastType;
  readonly to: CastType;
  readonly #saturate: boolean;
  readonly #block = new Float64Array(BLOCK);
  readonly #floats = new Float32Array(BLOCK);
  readonly #bits = new Uint32Array(this.#floats.buffer);

  /** With `saturate`, what does not fit an integer type becomes the nearest that does. */
  constructor(from: CastType, to: CastType, saturate = false) {
    this.from = from;
    this.to = to;
    this.#saturate = saturate;
  }

  /**
   * Casts all whole elements of `source`, little-endian at any offset, into `target`, which starts on a multiple of its
   * elements and has room for as many. Returns the first element that does not fit; then `target` is undefined.
   */
  cast(source: Uint8Array, target: Uint8Array): Misfit | undefined {
    const { from, to } = this;
    const count = Math.floor(source.length / BYTES[from]);
    if (from === to) {
      target.set(source.subarray(0, count * BYTES[from]));
      return undefined;
    }
    const input = viewOf(from, aligned(source, BYTES[from]), count);
    const output = viewOf(to, target, count);
    if ((from === "I64" && to === "U64") || (from === "U64" && to === "I64")) {
      return this.#recast(input as BigUint64Array, output as BigUint64Array);
    }
    for (let at = 0; at < count; at += BLOCK) {
      const length = Math.min(BLOCK, count - at);
      this.#decode(input, at, length);
      const misfit = this.#encode(output, at, length);
      if (misfit !== undefined) return { index: at + misfit, value: valueText(from, input, at + misfit) };
    }
    return undefined;
  }

  /** Signed to unsigned and back: the same bits, where the sign allows it. */
  #recast(input: BigInt64Array | BigUint64Array, output: BigInt64Array | BigUint64Array): Misfit | undefined {
    const highest = this.to === "I64" ? 2n ** 63n - 1n : 0n;
    for (let i = 0; i < input.length; i++) {
      const value = input[i]!;
      const fits = this.to === "I64" ? value <= highest : value >= 0n;
      if (!fits && !this.#saturate) return { index: i, value: String(value) };
      output[i] = fits ? value : highest;
    }
    return undefined;
  }

  #decode(input: TypedArray, at: number, length: number): void {
    const block = this.#block;
    const { from } = this;
    if (from === "BF16") {
      const bits = this.#bits;
      for (let i = 0; i < length; i++) bits[i] = (input[at + i] as number) << 16;
      block.set(length === BLOCK ? this.#floats : this.#floats.subarray(0, length));
    } else if (from === "I64" || from === "U64") {
      this.#decodeLongs(input, at, length);
    } else {
      block.set(input.subarray(at, at + length) as Float64Array);
    }
  }

  /** Past 2^53 a double drops bits. Where a shorter float comes next, the last bit kept says whether any were dropped, so
   * that the second rounding is as good as one alone. */
  #decodeLongs(input: TypedArray, at: number, length: number): void {
    const words = new Uint32Array(input.buffer as ArrayBuffer, input.byteOffset + 8 * at, 2 * length);
    const signed = this.from === "I64";
    const sticky = this.to === "F32" || this.to === "F16" || this.to === "BF16";
    for (let i = 0; i < length; i++) {
      const low = words[2 * i]!;
      const high = signed ? words[2 * i + 1]! | 0 : words[2 * i + 1]!;
      let value = high * 2 ** 32 + low;
      if (sticky && Math.abs(value) >= EXACT && (low & 0x7ff) !== 0) {
        value = high * 2 ** 32 + (((low & ~0x7ff) | 0x800) >>> 0);
      }
      this.#block[i] = value;
    }
  }

  /** Index in the block of the first element that does not fit. */
  #encode(output: TypedArray, at: number, length: number): number | undefined {
    const block = this.#block;
    const { to } = this;
    const limits = LIMITS[to];
    if (limits !== undefined) {
      const misfit = roundAll(block, length, limits[0], limits[1], this.#saturate);
      if (misfit >= 0) return misfit;
      if (to === "I64" || to === "U64") writeLongs(block, output, at, length);
      else output.set(block.subarray(0, length) as never, at);
    } else if (to === "BOOL") {
      for (let i = 0; i < length; i++) output[at + i] = block[i] === 0 ? 0 : 1;
    } else if (to === "BF16") {
      this.#encodeBfloats(output as Uint16Array, at, length);
    } else {
      output.set(block.subarray(0, length) as never, at);
    }
    return undefined;
  }

  /** By way of F32, whose own rounding decides a tie that was none. */
  #encodeBfloats(output: Uint16Array, at: number, length: number): void {
    const block = this.#block;
    const floats = this.#floats;
    const bits = this.#bits;
    floats.set(length === BLOCK ? block : block.subarray(0, length));
    for (let i = 0; i < length; i++) {
      const word = bits[i]!;
      if ((word & 0x7fffffff) > 0x7f800000) {
        output[at + i] = (word >>> 16) | 0x40;
        continue;
      }
      let half = 0x7fff + ((word >>> 16) & 1);
      if ((word & 0xffff) === 0x8000 && floats[i] !== block[i]) {
        half = Math.abs(block[i]!) > Math.abs(floats[i]!) ? 0x8000 : 0x7fff;
      }
      output[at + i] = (word + half) >>> 16;
    }
  }
}

/** Rounds in place; returns the index of the first that lies outside `[least, past)`, or -1. */
function roundAll(
  block: Float64Array,
  length: number,
  least: number,
  past: number,
  saturate: boolean,
): number {
  for (let i = 0; i < length; i++) {
    const value = block[i]!;
    let whole = Math.floor(value);
    const rest = value - whole;
    if (rest > 0.5 || (rest === 0.5 && whole % 2 !== 0)) whole++;
    if (!(whole >= least && whole < past)) {
      if (!saturate) return i;
      whole = Number.isNaN(whole) ? 0 : whole < least ? least : past > EXACT ? past : past - 1;
    }
    block[i] = whole;
  }
  return -1;
}

/** Whole numbers as two words each; only saturation leaves one that is `past` its type's largest. */
function writeLongs(block: Float64Array, output: TypedArray, at: number, length: number): void {
  const words = new Uint32Array(output.buffer as ArrayBuffer, output.byteOffset + 8 * at, 2 * length);
  const past = output instanceof BigInt64Array ? 2 ** 63 : 2 ** 64;
  for (let i = 0; i < length; i++) {
    const value = block[i]!;
    if (value >= past) {
      words[2 * i] = 0xffffffff;
      words[2 * i + 1] = past === 2 ** 63 ? 0x7fffffff : 0xffffffff;
      continue;
    }
    const high = Math.floor(value / 2 ** 32);
    words[2 * i] = value - high * 2 ** 32;
    words[2 * i + 1] = high;
  }
}

function viewOf(dtype: CastType, bytes: Uint8Array, count: number): TypedArray {
  return typedView(dtype as DType, bytes.buffer as ArrayBuffer, bytes.byteOffset, count * BYTES[dtype]);
}

function aligned(bytes: Uint8Array, item: number): Uint8Array {
  return bytes.byteOffset % item === 0 ? bytes : bytes.slice();
}

/** An element as people write it. */
function valueText(dtype: CastType, input: TypedArray, index: number): string {
  if (dtype !== "BF16") return String(input[index]);
  return String(new Float32Array(Uint32Array.of((input[index] as number) << 16).buffer)[0]);
}
