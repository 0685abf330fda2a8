/** The types of elements that `convert` knows, and how the host reads and writes them. */
import { floatBitsToBfloat, floatBitsToHalf, halfToFloatBits } from "./floats.ts";

/** What can be converted, in the order of the text's numbers, with bytes of an element. */
export const ELEMENT_BYTES = {
  F32: 4,
  F16: 2,
  BF16: 2,
  I8: 1,
  U8: 1,
  I16: 2,
  U16: 2,
  I32: 4,
  U32: 4,
} as const;
export type ConvertSource = keyof typeof ELEMENT_BYTES;
/** What it can become. */
export const TARGETS = ["F32", "F16", "BF16", "I8", "U8", "I32"] as const;
export type ConvertTarget = (typeof TARGETS)[number];

type IntegerView = new (
  buffer: ArrayBufferLike,
  byteOffset: number,
  length: number,
) => { [index: number]: number };

/** Gives element `i` as the bits of an F32: a number would lose what is in a NaN. */
export function decoderOf(
  type: ConvertSource,
  { buffer, byteOffset }: Uint8Array,
  count: number,
): (i: number) => number {
  if (type === "F32") {
    const bits = new Uint32Array(buffer, byteOffset, count);
    return (i) => bits[i]!;
  }
  if (type === "F16" || type === "BF16") {
    const bits = new Uint16Array(buffer, byteOffset, count);
    return type === "F16" ? (i) => halfToFloatBits(bits[i]!) : (i) => (bits[i]! << 16) >>> 0;
  }
  const View = {
    I8: Int8Array,
    U8: Uint8Array,
    I16: Int16Array,
    U16: Uint16Array,
    I32: Int32Array,
    U32: Uint32Array,
  };
  const integers = new (View[type] as IntegerView)(buffer, byteOffset, count);
  const { float, word } = floatBits();
  return (i) => {
    float[0] = integers[i]!;
    return word[0]!;
  };
}

/** Takes element `i` as the bits of an F32. */
export function encoderOf(
  type: ConvertTarget,
  { buffer, byteOffset }: Uint8Array,
  count: number,
): (i: number, bits: number) => void {
  if (type === "F32") {
    const out = new Uint32Array(buffer, byteOffset, count);
    return (i, bits) => {
      out[i] = bits;
    };
  }
  if (type === "F16" || type === "BF16") {
    const out = new Uint16Array(buffer, byteOffset, count);
    const narrow = type === "F16" ? floatBitsToHalf : floatBitsToBfloat;
    return (i, bits) => {
      out[i] = narrow(bits);
    };
  }
  const View = { I8: Int8Array, U8: Uint8Array, I32: Int32Array };
  const [least, most] = { I8: [-128, 127], U8: [0, 255], I32: [-(2 ** 31), 2 ** 31 - 1] }[type] as [
    number,
    number,
  ];
  const out = new (View[type] as IntegerView)(buffer, byteOffset, count);
  const { float, word } = floatBits();
  return (i, bits) => {
    word[0] = bits;
    const value = float[0]!;
    out[i] = Number.isNaN(value) ? 0 : Math.min(most, Math.max(least, roundedToEven(value)));
  };
}

function roundedToEven(value: number): number {
  const below = Math.floor(value);
  const rest = value - below;
  if (rest !== 0.5) return rest < 0.5 ? below : below + 1;
  return below % 2 === 0 ? below : below + 1;
}

/** Takes and gives the bits of an F32: times `scale`, plus `bias`, each rounded to the nearest. */
export function scaledBy(scale: number, bias: number): (bits: number) => number {
  const { float, word } = floatBits();
  return (bits) => {
    word[0] = bits;
    // Both operations are exact enough in a double to be rounded once.
    float[0] = Math.fround(float[0]! * scale) + bias;
    return word[0]!;
  };
}

/** One F32 and its bits. */
function floatBits(): { readonly float: Float32Array; readonly word: Uint32Array } {
  const float = new Float32Array(1);
  return { float, word: new Uint32Array(float.buffer) };
}
