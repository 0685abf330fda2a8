/** Lines of JSON with many columns, of which each row has few: memory is bounded by what lines decode to. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { join } from "node:path";
import { JsonLines } from "../../src/pack/sources/json-lines.ts";
import { useTempDir } from "../loader/helpers.ts";
import { packed, rejection } from "./text.ts";

setDefaultTimeout(60_000);

const temp = useTempDir();

function sparse(numRows: number, numKeys: number): string {
  return Array.from({ length: numRows }, (_, i) => `{"k${i % numKeys}":${i}}\n`).join("");
}

test("lines are parsed in parts of about 8 MiB of what they decode to", () => {
  const names = Array.from({ length: 1000 }, (_, i) => `k${i}`);
  const fields = names.map(
    (name) => ({ name, kind: "fixed", dtype: "I64", shape: [], nullable: true }) as const,
  );
  const parser = new JsonLines(
    fields,
    names.map((name) => [name]),
    { skipBad: false, skipUnknown: false, given: [] },
  );
  const bytes = Buffer.from(sparse(5000, 1000));
  let at = 0;
  let rows = 0;
  let parts = 0;
  while (at < bytes.length) {
    const part = parser.parse(bytes.subarray(at), bytes.length - at);
    const held = part.columns.reduce(
      (sum, { values, validity }) => sum + values.length + (validity?.length ?? 0),
      0,
    );
    expect(held).toBeLessThanOrEqual(8 * 2 ** 20);
    expect(part.numLines).toBe(part.numRows);
    at += part.numBytes;
    rows += part.numRows;
    parts++;
  }
  expect([rows, at, parts]).toEqual([5000, bytes.length, 6]);
});

test("rows that are parsed in parts come back in order, with their values", async () => {
  const rows = await packed(temp("sparse"), "a.jsonl", sparse(3000, 1000), { threads: 2 });
  expect(rows.length).toBe(3000);
  for (const [i, row] of rows.entries()) {
    const present = Object.entries(row).filter(([, value]) => value !== null);
    if (present.length !== 1 || present[0]![0] !== `k${i % 1000}` || present[0]![1] !== i)
      throw new Error(`row ${i} is ${JSON.stringify(present)}`);
  }
});

test("a bad line behind the first part is named by its number, and skipped alone", async () => {
  const folder = temp("bad");
  const text = `${sparse(2500, 1000)}{"k1":"text"}\n${sparse(500, 1000)}`;
  const error = await rejection(() => packed(folder, "a.jsonl", text, { schema: { k1: "i64" } }));
  expect([error.code, error.message.includes("line 2501 ")]).toEqual(["BAD_INPUT", true]);
  const rows = await packed(folder, "b.jsonl", text, { badRows: "skip" });
  expect(rows.length).toBe(3000);
  expect([rows[2499]!.k499, rows[2500]!.k0, rows[2500]!.k1]).toEqual([2499, 0, null]);
});

test("more columns than 10,000 are refused by their number, and can be chosen from", async () => {
  const folder = temp("many");
  const text = sparse(10_001, 10_001);
  const error = await rejection(() => packed(folder, "a.jsonl", text));
  expect(error.code).toBe("BAD_INPUT");
  expect(error.message).toContain(
    `${join(folder, "a.jsonl")}: its first 10001 lines have 10001 columns, of at most 10000`,
  );
  const rows = await packed(folder, "b.jsonl", text, { columns: ["k7", "k10000"] });
  expect([rows.length, rows[7]!.k7, rows[10_000]!.k10000]).toEqual([10_001, 7, 10_000]);
});
