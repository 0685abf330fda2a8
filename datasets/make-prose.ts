/**
 * Makes `prose`: paragraphs of English as text and as byte-level tokens, in Arrow IPC files.
 *
 *     bun datasets/make-prose.ts [FOLDER]
 *
 * Reads `sources/prose.jsonl.gz` and writes four shards of three record batches each to FOLDER, by default
 * `prose` beside this script. Columns, none of them nullable: `id` int32; `source` dictionary<int32, utf8>,
 * the same entries in every shard; `text` utf8; `tokens` list<int32>: BOS, the UTF-8 bytes, EOS; `length`
 * int32, the number of tokens. The same source gives the same bytes.
 */
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import {
  type Data,
  Dictionary,
  Field,
  Int32,
  List,
  makeData,
  makeVector,
  RecordBatch,
  RecordBatchFileWriter,
  Schema,
  Struct,
  Utf8,
  type Vector,
} from "apache-arrow";
import { finish, type SavedShard, save, shardName } from "./shards.ts";

interface Paragraph {
  readonly id: number;
  readonly source: string;
  readonly text: string;
}

const NUM_SHARDS = 4;
const BATCHES_PER_SHARD = 3;
/** Tokens 0 to 255 are bytes. */
const BOS = 256;
const EOS = 257;

const int32 = new Int32();
const utf8 = new Utf8();
const sourceType = new Dictionary(utf8, int32, 0);
const tokensType = new List(new Field("item", int32, false));
const schema = new Schema([
  new Field("id", int32, false),
  new Field("source", sourceType, false),
  new Field("text", utf8, false),
  new Field("tokens", tokensType, false),
  new Field("length", int32, false),
]);

/** The UTF-8 bytes of all texts back to back, and `texts.length + 1` offsets into them. */
function encodeTexts(texts: readonly string[]): { bytes: Uint8Array; offsets: Int32Array } {
  const encoded = texts.map((text) => new TextEncoder().encode(text));
  const offsets = new Int32Array(texts.length + 1);
  encoded.forEach((bytes, i) => {
    offsets[i + 1] = offsets[i]! + bytes.length;
  });
  return { bytes: Buffer.concat(encoded), offsets };
}

function utf8Data(texts: readonly string[]): Data<Utf8> {
  const { bytes, offsets } = encodeTexts(texts);
  return makeData({ type: utf8, length: texts.length, nullCount: 0, valueOffsets: offsets, data: bytes });
}

function int32Data(values: Int32Array): Data<Int32> {
  return makeData({ type: int32, length: values.length, nullCount: 0, data: values });
}

function tokensData(texts: readonly string[]): Data<List<Int32>> {
  const { bytes, offsets } = encodeTexts(texts);
  // Each text gains two tokens, so its start moves by twice its number.
  const valueOffsets = offsets.map((offset, i) => offset + 2 * i);
  const values = new Int32Array(valueOffsets[texts.length]!);
  texts.forEach((_, i) => {
    const start = valueOffsets[i]!;
    values[start] = BOS;
    values.set(bytes.subarray(offsets[i]!, offsets[i + 1]!), start + 1);
    values[valueOffsets[i + 1]! - 1] = EOS;
  });
  return makeData({
    type: tokensType,
    length: texts.length,
    nullCount: 0,
    valueOffsets,
    child: int32Data(values),
  });
}

function makeBatch(
  rows: readonly Paragraph[],
  codes: ReadonlyMap<string, number>,
  dictionary: Vector<Utf8>,
): RecordBatch {
  const texts = rows.map((row) => row.text);
  const tokens = tokensData(texts);
  const lengths = Int32Array.from(rows, (_, i) => tokens.valueOffsets[i + 1]! - tokens.valueOffsets[i]!);
  const source = makeData({
    type: sourceType,
    length: rows.length,
    nullCount: 0,
    data: Int32Array.from(rows, (row) => codes.get(row.source)!),
    dictionary,
  });
  const children: Data[] = [
    int32Data(Int32Array.from(rows, (row) => row.id)),
    source,
    utf8Data(texts),
    tokens,
    int32Data(lengths),
  ];
  const type = new Struct(schema.fields);
  return new RecordBatch(schema, makeData({ type, length: rows.length, nullCount: 0, children }));
}

async function readSource(): Promise<Paragraph[]> {
  const packed = await Bun.file(join(import.meta.dir, "sources", "prose.jsonl.gz")).bytes();
  const lines = new TextDecoder().decode(Bun.gunzipSync(packed)).trimEnd().split("\n");
  return lines.map((line) => JSON.parse(line) as Paragraph);
}

async function main(folder: string): Promise<void> {
  const paragraphs = await readSource();
  const names = [...new Set(paragraphs.map((paragraph) => paragraph.source))].sort();
  const codes = new Map(names.map((name, code) => [name, code]));
  const dictionary = makeVector(utf8Data(names));
  const perShard = Math.ceil(paragraphs.length / NUM_SHARDS);
  const perBatch = Math.ceil(perShard / BATCHES_PER_SHARD);
  mkdirSync(folder, { recursive: true });
  const shards: SavedShard[] = [];
  for (let shard = 0; shard < NUM_SHARDS; shard++) {
    const rows = paragraphs.slice(shard * perShard, (shard + 1) * perShard);
    const writer = new RecordBatchFileWriter();
    for (let start = 0; start < rows.length; start += perBatch)
      writer.write(makeBatch(rows.slice(start, start + perBatch), codes, dictionary));
    writer.finish();
    const path = shardName("prose", shard, "arrow");
    const bytes = save(join(folder, path), [writer.toUint8Array(true)]);
    shards.push({ path, samples: rows.length, bytes });
  }
  await finish(folder, "prose", shards);
}

await main(process.argv[2] ?? join(import.meta.dir, "prose"));
