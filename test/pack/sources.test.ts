/** Sources that lie, are damaged, or were cut off; and shards as a source of rows. */
import { describe, expect, test } from "bun:test";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { gunzipSync, zstdCompressSync } from "node:zlib";
import { tableFromIPC, type Vector } from "apache-arrow";
import fc from "fast-check";
import { HeadraceError, pack } from "../../src/index.ts";
import type { RowSource, TensorSource } from "../../src/pack/rows.ts";
import { openNumpy } from "../../src/pack/sources/numpy.ts";
import { openParquet } from "../../src/pack/sources/parquet.ts";
import { openShards } from "../../src/pack/sources/shards.ts";
import { openWebDataset } from "../../src/pack/sources/webdataset.ts";
import { elementsOf, type Values, valuesOf } from "../golden/pack-rows.ts";
import { useTempDir } from "../loader/helpers.ts";

const temp = useTempDir();
const FILES = join(import.meta.dir, "../golden/files");
const file = (name: string) => readFileSync(join(FILES, "pack", name));

type Open = (paths: readonly string[]) => Promise<RowSource | TensorSource>;

async function readAll(open: Open, path: string): Promise<Values> {
  const source = await open([path]);
  try {
    return "fields" in source ? await valuesOf(source) : await elementsOf(source);
  } finally {
    await source.close();
  }
}

/** The values, or the code that says why there are none. Any other error is one of the code's. */
async function outcome(open: Open, path: string): Promise<Values | string> {
  try {
    return await readAll(open, path);
  } catch (error) {
    if (!(error instanceof HeadraceError)) throw error;
    expect(error.message).not.toContain("\n");
    expect(error.message).toContain(path);
    expect(error.message).not.toMatch(/\b(undefined|NaN)\b/);
    return error.code;
  }
}

async function messageOf(open: Open, path: string): Promise<string> {
  return await readAll(open, path).then(
    () => "nothing",
    (error) => `${error.code} ${error.message}`,
  );
}

const KINDS: readonly (readonly [name: string, open: Open, codes: readonly string[]])[] = [
  ["plain.parquet", openParquet, ["BAD_INPUT", "UNSUPPORTED_TYPE"]],
  ["zstd.parquet", openParquet, ["BAD_INPUT", "UNSUPPORTED_TYPE"]],
  ["floats.npy", openNumpy, ["BAD_INPUT", "UNSUPPORTED_TYPE"]],
  ["stored.npz", openNumpy, ["BAD_INPUT", "UNSUPPORTED_TYPE"]],
  ["deflated.npz", openNumpy, ["BAD_INPUT", "UNSUPPORTED_TYPE"]],
  ["gnu.tar", openWebDataset, ["BAD_INPUT", "UNSUPPORTED_TYPE", "SOURCE_EMPTY"]],
  ["pax.tar.gz", openWebDataset, ["BAD_INPUT", "UNSUPPORTED_TYPE", "SOURCE_EMPTY"]],
];

function bytesOfKind(name: string): Buffer {
  return name === "gnu.tar" ? gunzipSync(file("gnu.tar.gz")) : file(name);
}

describe.each(KINDS)("%s", (name, open, codes) => {
  const bytes = bytesOfKind(name);

  test("damaged gives other values or an error with a code, never anything else", async () => {
    const path = temp(name);
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(fc.nat(bytes.length - 1), fc.nat(255)), { minLength: 1, maxLength: 4 }),
        async (changes) => {
          const damaged = Buffer.from(bytes);
          for (const [at, value] of changes) damaged[at] = value;
          writeFileSync(path, damaged);
          const found = await outcome(open, path);
          if (typeof found === "string") expect(codes).toContain(found);
        },
      ),
      { numRuns: 60 },
    );
  });

  test("cut off is told", async () => {
    const path = temp(name);
    const whole = Object.values(await readAll(open, write(path, bytes)))[0]!.length;
    // Tar's last blocks are zeros, which may be missing; and a tar that ends between two files is one.
    const most = name.includes(".tar") ? Math.floor(bytes.length / 2) : bytes.length - 1;
    for (let i = 0; i < 25; i++) {
      const found = await outcome(open, write(path, bytes.subarray(0, Math.floor((most * i) / 24))));
      if (typeof found === "string") expect(codes).toContain(found);
      else expect(Object.values(found)[0]!.length).toBeLessThan(whole);
      if (!name.includes(".tar")) expect(found).toBeString();
    }
  });
});

function write(path: string, bytes: Uint8Array): string {
  writeFileSync(path, bytes);
  return path;
}

test.each([
  ["empty.npy", "", "BAD_INPUT: is empty"],
  ["empty.npz", "", "is empty; an .npz is a ZIP archive of arrays"],
  ["text.npy", "hello there", "is no NumPy array: it does not begin with"],
  ["text.npz", "hello there", "is no ZIP archive, or was cut off"],
])("%s with %j", async (name, text, message) => {
  const path = temp("odd") + name;
  writeFileSync(path, text);
  const failure = await messageOf(openNumpy, path);
  expect(failure.replace(" ", ": ").replace(`${path}: `, "")).toContain(message);
});

describe("NumPy files that lie", () => {
  const header = (text: string, values: Uint8Array) => {
    const head = Buffer.alloc(10 + text.length);
    head.write("\x93NUMPY\x01\x00", "latin1");
    head.writeUInt16LE(text.length, 8);
    head.write(text, 10, "latin1");
    return write(temp("x.npy"), Buffer.concat([head, values]));
  };

  test.each([
    ["(3,)", "<f4", 11, /holds 11 bytes of values, and F32 \[3\] takes 12/],
    ["(4611686018427387904, 4)", "<f8", 8, /counts more/],
    ["(99999999999, 0)", "<f8", 0, /rows of F64 .* hold no bytes/],
    ["(3,)", "<q9", 3, /is an array of "<q9"; known are b1/],
    ["(-3,)", "<f4", 0, /has a header that NumPy did not write/],
  ])("%s of %s with %d bytes", async (shape, descr, length, message) => {
    const path = header(
      `{'descr': '${descr}', 'fortran_order': False, 'shape': ${shape}, }\n`,
      new Uint8Array(length),
    );
    expect(await messageOf(openNumpy, path)).toMatch(message);
  });

  test("a directory of 64 bits is followed", async () => {
    const bytes = file("zip64.npz");
    const end = bytes.lastIndexOf("PK\x05\x06", bytes.length, "latin1");
    bytes.fill(0xff, end + 8, end + 20);
    const path = write(temp("long.npz"), bytes);
    expect(await readAll(openNumpy, path)).toEqual(JSON.parse(file("zip64.npz.json").toString()));
    bytes.fill(0xff, end - 12, end - 4);
    expect(await messageOf(openNumpy, write(path, bytes))).toMatch(
      /BAD_INPUT .*long.npz: its directory has the number 18446744073709551615/,
    );
  });

  test("a wrong checksum is told", async () => {
    const bytes = file("stored.npz");
    const at = bytes.indexOf(Buffer.from(Float32Array.of(0.25, 0.5).buffer));
    bytes[at] = 1;
    expect(await messageOf(openNumpy, write(temp("x.npz"), bytes))).toMatch(
      /BAD_INPUT .*x.npz: x.npy: its bytes have the checksum/,
    );
  });
});

describe("WebDataset archives", () => {
  /** A tar of files by name, as USTAR has them. */
  function tar(
    files: readonly (readonly [name: string, text: string | Uint8Array, flag?: string])[],
  ): Buffer {
    const blocks = files.flatMap(([name, text, flag = "0"]) => {
      const bytes = Buffer.from(text as string);
      const head = Buffer.alloc(512);
      head.write(name);
      head.write("0000644\0", 100);
      head.write(`${bytes.length.toString(8).padStart(11, "0")}\0`, 124);
      head.write(`        ${flag}`, 148, "latin1");
      head.write("ustar\x0000", 257, "latin1");
      head.write(
        `${head
          .reduce((a, b) => a + b)
          .toString(8)
          .padStart(6, "0")}\0 `,
        148,
        "latin1",
      );
      return [head, bytes, Buffer.alloc((512 - (bytes.length % 512)) % 512)];
    });
    return Buffer.concat([...blocks, Buffer.alloc(1024)]);
  }
  const many = (count: number, last: readonly (readonly [string, string])[]) =>
    write(
      temp("x.tar"),
      tar([...Array.from({ length: count }, (_, i) => [`${i}.cls`, String(i)] as const), ...last]),
    );

  test("keys that come again are refused, in one archive", async () => {
    const message = /BAD_INPUT .*x.tar: sample "a": comes again behind other samples/;
    const mixed = tar([
      ["a.txt", "A"],
      ["b.txt", "B"],
      ["a.cls", "1"],
    ]);
    expect(await messageOf(openWebDataset, write(temp("x.tar"), mixed))).toMatch(message);
    const far = (between: number) =>
      tar([
        ["a.cls", "1"],
        ...Array.from({ length: between }, (_, i) => [`${i}.cls`, "1"] as const),
        ["a.cls", "1"],
      ]);
    expect(await messageOf(openWebDataset, write(temp("x.tar"), far(1000)))).toMatch(message);
    const paths = [1, 2].map((i) => write(temp(`${i}.tar`), tar([["a.cls", String(i)]])));
    const source = await openWebDataset(paths);
    expect(await valuesOf(source)).toEqual({ __key__: ["a", "a"], cls: ["1", "2"] });
    expect(source.warnings?.()).toEqual([]);
  });

  test("links are left out with a warning, folders without one", async () => {
    const path = write(
      temp("links.tar"),
      tar([
        ["dir/", "", "5"],
        ["a.cls", "1"],
        ["b.cls", "", "2"],
        ["c.cls", "", "1"],
        ["d.cls", "4"],
      ]),
    );
    const out = temp("links-out");
    const { samples, warnings } = await pack(path, { out });
    expect({ samples, warnings }).toEqual({
      samples: 2,
      warnings: [
        `2 links, the first of them in ${path}, were left out; archive files in their place (tar --dereference --hard-dereference)`,
      ],
    });
    const alone = write(temp("alone.tar"), tar([["b.cls", "", "2"]]));
    expect(await messageOf(openWebDataset, alone)).toContain(
      `holds no sample (files named KEY.ENDING); 1 link in ${alone} was left out`,
    );
  });

  test("are read compressed by zstd, and samples may lack files", async () => {
    const path = write(
      temp("x.tar.zst"),
      zstdCompressSync(
        tar([
          ["a.txt", "A"],
          ["a.cls", "1"],
          ["b.cls", "-2"],
          [".hidden", "no"],
          ["dir/c.d.txt", "C"],
        ]),
      ),
    );
    expect(await readAll(openWebDataset, path)).toEqual({
      __key__: ["a", "b", "dir/c"],
      cls: ["1", "-2", null],
      "d.txt": [null, null, "C"],
      txt: ["A", null, null],
    });
  });

  test.each([
    [[["x.cls", "cat"]], /x.tar: sample "x": its .cls holds "cat", which is no integer/],
    [[["x.png", "P"]], /sample "x": has a .png, which the first samples have not/],
    [
      [
        ["x.cls", "1"],
        ["x.CLS", "2"],
      ],
      /sample "x": has two files that end in .cls/,
    ],
    [[["x.cls", "9223372036854775808"]], /which is no integer of 64 bits/],
  ] as [[string, string][], RegExp][])("%o behind 300 others is told", async (last, message) => {
    expect(await messageOf(openWebDataset, many(300, last))).toMatch(message);
  });

  test("JSON that is not like the first stays out, and goes in as text", async () => {
    const rows = (last: string) =>
      write(
        temp("x.tar"),
        tar([
          ...Array.from({ length: 300 }, (_, i) => [`${i}.json`, `{"a":${i}}`] as const),
          ["x.json", last],
        ]),
      );
    expect(Object.keys(await readAll(openWebDataset, rows('{"a":null}')))).toEqual(["__key__", "json.a"]);
    for (const last of ['{"a":"no"}', '{"a":1,"b":2}', '{"a":0.5}', "[1]"]) {
      expect(await messageOf(openWebDataset, rows(last))).toMatch(
        /BAD_INPUT .*"x": its .json is not like .*choose json by --columns/,
      );
    }
    expect(await messageOf(openWebDataset, rows('{"a":'))).toMatch(/its .json is not JSON/);
    const source = await openWebDataset([rows("[1]")], { columns: ["json"] });
    expect((await valuesOf(source)).json!.at(-1)).toBe("[1]");
  });

  test("mixed, deep or empty JSON is text", async () => {
    for (const texts of [['{"a":1}', '{"a":"x"}'], ['{"a":[1]}'], ["{}"], ['{"a":null}']]) {
      const path = write(temp("x.tar"), tar(texts.map((text, i) => [`${i}.json`, text] as const)));
      expect((await readAll(openWebDataset, path)).json).toEqual(texts);
    }
  });

  test("text that is no UTF-8 has its row named", async () => {
    const path = write(
      temp("x.tar"),
      tar([
        ["a.txt", "ok"],
        ["b.txt", Uint8Array.of(0xc3)],
        ["c.txt", Uint8Array.of(0xa4)],
      ]),
    );
    expect(await messageOf(openWebDataset, path)).toMatch(
      /BAD_INPUT .*column "txt", row 1: the text is not valid UTF-8/,
    );
  });
});

describe("shards as rows", () => {
  const plainOf = (value: unknown): unknown => {
    if (value === null || typeof value !== "object") return typeof value === "bigint" ? String(value) : value;
    if (value instanceof Uint8Array) return Buffer.from(value).toString("hex");
    const items = Array.from(value as Iterable<unknown>, plainOf);
    return items.flat();
  };

  test.each([
    ["dictionaries", ["utf8", "binary", "number", "list", "vector"]],
    ["dictionary-deltas", ["word"]],
    ["lists", ["tokens", "large", "renamed"]],
    ["lists-zstd", ["tokens", "large", "renamed"]],
    ["binary", ["utf8", "large_utf8", "binary", "large_binary"]],
    ["binary-lz4", ["utf8", "large_utf8", "binary", "large_binary"]],
    ["fixed-lists", ["vector", "matrix"]],
    ["no-nulls", ["a"]],
    ["sliced", ["int", "utf8", "list", "vector", "word"]],
  ])("%s.arrow has the %p that apache-arrow reads", async (name, columns) => {
    const path = join(FILES, `arrow/${name}.arrow`);
    const found = await readAll((paths) => openShards(paths, { columns }), path);
    // apache-arrow has no codec of its own: the same table, not compressed.
    const table = tableFromIPC(readFileSync(path.replace(/-(zstd|lz4)\./, ".")));
    expect(Object.keys(found)).toHaveLength(columns.length);
    for (const column of columns) {
      const vector = table.getChild(column) as Vector;
      const wanted = Array.from({ length: table.numRows }, (_, row) => plainOf(vector.get(row)));
      expect([column, found[column]]).toEqual([column, wanted]);
    }
  });

  test("choose columns, and say which cannot be packed", async () => {
    const lists = join(FILES, "arrow/lists.arrow");
    const some = (await openShards(lists, { columns: ["tok*"] })) as RowSource;
    expect(some.fields).toEqual([{ name: "tokens", kind: "list", dtype: "I32", shape: [], nullable: true }]);
    await some.close();
    expect(openShards(lists, { columns: ["nothing"] })).rejects.toMatchObject({ code: "UNKNOWN_COLUMN" });
    expect(openShards(lists)).rejects.toMatchObject({
      code: "UNSUPPORTED_TYPE",
      message: expect.stringMatching(/column "pairs" is ragged F32\[2\], lists of arrays/),
    });
  });
});
