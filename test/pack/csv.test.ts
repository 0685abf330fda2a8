/** CSV as shards: quoting, types, and what is said of lines that cannot be read. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { appendFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { pack } from "../../src/index.ts";
import { useTempDir } from "../loader/helpers.ts";
import { packed, readRows, rejection, schemaOf, textFile } from "./text.ts";

setDefaultTimeout(60_000);

const temp = useTempDir();

describe("CSV", () => {
  test("types are found out, and empty fields are null", async () => {
    const text =
      'id,score,name,good,zip,big,none\n1,0.5,a,true,00501,18446744073709551615,\n-2,1e3,,FALSE,10001,3,\n,nan,"",,x,,\n';
    const folder = temp("types");
    const rows = await packed(folder, "a.csv", text);
    expect(schemaOf(join(folder, "a.csv-out"))).toEqual([
      "id: I64",
      "score: F64",
      "name: utf8",
      "good: BOOL",
      "zip: utf8",
      "big: U64",
      "none: utf8",
    ]);
    expect(rows).toEqual([
      { id: 1, score: 0.5, name: "a", good: 1, zip: "00501", big: 18446744073709551615n, none: null },
      { id: -2, score: 1000, name: null, good: 0, zip: "10001", big: 3, none: null },
      { id: null, score: Number.NaN, name: "", good: null, zip: "x", big: null, none: null },
    ]);
  });

  test("quotes, line ends within them, CRLF, a mark, blank lines, no line end at the end", async () => {
    const text = '\ufeff"a ""b""",c\r\n"x,y","1"\r\n"two\r\nlines ""q""",2\r\n\r\n,3';
    expect(await packed(temp("quotes"), "a.csv", text)).toEqual([
      { 'a "b"': "x,y", c: 1 },
      { 'a "b"': 'two\r\nlines "q"', c: 2 },
      { 'a "b"': null, c: 3 },
    ]);
  });

  test("an empty line is a row where there is one column", async () => {
    const folder = temp("lone");
    expect(await packed(folder, "a.csv", "\na\n1\n\n2\r\n\r\n")).toEqual([
      { a: 1 },
      { a: null },
      { a: 2 },
      { a: null },
    ]);
    expect(await packed(folder, "b.csv", 'b\nx\n\n""\n')).toEqual([{ b: "x" }, { b: null }, { b: "" }]);
    expect(await packed(folder, "d.csv", "d\n\n")).toEqual([{ d: null }]);
    const left = await packed(folder, "c.csv", "a,b\n1,2\n\n3,4\n", { columns: ["a"] });
    expect(left).toEqual([{ a: 1 }, { a: 3 }]);
  });

  test("tabs by the file's name, others by option; columns and schema", async () => {
    expect(await packed(temp("tsv"), "a.tsv", "a\tb\n1\tx,y\n")).toEqual([{ a: 1, b: "x,y" }]);
    const options = { delimiter: ";", columns: ["b"], schema: { b: "f32" } };
    expect(await packed(temp("semicolon"), "a.csv", "a;b\nx;1\n", options)).toEqual([{ b: 1 }]);
  });

  test.each([
    ["1,2,3", /has 3 fields, and the header has 2/],
    ["1", /has 1 fields, and the header has 2/],
    ['1,a"b', /has a quote within a field/],
    ['1,"a"b', /has something behind a closing quote/],
    ["x,2", /has "x" in column "a", which holds integers \(i64\); --schema a=utf8 takes anything/],
    ["99999999999999999999,2", /has "99999999999999999999" in column "a"/],
  ])("%s", async (bad, message) => {
    const folder = temp("bad");
    // Past what types are found out from; each record has two lines.
    const path = textFile(folder, "a.csv", `a,b\n${`1,"${"z".repeat(100_000)}\n"\n`.repeat(80)}`);
    appendFileSync(path, `${bad}\n5,"end"\n`);
    const out = join(folder, "out");
    const failure = await rejection(() => pack(path, { out, threads: 2 }));
    expect(failure.code).toBe("BAD_INPUT");
    expect(failure.message).toMatch(new RegExp(`a\\.csv: line 162 ${message.source}`));
    const report = await pack(path, { out, threads: 2, badRows: "skip", columns: ["a"] });
    expect(report).toMatchObject({ skippedRows: 1, samples: 81 });
    expect((await readRows(out)).at(-1)).toEqual({ a: 5 });
  });

  test.each([
    ["", "SOURCE_EMPTY", "is empty; a CSV starts with a header"],
    ["a,b\n", "SOURCE_EMPTY", "holds no row"],
    ["a,a\n1,2\n", "BAD_INPUT", 'the header has column "a" twice'],
    ["a,\n1,2\n", "BAD_INPUT", "field 2 of the header is empty"],
    ["a\rb\r", "BAD_INPUT", "carriage returns alone"],
    ['a,b\n1,"open\n', "BAD_INPUT", "line 2 has a quote that is never closed"],
  ])("%j", async (text, code, message) => {
    const failure = await rejection(() => packed(temp("odd"), "a.csv", text));
    expect(failure.code as string).toBe(code);
    expect(failure.message).toContain(message);
  });

  test("integers keep their digits beside fractions: such a column is text, or refused later on", async () => {
    const text = "a,b,c\n9007199254740993,-1,9007199254740993\n1.5,18446744073709551615,1\n";
    expect(await packed(temp("digits"), "a.csv", text, { schema: { c: "f64" } })).toEqual([
      { a: "9007199254740993", b: "-1", c: 9007199254740992 },
      { a: "1.5", b: "18446744073709551615", c: 1 },
    ]);
    const late = `a,b\n${`0.5,${"z".repeat(100_000)}\n`.repeat(80)}9007199254740993,x\n`;
    const failure = await rejection(() => packed(temp("digits"), "b.csv", late));
    expect(failure.message).toMatch(
      /b\.csv: line 82 has 9007199254740993 in column "a", which F64 cannot hold; --schema 'a=f64' rounds it/,
    );
    // As JavaScript writes doubles.
    const script = "a\n1234567890123456800\n0.5\n";
    expect(await packed(temp("digits"), "c.csv", script)).toEqual([{ a: 1234567890123456800 }, { a: 0.5 }]);
  });

  test("files with another header are refused by name", async () => {
    const folder = temp("headers");
    const paths = [textFile(folder, "a.csv", "a,b\n1,2\n"), textFile(folder, "b.csv", "a,c\n1,2\n")];
    const failure = await rejection(() => pack(paths, { out: join(folder, "out") }));
    expect(failure.message).toMatch(/b\.csv: has the header "a,c", and .*a\.csv has "a,b"/);
  });

  test("any texts come back, cut into pieces wherever", async () => {
    const folder = temp("property");
    const field = fc.string({ unit: fc.constantFrom("a", '"', ",", "\n", "\r", "é", " ") });
    await fc.assert(
      fc.asyncProperty(fc.array(fc.tuple(field, field), { minLength: 1, maxLength: 20 }), async (rows) => {
        const quoted = (text: string) => `"${text.replaceAll('"', '""')}"`;
        const text = `x,y\n${rows.map((row) => row.map(quoted).join(",")).join("\r\n")}\r\n`;
        const schema = { x: "utf8", y: "utf8" };
        expect(await packed(folder, "a.csv", text, { schema })).toEqual(rows.map(([x, y]) => ({ x, y })));
      }),
      { numRuns: 25 },
    );
  });
});
