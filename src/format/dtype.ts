/** Element types: their sizes, the checked arithmetic of shapes, and the JavaScript views that show them. */
import { HeadraceError } from "../errors.ts";
import type { DType, Shape, TypedArray } from "../types.ts";

/** Bits of one element, in the order of the safetensors format's enumeration (least aligned first). */
const BITS: Readonly<Record<DType, number>> = {
  BOOL: 8,
  F4: 4,
  F6_E2M3: 6,
  F6_E3M2: 6,
  U8: 8,
  I8: 8,
  F8_E5M2: 8,
  F8_E4M3: 8,
  F8_E8M0: 8,
  F8_E4M3FNUZ: 8,
  F8_E5M2FNUZ: 8,
  I16: 16,
  U16: 16,
  F16: 16,
  BF16: 16,
  I32: 32,
  U32: 32,
  F32: 32,
  C64: 64,
  F64: 64,
  I64: 64,
  U64: 64,
};

type ViewConstructor = new (buffer: ArrayBuffer, byteOffset: number, length: number) => TypedArray;

/** What is absent here is shown as raw bytes. */
const VIEWS: Partial<Record<DType, ViewConstructor & { readonly BYTES_PER_ELEMENT: number }>> = {
  I8: Int8Array,
  I16: Int16Array,
  U16: Uint16Array,
  F16: Float16Array,
  BF16: Uint16Array,
  I32: Int32Array,
  U32: Uint32Array,
  F32: Float32Array,
  C64: Float32Array,
  F64: Float64Array,
  I64: BigInt64Array,
  U64: BigUint64Array,
};

/** All 22 dtypes, in the order of the safetensors format's enumeration: writers place the last ones first. */
export const DTYPES = Object.keys(BITS) as readonly DType[];

/** Whether `name` is a dtype's name, letter for letter. */
export function isDType(name: string): name is DType {
  return Object.hasOwn(BITS, name);
}

/** Bits of one element: 4, 6, 8, 16, 32 or 64. C64 is two 32-bit floats. */
export function dtypeBits(dtype: DType): number {
  return BITS[dtype];
}

/** Bytes on whose multiples a {@link typedView} of `dtype` must start: 1, 2, 4 or 8. */
export function itemAlignment(dtype: DType): number {
  return VIEWS[dtype]?.BYTES_PER_ELEMENT ?? 1;
}

/**
 * The product of `shape`; 1 for a scalar.
 *
 * Multiplied in order with a check at each step, so that a product past 2^53-1 is refused also where a later
 * dimension is 0. Throws `TENSOR_OVERFLOW`, or `BAD_OPTION` for a dimension that is negative or no integer.
 */
export function numElements(shape: Shape): number {
  let product = 1;
  for (const dim of shape) {
    if (!Number.isSafeInteger(dim) || dim < 0) throw badDimension(dim, shape);
    product *= dim;
    if (product > Number.MAX_SAFE_INTEGER) throw overflow(shape);
  }
  return product;
}

/**
 * Bytes of a tensor, packed without gaps.
 *
 * Throws `TENSOR_OVERFLOW` past 2^53-1, `TENSOR_MISALIGNED` where elements of 4 or 6 bits do not fill whole
 * bytes, and `BAD_OPTION` for a dimension that is negative or no integer.
 */
export function byteLengthOf(dtype: DType, shape: Shape): number {
  const count = numElements(shape);
  const bits = BITS[dtype];
  if (bits % 8 === 0) {
    const byteLength = count * (bits / 8);
    if (byteLength > Number.MAX_SAFE_INTEGER) throw overflow(shape, dtype);
    return byteLength;
  }
  const totalBits = count * bits;
  if (totalBits > Number.MAX_SAFE_INTEGER) throw overflow(shape, dtype);
  if (totalBits % 8 !== 0) {
    throw new HeadraceError(
      "TENSOR_MISALIGNED",
      `shape ${shapeText(shape)} of ${dtype} makes ${totalBits} bits, which are not whole bytes`,
    );
  }
  return totalBits / 8;
}

/**
 * Shows `[byteOffset, byteOffset + byteLength)` of `buffer` as elements of `dtype`, without a copy.
 *
 * BF16 comes as the raw bits in a Uint16Array, C64 as interleaved real and imaginary parts in a Float32Array;
 * BOOL, the 8-bit floats and all types below 8 bits come as a Uint8Array of raw bytes. The view borrows
 * `buffer`. Throws `OUT_OF_RANGE` where the range leaves the buffer, or its start or length is no multiple of
 * {@link itemAlignment}.
 */
export function typedView(
  dtype: DType,
  buffer: ArrayBuffer,
  byteOffset: number,
  byteLength: number,
): TypedArray {
  const View = VIEWS[dtype] ?? Uint8Array;
  const item = View.BYTES_PER_ELEMENT;
  const whole = Number.isSafeInteger(byteOffset) && Number.isSafeInteger(byteLength);
  const inside = byteOffset >= 0 && byteLength >= 0 && byteOffset <= buffer.byteLength - byteLength;
  if (!whole || !inside || byteOffset % item !== 0 || byteLength % item !== 0) {
    throw new HeadraceError(
      "OUT_OF_RANGE",
      `no view of ${dtype} over ${byteLength} bytes at ${byteOffset} of a buffer of ${buffer.byteLength}: ` +
        `both must be multiples of ${item} and lie inside it`,
    );
  }
  return new View(buffer, byteOffset, byteLength / item);
}

/** A shape for messages: `[2,3]`, cut after 8 dimensions. */
export function shapeText(shape: Shape): string {
  return shape.length <= 8 ? `[${shape.join(",")}]` : `[${shape.slice(0, 8).join(",")},…]`;
}

function badDimension(dim: number, shape: Shape): HeadraceError {
  if (Number.isInteger(dim) && dim > 0) return overflow(shape);
  if (dim === Number.POSITIVE_INFINITY) return overflow(shape);
  return new HeadraceError(
    "BAD_OPTION",
    `dimension ${dim} of shape ${shapeText(shape)} is not a non-negative integer`,
  );
}

function overflow(shape: Shape, dtype?: DType): HeadraceError {
  const of = dtype === undefined ? "elements" : `bytes of ${dtype}`;
  return new HeadraceError(
    "TENSOR_OVERFLOW",
    `shape ${shapeText(shape)} counts more ${of} than ${Number.MAX_SAFE_INTEGER}`,
  );
}
