/** Makes Arrow shards with every kind of column, and what they hold as plain arrays. */
import { writeFileSync } from "node:fs";
import * as arrow from "apache-arrow";
import type { ExpectedColumn, Oracle } from "./helpers.ts";

/** One column: its type, how a value is made from a sample's number, and which bytes it must arrive as. */
interface Kind {
  readonly name: string;
  readonly type: arrow.DataType;
  readonly value: (sample: number) => unknown;
  readonly bytes: (value: never) => Uint8Array;
  readonly elementBytes?: number;
  readonly dictionary?: boolean;
}

const raw = (array: ArrayBufferView) => new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
const utf8 = (text: string) => new TextEncoder().encode(text);
const list = (child: arrow.DataType) => new arrow.List(new arrow.Field("item", child, false));
const fixed = (size: number, child: arrow.DataType) =>
  new arrow.FixedSizeList(size, new arrow.Field("item", child, false));
const texts = (sample: number) => ["", "ä", "headrace", "水".repeat(sample % 5), "x".repeat(40)][sample % 5]!;
const lengths = (sample: number) => [0, 3, 1, 9, 0, 2][sample % 6]!;

export const KINDS: readonly Kind[] = [
  { name: "i8", type: new arrow.Int8(), value: (s) => (s % 200) - 100, bytes: (v) => raw(Int8Array.of(v)) },
  { name: "u8", type: new arrow.Uint8(), value: (s) => s % 256, bytes: (v) => raw(Uint8Array.of(v)) },
  { name: "i16", type: new arrow.Int16(), value: (s) => s * -3, bytes: (v) => raw(Int16Array.of(v)) },
  { name: "u16", type: new arrow.Uint16(), value: (s) => s * 7, bytes: (v) => raw(Uint16Array.of(v)) },
  { name: "i32", type: new arrow.Int32(), value: (s) => s * -70001, bytes: (v) => raw(Int32Array.of(v)) },
  { name: "u32", type: new arrow.Uint32(), value: (s) => s * 70001, bytes: (v) => raw(Uint32Array.of(v)) },
  {
    name: "i64",
    type: new arrow.Int64(),
    value: (s) => BigInt(s) * -(2n ** 40n),
    bytes: (v) => raw(BigInt64Array.of(v)),
  },
  {
    name: "u64",
    type: new arrow.Uint64(),
    value: (s) => 2n ** 63n + BigInt(s),
    bytes: (v) => raw(BigUint64Array.of(v)),
  },
  { name: "f32", type: new arrow.Float32(), value: (s) => s / 8, bytes: (v) => raw(Float32Array.of(v)) },
  { name: "f64", type: new arrow.Float64(), value: (s) => s / 3, bytes: (v) => raw(Float64Array.of(v)) },
  { name: "bool", type: new arrow.Bool(), value: (s) => s % 3 === 0, bytes: (v) => Uint8Array.of(+v) },
  {
    name: "vector",
    type: fixed(3, new arrow.Float32()),
    value: (s) => [s, s / 2, -s],
    bytes: (v) => raw(Float32Array.from(v)),
  },
  {
    name: "matrix",
    type: fixed(2, fixed(2, new arrow.Int16())),
    value: (s) => [
      [s, 1],
      [2, -s],
    ],
    bytes: (v: never) => raw(Int16Array.from((v as number[][]).flat())),
  },
  {
    name: "bits",
    type: fixed(5, new arrow.Bool()),
    value: (s) => [s % 2 === 0, s % 3 === 0, true, false, s % 5 === 0],
    bytes: (v: never) => Uint8Array.from((v as boolean[]).map(Number)),
  },
  {
    name: "fsb",
    type: new arrow.FixedSizeBinary(4),
    value: (s) => Uint8Array.of(s, s >> 8, 1, 255),
    bytes: (v) => v,
  },
  {
    name: "tokens",
    type: list(new arrow.Int32()),
    value: (s) => Array.from({ length: lengths(s) }, (_, i) => s * 100 + i),
    bytes: (v) => raw(Int32Array.from(v)),
    elementBytes: 4,
  },
  {
    name: "points",
    type: list(fixed(2, new arrow.Float32())),
    value: (s) => Array.from({ length: lengths(s + 1) }, (_, i) => [s, i]),
    bytes: (v: never) => raw(Float32Array.from((v as number[][]).flat())),
    elementBytes: 8,
  },
  { name: "text", type: new arrow.Utf8(), value: texts, bytes: utf8, elementBytes: 1 },
  {
    name: "blob",
    type: new arrow.Binary(),
    value: (s) => utf8(texts(s + 1)),
    bytes: (v) => v,
    elementBytes: 1,
  },
  { name: "long_text", type: new arrow.LargeUtf8(), value: texts, bytes: utf8, elementBytes: 1 },
  {
    name: "day",
    type: new arrow.DateDay(),
    value: (s) => new Date(s * 86400000),
    bytes: (v: never) => raw(Int32Array.of((v as Date).getTime() / 86400000)),
  },
  {
    name: "when",
    type: new arrow.TimestampMillisecond("UTC"),
    value: (s) => 1_700_000_000_000 + s,
    bytes: (v: never) => raw(BigInt64Array.of(BigInt(v as number))),
  },
  {
    name: "source",
    type: new arrow.Dictionary(new arrow.Utf8(), new arrow.Int8()),
    value: (s) => ["web", "book", "code", "", "mail"][(s * s + (s >> 2)) % 5],
    bytes: utf8,
    dictionary: true,
  },
];

export interface ArrowOptions {
  /** Rows of each record batch. */
  readonly batches: readonly number[];
  /** Number of the first sample. */
  readonly first?: number;
  readonly kinds?: readonly Kind[];
  readonly form?: "file" | "stream";
  /** Whether sample `s` lacks column `c`. */
  readonly isNull?: (sample: number, column: number) => boolean;
}

const never = () => false;

/** Writes one shard and appends its samples to `oracle`. */
export function writeArrow(path: string, options: ArrowOptions, oracle: ExpectedColumn[] = []): void {
  const { batches, first = 0, kinds = KINDS, form = "file", isNull = never } = options;
  const count = batches.reduce((a, b) => a + b, 0);
  const cells = kinds.map((kind, c) =>
    Array.from({ length: count }, (_, i) => (isNull(first + i, c) ? null : kind.value(first + i))),
  );
  kinds.forEach((kind, c) => {
    const rows = cells[c]!.map((value) => (value === null ? null : kind.bytes(value as never)));
    const known = oracle.find((column) => column.name === kind.name);
    if (known === undefined) {
      oracle.push({
        name: kind.name,
        ...(kind.elementBytes === undefined ? {} : { elementBytes: kind.elementBytes }),
        ...(kind.dictionary ? { texts: cells[c] as (string | null)[] } : {}),
        rows,
      });
      return;
    }
    (known.rows as (Uint8Array | null)[]).push(...rows);
    if (known.texts !== undefined) (known.texts as unknown[]).push(...cells[c]!);
  });
  writeFileSync(path, encode(kinds, cells, batches, form));
}

function encode(
  kinds: readonly Kind[],
  cells: readonly unknown[][],
  batches: readonly number[],
  form: "file" | "stream",
): Uint8Array {
  const schema = new arrow.Schema(kinds.map((kind) => new arrow.Field(kind.name, kind.type, true)));
  const vocabularies = kinds.map((kind, c) =>
    kind.dictionary ? [...new Set(cells[c]!.filter((value) => value !== null))] : [],
  );
  const words = vocabularies.map((list) => arrow.vectorFromArray(list as string[], new arrow.Utf8()));
  let row = 0;
  const recordBatches = batches.map((length) => {
    const children = kinds.map((kind, c) => {
      const values = cells[c]!.slice(row, row + length);
      return kind.dictionary
        ? codes(kind, values, vocabularies[c]!, words[c]!)
        : arrow.vectorFromArray(values, kind.type as never).data[0]!;
    });
    row += length;
    const data = arrow.makeData({ type: new arrow.Struct(schema.fields), length, nullCount: 0, children });
    return new arrow.RecordBatch(schema, data as never);
  });
  const writer = form === "file" ? new arrow.RecordBatchFileWriter() : new arrow.RecordBatchStreamWriter();
  writer.reset(undefined, schema);
  for (const batch of recordBatches) writer.write(batch as never);
  writer.finish();
  return writer.toUint8Array(true);
}

/** All batches of a shard share one vocabulary, as most writers do it. */
function codes(kind: Kind, values: readonly unknown[], vocabulary: readonly unknown[], words: arrow.Vector) {
  const nullBitmap = new Uint8Array(Math.ceil(values.length / 8));
  values.forEach((value, i) => {
    if (value !== null) nullBitmap[i >> 3]! |= 1 << (i & 7);
  });
  return arrow.makeData({
    type: kind.type as arrow.Dictionary<arrow.Utf8, arrow.Int8>,
    length: values.length,
    nullCount: values.filter((value) => value === null).length,
    nullBitmap,
    data: Int8Array.from(values, (value) => vocabulary.indexOf(value)),
    dictionary: words as arrow.Vector<arrow.Utf8>,
  });
}

/** Three shards, one of them a stream, with several record batches, some of them empty. */
export function writeArrowDataset(
  folder: (...parts: string[]) => string,
  options: Pick<ArrowOptions, "kinds" | "isNull"> = {},
): Oracle {
  const oracle: ExpectedColumn[] = [];
  writeArrow(folder("a.arrow"), { ...options, batches: [5, 3, 9] }, oracle);
  writeArrow(folder("b.arrow"), { ...options, batches: [1, 2], first: 17, form: "stream" }, oracle);
  writeArrow(folder("c.arrow"), { ...options, batches: [10], first: 20 }, oracle);
  return oracle;
}

/** Samples of {@link writeArrowDataset}. */
export const ARROW_SAMPLES = 30;
