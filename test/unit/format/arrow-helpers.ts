/** What the Arrow tests share: readers over bytes, rows taken through a layout, and patches of metadata. */
import { expect } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import * as arrow from "apache-arrow";
import { Footer } from "apache-arrow/fb/footer";
import { Message } from "apache-arrow/fb/message";
import { RecordBatch } from "apache-arrow/fb/record-batch";
import { HeadraceError } from "../../../src/errors.ts";
import { describeArrow } from "../../../src/format/arrow.ts";
import { MetadataBuffer } from "../../../src/format/arrow-metadata.ts";
import type {
  ByteRange,
  ByteReader,
  ColumnLayout,
  ColumnSchema,
  DType,
  ShardDescription,
} from "../../../src/types.ts";

/** A reader that fails as files do, and on every call outside the file. */
export function readerOf(bytes: Uint8Array): ByteReader {
  return (byteOffset, byteLength) => {
    if (!Number.isSafeInteger(byteOffset) || !Number.isSafeInteger(byteLength))
      throw new Error(`read of ${byteLength} bytes at ${byteOffset}`);
    if (byteOffset < 0 || byteLength < 0 || byteOffset + byteLength > bytes.length)
      throw new Error(`read of [${byteOffset}, ${byteOffset + byteLength}) of ${bytes.length} bytes`);
    // A copy: what the parser keeps or changes must not be the file.
    return bytes.slice(byteOffset, byteOffset + byteLength);
  };
}

export function describeBytes(bytes: Uint8Array, columns?: readonly string[]): ShardDescription {
  return describeArrow(readerOf(bytes), bytes.length, columns);
}

/** Describes bytes that must be refused, and returns the error. */
export function refusal(bytes: Uint8Array, columns?: readonly string[]): HeadraceError {
  let error: unknown;
  try {
    describeBytes(bytes, columns);
  } catch (caught) {
    error = caught;
  }
  expect(error).toBeInstanceOf(HeadraceError);
  const failure = error as HeadraceError;
  expect(failure.message).not.toContain("\n");
  expect(failure.message.length).toBeLessThan(500);
  return failure;
}

const BITS: Partial<Record<DType, number>> = {
  U8: 8,
  I8: 8,
  U16: 16,
  I16: 16,
  F16: 16,
  U32: 32,
  I32: 32,
  F32: 32,
  U64: 64,
  I64: 64,
  F64: 64,
};

/** The rows of a column as hex text of their bytes, null where missing; bools are one byte each. */
export function rowsOf(
  bytes: Uint8Array,
  numRows: number,
  schema: ColumnSchema,
  layout: ColumnLayout,
): (string | null)[] {
  const rows: (string | null)[] = [];
  const entries = (layout.dictionary ?? []).flatMap(({ numRows: length, column }) =>
    rowsOf(bytes, length, schema.dictionary as ColumnSchema, column),
  );
  for (let row = 0; row < numRows; row++) {
    if (layout.validity !== undefined && bit(bytes, layout.validity.range, row) === 0) rows.push(null);
    else {
      const value = rowBytes(bytes, row, schema, layout);
      const entry = schema.dictionary === undefined ? value.toHex() : entries[code(value, layout.dtype)];
      rows.push(entry === undefined ? "no such entry" : entry);
    }
  }
  const nulls = rows.filter(
    (_, row) => layout.validity && bit(bytes, layout.validity.range, row) === 0,
  ).length;
  expect(layout.validity?.nullCount ?? 0).toBe(nulls);
  return rows;
}

function rowBytes(bytes: Uint8Array, row: number, schema: ColumnSchema, layout: ColumnLayout): Uint8Array {
  const perElement = schema.shape.reduce((a, b) => a * b, 1);
  let [first, last] = [row, row + 1];
  if (layout.offsets !== undefined) {
    const { range, width } = layout.offsets;
    expect(range.end - range.start).toBeGreaterThanOrEqual((row + 2) * width);
    const view = new DataView(bytes.buffer, bytes.byteOffset + range.start, range.end - range.start);
    const offset = (i: number) =>
      width === 4 ? view.getInt32(4 * i, true) : Number(view.getBigInt64(8 * i, true));
    [first, last] = [offset(row), offset(row + 1)];
  }
  const { start, end } = layout.values;
  if (layout.bitPacked) {
    const bits = new Uint8Array((last - first) * perElement);
    return bits.map((_, i) => bit(bytes, layout.values, first * perElement + i));
  }
  const size = (perElement * (BITS[layout.dtype] as number)) / 8;
  expect(start + last * size).toBeLessThanOrEqual(end);
  return bytes.slice(start + first * size, start + last * size);
}

function bit(bytes: Uint8Array, range: ByteRange, index: number): number {
  const at = range.start + (index >> 3);
  expect(at).toBeLessThan(range.end);
  return ((bytes[at] as number) >> (index & 7)) & 1;
}

function code(value: Uint8Array, dtype: DType): number {
  const view = new DataView(value.buffer, value.byteOffset);
  if (value.length === 8) return Number(view.getBigInt64(0, true));
  if (value.length === 4) return view.getInt32(0, true);
  if (value.length === 2) return dtype === "U16" ? view.getUint16(0, true) : view.getInt16(0, true);
  return dtype === "U8" ? view.getUint8(0) : view.getInt8(0);
}

/** The footer of a file for patching: `at` turns a position in its flatbuffer into one in `bytes`. */
export function footerOf(bytes: Uint8Array) {
  const length = new DataView(bytes.buffer, bytes.byteOffset).getInt32(bytes.length - 10, true);
  const start = bytes.length - 10 - length;
  const buffer = new MetadataBuffer(bytes.subarray(start, start + length), "ARROW_FOOTER", "test");
  return { footer: buffer.root(new Footer()), start, at: (position: number) => start + position, buffer };
}

/** The message whose prefix (of eight bytes) is at `offset`, for patching. */
export function messageAt(bytes: Uint8Array, offset: number) {
  const length = new DataView(bytes.buffer, bytes.byteOffset).getInt32(offset + 4, true);
  const start = offset + 8;
  const buffer = new MetadataBuffer(bytes.subarray(start, start + length), "ARROW_MESSAGE", "test");
  const message = buffer.root(new Message());
  const bodyStart = start + length;
  const end = bodyStart + Number(message.bodyLength());
  return { message, at: (position: number) => start + position, bodyStart, end, buffer };
}

/** The position of a table's field in its flatbuffer; `slot` counts the fields of the table from 0. */
export function fieldPosition(buffer: MetadataBuffer, table: { bb_pos: number }, slot: number): number {
  const offset = buffer.__offset(table.bb_pos, 4 + 2 * slot);
  if (offset === 0) throw new Error(`field ${slot} is not set`);
  return table.bb_pos + offset;
}

/** A copy of `bytes` with a change made through a DataView. */
export function patched(bytes: Uint8Array, change: (view: DataView) => void): Uint8Array {
  const copy = bytes.slice();
  change(new DataView(copy.buffer));
  return copy;
}

/** The bytes of a shard that pyarrow wrote. */
export const golden = (name: string) =>
  new Uint8Array(readFileSync(join(import.meta.dir, "../../golden/files/arrow", name)));

/** Positions in a file of the parts of the record batch whose message is at `offset`. */
export function batchPlaces(bytes: Uint8Array, offset: number) {
  const inside = messageAt(bytes, offset);
  const batch: RecordBatch = inside.message.header(new RecordBatch());
  return {
    bodyLength: inside.at(fieldPosition(inside.buffer, inside.message, 3)),
    headerType: inside.at(fieldPosition(inside.buffer, inside.message, 1)),
    rows: inside.at(fieldPosition(inside.buffer, batch, 0)),
    nodes: inside.at(inside.buffer.__vector(fieldPosition(inside.buffer, batch, 1))) - 4,
    buffers: inside.at(inside.buffer.__vector(fieldPosition(inside.buffer, batch, 2))) - 4,
    node: (index: number) => inside.at(batch.nodes(index)?.bb_pos as number),
    range: (index: number) => inside.at(batch.buffers(index)?.bb_pos as number),
  };
}

export const i32 = (view: DataView, position: number, value: number) => view.setInt32(position, value, true);

export const i64 = (view: DataView, position: number, value: bigint | number) =>
  view.setBigInt64(position, BigInt(value), true);

/** Three columns: int32 with nulls, utf8, and fixed-size lists of two float32; three rows, twice. */
export function hostileTable(): arrow.Table {
  const pair = new arrow.FixedSizeList(2, new arrow.Field("item", new arrow.Float32(), true));
  const columns = () => ({
    id: arrow.vectorFromArray([1, null, 3], new arrow.Int32()),
    text: arrow.vectorFromArray(["a", "bb", "ccc"], new arrow.Utf8()),
    pair: arrow.vectorFromArray(
      [
        [1, 2],
        [3, 4],
        [5, 6],
      ],
      pair,
    ),
  });
  return new arrow.Table(columns()).concat(new arrow.Table(columns()));
}
