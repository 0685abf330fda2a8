/** Builds safetensors files for tests, right and wrong ones, and catches what reading them throws. */
import { byteLengthOf } from "../../../src/format/dtype.ts";
import { describeSafetensors } from "../../../src/format/safetensors.ts";
import type { TensorSpec } from "../../../src/format/safetensors-header.ts";
import type { DType, Shape, ShardDescription } from "../../../src/types.ts";

/** A file with this header, word for word, and `dataLength` zeros behind it. */
export function fileWith(header: string | Uint8Array, dataLength = 0): Uint8Array {
  const bytes = typeof header === "string" ? new TextEncoder().encode(header) : header;
  const file = new Uint8Array(8 + bytes.length + dataLength);
  new DataView(file.buffer).setBigUint64(0, BigInt(bytes.length), true);
  file.set(bytes, 8);
  return file;
}

/** The text of one entry. */
export function entry(
  name: string,
  dtype: string,
  shape: readonly number[],
  start: number,
  end: number,
): string {
  return `${JSON.stringify(name)}:{"dtype":"${dtype}","shape":[${shape}],"data_offsets":[${start},${end}]}`;
}

/** A file of U8 tensors, or others, back to back in the order given. */
export function fileOfTensors(tensors: readonly (readonly [string, DType, Shape])[]): Uint8Array {
  let at = 0;
  const entries = tensors.map(([name, dtype, shape]) => {
    const start = at;
    at += byteLengthOf(dtype, shape);
    return entry(name, dtype, shape, start, at);
  });
  return fileWith(`{${entries.join(",")}}`, at);
}

export function spec(name: string, dtype: DType, shape: Shape): TensorSpec {
  return { name, dtype, shape, byteLength: byteLengthOf(dtype, shape) };
}

export function describeBytes(file: Uint8Array): ShardDescription {
  return describeSafetensors((offset, length) => file.subarray(offset, offset + length), file.length);
}
