/** Arrow shards that lie: for every rule one file that breaks it, and the code and words of its refusal. */
import { describe, expect, test } from "bun:test";
import * as arrow from "apache-arrow";
import { FixedSizeList } from "apache-arrow/fb/fixed-size-list";
import { Int } from "apache-arrow/fb/int";
import { RecordBatch } from "apache-arrow/fb/record-batch";
import type { Schema } from "apache-arrow/fb/schema";
import type { ErrorCode } from "../../../src/errors.ts";
import {
  batchPlaces,
  describeBytes,
  fieldPosition,
  footerOf,
  golden,
  hostileTable,
  i32,
  i64,
  messageAt,
  patched,
  refusal,
} from "./arrow-helpers.ts";

const FILE = arrow.tableToIPC(hostileTable(), "file");
const MAX_INT64 = 2n ** 63n - 1n;

/** Positions in the file of what the cases below change. */
function places(bytes: Uint8Array) {
  const { footer, at, buffer } = footerOf(bytes);
  const block = (index: number) => {
    const position = at(footer.recordBatches(index)?.bb_pos as number);
    return { offset: position, metadataLength: position + 8, bodyLength: position + 16 };
  };
  const batchOffset = Number(footer.recordBatches(0)?.offset());
  return { footer, at, buffer, block, batchOffset, ...batchPlaces(bytes, batchOffset) };
}

type Places = ReturnType<typeof places>;
type Case = [what: string, change: (view: DataView, at: Places) => void, code: ErrorCode, text: string];

const end = (view: DataView) => view.byteLength;

const FILE_CASES: readonly Case[] = [
  ["a wrong first byte", (v) => v.setUint8(0, 0x42), "ARROW_MAGIC", "neither with ARROW1 nor"],
  ["a wrong last byte", (v) => v.setUint8(end(v) - 1, 0), "ARROW_TRUNCATED", "does not end with it"],
  ["no footer", (v) => i32(v, end(v) - 10, 0), "ARROW_FOOTER", "length is 0"],
  ["a negative footer", (v) => i32(v, end(v) - 10, -1), "ARROW_FOOTER", "length is -1"],
  ["a footer larger than the file", (v) => i32(v, end(v) - 10, end(v)), "ARROW_FOOTER", "not from 1 to"],
  ["a footer root outside", (v) => i32(v, footerOf(FILE).start, 1e9), "ARROW_FOOTER", "refers to byte"],
  ["a negative footer root", (v) => i32(v, footerOf(FILE).start, -9), "ARROW_FOOTER", "refers to byte"],
  [
    "metadata of version 3",
    (v, p) => v.setInt16(p.at(fieldPosition(p.buffer, p.footer, 0)), 2, true),
    "ARROW_FOOTER",
    "version is V3",
  ],
  [
    "metadata of version 9",
    (v, p) => v.setInt16(p.at(fieldPosition(p.buffer, p.footer, 0)), 8, true),
    "ARROW_FOOTER",
    "version is V9",
  ],
  [
    "more blocks than bytes",
    (v, p) => i32(v, p.at(p.buffer.__vector(fieldPosition(p.buffer, p.footer, 3))) - 4, 2 ** 30),
    "ARROW_FOOTER",
    "vector of 1073741824",
  ],
  [
    "a negative number of blocks",
    (v, p) => i32(v, p.at(p.buffer.__vector(fieldPosition(p.buffer, p.footer, 3))) - 4, -1),
    "ARROW_FOOTER",
    "vector of -1",
  ],
  [
    "a block at -8",
    (v, p) => i64(v, p.block(0).offset, -8),
    "ARROW_FOOTER",
    "offset of record batch 0 is -8",
  ],
  ["a block in the magic", (v, p) => i64(v, p.block(0).offset, 0), "ARROW_FOOTER", "at byte 0, not between"],
  [
    "a block past the footer",
    (v, p) => i64(v, p.block(1).offset, FILE.length),
    "ARROW_FOOTER",
    "record batch 1 has",
  ],
  ["a block at 2^60", (v, p) => i64(v, p.block(0).offset, 2n ** 60n), "ARROW_FOOTER", "not an integer from"],
  [
    "block metadata of -1",
    (v, p) => i32(v, p.block(0).metadataLength, -1),
    "ARROW_FOOTER",
    "metadata length of record batch 0 is -1",
  ],
  [
    "block metadata of 2^31 - 1",
    (v, p) => i32(v, p.block(0).metadataLength, 2 ** 31 - 1),
    "ARROW_FOOTER",
    "not between bytes 8 and",
  ],
  [
    "block metadata too small",
    (v, p) => i32(v, p.block(0).metadataLength, 16),
    "ARROW_MESSAGE",
    "the footer gives 16",
  ],
  [
    "a block body of -1",
    (v, p) => i64(v, p.block(0).bodyLength, -1),
    "ARROW_FOOTER",
    "body length of record batch 0 is -1",
  ],
  [
    "a block body of 2^63 - 1",
    (v, p) => i64(v, p.block(0).bodyLength, MAX_INT64),
    "ARROW_FOOTER",
    "not an integer from",
  ],
  [
    "a block body of 2^53 - 1",
    (v, p) => i64(v, p.block(1).bodyLength, Number.MAX_SAFE_INTEGER),
    "ARROW_FOOTER",
    "not between bytes 8 and",
  ],
  [
    "a block over the next",
    (v, p) => i64(v, p.block(0).bodyLength, v.getBigInt64(p.block(0).bodyLength, true) + 8n),
    "ARROW_FOOTER",
    "overlaps record batch 0",
  ],
  [
    "two blocks in one place",
    (v, p) => i64(v, p.block(1).offset, p.batchOffset),
    "ARROW_FOOTER",
    "overlaps record batch",
  ],
  ["a block without a message", (v, p) => i64(v, p.batchOffset, 0), "ARROW_MESSAGE", "metadata length is 0"],
  [
    "a message longer than its block",
    (v, p) => i32(v, p.batchOffset + 4, 2 ** 30),
    "ARROW_MESSAGE",
    "metadata length is 1073741824",
  ],
  ["a message root outside", (v, p) => i32(v, p.batchOffset + 8, 2 ** 30), "ARROW_MESSAGE", "refers to byte"],
  [
    "a message of another kind",
    (v, p) => v.setUint8(p.headerType, 4),
    "ARROW_MESSAGE",
    "it is a Tensor, not a RecordBatch",
  ],
  ["a message of an unknown kind", (v, p) => v.setUint8(p.headerType, 77), "ARROW_MESSAGE", "it is a 77"],
  ["bodies that differ", (v, p) => i64(v, p.bodyLength, 8), "ARROW_MESSAGE", "8 bytes by its own metadata"],
  ["-1 rows", (v, p) => i64(v, p.rows, -1), "ARROW_MESSAGE", "number of rows is -1"],
  ["2^53 rows", (v, p) => i64(v, p.rows, 2n ** 53n), "ARROW_MESSAGE", "not an integer from"],
  [
    "rows that the nodes lack",
    (v, p) => i64(v, p.rows, 4),
    "ARROW_MESSAGE",
    'column "id": it has 3 rows in a batch of 4',
  ],
  ["a node of -1", (v, p) => i64(v, p.node(0), -1), "ARROW_MESSAGE", "length of a field node is -1"],
  ["a node too long", (v, p) => i64(v, p.node(1), 5), "ARROW_MESSAGE", 'column "text": it has 5 rows'],
  ["-1 nulls", (v, p) => i64(v, p.node(0) + 8, -1), "ARROW_MESSAGE", "null count of a field node is -1"],
  ["more nulls than rows", (v, p) => i64(v, p.node(0) + 8, 4), "ARROW_MESSAGE", "4 nulls in 3 elements"],
  ["too few nodes", (v, p) => i32(v, p.nodes, 3), "ARROW_MESSAGE", "3 field nodes, fewer"],
  ["too many nodes", (v, p) => i32(v, p.nodes, 5), "ARROW_MESSAGE", "1 field nodes and 0 buffers are left"],
  ["too few buffers", (v, p) => i32(v, p.buffers, 5), "ARROW_MESSAGE", "5 buffers, fewer"],
  ["a buffer in the metadata", (v, p) => i64(v, p.range(1), -8), "ARROW_BUFFER", "buffer 1 is bytes [-8, "],
  ["a buffer past the body", (v, p) => i64(v, p.range(1), 4096), "ARROW_BUFFER", "buffer 1 is bytes [4096, "],
  [
    "a buffer at 2^63 - 1",
    (v, p) => i64(v, p.range(3), MAX_INT64),
    "ARROW_BUFFER",
    'record batch 0: column "text"',
  ],
  ["a buffer of -1 bytes", (v, p) => i64(v, p.range(1) + 8, -1), "ARROW_BUFFER", "buffer 1 is bytes"],
  ["a buffer of 2^63 - 1 bytes", (v, p) => i64(v, p.range(1) + 8, MAX_INT64), "ARROW_BUFFER", "buffer 1 is"],
  [
    "values too short",
    (v, p) => i64(v, p.range(1) + 8, 11),
    "ARROW_BUFFER",
    "values of 3 rows need 12 bytes, the buffer has 11",
  ],
  [
    "a bitmap too short",
    (v, p) => i64(v, p.range(0) + 8, 0),
    "ARROW_BUFFER",
    "validity of 3 rows need 1 bytes",
  ],
  [
    "offsets too short",
    (v, p) => i64(v, p.range(3) + 8, 15),
    "ARROW_BUFFER",
    "offsets of 3 rows need 16 bytes",
  ],
  ["elements missing", (v, p) => i64(v, p.node(3), 5), "ARROW_BUFFER", "6 elements are needed"],
  ["null elements", (v, p) => i64(v, p.node(3) + 8, 1), "UNSUPPORTED_TYPE", "1 null elements inside"],
];

describe("hostile files", () => {
  const at = places(FILE);
  test("begin with one that is right", () => {
    expect(describeBytes(FILE).rows?.numRows).toBe(6);
  });
  for (const [what, change, code, text] of FILE_CASES)
    test(what, () => {
      const failure = refusal(patched(FILE, (view) => change(view, at)));
      expect([failure.code, failure.message]).toEqual([code, expect.stringContaining(text)]);
    });
  test("files of other kinds", () => {
    for (const head of [
      "PAR1",
      "FEA1",
      "\x93NUMPY",
      '{"a": 1}',
      "\0\0\0\0\0\0\0\0",
      "\x10\0\0\0\0\0\0\0{}",
    ]) {
      const bytes = new TextEncoder().encode(head.padEnd(16, "\0"));
      expect(refusal(bytes).code).toBe("ARROW_MAGIC");
    }
  });
});

/** Positions in a footer's schema. */
function schemaPlaces(bytes: Uint8Array) {
  const { footer, at, buffer } = footerOf(bytes);
  const schema = footer.schema() as Schema;
  return { schema, at, buffer, field: (index: number) => schema.fields(index) ?? expect.unreachable() };
}

describe("hostile schemas", () => {
  const { schema, at, buffer, field } = schemaPlaces(FILE);

  function refused(change: (view: DataView) => void, columns?: readonly string[]) {
    const { code, message } = refusal(patched(FILE, change), columns);
    return [code, message];
  }

  test("an unknown type, even where it is not asked for", () => {
    const position = at(fieldPosition(buffer, field(1), 2));
    const refusalOf = refused((view) => view.setUint8(position, 99), ["id"]);
    expect(refusalOf).toEqual([
      "UNSUPPORTED_TYPE",
      expect.stringContaining('"text" has the unknown Arrow type number 99'),
    ]);
  });

  test("an integer of 24 bits", () => {
    const type: Int = field(0).type(new Int());
    const position = at(fieldPosition(buffer, type, 0));
    expect(refused((view) => i32(view, position, 24))).toEqual([
      "ARROW_FOOTER",
      expect.stringContaining("24 bits"),
    ]);
  });

  test("fixed-size lists of -1 and of 2^31 - 1", () => {
    const type: FixedSizeList = field(2).type(new FixedSizeList());
    const position = at(fieldPosition(buffer, type, 0));
    expect(refused((view) => i32(view, position, -1))).toEqual([
      "ARROW_FOOTER",
      expect.stringContaining("is -1"),
    ]);
    expect(refused((view) => i32(view, position, 2 ** 31 - 1))[0]).toBe("ARROW_BUFFER");
  });

  test("a field inside itself", () => {
    const vector = buffer.__vector(fieldPosition(buffer, field(2), 5));
    const change = (view: DataView) => i32(view, at(vector), field(2).bb_pos - vector);
    expect(refused(change)).toEqual(["ARROW_FOOTER", expect.stringContaining("nested more than 64 deep")]);
  });

  test("children that do not fit the type", () => {
    const typeOf = (index: number) => at(fieldPosition(buffer, field(index), 2));
    expect(refused((view) => view.setUint8(typeOf(1), 12))).toEqual([
      "ARROW_FOOTER",
      expect.stringContaining('"text" is a list with 0 children, not 1'),
    ]);
    expect(refused((view) => view.setUint8(typeOf(2), 5))).toEqual([
      "ARROW_FOOTER",
      expect.stringContaining('"pair" is a utf8 and has 1 children'),
    ]);
  });

  test("big-endian data", () => {
    // The field is absent: give the table a place for it where the number 1 happens to stand.
    const vtable = schema.bb_pos - buffer.readInt32(schema.bb_pos);
    let place = 4;
    while (buffer.readInt16(schema.bb_pos + place) !== 1) place++;
    const change = (view: DataView) => view.setUint16(at(vtable) + 4, place, true);
    expect(refused(change)).toEqual(["UNSUPPORTED_TYPE", expect.stringContaining("big-endian")]);
  });

  test("two billion buffers of views", () => {
    const bytes = golden("unsupported.arrow");
    const offset = Number(footerOf(bytes).footer.recordBatches(0)?.offset());
    const message = messageAt(bytes, offset);
    const batch: RecordBatch = message.message.header(new RecordBatch());
    const position = message.at(message.buffer.__vector(fieldPosition(message.buffer, batch, 4)));
    for (const count of [2n ** 31n, -1n, MAX_INT64]) {
      const failure = refusal(
        patched(bytes, (view) => i64(view, position, count)),
        ["first"],
      );
      expect(failure.code).toBe("ARROW_MESSAGE");
    }
  });
});
