/** Rows on their way from a source to the shards. */
import { describe, expect, test } from "bun:test";
import { cpSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { PackBatch, PackField } from "../../src/pack/rows.ts";
import { bytesColumn } from "../../src/pack/sources/columns.ts";
import { tokenizeColumn } from "../../src/pack/tokenize.ts";
import { castColumns, renameColumns, selectColumns, type Transform } from "../../src/pack/transforms.ts";
import { addBatch, type Values } from "../golden/pack-rows.ts";
import { useTempDir } from "../loader/helpers.ts";

const temp = useTempDir();
const tokenizers = join(import.meta.dir, "../golden/files/tokenizers");

const FIELDS: readonly PackField[] = [
  { name: "id", kind: "fixed", dtype: "I64", shape: [], nullable: false },
  { name: "pair", kind: "fixed", dtype: "F32", shape: [2], nullable: true },
  { name: "tags", kind: "list", dtype: "I32", shape: [], nullable: false },
  { name: "text", kind: "utf8", dtype: "U8", shape: [], nullable: true },
];

function texts(rows: readonly (string | null)[]) {
  return bytesColumn(
    rows.map((row) => (row === null ? null : new TextEncoder().encode(row))),
    "test",
  );
}

function batch(first: number): PackBatch {
  const bytes = (view: ArrayBufferView) => new Uint8Array(view.buffer);
  return {
    numRows: 3,
    sourceBytes: 100,
    columns: [
      { values: bytes(BigInt64Array.of(BigInt(first), 5n, 300n)), nullCount: 0 },
      {
        values: bytes(Float32Array.of(1.5, -2, 0, 0, 0.25, 1e6)),
        validity: Uint8Array.of(1, 0, 1),
        nullCount: 1,
      },
      { values: bytes(Int32Array.of(7, 8, -9, 1000)), offsets: Int32Array.of(0, 2, 2, 4), nullCount: 0 },
      texts(["one", null, "drei €"]),
    ],
  };
}

async function run(
  transform: Transform,
  ...batches: PackBatch[]
): Promise<{ fields: readonly PackField[]; values: Values }> {
  const { fields, apply, close } = transform(FIELDS);
  const values: Values = Object.fromEntries(fields.map(({ name }) => [name, []]));
  for (const one of batches) addBatch(values, fields, await apply(one));
  await close?.();
  return { fields, values };
}

test("columns are chosen by name and pattern, in the source's order", async () => {
  const { values } = await run(selectColumns(["text", "p*"]), batch(1));
  expect(Object.keys(values)).toEqual(["pair", "text"]);
  expect(values.text).toEqual(["one", null, "drei €"]);
  expect(() => selectColumns(["txt"])(FIELDS)).toThrow(/"text"/);
});

test("columns are renamed, and no two get one name", async () => {
  const { values } = await run(renameColumns({ id: "row", text: "id" }), batch(1));
  expect(Object.keys(values)).toEqual(["row", "pair", "tags", "id"]);
  expect(() => renameColumns({ id: "text" })(FIELDS)).toThrow('two columns would be named "text"');
  expect(() => renameColumns({ idd: "x" })(FIELDS)).toThrow(/no column "idd" .*did you mean "id"/);
});

describe("casts", () => {
  test("keep shapes, lists and missing rows", async () => {
    const { fields, values } = await run(
      castColumns({ id: "I16", pair: "F16", "t?gs": "F64" }),
      batch(1),
      batch(2),
    );
    expect(fields.map(({ dtype }) => dtype)).toEqual(["I16", "F16", "F64", "U8"]);
    const once = {
      pair: [[1.5, -2], null, [0.25, Number.POSITIVE_INFINITY]],
      tags: [[7, 8], [], [-9, 1000]],
    };
    expect(values).toEqual({
      id: [1, 5, 300, 2, 5, 300],
      pair: [...once.pair, ...once.pair],
      tags: [...once.tags, ...once.tags],
      text: ["one", null, "drei €", "one", null, "drei €"],
    });
  });

  test("of a batch that was cut short leave what lies behind alone", async () => {
    const cut = { ...batch(1), numRows: 2 };
    const columns = cut.columns.map((column, i) => {
      if (i === 1) return { values: new Uint8Array(24), nullCount: 0 };
      return column.offsets === undefined ? column : { ...column, offsets: column.offsets.subarray(0, 3) };
    });
    const { values } = await run(castColumns({ id: "U8", tags: "U8" }), { ...cut, columns });
    expect([values.id, values.tags]).toEqual([
      [1, 5],
      [[7, 8], []],
    ]);
  });

  test("the first of several that match counts", () => {
    expect(castColumns({ id: "U8", "*d": "F32" })(FIELDS).fields[0]!.dtype).toBe("U8");
  });

  test("what does not fit has its row and value named, counted over batches", async () => {
    const id = run(castColumns({ id: "U8" }), batch(1));
    expect(id).rejects.toMatchObject({
      code: "BAD_INPUT",
      message: expect.stringMatching(/^the source: row 2: column "id" has 300, which U8/),
    });
    const list = run(castColumns({ tags: "I8" }), batch(1));
    expect(list).rejects.toMatchObject({
      message: expect.stringMatching(/^the source: row 2: column "tags" has 1000/),
    });
    const { apply } = castColumns({ pair: "I16" })(FIELDS);
    const fits = {
      ...batch(1),
      columns: batch(1).columns.with(1, { values: new Uint8Array(24), nullCount: 0 }),
    };
    await apply(fits);
    expect(() => apply(batch(1))).toThrow(/^the source: row 5: column "pair" has 1000000, which I16/);
    const { values } = await run(castColumns({ id: "U8", tags: "I8" }, true), batch(-1));
    expect([values.id, values.tags]).toEqual([
      [0, 5, 255],
      [[7, 8], [], [-9, 127]],
    ]);
  });

  test.each([
    [{ text: "F32" }, /column "text" holds text, which cannot be cast to F32/],
    [{ id: "F8_E4M3" }, /column "id" holds I64, which cannot be cast to F8_E4M3/],
  ] as const)("%o is refused", (casts, message) => {
    expect(() => castColumns(casts as never)(FIELDS)).toThrow(message);
  });
});

describe("tokenising", () => {
  test("by bytes", async () => {
    const { fields, values } = await run(tokenizeColumn({ tokenizer: "bytes", column: "text" }), batch(1));
    expect(fields.at(-1)).toEqual({ name: "tokens", kind: "list", dtype: "U16", shape: [], nullable: true });
    expect(values.tokens).toEqual([[111, 110, 101], null, [...new TextEncoder().encode("drei €")]]);
    expect(Object.keys(values)).toEqual(["id", "pair", "tags", "tokens"]);
    const kept = await run(
      tokenizeColumn({ tokenizer: "bytes", column: "text", keep: true, output: "ids", maxLength: 2 }),
      batch(1),
    );
    expect(kept.values.ids).toEqual([[111, 110], null, [100, 114]]);
    expect(Object.keys(kept.values)).toEqual(["id", "pair", "tags", "text", "ids"]);
  });

  test.each(["byte-level", "byte-fallback"])(
    "by the tokenizer.json of %s, as its own library does",
    async (name) => {
      const golden = goldenOf(name);
      const rows = golden.map(({ text }) => text);
      const field: PackField = FIELDS[3]!;
      const { apply, close } = tokenizeColumn({
        tokenizer: join(tokenizers, name, "tokenizer.json"),
        column: "text",
      })([field]);
      const values: Values = { tokens: [] };
      const made = await apply({ numRows: rows.length, columns: [texts(rows)], sourceBytes: 0 });
      addBatch(values, [{ ...field, name: "tokens", kind: "list", dtype: "U16" }], made);
      expect(values.tokens).toEqual(golden.map(({ ids }) => ids));
      await close!();
    },
  );

  test("by Workers gives the same as here", async () => {
    const rows = Array.from({ length: 2800 }, (_, i) =>
      i % 17 === 3 ? null : `Zeile ${i} `.repeat(1 + (i % 29)),
    );
    const column = texts(rows);
    expect(column.values.length).toBeGreaterThan(393_216);
    const found = [];
    for (const threads of [1, 3]) {
      const options = { tokenizer: join(tokenizers, "byte-level"), column: "text", threads };
      const { apply, close } = tokenizeColumn(options)([FIELDS[3]!]);
      for (let round = 0; round < (threads === 1 ? 1 : 2); round++) {
        const { columns } = await apply({ numRows: rows.length, columns: [column], sourceBytes: 0 });
        found.push({ ...columns[0]!, values: columns[0]!.values.slice() });
      }
      await close!();
    }
    expect(found[0]!.offsets![2800]).toBeGreaterThan(50_000);
    for (const other of found.slice(1)) expect(other).toEqual(found[0]!);
  });

  test("a large vocabulary takes I32", () => {
    const folder = temp("large");
    cpSync(join(tokenizers, "byte-level"), folder, { recursive: true });
    const model = JSON.parse(readFileSync(join(folder, "tokenizer.json"), "utf8"));
    model.added_tokens.push({ ...model.added_tokens[0], id: 65_536, content: "<far>" });
    writeFileSync(join(folder, "tokenizer.json"), JSON.stringify(model));
    expect(tokenizeColumn({ tokenizer: folder, column: "text" })(FIELDS).fields.at(-1)!.dtype).toBe("I32");
  });

  test.each([
    [{ column: "id" }, /column "id" is fixed of I64, and only text is tokenised/],
    [{ column: "texts" }, /no column "texts"/],
    [{ maxLength: 0 }, /maxLength is 0/],
    [{ output: "id" }, /two columns would be named "id"/],
    [{ tokenizer: "vocab.json" }, /tokenizer vocab.json is not named tokenizer.json/],
    [{ tokenizer: "/nowhere" }, /nowhere: holds neither tokenizer.json/],
  ])("%o is refused", (options, message) => {
    expect(() => tokenizeColumn({ tokenizer: "bytes", column: "text", ...options })(FIELDS)).toThrow(message);
  });
});

function goldenOf(name: string): { text: string; ids: number[] }[] {
  return JSON.parse(readFileSync(join(tokenizers, name, "golden.json"), "utf8"));
}
