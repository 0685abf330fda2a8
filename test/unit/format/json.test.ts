import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { HeadraceError } from "../../../src/errors.ts";
import { decodeUtf8, JsonReader, MAX_JSON_DEPTH, quoted } from "../../../src/format/json.ts";
import { failureOf } from "../failure.ts";

function readerOf(text: string): JsonReader {
  return new JsonReader(text, {
    what: "text",
    syntax: "HEADER_NOT_JSON",
    duplicate: "HEADER_DUPLICATE_KEY",
  });
}

function skipAll(text: string): void {
  const reader = readerOf(text);
  reader.skipValue();
  reader.end();
}

/** The whole value as a tree, objects as lists of pairs: what a caller of the reader would build. */
function treeOf(reader: JsonReader): unknown {
  switch (reader.peek()) {
    case "object": {
      const pairs: [string, unknown][] = [];
      reader.readObject((key) => pairs.push([key, treeOf(reader)]));
      return { pairs };
    }
    case "array": {
      const elements: unknown[] = [];
      reader.readArray((index) => {
        elements[index] = treeOf(reader);
      });
      return elements;
    }
    case "string":
      return reader.readString();
    case "number":
      return reader.readNatural() ?? reader.readNumber();
    default: {
      const word = reader.excerpt();
      reader.skipValue();
      return word;
    }
  }
}

/** The same tree from what `JSON.parse` gives. */
function treeOfParsed(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(treeOfParsed);
  if (typeof value === "object" && value !== null) {
    return { pairs: Object.entries(value).map(([key, inner]) => [key, treeOfParsed(inner)]) };
  }
  return typeof value === "string" || typeof value === "number" ? value : String(value);
}

describe("values", () => {
  test("property: equals JSON.parse on all JSON, however it is spaced", () => {
    fc.assert(
      fc.property(fc.json(), fc.nat(3), (text, indent) => {
        const parsed: unknown = JSON.parse(text);
        const spaced = JSON.stringify(parsed, null, indent);
        const reader = readerOf(`\r\n\t ${spaced} \n`);
        expect(treeOf(reader)).toEqual(treeOfParsed(parsed));
        reader.end();
      }),
    );
  });

  test("property: strings come back whole, escaped or not", () => {
    fc.assert(
      fc.property(fc.string({ unit: "binary" }), (value) => {
        const escaped = [...value].map((character) =>
          [...character.split("")]
            .map((unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`)
            .join(""),
        );
        expect(readerOf(`"${escaped.join("")}"`).readString()).toBe(value);
        expect(readerOf(JSON.stringify(value)).readString()).toBe(value);
      }),
    );
  });

  test("property: any mutation of JSON is taken or refused as JSON.parse does", () => {
    // Where the two may differ by design: keys given twice, and halves of surrogate pairs.
    const byDesign = /twice|half a surrogate/;
    const edit = fc.tuple(fc.nat(), fc.constantFrom(...'{}[]",:0.eE-+\\u tfn\u0001é'), fc.boolean());
    fc.assert(
      fc.property(fc.json({ maxDepth: 3 }), fc.array(edit, { maxLength: 3 }), (json, edits) => {
        let text = json;
        for (const [place, character, replaces] of edits) {
          const at = place % (text.length + 1);
          text = text.slice(0, at) + character + text.slice(at + (replaces ? 1 : 0));
        }
        let isJson = true;
        try {
          JSON.parse(text);
        } catch {
          isJson = false;
        }
        if (isJson) {
          try {
            skipAll(text);
          } catch (error) {
            expect((error as HeadraceError).message).toMatch(byDesign);
          }
        } else expect(() => skipAll(text)).toThrow(HeadraceError);
      }),
      { numRuns: 1000 },
    );
  });

  test("naturals are digits alone", () => {
    expect(readerOf("0").readNatural()).toBe(0);
    expect(readerOf(" 9007199254740991").readNatural()).toBe(Number.MAX_SAFE_INTEGER);
    expect(readerOf("9007199254740993").readNatural()).toBe(9007199254740992);
    expect(readerOf("18446744073709551615").readNatural()).toBe(2 ** 64);
    expect(readerOf("1".repeat(100_000)).readNatural()).toBe(Number.POSITIVE_INFINITY);
    for (const text of ["-1", "-0", "1.0", "1e3", "1E0", '"1"', "[1]", "null", "]", ""]) {
      const reader = readerOf(text);
      expect(reader.readNatural()).toBeUndefined();
      expect(reader.position()).toBe("byte 0");
    }
  });

  test("numbers are the nearest double", () => {
    expect(readerOf("-1.5e3").readNumber()).toBe(-1500);
    expect(readerOf("1e400").readNumber()).toBe(Number.POSITIVE_INFINITY);
    expect(Object.is(readerOf("-0").readNumber(), -0)).toBe(true);
  });
});

describe("what is not JSON", () => {
  const cases: [string, string][] = [
    ["", "expected a value, found the end at byte 0"],
    ["  ", "expected a value, found the end at byte 2"],
    ["{", "expected a key in quotes, found the end at byte 1"],
    ['{"a"', "expected ':', found the end at byte 4"],
    ['{"a" 1}', "expected ':', found \"1\" at byte 5"],
    ['{"a":1', "expected ',' or '}', found the end at byte 6"],
    ['{"a":1,}', 'expected a key in quotes, found "}" at byte 7'],
    ["{,}", 'expected a key in quotes, found "," at byte 1'],
    ["{a:1}", 'expected a key in quotes, found "a" at byte 1'],
    ["[1,]", 'expected a value, found "]" at byte 3'],
    ["[,1]", 'expected a value, found "," at byte 1'],
    ["[1 2]", "expected ',' or ']', found \"2\" at byte 3"],
    ["[1}", "expected ',' or ']', found \"}\" at byte 2"],
    ['"abc', "expected '\"' at the end of a string, found the end at byte 4"],
    ['"a\nb"', 'expected no control character in a string, found "\\n" at byte 2'],
    ['"\\t\n"', 'expected \'"\' at the end of a string, found "\\n" at byte 3'],
    ['"\\x"', 'expected an escape that JSON knows, found "x" at byte 2'],
    ['"\\', "expected an escape that JSON knows, found the end at byte 2"],
    ['"\\u12g4"', 'expected four hexadecimal digits after \\u, found "u" at byte 2'],
    ['"\\ud800"', "a string's escapes leave half a surrogate pair at byte 1"],
    ['"\\udc00\\ud800"', "a string's escapes leave half a surrogate pair at byte 1"],
    ["01", 'expected no leading zero, found "1" at byte 1'],
    ["-", 'expected a number, found "-" at byte 0'],
    ["1.", 'expected the end, found "." at byte 1'],
    [".5", 'expected a value, found "." at byte 0'],
    ["+1", 'expected a value, found "+" at byte 0'],
    ["NaN", 'expected a value, found "N" at byte 0'],
    ["nul", 'expected a value, found "n" at byte 0'],
    ["truth", 'expected a value, found "t" at byte 0'],
    ["1 // no", 'expected the end, found "/" at byte 2'],
    ["{} {}", 'expected the end, found "{" at byte 3'],
    ["\u00a01", 'expected a value, found "\u00a0" at byte 0'],
    ["\ufeff{}", 'expected a value, found "\ufeff" at byte 0'],
  ];
  for (const [text, message] of cases) {
    test(JSON.stringify(text), () => {
      const failure = failureOf(() => skipAll(text));
      expect(failure.code).toBe("HEADER_NOT_JSON");
      expect(failure.message).toBe(`text is not JSON: ${message} of text`);
    });
  }

  test("a natural with a leading zero", () => {
    expect(failureOf(() => readerOf("[01]").readArray(() => {})).code).toBe("HEADER_NOT_JSON");
    expect(failureOf(() => readerOf("007").readNatural()).message).toContain("no leading zero");
  });

  test("positions are bytes of UTF-8", () => {
    expect(failureOf(() => skipAll('["é😀重" x]')).message).toContain("at byte 13 ");
  });
});

describe("keys given twice", () => {
  const cases: [string, string][] = [
    ['{"a":1,"b":2,"a":3}', 'text has the key "a" twice, again at byte 13'],
    ['{"a":1,"\\u0061":3}', 'text has the key "a" twice, again at byte 7'],
    ['[{"x":{"y":{"k":1,"k":1}}}]', 'text has the key "k" twice, again at byte 18'],
    ['{"__proto__":1,"__proto__":1}', 'text has the key "__proto__" twice, again at byte 15'],
    ['{"😀":1,"\\ud83d\\ude00":1}', 'text has the key "😀" twice, again at byte 10'],
    ['{"":1,"":1}', 'text has the key "" twice, again at byte 6'],
  ];
  for (const [text, message] of cases) {
    test(text, () => {
      const failure = failureOf(() => skipAll(text));
      expect([failure.code, failure.message]).toEqual(["HEADER_DUPLICATE_KEY", message]);
    });
  }

  test("keys alike in separate objects are fine", () => {
    skipAll('{"a":{"a":{"a":1}},"b":{"a":1}}');
  });
});

describe("depth", () => {
  test(`${MAX_JSON_DEPTH} levels are read, one more is not`, () => {
    const nested = (depth: number) => "[".repeat(depth) + "]".repeat(depth);
    skipAll(nested(MAX_JSON_DEPTH));
    expect(failureOf(() => skipAll(nested(MAX_JSON_DEPTH + 1))).message).toContain("deeper than 64 levels");
    expect(failureOf(() => skipAll("[".repeat(1_000_000))).code).toBe("HEADER_NOT_JSON");
    expect(failureOf(() => skipAll('{"a":'.repeat(1_000_000))).code).toBe("HEADER_NOT_JSON");
  });

  test("values side by side do not add up", () => {
    skipAll(`[${"[[]],".repeat(1000)}{}]`);
  });
});

describe("text", () => {
  test("UTF-8 is strict", () => {
    expect(decodeUtf8(Uint8Array.of(0xef, 0xbb, 0xbf, 0x41))).toBe("\ufeffA");
    const broken = [[0xff], [0xed, 0xa0, 0x80], [0xc0, 0x80], [0xf4, 0x90, 0x80, 0x80], [0xe2, 0x82], [0x80]];
    for (const bytes of broken) expect(decodeUtf8(Uint8Array.from(bytes))).toBeUndefined();
  });

  test("quoted stays on one line and short", () => {
    expect(quoted("a\n\u0000b")).toBe('"a\\n\\u0000b"');
    expect(quoted("x".repeat(1000)).length).toBe(83);
  });

  test("excerpts name the next value and take nothing", () => {
    for (const [text, shown] of [
      [" -1.5, 2", "-1.5"],
      ['"a b"', '"\\"a b\\""'],
      ["", "the end"],
      ["1".repeat(99), "1".repeat(40)],
    ] as const) {
      const reader = readerOf(text);
      expect(reader.excerpt()).toBe(shown);
      expect(reader.excerpt()).toBe(shown);
    }
  });
});
