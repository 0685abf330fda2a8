/** Arrow shards written by apache-arrow itself: read whole, in part, cut anywhere, and past 4 GiB. */
import { describe, expect, test } from "bun:test";
import { closeSync, ftruncateSync, mkdtempSync, openSync, readSync, rmSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as arrow from "apache-arrow";
import { RecordBatch } from "apache-arrow/fb/record-batch";
import fc from "fast-check";
import { HeadraceError } from "../../../src/errors.ts";
import { describeArrow } from "../../../src/format/arrow.ts";
import type { ByteReader, ColumnSchema, ShardDescription } from "../../../src/types.ts";
import {
  describeBytes,
  fieldPosition,
  footerOf,
  messageAt,
  patched,
  readerOf,
  refusal,
  rowsOf,
} from "./arrow-helpers.ts";

type Kind = "file" | "stream";
const KINDS: readonly Kind[] = ["file", "stream"];

/** A table of several record batches, one for each of `parts`. */
function tableOf(parts: readonly Record<string, arrow.Vector>[]): arrow.Table {
  const tables = parts.map((part) => new arrow.Table(part));
  return tables.reduce((a, b) => a.concat(b));
}

function sample(): arrow.Table {
  return tableOf(
    [[1, null, 3], [4], [5, 6, 7, null]].map((ids) => ({
      id: arrow.vectorFromArray(ids, new arrow.Int32()),
      text: arrow.vectorFromArray(
        ids.map((id) => (id === null ? null : "x".repeat(id))),
        new arrow.Utf8(),
      ),
      flag: arrow.vectorFromArray(
        ids.map((id) => id !== 4),
        new arrow.Bool(),
      ),
      half: arrow.vectorFromArray(
        ids.map((id) => (id ?? 0) / 2),
        new arrow.Float16(),
      ),
    })),
  );
}

/** All rows of a column, group after group, as {@link rowsOf} gives them. */
function columnRows(bytes: Uint8Array, { rows }: ShardDescription, name: string): (string | null)[] {
  const index = rows?.schema.columns.findIndex((column) => column.name === name) ?? -1;
  const schema = rows?.schema.columns[index] as ColumnSchema;
  return (rows?.groups ?? []).flatMap((group) => {
    const layout = group.columns[index];
    if (layout === undefined) throw new Error(`no column ${name}`);
    return rowsOf(bytes, group.numRows, schema, layout);
  });
}

const hex = (value: number | null) =>
  value === null ? null : new Uint8Array(new Int32Array([value]).buffer).toHex();

describe("shards by apache-arrow", () => {
  for (const kind of KINDS) {
    test(`${kind} of three batches`, () => {
      const bytes = arrow.tableToIPC(sample(), kind);
      const shard = describeBytes(bytes);
      expect(shard.format).toBe(`arrow-${kind}`);
      expect(shard.rows?.numRows).toBe(8);
      expect(shard.rows?.groups.map(({ rowStart, numRows }) => [rowStart, numRows])).toEqual([
        [0, 3],
        [3, 1],
        [4, 4],
      ]);
      expect(columnRows(bytes, shard, "id")).toEqual([1, null, 3, 4, 5, 6, 7, null].map(hex));
      expect(columnRows(bytes, shard, "text")).toEqual(
        [1, null, 3, 4, 5, 6, 7, null].map((n) => (n === null ? null : "78".repeat(n))),
      );
      expect(columnRows(bytes, shard, "flag")).toEqual(["01", "01", "01", "00", "01", "01", "01", "01"]);
      expect(columnRows(bytes, shard, "half").slice(0, 3)).toEqual(["0038", "0000", "003e"]);
    });

    test(`${kind} with a dictionary over several batches`, () => {
      const type = new arrow.Dictionary(new arrow.Utf8(), new arrow.Int16());
      const words = ["a", "bb", null, "a", "bb", "bb"];
      const table = new arrow.Table({ word: arrow.vectorFromArray(words, type) });
      const cut = new arrow.Table([...table.slice(0, 4).batches, ...table.slice(4).batches]);
      const bytes = arrow.tableToIPC(cut, kind);
      const shard = describeBytes(bytes);
      expect(shard.rows?.groups).toHaveLength(2);
      const [first, second] = shard.rows?.groups.map((group) => group.columns[0]?.dictionary) ?? [];
      expect(first).toBe(second);
      expect(shard.rows?.groups[0]?.columns[0]?.dtype).toBe("I16");
      expect(columnRows(bytes, shard, "word")).toEqual(["61", "6262", null, "61", "6262", "6262"]);
    });

    test(`${kind} of any integers and strings, cut anywhere`, () => {
      const row = fc.record({
        id: fc.option(fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 })),
        text: fc.option(fc.string({ unit: "binary", maxLength: 5 })),
      });
      const property = fc.property(fc.array(fc.array(row, { maxLength: 20 }), { maxLength: 4 }), (parts) => {
        const build = (batch: (typeof parts)[number]) => ({
          id: arrow.vectorFromArray(
            batch.map((r) => r.id),
            new arrow.Int32(),
          ),
          text: arrow.vectorFromArray(
            batch.map((r) => r.text),
            new arrow.Utf8(),
          ),
        });
        const all = parts.filter((part) => part.length > 0);
        fc.pre(all.length > 0);
        const bytes = arrow.tableToIPC(tableOf(all.map(build)), kind);
        const shard = describeBytes(bytes);
        const flat = all.flat();
        expect(shard.rows?.groups.map((group) => group.numRows)).toEqual(all.map((part) => part.length));
        expect(columnRows(bytes, shard, "id")).toEqual(flat.map((r) => hex(r.id)));
        expect(columnRows(bytes, shard, "text")).toEqual(
          flat.map((r) => (r.text === null ? null : new TextEncoder().encode(r.text).toHex())),
        );
      });
      fc.assert(property, { numRuns: 60 });
    });
  }

  test("metadata of the schema, with any key", () => {
    const source = sample();
    const metadata = new Map([
      ["made", "here"],
      ["__proto__", "kept"],
    ]);
    const schema = new arrow.Schema(source.schema.fields, metadata);
    const bytes = arrow.tableToIPC(new arrow.Table(schema, source.batches), "stream");
    const found = describeBytes(bytes).metadata;
    expect(Object.entries(found)).toEqual([...metadata]);
    expect(Object.getPrototypeOf(found)).toBe(Object.prototype);
  });
});

describe("columns", () => {
  const bytes = arrow.tableToIPC(sample(), "file");

  test("only those that are named, in the schema's order", () => {
    const shard = describeBytes(bytes, ["half", "no such column", "id"]);
    expect(shard.rows?.schema.columns.map((column) => column.name)).toEqual(["id", "half"]);
    const whole = describeBytes(bytes);
    shard.rows?.groups.forEach((group, g) => {
      const all = whole.rows?.groups[g]?.columns;
      expect(group.columns).toEqual([all?.[0], all?.[3]] as typeof group.columns);
    });
  });

  test("none", () => {
    const shard = describeBytes(bytes, []);
    expect(shard.rows?.schema.columns).toEqual([]);
    expect(shard.rows?.groups.map((group) => group.numRows)).toEqual([3, 1, 4]);
  });
});

describe("reads", () => {
  for (const kind of KINDS)
    test(`of a ${kind} touch no data`, () => {
      const bytes = arrow.tableToIPC(sample(), kind);
      const ranges: [number, number][] = [];
      const inner = readerOf(bytes);
      const read: ByteReader = (offset, length) => {
        ranges.push([offset, offset + length]);
        return inner(offset, length);
      };
      const shard = describeArrow(read, bytes.length);
      for (const group of shard.rows?.groups ?? [])
        for (const { values, validity, offsets } of group.columns)
          for (const range of [values, validity?.range, offsets?.range])
            for (const [start, end] of ranges)
              if (range !== undefined) expect(range.end <= start || range.start >= end).toBe(true);
      // The magic, the tail and the footer, or the magic and the end; and the messages.
      expect(ranges).toHaveLength(kind === "file" ? 3 + 3 : 1 + 2 * 4 + 1);
    });
});

describe("a shard that is cut off", () => {
  const small = (kind: Kind) =>
    arrow.tableToIPC(new arrow.Table({ a: arrow.vectorFromArray([1, null, 3], new arrow.Int8()) }), kind);

  test("file, at every byte", () => {
    const bytes = small("file");
    expect(describeBytes(bytes).rows?.numRows).toBe(3);
    for (let length = 0; length < bytes.length; length++) {
      const { code } = refusal(bytes.subarray(0, length));
      expect(["ARROW_TRUNCATED", "ARROW_MAGIC"]).toContain(code);
    }
  });

  test("stream, at every byte: accepted between messages alone", () => {
    const bytes = small("stream");
    const schemaEnd = messageAt(bytes, 0).end;
    const batchEnd = messageAt(bytes, schemaEnd).end;
    const accepted: number[] = [];
    for (let length = 0; length <= bytes.length; length++) {
      const cut = bytes.subarray(0, length);
      if (length === schemaEnd || length === batchEnd || length === bytes.length) {
        accepted.push(describeBytes(cut).rows?.numRows ?? -1);
      } else expect(refusal(cut).code).toBe("ARROW_TRUNCATED");
    }
    expect(accepted).toEqual([0, 3, 3]);
  });

  test("stream with more behind its end", () => {
    const bytes = small("stream");
    const twice = new Uint8Array(2 * bytes.length);
    twice.set(bytes);
    twice.set(bytes, bytes.length);
    const failure = refusal(twice);
    expect(failure.code).toBe("ARROW_MESSAGE");
    expect(failure.message).toContain(`${bytes.length} bytes follow the end`);
  });
});

describe("sparse shards past 4 GiB", () => {
  const numRows = 2 ** 30 + 5;
  const bodyLength = 4 * numRows + 4;

  /** Makes the message at `offset`, an int32 column without nulls, one of `numRows` rows. */
  function enlarge(bytes: Uint8Array, offset: number): Uint8Array {
    const { message, at, buffer } = messageAt(bytes, offset);
    const batch: RecordBatch = message.header(new RecordBatch());
    return patched(bytes, (view) => {
      const set = (position: number, value: number) => view.setBigInt64(at(position), BigInt(value), true);
      set(fieldPosition(buffer, message, 3), bodyLength);
      set(fieldPosition(buffer, batch, 0), numRows);
      set(batch.nodes(0)?.bb_pos as number, numRows);
      set((batch.buffers(1)?.bb_pos as number) + 8, 4 * numRows);
    });
  }

  function inFile(write: (fd: number) => number, check: (read: ByteReader, length: number) => void): void {
    const folder = mkdtempSync(join(tmpdir(), "headrace-arrow-"));
    const fd = openSync(join(folder, "sparse.arrow"), "w+");
    try {
      const length = write(fd);
      const read: ByteReader = (offset, byteLength) => {
        const bytes = new Uint8Array(byteLength);
        expect(readSync(fd, bytes, 0, byteLength, offset)).toBe(byteLength);
        return bytes;
      };
      check(read, length);
    } finally {
      closeSync(fd);
      rmSync(folder, { recursive: true });
    }
  }

  function checkTwoBatches(shard: ShardDescription, bodies: readonly number[]): void {
    expect(shard.rows?.numRows).toBe(2 * numRows);
    expect(shard.rows?.groups.map((group) => group.rowStart)).toEqual([0, numRows]);
    expect(shard.rows?.groups.map((group) => group.columns[0]?.values)).toEqual(
      bodies.map((start) => ({ start, end: start + 4 * numRows })),
    );
  }

  const table = () => new arrow.Table({ a: arrow.vectorFromArray([1, 2], new arrow.Int32()) });

  test("stream", () => {
    const bytes = arrow.tableToIPC(table(), "stream");
    const schema = messageAt(bytes, 0);
    const large = enlarge(bytes, schema.end);
    const { bodyStart } = messageAt(bytes, schema.end);
    const second = bodyStart + bodyLength;
    const secondBody = second + (bodyStart - schema.end);
    inFile(
      (fd) => {
        writeSync(fd, large, 0, bodyStart, 0);
        writeSync(fd, large, schema.end, bodyStart - schema.end, second);
        ftruncateSync(fd, secondBody + bodyLength);
        return secondBody + bodyLength;
      },
      (read, length) => checkTwoBatches(describeArrow(read, length), [bodyStart, secondBody]),
    );
  });

  test("file", () => {
    const one = table();
    const bytes = arrow.tableToIPC(one.concat(table()), "file");
    const { footer, start, at } = footerOf(bytes);
    const blocks = [footer.recordBatches(0), footer.recordBatches(1)];
    const first = Number(blocks[0]?.offset());
    const metadataLength = blocks[0]?.metaDataLength() as number;
    const large = enlarge(bytes, first);
    const second = first + metadataLength + bodyLength;
    const footerStart = second + metadataLength + bodyLength;
    const tail = patched(bytes, (view) => {
      blocks.forEach((block, i) => {
        view.setBigInt64(at(block?.bb_pos as number), BigInt(i === 0 ? first : second), true);
        view.setBigInt64(at(block?.bb_pos as number) + 16, BigInt(bodyLength), true);
      });
    }).subarray(start);
    inFile(
      (fd) => {
        writeSync(fd, large, 0, first + metadataLength, 0);
        writeSync(fd, large, first, metadataLength, second);
        writeSync(fd, tail, 0, tail.length, footerStart);
        return footerStart + tail.length;
      },
      (read, length) =>
        checkTwoBatches(describeArrow(read, length), [first + metadataLength, second + metadataLength]),
    );
  });
});

test("failures of the reader come through as they are", () => {
  const failure = new HeadraceError("IO_ERROR", "the disk is gone");
  const read = () => {
    throw failure;
  };
  expect(() => describeArrow(read, 1000)).toThrow(failure);
});
