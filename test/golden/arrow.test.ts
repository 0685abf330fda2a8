/** Reads the shards that make_arrow.py wrote with pyarrow, each against the .json beside it. */
import { describe, expect, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { ErrorCode } from "../../src/errors.ts";
import { describeArrow } from "../../src/format/arrow.ts";
import { ChunkCodec } from "../../src/format/chunks.ts";
import type { ChunkTable, ColumnSchema } from "../../src/types.ts";
import { readerOf, refusal, rowsOf } from "../unit/format/arrow-helpers.ts";
import { decoderOf, logicalBytes } from "../unit/format/decode-chunks.ts";

interface Expected {
  readonly error?: { readonly code: ErrorCode; readonly text: string };
  /** Columns that can be read where the whole cannot. */
  readonly usable?: readonly string[];
  /** Columns that cannot, and a part of their type's name. */
  readonly unsupported?: Readonly<Record<string, string>>;
  readonly format?: "arrow-file" | "arrow-stream";
  readonly metadata?: Readonly<Record<string, string>>;
  readonly columns?: readonly ColumnSchema[];
  /** Group, column, row. */
  readonly groups?: readonly (readonly (readonly (string | null)[])[])[];
  readonly groupRows?: readonly number[];
}

/** In place of the above for a file that holds what another does, with compressed bodies. */
interface Like {
  readonly like: string;
  readonly codec: "lz4" | "zstd";
}

const folder = join(import.meta.dir, "files", "arrow");
const names = readdirSync(folder).filter((name) => /\.arrows?$/.test(name));

function compare(
  bytes: Uint8Array,
  expected: Expected,
  columns?: readonly string[],
  codec?: Like["codec"],
): void {
  const description = describeArrow(readerOf(bytes), bytes.length, columns, decoderOf(bytes));
  const { rows, format, metadata, byteLength, chunks } = description;
  const isEmpty = expected.columns?.every(({ shape }) => shape.includes(0));
  if (codec === undefined || isEmpty) expect(chunks).toBeUndefined();
  else checkTable(chunks!, bytes.length, ChunkCodec[codec === "lz4" ? "lz4Frame" : "zstd"]);
  const logical = logicalBytes(bytes, description);
  expect(format).toBe(expected.format as "arrow-file");
  expect(byteLength).toBe(bytes.length);
  expect(metadata).toEqual(expected.metadata ?? {});
  expect(rows?.schema.columns).toEqual(expected.columns as ColumnSchema[]);
  expect(rows?.groups.map((group) => group.numRows)).toEqual([...(expected.groupRows ?? [])]);
  let rowStart = 0;
  rows?.groups.forEach((group, g) => {
    expect(group.rowStart).toBe(rowStart);
    rowStart += group.numRows;
    const found = group.columns.map((layout, c) =>
      rowsOf(logical, group.numRows, rows.schema.columns[c] as ColumnSchema, layout),
    );
    expect(found as unknown).toEqual(expected.groups?.[g]);
  });
  expect(rows?.numRows).toBe(rowStart);
}

function checkTable(table: ChunkTable, fileLength: number, codec: number): void {
  expect(table.starts[0]).toBe(0);
  expect(table.starts).toHaveLength(table.numChunks + 1);
  expect(table.starts[table.numChunks]).toBe(table.byteLength);
  let longest = 0;
  for (let i = 0; i < table.numChunks; i++) {
    expect(table.starts[i + 1]!).toBeGreaterThan(table.starts[i]!);
    longest = Math.max(longest, table.starts[i + 1]! - table.starts[i]!);
    expect(table.fileOffset[i]! + table.fileLength[i]!).toBeLessThanOrEqual(fileLength);
    if (i > 0)
      expect(table.fileOffset[i]!).toBeGreaterThanOrEqual(
        table.fileOffset[i - 1]! + table.fileLength[i - 1]!,
      );
  }
  expect(table.codec.every((each) => each === codec)).toBe(true);
  expect(table.maxLength).toBe(longest);
  expect(table.maxFileLength).toBe(Math.max(...table.fileLength));
}

describe("files by pyarrow", () => {
  test("are there", () => {
    expect(names.length).toBeGreaterThanOrEqual(50);
  });

  for (const name of names) {
    const bytes = new Uint8Array(readFileSync(join(folder, name)));
    const beside: Expected | Like = JSON.parse(readFileSync(join(folder, `${name}.json`), "utf8"));
    if ("like" in beside) {
      const expected = JSON.parse(readFileSync(join(folder, `${beside.like}.json`), "utf8"));
      test(name, () => compare(bytes, expected, undefined, beside.codec));
      for (const column of expected.columns)
        test(`${name}, column ${column.name} alone`, () => {
          const at = expected.columns.indexOf(column);
          const groups = expected.groups.map((group: unknown[]) => [group[at]]);
          compare(bytes, { ...expected, columns: [column], groups }, [column.name], beside.codec);
        });
      continue;
    }
    const expected: Expected = beside;
    const { error, usable, unsupported = {} } = expected;

    if (error === undefined) {
      test(name, () => compare(bytes, expected));
      continue;
    }
    test(`${name} is refused`, () => {
      const failure = refusal(bytes);
      expect(failure.code).toBe(error.code);
      expect(failure.message).toContain(error.text);
    });
    if (usable !== undefined)
      test(`${name}, columns that can be read`, () => compare(bytes, expected, usable));
    for (const [column, type] of Object.entries(unsupported))
      test(`${name}, column ${column} is refused by name`, () => {
        const failure = refusal(bytes, [column]);
        expect(failure.code).toBe("UNSUPPORTED_TYPE");
        expect(failure.message).toContain(`column "${column}" is ${type}`);
      });
  }
});
