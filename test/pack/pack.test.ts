/** Packing as a whole: the same bytes again, nothing half done, every codec, what is refused. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type HeadraceError, type PackOptions, pack, parseManifest } from "../../src/index.ts";
import { packWith } from "../../src/pack/pack.ts";
import { useTempDir } from "../loader/helpers.ts";
import { CrashDisk } from "../loader/writeback-disk.ts";
import { readRows, rejection, schemaOf, textFile } from "./text.ts";

setDefaultTimeout(60_000);

const temp = useTempDir();

/** Rows of some MiB: several pieces, several batches. */
function manyRows(count: number): string {
  return Array.from({ length: count }, (_, i) =>
    JSON.stringify({
      id: i,
      text: `row ${i} é`.repeat(1 + (i % 9)),
      score: i / 7,
      tokens: Array.from({ length: i % 40 }, (_, k) => i * k),
    }),
  ).join("\n");
}

function filesOf(folder: string): Record<string, string> {
  const names = readdirSync(folder).sort();
  return Object.fromEntries(names.map((name) => [name, String(Bun.hash(readFileSync(join(folder, name))))]));
}

const TO = [
  ["arrow", "none"],
  ["arrow", "zstd"],
  ["arrow", "lz4"],
  ["arrow", "zstd-body"],
  ["arrow", "lz4-body"],
  ["safetensors", "none"],
  ["safetensors", "zstd"],
  ["safetensors", "lz4"],
] as const;

describe("the same bytes", () => {
  test.each(TO)("%s with codec %s, whatever the number of threads", async (to, codec) => {
    const folder = temp("same");
    const path = textFile(folder, "a.jsonl", manyRows(15_000));
    const options = { to, codec, shardBytes: 2 ** 20 };
    const outs: Record<string, string>[] = [];
    for (const threads of [1, 4]) {
      const out = join(folder, `out-${threads}`);
      const report = await pack(path, { ...options, out, threads });
      expect(report).toMatchObject({ samples: 15_000, skippedRows: 0, format: to, codec });
      expect(report.shards.length).toBeGreaterThan(1);
      outs.push(filesOf(out));
    }
    expect(outs[1]).toEqual(outs[0]!);
    const rows = await readRows(join(folder, "out-4"));
    const sources = manyRows(15_000).split("\n");
    for (const i of [0, 1, 7_499, 14_999]) {
      const { text, ...numbers } = JSON.parse(sources[i]!);
      const { text: got, ...gotNumbers } = rows[i]!;
      expect(gotNumbers).toEqual(numbers);
      const decoded =
        typeof got === "string" ? got : new TextDecoder().decode(Uint8Array.from(got as number[]));
      expect(decoded).toBe(text);
    }
  });

  test("pieces that end out of order come in order", async () => {
    const folder = temp("order");
    // Pieces of few and of many rows in turns, so that some take longer to parse.
    const row = (id: number) => `{"id":${id},"t":"${"z".repeat(id % 3000 < 1500 ? 5 : 5000)}"}\n`;
    const text = Array.from({ length: 6000 }, (_, id) => row(id)).join("");
    expect(text.length).toBeGreaterThan(7 * 2 ** 21);
    const out = join(folder, "out");
    await pack(textFile(folder, "a.jsonl", text), { out, threads: 3, columns: ["id"] });
    expect((await readRows(out)).map(({ id }) => id)).toEqual(Array.from({ length: 6000 }, (_, id) => id));
  });

  test("dataset.json has counts, columns, bounds, digests and options, and no clock", async () => {
    const folder = temp("manifest");
    const rows = [
      { a: -1, f: 0.5, l: [1, 300], t: "x" },
      { a: null, f: -0.25, l: [-7], t: "y" },
      { a: 2 ** 53 - 1, f: 2, l: [], t: "z" },
    ];
    const text = rows
      .map((row) => `${JSON.stringify(row)}\n`)
      .join("")
      .replace("9007199254740991", "9223372036854775807")
      .replace("0.5", "NaN");
    const out = join(folder, "out");
    await pack(textFile(folder, "a.jsonl", text), { out, limit: 3, casts: { f: "F16" } });
    const manifest = parseManifest(readFileSync(join(out, "dataset.json"), "utf8"));
    const sha256 = new Bun.CryptoHasher("sha256")
      .update(readFileSync(join(out, "a-00000.arrow")))
      .digest("hex");
    expect(manifest.shards).toEqual([
      {
        path: "a-00000.arrow",
        samples: 3,
        bytes: readFileSync(join(out, "a-00000.arrow")).length,
        sha256,
        columns: {
          a: { min: -1, max: "9223372036854775807", nulls: 1 },
          f: { min: -0.25, max: 2, nulls: 0 },
          l: { min: -7, max: 300, nulls: 0 },
        },
      },
    ]);
    expect(manifest.packed).toEqual({
      format: "arrow",
      codec: "none",
      shardBytes: 2 ** 28,
      limit: 3,
      casts: { f: "F16" },
    });
    expect(schemaOf(out)).toEqual(["a: I64", "f: F16", "l: I64[]", "t: utf8"]);
  });

  test("columns, casts, new names, tokens and a limit together", async () => {
    const folder = temp("steps");
    const path = textFile(
      folder,
      "a.jsonl",
      '{"text":"ab","n":1,"x":0}\n{"text":"é","n":2,"x":0}\n{"text":"","n":3,"x":0}\n',
    );
    const out = join(folder, "out");
    const options: Partial<PackOptions> = {
      columns: ["text", "n"],
      casts: { n: "F32" },
      rename: { n: "m" },
      tokenizer: "bytes",
      limit: 2,
    };
    await pack(path, { out, ...options });
    expect(schemaOf(out)).toEqual(["tokens: U16[]", "m: F32"]);
    const rows = await readRows(out);
    expect(rows.map(({ m }) => m)).toEqual([1, 2]);
    expect((rows[0]!.tokens as number[]).filter((id) => id < 256)).toEqual([97, 98]);
  });

  test("rows per batch, and batches that would be too long", async () => {
    const folder = temp("batches");
    const path = textFile(folder, "a.jsonl", manyRows(1000));
    await pack(path, { out: join(folder, "out"), rowsPerBatch: 300 });
    const { openDataset, openDevice } = await import("../../src/index.ts");
    const device = openDevice("host");
    using dataset = openDataset(join(folder, "out"), device);
    expect(dataset.describe(0).rows!.groups.map(({ numRows }) => numRows)).toEqual([300, 300, 300, 100]);
    await device.close();
  });
});

describe("nothing half done", () => {
  const rows = manyRows(20_000);

  test.each(TO.filter(([, codec]) => codec === "none" || codec === "zstd"))(
    "cancelled: %s, %s",
    async (to, codec) => {
      const folder = temp("cancel");
      const path = textFile(folder, "a.jsonl", rows);
      const out = join(folder, "out");
      const abort = new AbortController();
      const options = { to, codec, out, shardBytes: 2 ** 20, signal: abort.signal };
      const failure = await rejection(() =>
        pack(path, { ...options, onProgress: ({ samples }) => samples > 0 && abort.abort() }),
      );
      expect(failure.code).toBe("CANCELLED");
      expect(readdirSync(folder)).toEqual(["a.jsonl"]);
    },
  );

  test.each([["arrow"], ["safetensors"]] as const)(
    "a disk that fills up or fails at any operation: %s",
    async (to) => {
      const folder = temp("disk");
      const path = textFile(folder, "a.jsonl", rows.slice(0, rows.indexOf('{"id":3000')));
      const options: PackOptions = { out: "/out", to, shardBytes: 2 ** 20 };
      const whole = new CrashDisk(() => 0);
      whole.folders.add("/");
      await packWith(whole.process(), path, options);
      const count = whole.operations;
      expect(count).toBeGreaterThan(10);
      for (const fate of ["ENOSPC", "EIO"] as const) {
        for (let at = 0; at < count; at += Math.ceil(count / 9)) {
          const disk = new CrashDisk(() => 0);
          disk.folders.add("/");
          disk.fate = (operation) => (operation === at ? fate : undefined);
          const failure = await packWith(disk.process(), path, options).then(
            () => undefined,
            (error: unknown) => error as HeadraceError,
          );
          if (failure === undefined) {
            // What failed was the cleaning up behind a pack that is whole: at most hidden files are left.
            const left = Object.entries(disk.files()).filter(([name]) => !name.startsWith("/out/.packing/"));
            expect(Object.fromEntries(left)).toEqual(whole.files());
            expect(at).toBeGreaterThan(0.9 * count);
            continue;
          }
          expect(failure.code).toBe(fate === "ENOSPC" ? "DISK_FULL" : "IO_ERROR");
          expect(Object.keys(disk.files())).toEqual([]);
        }
      }
    },
  );

  test("a folder that is not empty is refused, and with overwrite keeps what is not ours", async () => {
    const folder = temp("overwrite");
    const path = textFile(folder, "a.jsonl", rows);
    const out = join(folder, "out");
    mkdirSync(out);
    writeFileSync(join(out, "notes.txt"), "mine");
    const failure = await rejection(() => pack(path, { out }));
    expect(failure.code).toBe("OTHER_JOB");
    expect(failure.message).toContain("is not empty (notes.txt)");
    await pack(path, { out, overwrite: true, shardBytes: 2 ** 20 });
    const many = readdirSync(out).length;
    mkdirSync(join(out, ".packing"));
    writeFileSync(join(out, ".packing", "a-00000.arrow"), "left by a crash");
    await pack(path, { out, overwrite: true });
    expect(readdirSync(out).sort()).toEqual(["a-00000.arrow", "dataset.json", "notes.txt"]);
    expect(many).toBeGreaterThan(3);
  });
});

test.each([
  [{ codec: "zip" }, "codec is zip; it must be one of none, zstd, lz4"],
  [{ to: "parquet" }, "to is parquet"],
  [{ shardBytes: 5 }, "shardBytes is 5; it must be a whole number from 1048576"],
  [{ threads: 0 }, "threads is 0"],
  [{ level: 3 }, "level means nothing with codec none"],
  [{ to: "safetensors", codec: "zstd-body" }, "codec zstd-body compresses the buffers of Arrow files"],
  [{ codec: "lz4", planes: true, to: "safetensors" }, "planes are for safetensors with codec zstd"],
  [{ chunkBytes: 8192 }, "chunkBytes means nothing with codec none"],
  [{ casts: { a: "I8X" } }, "I8X"],
  [{ schema: { a: "i65" } }, 'the type of column "a" is "i65"'],
  [{ name: "a/b" }, "name is a/b"],
  [{ delimiter: "ab" }, "delimiter is"],
  [{ delimiter: ";" }, "delimiter is for CSV, and the source is JSONL"],
  [{ keepText: true }, "keepText means nothing without tokenizer"],
  [{ maxTokens: 3 }, "maxTokens means nothing without tokenizer"],
  [{ textColumn: "t" }, "textColumn means nothing without tokenizer"],
  [{ tokensColumn: "t" }, "tokensColumn means nothing without tokenizer"],
  [{ addSpecial: false }, "addSpecial means nothing without tokenizer"],
  [{ saturate: true }, "saturate means nothing without casts"],
  [
    { rowsPerBatch: 5, to: "safetensors" },
    "rowsPerBatch is of Arrow's record batches, and to is safetensors",
  ],
  [{ rename: { a: "" } }, "the new name of a column is empty"],
] as const)("%j is refused", async (options, message) => {
  const folder = temp("refused");
  const path = textFile(folder, "a.jsonl", '{"a":1}\n');
  const failure = await rejection(() => pack(path, { out: join(folder, "out"), ...(options as object) }));
  expect(failure.code).toBe("BAD_OPTION");
  expect(failure.message).toContain(message);
  expect(readdirSync(folder)).toEqual(["a.jsonl"]);
});

test("options of text are refused where the source is none", async () => {
  const folder = temp("no-text");
  const shards = join(folder, "shards");
  await pack(textFile(folder, "a.jsonl", '{"a":1}\n'), { out: shards });
  const file = join(shards, "a-00000.arrow");
  for (const [source, kind] of [
    [shards, "shards"],
    [join(shards, "dataset.json"), "shards"],
    [file, "Arrow"],
  ] as const) {
    for (const [options, what] of [
      [{ schema: { a: "i32" } }, "schema is for JSONL and CSV"],
      [{ badRows: "skip" }, "badRows skip is for JSONL and CSV"],
      [{ delimiter: ";" }, "delimiter is for CSV"],
    ] as const) {
      const failure = await rejection(() => pack(source, { out: join(folder, "out"), ...options }));
      expect(failure.code).toBe("BAD_OPTION");
      expect(failure.message).toBe(`${what}, and the source is ${kind}`);
    }
  }
});

test("a type for a column that no row has is told", async () => {
  const folder = temp("warned");
  const path = textFile(folder, "a.jsonl", '{"a":1,"b":null}\n{"a":2,"b":null}\n');
  const schema = { a: "i32", b: "i64", zz: "utf8" };
  const { warnings } = await pack(path, { out: join(folder, "out"), schema });
  expect(warnings).toEqual(
    ["b", "zz"].map(
      (name) => `schema names column "${name}", and none of the 2 rows has a value there; is the name right?`,
    ),
  );
  expect(
    (await pack(path, { out: join(folder, "o2"), schema: { b: "i64" }, columns: ["a"] })).warnings,
  ).toEqual([]);
});

test.each([
  [
    '{"a":{"b":1},"a.b":2}',
    {},
    'column "a.b" comes 2 times; name the others by --columns, or rename one in the source',
  ],
  ['{"a":{"b":1},"a.b":2}', { rename: { "a.b": "c" } }, 'column "a.b" comes 2 times'],
  [
    '{"":1,"a":2}',
    {},
    'column "" has no name; give it one by --rename =NAME, or name the others by --columns',
  ],
])("names that no reader could tell apart: %s %j", async (row, options, message) => {
  const folder = temp("names");
  const path = textFile(folder, "a.jsonl", `${row}\n`);
  const failure = await rejection(() => pack(path, { out: join(folder, "out"), ...options }));
  expect(failure.code).toBe("BAD_INPUT");
  expect(failure.message).toContain(`${path}: ${message}`);
  expect(readdirSync(folder)).toEqual(["a.jsonl"]);
});

test("a cast that fails names file and row", async () => {
  const folder = temp("casts");
  const paths = ["a", "b"].map((name) =>
    textFile(folder, `${name}.csv`, `n,m\n1,2\n${name === "b" ? 300 : 3},4\n`),
  );
  const options = { out: join(folder, "out"), casts: { n: "U8" } } as const;
  const failure = await rejection(() => pack(paths, options));
  expect(failure.message).toStartWith(`${paths[1]}: row 1: column "n" has 300, which U8 cannot hold`);
  await pack(paths, { out: join(folder, "wide") });
  const wide = join(folder, "wide");
  const ofShards = await rejection(() => pack(wide, options));
  expect(ofShards.message).toStartWith(`${wide}: row 3: column "n" has 300`);
  const limited = await rejection(() => pack(paths, { ...options, columns: ["n"], limit: 4 }));
  expect(limited.message).toStartWith(`${paths[1]}: row 1: `);
});

test("a column without a name is packed under a new one, or left out", async () => {
  const folder = temp("nameless");
  const path = textFile(folder, "a.jsonl", '{"":1,"a":2}\n');
  await pack(path, { out: join(folder, "out"), rename: { "": "b" } });
  expect(await readRows(join(folder, "out"))).toEqual([{ b: 1, a: 2 }]);
  await pack(path, { out: join(folder, "out-2"), columns: ["a"] });
  expect(await readRows(join(folder, "out-2"))).toEqual([{ a: 2 }]);
});

test("a folder is not packed to itself", async () => {
  const folder = temp("self");
  const out = join(folder, "out");
  await pack(textFile(folder, "a.jsonl", '{"a":1}\n'), { out });
  const before = filesOf(out);
  symlinkSync(out, join(folder, "link"));
  for (const source of [out, join(out, "*.arrow"), join(folder, "link"), join(out, "dataset.json")]) {
    const failure = await rejection(() => pack(source, { out, overwrite: true }));
    expect(failure.code).toBe("BAD_OPTION");
    expect(failure.message).toContain("lies; name another folder");
  }
  expect(filesOf(out)).toEqual(before);
  await pack(out, { out: join(folder, "out-2") });
  expect(await readRows(join(folder, "out-2"))).toEqual([{ a: 1 }]);
});

test("nulls have no place in safetensors", async () => {
  const folder = temp("nulls");
  const path = textFile(folder, "a.jsonl", '{"a":1}\n{"a":null}\n');
  const failure = await rejection(() => pack(path, { out: join(folder, "out"), to: "safetensors" }));
  expect(failure.code).toBe("BAD_INPUT");
  expect(failure.message).toContain('row 1 of the shard has no value in column "a"');
});
