/** Small integers out of shards: bits, codes and list offsets, which are needed before bytes can be moved. */
import { HeadraceError } from "../errors.ts";
import type { ColumnLayout, DType } from "../types.ts";
import type { OpenShard } from "./shard.ts";

/** Expands `count` bits from bit `first` of the bitmap at `byteOffset` to bytes of 0 and 1 at `out[at…]`.
 * Bits are counted from the least significant, as Arrow lays them. */
export function readBits(
  shard: OpenShard,
  byteOffset: number,
  first: number,
  count: number,
  out: Uint8Array,
  at: number,
): void {
  if (count === 0) return;
  const start = Math.floor(first / 8);
  const bytes = shard.meta(byteOffset + start, Math.ceil((first + count) / 8) - start);
  let bit = first - start * 8;
  for (let i = 0; i < count; i++, bit++) out[at + i] = (bytes[bit >>> 3]! >>> (bit & 7)) & 1;
}

/** `count` integers of `dtype` from index `first` of the array at `byteOffset`. 64-bit ones that are no safe
 * integers come out as NaN, which no table has. Borrowed until the next read. */
export function readIntegers(
  shard: OpenShard,
  dtype: DType,
  byteOffset: number,
  first: number,
  count: number,
): ArrayLike<number> {
  const width = WIDTHS[dtype];
  if (width === undefined) throw new HeadraceError("UNSUPPORTED_TYPE", `${dtype} is not an integer type`);
  const bytes = shard.meta(byteOffset + first * width, count * width);
  if (width === 8) return wideIntegers(bytes, dtype === "U64");
  const aligned = bytes.byteOffset % width === 0 ? bytes : bytes.slice();
  const { buffer, byteOffset: start } = aligned;
  switch (dtype) {
    case "I8":
      return new Int8Array(buffer, start, count);
    case "U8":
      return aligned;
    case "I16":
      return new Int16Array(buffer, start, count);
    case "U16":
      return new Uint16Array(buffer, start, count);
    case "U32":
      return new Uint32Array(buffer, start, count);
    default:
      return new Int32Array(buffer, start, count);
  }
}

const WIDTHS: Partial<Record<DType, number>> = {
  I8: 1,
  U8: 1,
  I16: 2,
  U16: 2,
  I32: 4,
  U32: 4,
  I64: 8,
  U64: 8,
};

function wideIntegers(bytes: Uint8Array, unsigned: boolean): Float64Array {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const out = new Float64Array(bytes.byteLength / 8);
  for (let i = 0; i < out.length; i++) {
    const high = unsigned ? view.getUint32(i * 8 + 4, true) : view.getInt32(i * 8 + 4, true);
    const value = high * 2 ** 32 + view.getUint32(i * 8, true);
    out[i] = Number.isSafeInteger(value) ? value : Number.NaN;
  }
  return out;
}

/**
 * Writes the `count + 1` list offsets of rows `[row, row + count)` to `out` and checks them. Throws
 * `BAD_OFFSETS` where one decreases or leads outside the values; `itemBytes` is the size of one element,
 * `rowStart` the number of the layout's first row in messages.
 */
export function readOffsets(
  shard: OpenShard,
  column: string,
  layout: ColumnLayout,
  itemBytes: number,
  row: number,
  count: number,
  out: Float64Array,
  rowStart = 0,
): void {
  const { range, width } = layout.offsets!;
  const limit = itemBytes === 0 ? 0 : (layout.values.end - layout.values.start) / itemBytes;
  // Only unsigned ones reach past 2^31.
  const narrow = limit < 2 ** 31 ? "I32" : "U32";
  const offsets = readIntegers(shard, width === 4 ? narrow : "I64", range.start, row, count + 1);
  let previous = 0;
  for (let i = 0; i <= count; i++) {
    const offset = offsets[i]!;
    if (!(offset >= previous && offset <= limit)) {
      const what = `${shard.name}: column ${column}, row ${rowStart + row + Math.max(0, i - 1)}`;
      const place = i === 0 ? "start" : "end";
      const bound = i === 0 ? "0" : `its start, ${previous}`;
      const why = offset < previous ? `below ${bound}` : `outside the ${limit} elements there are`;
      throw new HeadraceError("BAD_OFFSETS", `${what}: its ${place}, offset ${offset}, is ${why}`);
    }
    out[i] = offset;
    previous = offset;
  }
}
