/** Reads the shards that make_arrow.py wrote with pyarrow, each against the .json beside it. */
import { describe, expect, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { ErrorCode } from "../../src/errors.ts";
import type { ColumnSchema } from "../../src/types.ts";
import { describeBytes, refusal, rowsOf } from "../unit/format/arrow-helpers.ts";

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

const folder = join(import.meta.dir, "files", "arrow");
const names = readdirSync(folder).filter((name) => /\.arrows?$/.test(name));

function compare(bytes: Uint8Array, expected: Expected, columns?: readonly string[]): void {
  const { rows, format, metadata, byteLength } = describeBytes(bytes, columns);
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
      rowsOf(bytes, group.numRows, rows.schema.columns[c] as ColumnSchema, layout),
    );
    expect(found as unknown).toEqual(expected.groups?.[g]);
  });
  expect(rows?.numRows).toBe(rowStart);
}

describe("files by pyarrow", () => {
  test("are there", () => {
    expect(names.length).toBeGreaterThanOrEqual(50);
  });

  for (const name of names) {
    const bytes = new Uint8Array(readFileSync(join(folder, name)));
    const expected: Expected = JSON.parse(readFileSync(join(folder, `${name}.json`), "utf8"));
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
