/** Files written batch by batch, as pyarrow and apache-arrow read them. */
import { afterAll, describe, expect, test } from "bun:test";
import { join } from "node:path";
import { CompressionType, compressionRegistry, tableFromIPC } from "apache-arrow";
import { openCompressor } from "../../src/codec/open.ts";
import type { BodyCodec, WriteColumn, WriteField } from "../../src/format/arrow-write.ts";
import { useTempDir } from "../loader/helpers.ts";
import { fileOf, hexRows, type WriteBatch } from "../unit/format/arrow-write-files.ts";

const PYTHON = process.env.HEADRACE_PYTHON ?? "python3";
const SCRIPT = `
import json, sys
sys.path.insert(0, ${JSON.stringify(import.meta.dir)})
import pathlib, make_arrow, pyarrow as pa
path = pathlib.Path(sys.argv[1])
schema, batches = make_arrow.read(path)
for batch in batches:
    batch.validate(full=True)
whole = path.read_bytes()
# The same bytes are a stream behind the magic.
streamed = pa.ipc.open_stream(whole[8:]).read_all()
assert streamed.equals(pa.Table.from_batches(batches, schema)), "the stream differs"
print(json.dumps({**make_arrow.describe(path), "types": [f"{f.name}: {f.type}{'' if f.nullable else ' not null'}" for f in schema]}))
`;
const temp = useTempDir();
const compressors = { zstd: openCompressor("zstd", { level: 9 }), lz4: openCompressor("lz4") };
afterAll(() => {
  compressors.zstd.close();
  compressors.lz4.close();
});

const FIELDS: readonly WriteField[] = [
  { name: "id", kind: "fixed", dtype: "I64", shape: [], nullable: true },
  { name: "half", kind: "fixed", dtype: "F16", shape: [4], nullable: true },
  { name: "image", kind: "fixed", dtype: "U8", shape: [3, 2, 5], nullable: false },
  { name: "flag", kind: "fixed", dtype: "BOOL", shape: [], nullable: true },
  { name: "mask", kind: "fixed", dtype: "BOOL", shape: [3, 7], nullable: false },
  { name: "tokens", kind: "list", dtype: "U16", shape: [], nullable: false },
  { name: "weights", kind: "list", dtype: "F64", shape: [], nullable: true },
  { name: "text", kind: "utf8", dtype: "U8", shape: [], nullable: true },
  { name: "größe", kind: "binary", dtype: "U8", shape: [], nullable: false },
];
const TYPES = [
  "id: int64",
  "half: fixed_size_list<item: halffloat not null>[4]",
  "image: fixed_size_list<item: fixed_size_list<item: fixed_size_list<item: uint8 not null>[5] not null>[2] not null>[3] not null",
  "flag: bool",
  "mask: fixed_size_list<item: fixed_size_list<item: bool not null>[7] not null>[3] not null",
  "tokens: list<item: uint16 not null> not null",
  "weights: list<item: double not null>",
  "text: string",
  "größe: binary not null",
];
const BYTES = { I64: 8, F16: 2, U8: 1, BOOL: 1, U16: 2, F64: 8 } as Record<string, number>;

/** Small whole numbers, so that floats are none that change on their way. */
function columnOf(field: WriteField, numRows: number): WriteColumn {
  const isNull = (row: number) => field.nullable && row % 3 === 1;
  const validity = Uint8Array.from({ length: numRows }, (_, row) => (isNull(row) ? 0 : 1));
  const nullCount = validity.filter((bit) => bit === 0).length;
  const perRow = (field.shape ?? []).reduce((a, b) => a * b, 1);
  const offsets = new Int32Array(numRows + 1);
  for (let row = 0; row < numRows; row++) {
    const length = field.kind === "fixed" ? perRow : isNull(row) ? 0 : (row * 7) % 23;
    offsets[row + 1] = offsets[row]! + length;
  }
  const count = offsets[numRows]!;
  const values = new Uint8Array(count * BYTES[field.dtype]!);
  const view = new DataView(values.buffer);
  for (let i = 0; i < count; i++) {
    const row = Math.floor(i / perRow);
    if (field.kind === "fixed" && isNull(row)) continue;
    if (field.dtype === "F64") view.setFloat64(8 * i, i % 100, true);
    else if (field.dtype === "F16") view.setFloat16(2 * i, i % 100, true);
    else if (field.dtype === "BOOL") values[i] = (i * i) & 1;
    else values[i * BYTES[field.dtype]!] = 32 + (i % 90);
  }
  return {
    values,
    nullCount,
    ...(field.kind === "fixed" ? {} : { offsets }),
    ...(nullCount > 0 ? { validity } : {}),
  };
}

const BATCHES: readonly WriteBatch[] = [1, 1000, 37].map((numRows) => ({
  numRows,
  columns: FIELDS.map((field) => columnOf(field, numRows)),
}));
const CODECS: Readonly<Record<string, BodyCodec | undefined>> = {
  none: undefined,
  zstd: { codec: "zstd", compress: (bytes) => compressors.zstd.frame(bytes) },
  lz4: { codec: "lz4", compress: (bytes) => compressors.lz4.frame(bytes) },
};

function hasPyarrow(): boolean {
  const probe = Bun.spawnSync([PYTHON, "-c", "import pyarrow"], { stderr: "ignore" });
  if (probe.exitCode === 0) return true;
  console.log(`skipped: ${PYTHON} cannot import pyarrow; HEADRACE_PYTHON may name one that can`);
  return false;
}

describe.skipIf(!hasPyarrow())("pyarrow reads what was written batch by batch", () => {
  test.each(Object.keys(CODECS))("codec %s", async (name) => {
    const path = join(temp("arrow"), "file.arrow");
    await Bun.write(path, fileOf(FIELDS, BATCHES, () => CODECS[name]).bytes);
    const { stdout, stderr, exitCode } = Bun.spawnSync([PYTHON, "-c", SCRIPT, path]);
    if (exitCode !== 0) throw new Error(stderr.toString());
    const found = JSON.parse(stdout.toString());
    expect(found.types).toEqual(TYPES);
    expect(found.groupRows).toEqual([1, 1000, 37]);
    expect(found.groups).toEqual(
      BATCHES.map((batch) => FIELDS.map((field, f) => hexRows(field, batch, batch.columns[f]!))),
    );
  });
});

describe("apache-arrow reads what was written batch by batch", () => {
  test.each(["none", "zstd"])("codec %s", (name) => {
    compressionRegistry.set(CompressionType.ZSTD, {
      encode: (bytes) => new Uint8Array(Bun.zstdCompressSync(bytes as Uint8Array<ArrayBuffer>)),
      decode: (bytes) => new Uint8Array(Bun.zstdDecompressSync(bytes as Uint8Array<ArrayBuffer>)),
    });
    const table = tableFromIPC(fileOf(FIELDS, BATCHES, () => CODECS[name]).bytes);
    expect(table.numRows).toBe(1038);
    const rows = BATCHES.flatMap((batch) => hexRows(FIELDS[7]!, batch, batch.columns[7]!));
    const text = [...table.getChild("text")!] as (string | null)[];
    expect(text.map((value) => (value === null ? null : Buffer.from(value).toString("hex")))).toEqual(rows);
    const ids = [...table.getChild("id")!] as (bigint | null)[];
    expect(ids.slice(1, 5)).toEqual([32n, null, 34n, 35n]);
  });
});
