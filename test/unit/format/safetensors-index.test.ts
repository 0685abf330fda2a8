import { describe, expect, test } from "bun:test";
import type { ErrorCode } from "../../../src/errors.ts";
import {
  checkIndexAgainst,
  MAX_INDEX_BYTES,
  MAX_INDEX_SHARDS,
  parseSafetensorsIndex,
} from "../../../src/format/safetensors-index.ts";
import type { ShardDescription } from "../../../src/types.ts";
import { failureOf } from "../failure.ts";
import { describeBytes, fileOfTensors } from "./safetensors-files.ts";

const parse = (index: unknown) => parseSafetensorsIndex(JSON.stringify(index));

describe("what is parsed", () => {
  test("shards by name, each once, and the shard of each tensor", () => {
    const index = parse({
      metadata: { total_size: 12, total_parameters: 6, other: { deep: [null] } },
      weight_map: {
        x: "m-2.safetensors",
        a: "m-1.safetensors",
        b: "m-2.safetensors",
        __proto__x: "m-1.safetensors",
      },
      extra: [1, 2],
    });
    expect(index.totalSize).toBe(12);
    expect(index.shards).toEqual(["m-1.safetensors", "m-2.safetensors"]);
    expect([...index.shardOf]).toEqual([
      ["x", "m-2.safetensors"],
      ["a", "m-1.safetensors"],
      ["b", "m-2.safetensors"],
      ["__proto__x", "m-1.safetensors"],
    ]);
  });

  test("bytes as well as text", () => {
    const bytes = new TextEncoder().encode(
      '{"weight_map":{"é":"a.safetensors","__proto__":"a.safetensors"}}',
    );
    expect([...parseSafetensorsIndex(bytes).shardOf.keys()]).toEqual(["é", "__proto__"]);
  });

  test("a total size may be absent, or written as a float", () => {
    const none = [{}, { metadata: null }, { metadata: {} }, { metadata: { total_parameters: 1 } }];
    for (const head of none) expect(parse({ ...head, weight_map: {} }).totalSize).toBeUndefined();
    expect(parseSafetensorsIndex('{"metadata":{"total_size":1.5e3},"weight_map":{}}').totalSize).toBe(1500);
  });

  test("files in folders below", () => {
    expect(parse({ weight_map: { a: "sub/m..1.safetensors" } }).shards).toEqual(["sub/m..1.safetensors"]);
  });
});

describe("what is refused", () => {
  const cases: [string, string, ErrorCode, string][] = [
    ["no JSON", "weights", "BAD_INDEX", 'index is not JSON: expected a value, found "w"'],
    ["a list", "[]", "BAD_INDEX", "must be an object"],
    ["no map", '{"metadata":{}}', "BAD_INDEX", "has no weight_map"],
    ["text behind", '{"weight_map":{}}{}', "BAD_INDEX", "expected the end"],
    ["two maps", '{"weight_map":{},"weight_map":{}}', "BAD_INDEX", 'the key "weight_map" twice'],
    ["a tensor twice", '{"weight_map":{"a":"x","\\u0061":"y"}}', "BAD_INDEX", 'the key "a" twice'],
    ["a map that is a list", '{"weight_map":[]}', "BAD_INDEX", "weight_map must be an object"],
    [
      "a tensor without a file",
      '{"weight_map":{"a":7}}',
      "BAD_INDEX",
      'maps tensor "a" to 7, which is not a file name',
    ],
    [
      "a size that is text",
      '{"metadata":{"total_size":"9"},"weight_map":{}}',
      "BAD_INDEX",
      "total_size must be a whole number",
    ],
    ["a negative size", '{"metadata":{"total_size":-9},"weight_map":{}}', "BAD_INDEX", "not -9"],
    ["a broken size", '{"metadata":{"total_size":1.5},"weight_map":{}}', "BAD_INDEX", "not 1.5"],
    ["a huge size", '{"metadata":{"total_size":1e300},"weight_map":{}}', "BAD_INDEX", "not 1e300"],
    ["metadata as list", '{"metadata":[],"weight_map":{}}', "BAD_INDEX", "metadata must be an object"],
    ["deep nesting", `{"x":${"[".repeat(100_000)}`, "BAD_INDEX", "deeper than 64 levels"],
    ["a path upwards", '{"weight_map":{"a":"../a.safetensors"}}', "UNSAFE_PATH", "../a.safetensors"],
    ["a path upwards inside", '{"weight_map":{"a":"x/../../a.safetensors"}}', "UNSAFE_PATH", "x/../"],
    ["an absolute path", '{"weight_map":{"a":"/etc/passwd"}}', "UNSAFE_PATH", "/etc/passwd"],
    ["an address", '{"weight_map":{"a":"https://x/y.safetensors"}}', "UNSAFE_PATH", "https://"],
    ["a backslash", '{"weight_map":{"a":"..\\\\a.safetensors"}}', "UNSAFE_PATH", "a.safetensors"],
    ["a NUL", '{"weight_map":{"a":"a\\u0000.safetensors"}}', "UNSAFE_PATH", "\\u0000"],
    ["no name", '{"weight_map":{"a":""}}', "UNSAFE_PATH", '""'],
  ];
  for (const [what, text, code, message] of cases) {
    test(`${code}: ${what}`, () => {
      const failure = failureOf(() => parseSafetensorsIndex(text));
      expect(failure.code).toBe(code);
      expect(failure.message).toContain(message);
      expect(failure.message).not.toContain("\n");
    });
  }

  test("bytes that are not UTF-8, and more than are read", () => {
    expect(failureOf(() => parseSafetensorsIndex(Uint8Array.of(0x7b, 0xff))).message).toContain("UTF-8");
    const large = new Uint8Array(MAX_INDEX_BYTES + 1);
    expect(failureOf(() => parseSafetensorsIndex(large)).message).toContain("250000001 bytes of at most");
  });

  test("more files than are opened", () => {
    const map = (count: number) =>
      Object.fromEntries(Array.from({ length: count }, (_, i) => [`t${i}`, `${i}.safetensors`]));
    expect(parse({ weight_map: map(MAX_INDEX_SHARDS) }).shards.length).toBe(MAX_INDEX_SHARDS);
    expect(failureOf(() => parse({ weight_map: map(MAX_INDEX_SHARDS + 1) })).message).toContain(
      "more than 10000",
    );
  });
});

describe("index against shards", () => {
  const one = describeBytes(
    fileOfTensors([
      ["a", "U8", [3]],
      ["__pad_0__", "U8", [13]],
      ["b", "F32", []],
    ]),
  );
  const two = describeBytes(fileOfTensors([["c", "U8", [5]]]));
  const shards = new Map<string, ShardDescription>([
    ["1", one],
    ["2", two],
  ]);
  const check = (weight_map: Record<string, string>, total_size?: number) => () =>
    checkIndexAgainst(parse({ metadata: { total_size }, weight_map }), shards);

  test("agreement, with or without the total size", () => {
    check({ a: "1", b: "1", c: "2" }, 12)();
    check({ a: "1", b: "1", c: "2" })();
  });

  const cases: [string, () => void, string][] = [
    [
      "a tensor that is nowhere",
      check({ a: "1", b: "1", c: "2", d: "2" }),
      'places tensor "d" in shard "2", which has no such tensor',
    ],
    [
      "a tensor in another file",
      check({ a: "2", b: "1", c: "2" }),
      'tensor "a" lies in shard "1", but the index places it in "2"',
    ],
    [
      "a tensor that is not named",
      check({ a: "1", c: "2" }),
      'shard "1" holds tensor "b", which the index does not name',
    ],
    [
      "a total that is not the sum",
      check({ a: "1", b: "1", c: "2" }, 13),
      "total_size 13, but the tensors of its 2 shards take 12 bytes",
    ],
    ["a shard that was not opened", check({ a: "1", b: "1", c: "3" }), 'shard "3" was not opened'],
  ];
  for (const [what, work, message] of cases) {
    test(what, () => {
      const failure = failureOf(work);
      expect([failure.code, failure.message.includes(message)]).toEqual(["BAD_INDEX", true]);
    });
  }

  test("a tensor in two files", () => {
    const twice = new Map([
      ...shards,
      [
        "3",
        describeBytes(
          fileOfTensors([
            ["a", "U8", [3]],
            ["d", "U8", [1]],
          ]),
        ),
      ],
    ]);
    const index = parse({ weight_map: { a: "1", b: "1", c: "2", d: "3" } });
    const failure = failureOf(() => checkIndexAgainst(index, twice));
    expect(failure.message).toContain('tensor "a" lies in shard "3", but the index places it in "1"');
  });
});
