import { describe, expect, test } from "bun:test";
import type { ErrorCode } from "../../../src/errors.ts";
import { describeSafetensors, MAX_HEADER_BYTES } from "../../../src/format/safetensors.ts";
import { failureOf } from "../failure.ts";
import { describeBytes, entry, fileOfTensors, fileWith } from "./safetensors-files.ts";

const ONE = entry("a", "U8", [4], 0, 4);

describe("each rule that a file can break", () => {
  const raw = (length: bigint, rest = 0) => {
    const file = new Uint8Array(8 + rest);
    new DataView(file.buffer).setBigUint64(0, length, true);
    return file;
  };
  const notUtf8 = (text: string) => fileWith(Uint8Array.from(text, (character) => character.charCodeAt(0)));
  const a = (shape: string, offsets: string, dtype = '"U8"') =>
    fileWith(`{"a":{"dtype":${dtype},"shape":${shape},"data_offsets":${offsets}}}`, 4);

  const cases: [what: string, file: Uint8Array, code: ErrorCode, message: string][] = [
    ["an empty file", new Uint8Array(0), "HEADER_TOO_SMALL", "the file has 0 bytes"],
    ["seven bytes", new Uint8Array(7), "HEADER_TOO_SMALL", "the file has 7 bytes"],
    [
      "a header over the limit",
      raw(100_000_001n),
      "HEADER_TOO_LARGE",
      "claims 100000001 bytes of at most 100000000",
    ],
    ["a length of 64 bits", raw(2n ** 64n - 1n), "HEADER_TOO_LARGE", "claims 18446744073709551615 bytes"],
    [
      "a header longer than the file",
      raw(100n, 99),
      "HEADER_LENGTH",
      "claims 100 bytes after the first 8, but the file has only 107",
    ],
    [
      "a header at the limit in a small file",
      raw(BigInt(MAX_HEADER_BYTES)),
      "HEADER_LENGTH",
      "incomplete download",
    ],
    ["bytes that are not UTF-8", notUtf8('{"\xff":{}}'), "HEADER_NOT_UTF8", "the header's 8 bytes"],
    ["an overlong form", notUtf8('{"\xc0\x80":{}}'), "HEADER_NOT_UTF8", "not valid UTF-8"],
    ["no header", fileWith(""), "HEADER_NOT_JSON", "found the end at byte 0"],
    ["white space alone", fileWith(" \n "), "HEADER_NOT_JSON", "found the end at byte 0"],
    ["a byte order mark", fileWith("\ufeff{}"), "HEADER_NOT_JSON", "at byte 0"],
    ["half an object", fileWith('{"a":'), "HEADER_NOT_JSON", "at byte 5 of header"],
    ["text behind the object", fileWith("{}x"), "HEADER_NOT_JSON", 'expected the end, found "x" at byte 2'],
    ["NUL as padding", fileWith("{}\0"), "HEADER_NOT_JSON", 'found "\\u0000"'],
    ["half a surrogate pair", fileWith('{"\\ud83d":{}}'), "HEADER_NOT_JSON", "half a surrogate pair"],
    ["a tensor twice", fileWith(`{${ONE},${ONE}}`, 4), "HEADER_DUPLICATE_KEY", 'has the key "a" twice'],
    [
      "a tensor twice, escaped",
      fileWith(`{${ONE},${ONE.replace("a", "\\u0061")}}`, 4),
      "HEADER_DUPLICATE_KEY",
      '"a" twice',
    ],
    [
      "two metadata",
      fileWith('{"__metadata__":{},"__metadata__":{}}'),
      "HEADER_DUPLICATE_KEY",
      "__metadata__",
    ],
    ["a metadata key twice", fileWith('{"__metadata__":{"k":"1","k":"1"}}'), "HEADER_DUPLICATE_KEY", '"k"'],
    ["a field twice", fileWith(`{"a":{"dtype":"U8","dtype":"U8"}}`), "HEADER_DUPLICATE_KEY", '"dtype"'],
    ["a key twice in an unknown field", fileWith(`{"a":{"x":{"k":1,"k":1}}}`), "HEADER_DUPLICATE_KEY", '"k"'],
    ["a list as header", fileWith("[]"), "HEADER_BAD_ENTRY", "must be an object of tensors"],
    ["null as header", fileWith("null"), "HEADER_BAD_ENTRY", "found null at byte 0"],
    [
      "a list as entry",
      fileWith('{"a":["U8",[4],[0,4]]}', 4),
      "HEADER_BAD_ENTRY",
      'tensor "a" must be an object',
    ],
    [
      "metadata of numbers",
      fileWith('{"__metadata__":{"k":1}}'),
      "HEADER_BAD_ENTRY",
      '"k" is none: found 1 at byte 21',
    ],
    [
      "metadata as list",
      fileWith('{"__metadata__":[]}'),
      "HEADER_BAD_ENTRY",
      "__metadata__ must be an object",
    ],
    [
      "no dtype",
      fileWith('{"a":{"shape":[4],"data_offsets":[0,4]}}', 4),
      "HEADER_BAD_ENTRY",
      'tensor "a" has no dtype',
    ],
    [
      "no shape",
      fileWith('{"a":{"dtype":"U8","data_offsets":[0,4]}}', 4),
      "HEADER_BAD_ENTRY",
      'tensor "a" has no shape',
    ],
    [
      "no offsets",
      fileWith('{"a":{"dtype":"U8","shape":[4]}}', 4),
      "HEADER_BAD_ENTRY",
      'tensor "a" has no data_offsets',
    ],
    [
      "a number as dtype",
      a("[4]", "[0,4]", "8"),
      "HEADER_BAD_ENTRY",
      "a string as dtype: found 8 at byte 14",
    ],
    ["a number as shape", a("4", "[0,4]"), "HEADER_BAD_ENTRY", "a list of integers as shape"],
    ["null as shape", a("null", "[0,4]"), "HEADER_BAD_ENTRY", "found null"],
    ["a string as dimension", a('["4"]', "[0,4]"), "HEADER_BAD_ENTRY", "integers of 0 or more in shape"],
    ["a negative dimension", a("[-4]", "[0,4]"), "HEADER_BAD_ENTRY", "found -4"],
    ["a fraction as dimension", a("[4.0]", "[0,4]"), "HEADER_BAD_ENTRY", "found 4.0"],
    ["an exponent", a("[4e0]", "[0,4]"), "HEADER_BAD_ENTRY", "found 4e0"],
    [
      "a negative offset",
      a("[4]", "[-4,0]"),
      "HEADER_BAD_ENTRY",
      "integers of 0 or more in data_offsets: found -4",
    ],
    ["minus zero", a("[4]", "[-0,4]"), "HEADER_BAD_ENTRY", "found -0"],
    ["one offset", a("[4]", "[4]"), "HEADER_BAD_ENTRY", "not two numbers in data_offsets"],
    ["three offsets", a("[4]", "[0,4,4]"), "HEADER_BAD_ENTRY", "more than 2 numbers in data_offsets"],
    [
      "129 dimensions",
      a(`[4${",1".repeat(128)}]`, "[0,4]"),
      "HEADER_BAD_ENTRY",
      "more than 128 numbers in shape",
    ],
    ["an unknown dtype", a("[4]", "[0,4]", '"F128"'), "UNKNOWN_DTYPE", 'dtype "F128"'],
    ["a dtype misspelt", a("[4]", "[0,4]", '"f32"'), "UNKNOWN_DTYPE", 'did you mean "F32"'],
    ["a dtype of no kind", a("[4]", "[0,4]", '"constructor"'), "UNKNOWN_DTYPE", "known are BOOL, F4"],
    [
      "a first tensor not at 0",
      a("[3]", "[1,4]"),
      "TENSOR_OFFSETS",
      "data_offsets [1,4], but the data starts at 0: a hole of 1 bytes",
    ],
    [
      "an end before the start",
      a("[0]", "[0,0]".replace("0,0", "4,0")),
      "TENSOR_OFFSETS",
      "ends before it starts",
    ],
    [
      "a hole",
      fileWith(`{${ONE},${entry("b", "U8", [1], 6, 7)}}`, 7),
      "TENSOR_OFFSETS",
      '"a" ends at 4: a hole of 2 bytes',
    ],
    [
      "an overlap",
      fileWith(`{${ONE},${entry("b", "U8", [4], 2, 6)}}`, 6),
      "TENSOR_OFFSETS",
      'tensor "b" has data_offsets [2,6], but "a" ends at 4: they overlap',
    ],
    [
      "the same bytes twice",
      fileWith(`{${ONE},${entry("b", "U8", [4], 0, 4)}}`, 4),
      "TENSOR_OFFSETS",
      "they overlap",
    ],
    [
      "an end before the start, later",
      fileWith(`{${ONE},${entry("b", "U8", [1], 4, 3)}}`, 4),
      "TENSOR_OFFSETS",
      "ends before it starts",
    ],
    [
      "an offset past 2^53",
      a("[4]", "[0,18446744073709551615]"),
      "TENSOR_OFFSETS",
      "ends beyond 9007199254740991",
    ],
    [
      "a product past 2^53",
      a("[4294967296,4294967296]", "[0,4]"),
      "TENSOR_OVERFLOW",
      'tensor "a": shape [4294967296,4294967296]',
    ],
    [
      "a product past 2^53 before a 0",
      a("[4294967296,4294967296,0]", "[0,0]"),
      "TENSOR_OVERFLOW",
      "counts more elements",
    ],
    ["bytes past 2^53", a("[4503599627370496]", "[0,4]", '"F64"'), "TENSOR_OVERFLOW", "more bytes of F64"],
    ["a dimension past 2^53", a("[9007199254740993]", "[0,4]"), "TENSOR_OVERFLOW", "counts more elements"],
    [
      "a dimension of 200 digits",
      a(`[${"9".repeat(200)}]`, "[0,4]"),
      "TENSOR_OVERFLOW",
      "counts more elements",
    ],
    [
      "half a byte",
      a("[7]", "[0,4]", '"F4"'),
      "TENSOR_MISALIGNED",
      'tensor "a": shape [7] of F4 makes 28 bits',
    ],
    [
      "a shape smaller than its bytes",
      a("[3]", "[0,4]"),
      "TENSOR_SIZE",
      'tensor "a" is given 4 bytes, but U8 [3] takes 3',
    ],
    ["a scalar of no bytes", a("[]", "[0,0]"), "TENSOR_SIZE", "is given 0 bytes, but U8 [] takes 1"],
    [
      "missing bytes",
      fileWith(`{${ONE}}`, 3),
      "DATA_INCOMPLETE",
      "1 bytes are missing; perhaps an incomplete download",
    ],
    [
      "bytes behind the last tensor",
      fileWith(`{${ONE}}`, 9),
      "DATA_INCOMPLETE",
      "5 extra bytes follow the last tensor",
    ],
    ["bytes behind no tensor", fileWith("{}", 1), "DATA_INCOMPLETE", "1 extra bytes"],
  ];

  for (const [what, file, code, message] of cases) {
    test(`${code}: ${what}`, () => {
      const failure = failureOf(() => describeBytes(file));
      expect(failure.code).toBe(code);
      expect(failure.message).toContain(message);
      expect(failure.message).not.toContain("\n");
      expect(failure.message.length).toBeLessThan(400);
    });
  }

  test("the order of the rules is the format's", () => {
    // Each file breaks the rule it is named for and all later ones.
    const later = `${entry("b", "F4", [3], 9, 8)}`;
    const order: [string, ErrorCode][] = [
      [`{"a":{"dtype":"F128","shape":[-1]},${later}}`, "UNKNOWN_DTYPE"],
      [`{${entry("a", "F4", [2 ** 53 - 1, 3], 1, 4)},${later}}`, "TENSOR_OFFSETS"],
      [`{${entry("a", "F4", [2 ** 53 - 1, 3], 0, 4)},${later}}`, "TENSOR_OVERFLOW"],
      [`{${entry("a", "F4", [3], 0, 4)},${later}}`, "TENSOR_MISALIGNED"],
      [`{${entry("a", "F4", [4], 0, 4)},${later}}`, "TENSOR_SIZE"],
      [`{${entry("a", "F4", [8], 0, 4)},${later}}`, "TENSOR_OFFSETS"],
      [`{${entry("a", "F4", [8], 0, 4)}}`, "DATA_INCOMPLETE"],
    ];
    for (const [text, code] of order)
      expect(failureOf(() => describeBytes(fileWith(text, 1))).code).toBe(code);
  });

  test("a reader that gives less than asked", () => {
    const file = fileOfTensors([["a", "U8", [1]]]);
    expect(failureOf(() => describeSafetensors(() => file.subarray(0, 4), file.length)).code).toBe(
      "SHORT_READ",
    );
  });
});
