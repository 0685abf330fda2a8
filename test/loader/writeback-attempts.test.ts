/** The records of attempt files: what is damaged anywhere is taken for torn, and nothing before it is lost. */
import { expect, test } from "bun:test";
import {
  type AttemptRecord,
  attemptHeader,
  HEADER_BYTES,
  NULL_CELL,
  PLACED_CELL,
  RecordSink,
  scanRecords,
} from "../../src/loader/writeback/attempt.ts";
import type { OpenedFile } from "../../src/loader/writeback/files.ts";

const NUM_FIELDS = 4;

/** A file in memory, for reading. */
function fileOf(bytes: Uint8Array): OpenedFile {
  return {
    path: "attempt",
    byteLength: async () => bytes.length,
    read: async (into, position) => {
      const there = bytes.subarray(position, position + into.length);
      into.set(there);
      return there.length;
    },
    write: () => Promise.reject(new Error("nothing is written")),
    truncate: () => Promise.reject(new Error("nothing is cut")),
    sync: async () => {},
    close: async () => {},
  };
}

function put(sink: RecordSink, row: number): void {
  sink.begin(row, row - 3, 1, 2, NUM_FIELDS);
  sink.text(`row ${row}: ä`);
  sink.mark(NULL_CELL);
  sink.bytes(Uint8Array.of(1, 2, row));
  sink.mark(PLACED_CELL);
  sink.end();
}

/** What a record says, to keep. */
function told(record: AttemptRecord) {
  const { at, row, position, count, attempts, cells } = record;
  const lengths = Array.from({ length: NUM_FIELDS }, (_, field) => record.lengthOf(field));
  return { at, row, position, count, attempts, lengths, cells: cells.slice() };
}

/** An attempt with rows 7, 8 and 9, and where each of their records begins. */
function attempt(): { bytes: Uint8Array; starts: number[] } {
  const sink = new RecordSink();
  const starts: number[] = [];
  for (const row of [7, 8, 9]) {
    starts.push(HEADER_BYTES + sink.byteLength);
    put(sink, row);
  }
  const records = sink.take();
  const bytes = new Uint8Array(HEADER_BYTES + records.length);
  bytes.set(attemptHeader("ab".repeat(32)));
  bytes.set(records, HEADER_BYTES);
  return { bytes, starts };
}

async function scan(bytes: Uint8Array, from = HEADER_BYTES) {
  const rows: number[] = [];
  const seen: ReturnType<typeof told>[] = [];
  const end = await scanRecords(fileOf(bytes), from, bytes.length, NUM_FIELDS, (record) => {
    rows.push(record.row);
    seen.push(told(record));
    return true;
  });
  return { rows, end, seen };
}

test("come back as they were put in", async () => {
  const { bytes, starts } = attempt();
  const { rows, end, seen } = await scan(bytes);
  expect([rows, end]).toEqual([[7, 8, 9], bytes.length]);
  for (const [i, { at, position, count, attempts, lengths, cells }] of seen.entries()) {
    expect([at, position, count, attempts]).toEqual([starts[i]!, 4 + i, 1, 2]);
    expect(lengths).toEqual([9, NULL_CELL, 3, PLACED_CELL]);
    const text = [...Buffer.from(`row ${7 + i}: ä`)];
    expect([...cells.subarray(0, 12)]).toEqual([...text, 1, 2, 7 + i]);
  }
});

test("end where any bit of one is wrong", async () => {
  const { bytes, starts } = attempt();
  const [, second, third] = starts;
  for (let at = second!; at < third!; at++) {
    for (const bit of [1, 128]) {
      const damaged = bytes.slice();
      damaged[at]! ^= bit;
      const { rows, end } = await scan(damaged);
      expect({ at, bit, rows, end }).toEqual({ at, bit, rows: [7], end: second! });
    }
  }
});

test("end where the file does, in the middle of one", async () => {
  const { bytes, starts } = attempt();
  const [, second, third] = starts;
  for (let length = second!; length < third!; length++) {
    const { rows, end } = await scan(bytes.slice(0, length));
    expect({ length, rows, end }).toEqual({ length, rows: [7], end: second! });
  }
});

test("end where whoever looks says so", async () => {
  const { bytes, starts } = attempt();
  const end = await scanRecords(fileOf(bytes), HEADER_BYTES, bytes.length, NUM_FIELDS, ({ row }) => row < 8);
  expect(end).toBe(starts[1]!);
});

test("longer than what is read at once come whole", async () => {
  const sink = new RecordSink();
  for (const row of [7, 8]) {
    sink.begin(row, row, 1, 1, NUM_FIELDS);
    sink.bytes(new Uint8Array(700_000).fill(row));
    for (let i = 1; i < NUM_FIELDS; i++) sink.mark(NULL_CELL);
    sink.end();
  }
  const records = sink.take();
  const lengths: number[] = [];
  const end = await scanRecords(fileOf(records), 0, records.length, NUM_FIELDS, (record) => {
    lengths.push(record.lengthOf(0));
    expect(record.cells.subarray(0, 700_000).every((byte) => byte === record.row)).toBe(true);
    return true;
  });
  expect([lengths, end]).toEqual([[700_000, 700_000], records.length]);
});
