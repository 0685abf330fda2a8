/** Sources to pack that other implementations wrote: pyarrow, NumPy, Python's tarfile. */
import { describe, expect, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { ErrorCode } from "../../src/index.ts";
import type { PackField, RowSource, TensorSource } from "../../src/pack/rows.ts";
import { openNumpy } from "../../src/pack/sources/numpy.ts";
import { openParquet } from "../../src/pack/sources/parquet.ts";
import { openWebDataset } from "../../src/pack/sources/webdataset.ts";
import { elementsOf, type Values, valuesOf } from "./pack-rows.ts";

const folder = join(import.meta.dir, "files/pack");
const path = (name: string) => join(folder, name);
const expected = (name: string): Values => JSON.parse(readFileSync(path(`${name}.json`), "utf8"));
const named = (ending: string) => readdirSync(folder).filter((name) => name.endsWith(ending));

async function rowsOf(opening: Promise<RowSource | TensorSource>): Promise<RowSource> {
  const source = await opening;
  if (!("fields" in source)) throw new Error("tensors");
  return source;
}

function text({ kind, dtype, shape, nullable }: PackField): string {
  return `${kind} ${dtype} [${shape}]${nullable ? "?" : ""}`;
}

async function refusal(opening: Promise<unknown>): Promise<{ code: ErrorCode; message: string }> {
  return await opening.then(
    () => Promise.reject(new Error("was opened")),
    (error) => ({ code: error.code, message: error.message }),
  );
}

describe("Parquet", () => {
  test.each(named(".parquet"))("%s", async (name) => {
    const source = await rowsOf(openParquet([path(name)]));
    expect(await valuesOf(source)).toEqual(expected(name));
    await source.close();
  });

  test("has its types", async () => {
    const { fields } = await openParquet([path("snappy.parquet")]);
    expect(Object.fromEntries(fields.map((field) => [field.name, text(field)]))).toEqual({
      i8: "fixed I8 []?",
      u8: "fixed U8 []?",
      i16: "fixed I16 []?",
      u16: "fixed U16 []?",
      i32: "fixed I32 []?",
      u32: "fixed U32 []?",
      f16: "fixed F16 []?",
      f32: "fixed F32 []?",
      f64: "fixed F64 []?",
      bool: "fixed BOOL []?",
      text: "utf8 U8 []?",
      list: "list I32 []?",
      vector: "fixed F32 [3]?",
      i64: "fixed I64 []?",
      u64: "fixed U64 []?",
      binary: "binary U8 []?",
      fixed: "fixed U8 [3]?",
      decimal: "fixed F64 []?",
      whole: "fixed I64 []?",
      date: "fixed I32 []?",
      millis: "fixed I64 []?",
      micros: "fixed I64 []?",
      nanos: "fixed I64 []?",
      time: "fixed I64 []?",
      uuid: "fixed U8 [16]?",
      choice: "utf8 U8 []?",
    });
    const plain = await openParquet([path("spark.parquet")]);
    expect(text(plain.fields.find(({ name }) => name === "vector")!)).toBe("list F32 []?");
    const required = await openParquet([path("required.parquet")]);
    expect(required.fields.map(text)).toEqual(["fixed I32 []", "fixed F64 []"]);
  });

  test("of several files is one after the other, whatever their units", async () => {
    const names = ["snappy.parquet", "spark.parquet"];
    const columns = ["nanos", "text"];
    const found = await valuesOf(await openParquet(names.map(path), { columns }));
    const all = expected("snappy.parquet");
    expect(found).toEqual({ nanos: [...all.nanos!, ...all.nanos!], text: [...all.text!, ...all.text!] });
  });

  test.each([
    ["struct.parquet", /column "who" is a group of 1 columns, .*--columns/],
    ["texts.parquet", /column "tags" is a list of string/],
    ["deep.parquet", /column "deep" is a list of lists/],
    ["map.parquet", /column "map" is a map/],
    ["decimal.parquet", /column "money" is a decimal of 38 digits, 2 of them behind the point/],
  ])("%s is refused, and opens without its column", async (name, message) => {
    const { code, message: found } = await refusal(openParquet([path(`refused/${name}`)]));
    expect(code).toBe("UNSUPPORTED_TYPE");
    expect(found).toMatch(message);
    expect(found).toContain(name);
    const source = await openParquet([path(`refused/${name}`)], { columns: ["id"] });
    expect(await valuesOf(source)).toEqual({ id: ["1"] });
  });

  test("a missing element of a list has its row named", async () => {
    const source = await openParquet([path("refused/hole.parquet")]);
    const { code, message } = await refusal(valuesOf(source));
    expect(code).toBe("BAD_INPUT");
    expect(message).toMatch(/hole.parquet: row group 0: column "list", row 1: element 1 /);
  });

  test("files that differ are refused by file and column", async () => {
    const both = [path("required.parquet"), path("empty.parquet")];
    const { code, message } = await refusal(openParquet(both));
    expect(code).toBe("SCHEMA_MISMATCH");
    expect(message).toMatch(/empty.parquet: column "id" is none of 2 columns, and I32 of 2/);
  });
});

describe("NumPy", () => {
  test.each([...named(".npy"), ...named(".npz").filter((name) => name !== "tensors.npz")])(
    "%s",
    async (name) => {
      const source = await rowsOf(openNumpy([path(name)]));
      expect(await valuesOf(source)).toEqual(expected(name));
    },
  );

  test("arrays of different first axes are tensors", async () => {
    const source = await openNumpy([path("tensors.npz")]);
    if ("fields" in source) throw new Error("rows");
    expect(source.tensors.map(({ name, dtype, shape }) => [name, dtype, shape])).toEqual([
      ["weight", "F32", [4, 3]],
      ["bias", "F64", [2]],
      ["step", "I64", []],
    ]);
    expect(await elementsOf(source)).toEqual(expected("tensors.npz"));
    const some = await openNumpy([path("tensors.npz")], { columns: ["bias"] });
    expect(await valuesOf(await rowsOf(Promise.resolve(some)))).toEqual({ bias: [1.5, -2] });
  });

  test("several files are one column, or the same columns", async () => {
    const column = await rowsOf(openNumpy([path("floats.npy"), path("floats.npy")]));
    const rows = expected("floats.npy").floats!;
    expect(await valuesOf(column)).toEqual({ data: [...rows, ...rows] });
    const table = await valuesOf(await rowsOf(openNumpy([path("stored.npz"), path("deflated.npz")])));
    expect(table.label).toEqual(["3", "1", "2", "0", "3", "1", "2", "0"]);
    const mixed = await refusal(openNumpy([path("floats.npy"), path("flags.npy")]));
    expect(mixed).toMatchObject({ code: "SCHEMA_MISMATCH", message: expect.stringContaining("flags.npy") });
  });

  test.each([
    ["objects.npy", /is an array of Python objects/],
    ["fields.npy", /is a structured array/],
    ["texts.npy", /is an array of texts \(<U2\)/],
    ["fortran.npy", /is in Fortran order; save numpy.ascontiguousarray/],
  ])("%s is refused", async (name, wanted) => {
    const { code, message } = await refusal(openNumpy([path(`refused/${name}`)]));
    expect(code).toBe("UNSUPPORTED_TYPE");
    expect(message).toMatch(wanted);
    expect(message).toContain(name);
  });
});

describe("WebDataset", () => {
  test.each(named(".tar.gz"))("%s", async (name) => {
    const source = await openWebDataset([path(name)]);
    expect(await valuesOf(source)).toEqual(expected(name));
    expect(Object.fromEntries(source.fields.map((field) => [field.name, text(field)]))).toEqual({
      __key__: "utf8 U8 []",
      txt: "utf8 U8 []?",
      cls: "fixed I64 []?",
      jpg: "binary U8 []?",
      npy: "fixed F32 [2,2]?",
      "seg.npy": "list I16 []?",
      "json.id": "fixed I64 []?",
      "json.score": "fixed F64 []?",
      "json.name": "utf8 U8 []?",
    });
  });

  test("chosen columns come alone, and json is the text where it is named", async () => {
    const columns = ["cls", "json"];
    const source = await openWebDataset([path("gnu.tar.gz"), path("pax.tar.gz")], { columns });
    const { cls, json } = await valuesOf(source);
    const once = expected("gnu.tar.gz");
    expect(cls).toEqual([...once.cls!, ...once.cls!]);
    expect(JSON.parse(json![4] as string)).toEqual({ id: 4, score: 1, name: "nö 4" });
  });
});
