/** Lines of JSON as shards: what they mean, and what is said of those that mean nothing. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { appendFileSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { pack } from "../../src/index.ts";
import { useTempDir } from "../loader/helpers.ts";
import { packed, readRows, rejection, schemaOf, textFile } from "./text.ts";

setDefaultTimeout(60_000);

const temp = useTempDir();
const lines = (...rows: unknown[]) => rows.map((row) => `${JSON.stringify(row)}\n`).join("");

describe("types", () => {
  test("are found out from the first lines", async () => {
    const folder = temp("types");
    const rows = [
      {
        id: 1,
        score: 0.5,
        text: "a",
        good: true,
        tokens: [1, 2],
        vector: [0.5, 1],
        grid: [
          [1, 2],
          [3, 4],
        ],
      },
      {
        id: -2,
        score: 3,
        text: null,
        good: false,
        tokens: [],
        vector: [1, 2],
        grid: [
          [5, 6],
          [7, 8],
        ],
      },
      {
        id: null,
        score: -1e-3,
        text: "é",
        tokens: [7],
        vector: [3, 4],
        grid: [
          [9, 9],
          [9, 9],
        ],
      },
    ];
    const got = await packed(folder, "a.jsonl", lines(...rows));
    expect(schemaOf(join(folder, "a.jsonl-out"))).toEqual([
      "id: I64",
      "score: F64",
      "text: utf8",
      "good: BOOL",
      "tokens: I64[]",
      "vector: F64[2]",
      "grid: I64[2,2]",
    ]);
    expect(got.map(({ tokens }) => tokens)).toEqual(rows.map(({ tokens }) => tokens));
  });

  test("objects within objects are columns with a dot", async () => {
    const got = await packed(
      temp("nested"),
      "a.jsonl",
      lines({ a: { b: 1, c: { d: "x" } }, e: 2 }, { a: null, e: 3 }, { a: { c: {} } }),
    );
    expect(got).toEqual([
      { "a.b": 1, "a.c.d": "x", e: 2 },
      { "a.b": null, "a.c.d": null, e: 3 },
      { "a.b": null, "a.c.d": null, e: null },
    ]);
  });

  test("integers keep every digit, floats every bit", async () => {
    const integers = [
      "9007199254740993",
      "-9223372036854775808",
      "9223372036854775807",
      "-1",
      "4294967296",
      "-4294967297",
      "0",
      "-0",
    ];
    const floats = [
      "0.1",
      "1e-320",
      "1.7976931348623157e308",
      "123456789012345680000",
      "5e-324",
      "0.30000000000000004",
      "-2.5E+3",
      "9007199254740993.0",
      "1e23",
      "NaN",
      "-Infinity",
    ];
    const text =
      integers.map((one, i) => `{"i":${one},"f":${floats[i] ?? "0.0"}}\n`).join("") +
      floats
        .slice(integers.length)
        .map((one) => `{"i":0,"f":${one}}\n`)
        .join("");
    const got = await packed(temp("digits"), "a.jsonl", text);
    expect(got.slice(0, integers.length).map(({ i }) => BigInt(i as number))).toEqual(integers.map(BigInt));
    expect(got.map(({ f }) => f)).toEqual(floats.map(Number));
    const unsigned = await packed(temp("unsigned"), "a.jsonl", '{"i":18446744073709551615}\n{"i":3}\n');
    expect(unsigned.map(({ i }) => i)).toEqual([18446744073709551615n, 3]);
  });

  test("--schema rounds integers where it says f64", async () => {
    const text = '{"a":9007199254740993,"b":[9007199254740993]}\n{"a":1.5,"b":[0.5]}\n';
    expect(await packed(temp("round"), "a.jsonl", text, { schema: { a: "f64", b: "f64[]" } })).toEqual([
      { a: 9007199254740992, b: [9007199254740992] },
      { a: 1.5, b: [0.5] },
    ]);
  });

  test("--schema utf8 takes numbers and booleans as they are written, and no lists", async () => {
    const values = ['"x"', "1", "-1.50e+2", "9007199254740993", "true", "false", "null", "NaN", '"\\u0041"'];
    const text = values.map((value) => `{"a":${value} }\n`).join("");
    const rows = await packed(temp("texts"), "a.jsonl", text, { schema: { a: "utf8" } });
    const wanted = ["x", "1", "-1.50e+2", "9007199254740993", "true", "false", null, "NaN", "A"];
    expect(rows.map(({ a }) => a)).toEqual(wanted);
    for (const odd of ["[1]", '{"b":1}', "truth", "01"]) {
      const work = () => packed(temp("texts"), "b.jsonl", `{"a":${odd}}\n`, { schema: { a: "utf8" } });
      const failure = await rejection(work);
      expect(failure.code).toBe("BAD_INPUT");
      expect(failure.message).not.toContain("type by --schema");
    }
  });

  test("--schema decides, and gives columns that come late", async () => {
    const schema = { id: "i32", late: "utf8", tokens: "u16[]", vector: "f32[2]" };
    const rows = lines(
      { id: 1, tokens: [65_535], vector: [1, 2] },
      { id: 2, tokens: [1, 2], vector: [3, 4], late: "x" },
    );
    const folder = temp("schema");
    const got = await packed(folder, "a.jsonl", rows, { schema });
    expect(schemaOf(join(folder, "a.jsonl-out"))).toEqual([
      "id: I32",
      "tokens: U16[]",
      "vector: F32[2]",
      "late: utf8",
    ]);
    expect(got.map(({ late }) => late)).toEqual([null, "x"]);
  });
});

describe("text", () => {
  test("escapes, surrogates, marks and line ends", async () => {
    const text = `\ufeff{"t":"\\u0041\\u00e9\\ud83d\\ude00\\n\\t\\"\\\\\\/\\b\\f\\r"}\r\n\r\n  {"t" : "é😀" } \n\n{"t":""}`;
    const got = await packed(temp("escapes"), "a.jsonl", text);
    expect(got).toEqual([{ t: 'Aé😀\n\t"\\/\b\f\r' }, { t: "é😀" }, { t: "" }]);
  });

  test("a line of 50 MB", async () => {
    const folder = temp("long");
    const path = textFile(folder, "a.jsonl", '{"t":"first"}\n{"t":"');
    appendFileSync(path, "é".repeat(25_000_000));
    appendFileSync(path, '"}\n{"t":"last"}\n');
    await pack(path, { out: join(folder, "out"), threads: 2 });
    const rows = await readRows(join(folder, "out"));
    expect(rows.map(({ t }) => (t as string).length)).toEqual([5, 25_000_000, 4]);
  });

  test.each([["gz"], ["zst"]])("compressed as .%s, of several frames", async (ending) => {
    const folder = temp(ending);
    const press = ending === "gz" ? Bun.gzipSync : Bun.zstdCompressSync;
    const parts = [lines({ a: 1 }), lines({ a: 2 }), lines({ a: 3 })].map((part) => press(Buffer.from(part)));
    expect(await packed(folder, `a.jsonl.${ending}`, Buffer.concat(parts))).toEqual([
      { a: 1 },
      { a: 2 },
      { a: 3 },
    ]);
    const cut = Buffer.concat(parts).subarray(0, Buffer.concat(parts).length - 9);
    const failure = await rejection(() => packed(folder, `b.jsonl.${ending}`, cut));
    expect(failure.code).toBe("BAD_INPUT");
    expect(failure.message).toContain(`b.jsonl.${ending}: its compressed bytes are damaged or cut off`);
  });
});

describe("what cannot be read", () => {
  const good = lines(
    { a: 1, t: "x", l: [1, 2], v: [1, 2], f: 0.5 },
    { a: 2, t: "y", l: [1], v: [3, 4] },
  ).repeat(3);
  test.each([
    [
      '{"a":"text"}',
      /line 7 has text in column "a", which holds integers \(i64\); give its type by --schema/,
    ],
    ['{"a":1.5}', /line 7 has the number 1.5 in column "a"/],
    [
      '{"a":99999999999999999999}',
      /line 7 has 99999999999999999999 in column "a", which I64 cannot hold; --schema 'a=f64' rounds it/,
    ],
    [
      '{"f":9007199254740993}',
      /line 7 has 9007199254740993 in column "f", which F64 cannot hold; --schema 'f=f64'/,
    ],
    [
      '{"t":3}',
      /line 7 has the integer 3 in column "t", which holds text \(utf8\); give its type by --schema/,
    ],
    ['{"v":[1]}', /line 7 has a list of another size, and column "v" holds \[2\]/],
    ['{"l":[1,null]}', /line 7 has null in column "l"/],
    ['{"l":[1,"x"]}', /line 7 has text in column "l"/],
    ['{"new":3}', /line 7 has key "new", which the first lines do not have/],
    ['{"a":1,"a":2}', /line 7 has key "a" twice/],
    ['{"a":1', /line 7 ends within its object/],
    ['{"a":01}', /line 7 /],
    ['{"a":1}}', /line 7 goes on behind its object/],
    ['{"a":1} {"a":2}', /line 7 goes on behind its object/],
    ['{"a" 1}', /line 7 is no JSON: a colon should follow/],
    ["{a:1}", /line 7 is no JSON: a key in quotes/],
    ["[1]", /line 7 holds no object/],
    ['{"t":"\\ud800"}', /line 7 has half a surrogate pair, \\ud800/],
    ['{"t":"\\x"}', /line 7 has the unknown escape/],
    ['{"t":"\\u00g0"}', /line 7 has an escape \\u without four/],
    ['{"t":"a\tb"}', /line 7 has the control character 0x09/],
    ['{"t":"open', /line 7 ends within a text/],
  ])("%s", async (bad, message) => {
    const folder = temp("bad");
    // Past what types are found out from, so that threads meet it.
    const path = textFile(folder, "a.jsonl", good);
    const before = good.split("\n").length - 1;
    const filler = lines({ a: 1, t: "z".repeat(100_000), l: [], v: [0, 0] });
    appendFileSync(path, filler.repeat(80));
    appendFileSync(path, `${bad}\n${good}`);
    const failure = await rejection(() => pack(path, { out: join(folder, "out"), threads: 2 }));
    expect(failure.code).toBe("BAD_INPUT");
    const line = before + 81;
    expect(failure.message).toEndWith("; --bad-rows skip leaves such rows out");
    expect(failure.message).toMatch(new RegExp(message.source.replace("line 7", `a\\.jsonl: line ${line}`)));
    expect(await Bun.file(join(folder, "out", "dataset.json")).exists()).toBe(false);
    const report = await pack(path, { out: join(folder, "out"), threads: 2, badRows: "skip" });
    expect(report.skippedRows).toBe(1);
    expect(report.samples).toBe(2 * before + 80);
  });

  test("bytes that are no UTF-8", async () => {
    const text = Buffer.concat([
      Buffer.from(good),
      Buffer.from('{"t":"'),
      Buffer.from([0xc3, 0x28]),
      Buffer.from('"}\n'),
    ]);
    const failure = await rejection(() => packed(temp("utf8"), "a.jsonl", text));
    expect(failure.message).toMatch(/a\.jsonl: line 7 holds bytes that are no UTF-8/);
    expect(failure.code).toBe("BAD_INPUT");
    const utf16 = await rejection(() => packed(temp("utf16"), "a.jsonl", Buffer.from("\ufeff{}", "utf16le")));
    expect(utf16.message).toContain("is UTF-16; convert it to UTF-8");
  });

  test.each([
    [
      lines({ a: 1 }, { a: "x" }),
      "BAD_INPUT",
      `line 2 has text in column "a", and line 1 has numbers; take them as text, as they are written, by --schema 'a=utf8'`,
    ],
    [
      lines({ a: [1] }, { a: "x" }),
      "BAD_INPUT",
      "and line 1 has lists of numbers; make them alike, or leave it out by --columns",
    ],
    [
      lines({ a: [1] }, { a: 2 }),
      "BAD_INPUT",
      'line 2 has numbers in column "a", and line 1 has lists of numbers',
    ],
    [lines({ a: ["x"] }), "BAD_INPUT", 'has lists of text, of objects, or of mixed values in column "a"'],
    [lines({ a: [[1], [2, 3]] }), "BAD_INPUT", "lists of lists of different sizes"],
    [lines({ a: [2, [1]] }), "BAD_INPUT", "mixed values"],
    [lines({ a: null, b: 1 }), "BAD_INPUT", 'column "a" has no value in the first 1 lines'],
    [lines({ a: [] }), "BAD_INPUT", "nothing but empty lists"],
    ['{"a":-1}\n{"a":18446744073709551615}\n', "BAD_INPUT", "integers that 64 bits cannot hold"],
    [
      '{"a":9007199254740993}\n{"a":1.5}\n',
      "BAD_INPUT",
      "has fractions, and integers past 2^53 that F64 cannot hold; --schema 'a=f64' rounds them",
    ],
    ['{"a":[9007199254740993]}\n{"a":[]}\n{"a":[0.5]}\n', "BAD_INPUT", "--schema 'a=f64[]' rounds them"],
    ['{"a":[[9007199254740993],[0.5]]}\n', "BAD_INPUT", "--schema 'a=f64[2,1]' rounds them"],
    [`{"a":0.5}\n{"a":${"9".repeat(400)}}\n`, "BAD_INPUT", "--schema 'a=f64' rounds them"],
    [lines({ a: [1, null, 2] }), "BAD_INPUT", 'line 1 has a list with null in it in column "a"'],
    [lines({ a: [[1], [null]] }), "BAD_INPUT", 'line 1 has a list with null in it in column "a"'],
    [lines({}, {}), "BAD_INPUT", "its first 2 rows have no key"],
    ['{"a":1,"a":2}\n', "BAD_INPUT", "twice; --bad-rows skip leaves such rows out"],
    ['{"a":1\n', "BAD_INPUT", "; --bad-rows skip leaves such rows out"],
    ["", "SOURCE_EMPTY", "holds no row"],
    ["\n\n", "SOURCE_EMPTY", "holds no row"],
  ])("%j", async (text, code, message) => {
    const failure = await rejection(() => packed(temp("infer"), "a.jsonl", text));
    expect(failure.code as string).toBe(code);
    expect(failure.message).toContain(message);
  });

  test("columns that are left out are not looked at", async () => {
    const rows = lines({ a: 1, b: ["x", { y: [1] }] }, { a: 2, b: 3, "c\n": '"}' });
    expect(await packed(temp("out"), "a.jsonl", rows, { columns: ["a"] })).toEqual([{ a: 1 }, { a: 2 }]);
    const failure = await rejection(() => packed(temp("out"), "a.jsonl", rows, { columns: ["aa"] }));
    expect(failure.code).toBe("UNKNOWN_COLUMN");
  });
});

test("any rows come back as JSON.parse has them", async () => {
  const folder = temp("property");
  const row = fc.record(
    {
      id: fc.maxSafeInteger(),
      score: fc.double({ noNaN: true, noDefaultInfinity: true }),
      text: fc.option(fc.string({ unit: "grapheme" })),
      good: fc.boolean(),
      tokens: fc.array(fc.integer()),
    },
    { requiredKeys: ["id"] },
  );
  const schema = { id: "i64", score: "f64", text: "utf8", good: "bool", tokens: "i64[]" };
  await fc.assert(
    fc.asyncProperty(fc.array(row, { minLength: 1, maxLength: 30 }), fc.boolean(), async (rows, spaced) => {
      const text = rows.map((one) => JSON.stringify(one)).join("\n");
      const given = spaced
        ? text.replaceAll(/(?<=[[{,:])(?=[^"]*(?:"(?:[^"\\]|\\.)*"[^"]*)*$)/gm, " ")
        : text;
      const got = await packed(folder, "a.jsonl", given, { schema });
      const want = given.split("\n").map((line) => {
        const { id, score = null, text = null, good = null, tokens = null } = JSON.parse(line);
        return { id, score, text, good: good === null ? null : Number(good), tokens };
      });
      expect(got.map((one) => ({ ...one }))).toEqual(want);
    }),
    { numRuns: 25 },
  );
});

test("several files are one source, in code-unit order", async () => {
  const folder = temp("several");
  mkdirSync(folder);
  writeFileSync(join(folder, "b.jsonl"), lines({ a: 2 }));
  writeFileSync(join(folder, "a.jsonl"), lines({ a: 1 }));
  const out = join(temp("several-out"), "out");
  await pack(folder, { out, name: "x" });
  expect(await readRows(out)).toEqual([{ a: 1 }, { a: 2 }]);
  writeFileSync(join(folder, "b.jsonl"), `${lines({ a: 2 })}{"a":"x"}\n`);
  const failure = await rejection(() => pack(folder, { out, overwrite: true }));
  expect(failure.message).toMatch(/b\.jsonl: line 2 has text/);
  expect(readFileSync(join(folder, "a.jsonl"), "utf8")).toBe(lines({ a: 1 }));
});
