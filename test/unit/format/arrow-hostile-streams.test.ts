/** Arrow streams and dictionaries that lie. */
import { describe, expect, test } from "bun:test";
import * as arrow from "apache-arrow";
import { DictionaryBatch } from "apache-arrow/fb/dictionary-batch";
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

const STREAM = arrow.tableToIPC(hostileTable(), "stream");

describe("hostile streams", () => {
  const schemaEnd = messageAt(STREAM, 0).end;
  const firstEnd = messageAt(STREAM, schemaEnd).end;
  const cases: readonly [string, Uint8Array, ErrorCode, string][] = [
    ["no schema", STREAM.subarray(schemaEnd), "ARROW_MESSAGE", "first message of the stream is not a schema"],
    ["a second schema", join2(STREAM.subarray(0, schemaEnd), STREAM), "ARROW_MESSAGE", "it is a Schema, not"],
    [
      "only an end",
      new Uint8Array([255, 255, 255, 255, 0, 0, 0, 0]),
      "ARROW_MESSAGE",
      "metadata length is 0",
    ],
    ["a length of -2", patched(STREAM, (v) => i32(v, schemaEnd + 4, -2)), "ARROW_MESSAGE", "length is -2"],
    [
      "a length past the end",
      patched(STREAM, (v) => i32(v, schemaEnd + 4, 1e8)),
      "ARROW_TRUNCATED",
      "past byte",
    ],
    [
      "a length of 2^31 - 1",
      patched(STREAM, (v) => i32(v, 4, 2 ** 31 - 1)),
      "ARROW_MESSAGE",
      "not from 1 to",
    ],
    [
      "a body past the end",
      patched(STREAM, (v) => i64(v, batchPlaces(STREAM, schemaEnd).bodyLength, 1e9)),
      "ARROW_TRUNCATED",
      `the message at byte ${schemaEnd}: its body`,
    ],
    [
      "a body of -8",
      patched(STREAM, (v) => i64(v, batchPlaces(STREAM, schemaEnd).bodyLength, -8)),
      "ARROW_MESSAGE",
      "body length is -8",
    ],
    [
      "a tensor",
      patched(STREAM, (v) => v.setUint8(batchPlaces(STREAM, firstEnd).headerType, 5)),
      "ARROW_MESSAGE",
      "it is a SparseTensor",
    ],
  ];
  for (const [what, bytes, code, text] of cases)
    test(what, () => {
      const failure = refusal(bytes);
      expect([failure.code, failure.message]).toEqual([code, expect.stringContaining(text)]);
    });
});

function join2(a: Uint8Array, b: Uint8Array): Uint8Array {
  const both = new Uint8Array(a.length + b.length);
  both.set(a);
  both.set(b, a.length);
  return both;
}

/** The messages of a stream, without its end. */
function messagesOf(stream: Uint8Array): Uint8Array[] {
  const messages: Uint8Array[] = [];
  let offset = 0;
  while (offset < stream.length - 8) {
    const { end: next } = messageAt(stream, offset);
    messages.push(stream.subarray(offset, next));
    offset = next;
  }
  return messages;
}

describe("hostile dictionaries", () => {
  const [schema, base, first, delta, ...rest] = messagesOf(golden("dictionary-deltas.arrows"));
  const without = (...messages: (Uint8Array | undefined)[]) =>
    messages.reduce<Uint8Array>((a, b) => join2(a, b as Uint8Array), new Uint8Array());

  test("begin with one that is right", () => {
    expect(describeBytes(without(schema, base, first, delta, ...rest)).rows?.numRows).toBe(8);
  });

  test("one that was not sent", () => {
    const { code, message } = refusal(without(schema, first));
    expect([code, message]).toEqual([
      "ARROW_MESSAGE",
      expect.stringContaining("dictionary 0 has not been sent"),
    ]);
  });

  test("a delta before its base", () => {
    const { code, message } = refusal(without(schema, delta));
    expect([code, message]).toEqual(["ARROW_MESSAGE", expect.stringContaining("it adds to dictionary 0")]);
  });

  test("a dictionary of no field", () => {
    const bytes = without(schema, base);
    const { message, at, buffer } = messageAt(bytes, (schema as Uint8Array).length);
    const batch: DictionaryBatch = message.header(new DictionaryBatch());
    // The id is 0 and so absent: the place of the table's data reference, as a number, is no id.
    const vtable = batch.bb_pos - buffer.readInt32(batch.bb_pos);
    const data = fieldPosition(buffer, batch, 1) - batch.bb_pos;
    const failure = refusal(patched(bytes, (view) => view.setUint16(at(vtable) + 4, data, true)));
    expect([failure.code, failure.message]).toEqual([
      "ARROW_MESSAGE",
      expect.stringContaining("no field of the schema"),
    ]);
  });

  test("one that is replaced in a file", () => {
    const bytes = golden("dictionary-deltas.arrow");
    const offset = Number(footerOf(bytes).footer.dictionaries(1)?.offset());
    const { message, at, buffer } = messageAt(bytes, offset);
    const batch: DictionaryBatch = message.header(new DictionaryBatch());
    const isDelta = at(fieldPosition(buffer, batch, 2));
    const failure = refusal(patched(bytes, (view) => view.setUint8(isDelta, 0)));
    expect([failure.code, failure.message]).toEqual([
      "ARROW_MESSAGE",
      expect.stringContaining("it replaces dictionary 0"),
    ]);
  });

  test("none is needed where every row is null", () => {
    const [nullSchema, , batch] = messagesOf(golden("dictionary-empty.arrows"));
    const shard = describeBytes(without(nullSchema, batch));
    expect(shard.rows?.groups[0]?.columns[0]?.dictionary).toEqual([]);
  });

  test("deltas of a shard extend one list, a replacement starts another", () => {
    const lists = (name: string) =>
      describeBytes(golden(name)).rows?.groups.map((group) => group.columns[0]?.dictionary);
    expect(new Set(lists("dictionary-deltas.arrows")).size).toBe(1);
    expect(lists("dictionary-deltas.arrows")?.[0]?.map((part) => part.numRows)).toEqual([2, 2]);
    expect(new Set(lists("dictionary-replaced.arrows")).size).toBeGreaterThan(2);
  });
});
