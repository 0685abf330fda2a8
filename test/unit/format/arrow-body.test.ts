/** Compressed bodies: what is read of them, what lies about them, and what must be decoded to describe a shard. */
import { describe, expect, test } from "bun:test";
import { BodyCompression } from "apache-arrow/fb/body-compression";
import { KeyValue } from "apache-arrow/fb/key-value";
import { Message } from "apache-arrow/fb/message";
import { MessageHeader } from "apache-arrow/fb/message-header";
import { RecordBatch } from "apache-arrow/fb/record-batch";
import { Builder } from "flatbuffers";
import { HeadraceError } from "../../../src/errors.ts";
import { describeArrow } from "../../../src/format/arrow.ts";
import { bodyCodecOf } from "../../../src/format/arrow-body.ts";
import { MetadataBuffer } from "../../../src/format/arrow-metadata.ts";
import type { BodyCodec, WriteField } from "../../../src/format/arrow-write.ts";
import { ChunkCodec } from "../../../src/format/chunks.ts";
import type { ByteReader } from "../../../src/types.ts";
import { batchPlaces, describeBytes, golden, i64, patched, readerOf, refusal } from "./arrow-helpers.ts";
import { fileOf } from "./arrow-write-files.ts";
import { decoderOf, logicalBytes } from "./decode-chunks.ts";

const ZSTD: BodyCodec = {
  codec: "zstd",
  compress: (bytes) => new Uint8Array(Bun.zstdCompressSync(bytes as Uint8Array<ArrayBuffer>)),
};
const FIELDS: readonly WriteField[] = [
  { name: "a", kind: "fixed", dtype: "I64", nullable: true },
  { name: "text", kind: "utf8", dtype: "U8", nullable: false },
];
const ROWS = 1000;
const BATCH = {
  numRows: ROWS,
  columns: [
    { values: new Uint8Array(8 * ROWS), validity: new Uint8Array(ROWS).fill(1, 1), nullCount: 1 },
    {
      values: new Uint8Array(3 * ROWS).fill(65),
      offsets: Int32Array.from({ length: ROWS + 1 }, (_, i) => 3 * i),
      nullCount: 0,
    },
  ],
};
const WHOLE = fileOf(FIELDS, [BATCH, BATCH], () => ZSTD);
const { bytes } = WHOLE;
const BODY = WHOLE.places[0]!.offset + WHOLE.places[0]!.metadataLength;
/** Of the buffers in a batch: validity, values; validity (empty), offsets, bytes. */
const { range } = batchPlaces(bytes, WHOLE.places[0]!.offset);
const startOf = (index: number) => BODY + Number(new DataView(bytes.buffer).getBigInt64(range(index), true));
const lengthOf = (index: number) => Number(new DataView(bytes.buffer).getBigInt64(range(index) + 8, true));
const declare = (index: number, length: number | bigint) =>
  patched(bytes, (view) => i64(view, startOf(index), length));

/** Counts reads, and their bytes past the metadata. */
function counted(inner: ByteReader): { read: ByteReader; reads: [number, number][] } {
  const reads: [number, number][] = [];
  const read: ByteReader = (at, length) => {
    reads.push([at, length]);
    return inner(at, length);
  };
  return { read, reads };
}

describe("the table of a compressed shard", () => {
  test("has a chunk for each buffer that is wanted, in the order of the file", () => {
    const { chunks, rows, byteLength } = describeBytes(bytes);
    expect(byteLength).toBe(bytes.length);
    expect(chunks!.numChunks).toBe(8);
    expect([...chunks!.starts.subarray(0, 5)]).toEqual([0, 125, 8125, 8125 + 4004, 8125 + 4004 + 3000]);
    expect(chunks!.maxLength).toBe(8000);
    expect(rows!.groups[0]!.columns[0]).toMatchObject({
      validity: { range: { start: 0, end: 125 }, nullCount: 1 },
      values: { start: 125, end: 8125 },
    });
    expect(chunks!.fileOffset[1]).toBe(startOf(1) + 8);
    expect(chunks!.fileLength[1]).toBe(lengthOf(1) - 8);
  });

  test("leaves out what nobody asked for, and does not read it", () => {
    const { read, reads } = counted(readerOf(bytes));
    const { chunks } = describeArrow(read, bytes.length, ["text"]);
    expect(chunks!.numChunks).toBe(4);
    const inColumn = reads.filter(([at]) => at >= startOf(0) && at < startOf(3));
    expect(inColumn).toEqual([]);
  });

  test("is not made where no column of the shard is asked for", () => {
    expect(describeBytes(bytes, [])).toMatchObject({ chunks: undefined, rows: { numRows: 2000 } });
  });

  test("takes the lengths of small buffers in one read", () => {
    const { read, reads } = counted(readerOf(bytes));
    describeArrow(read, bytes.length);
    const inBodies = reads.filter(([at]) => at >= BODY && at < WHOLE.places[1]!.offset);
    expect(inBodies).toHaveLength(1);
    expect(inBodies[0]![1]).toBeLessThanOrEqual(4096);
  });
});

describe("bodies that lie are refused", () => {
  test.each([
    ["less than none", -2, "ARROW_BUFFER", "cannot come from"],
    ["the least integer", -(2n ** 63n), "ARROW_BUFFER", "cannot come from"],
    ["more than 2^40", 2n ** 41n, "ARROW_BUFFER", "cannot come from"],
    ["the greatest integer", 2n ** 63n - 1n, "ARROW_BUFFER", "cannot come from"],
    [
      "one byte too few",
      7999,
      "ARROW_BUFFER",
      "its values of 1000 rows need 8000 bytes, the buffer has 7999",
    ],
    ["none", 0, "ARROW_BUFFER", "need 8000 bytes, the buffer has 0"],
  ] as const)("a buffer of %s", (_, length, code, message) => {
    const failure = refusal(declare(1, length));
    expect(failure.code).toBe(code);
    expect(failure.message).toContain('record batch 0: column "a": its values');
    expect(failure.message).toContain(message);
  });

  test("stored as it is, and shorter than its rows", () => {
    expect(refusal(declare(1, -1)).message).toContain(`the buffer has ${lengthOf(1) - 8}`);
  });

  test("the length of the frame where that of its content belongs, as one writer had it", () => {
    const failure = refusal(declare(1, lengthOf(1) - 8));
    expect(failure.message).toContain("a mistake of apache-arrow for JavaScript");
  });

  test("one buffer of more than a gibibyte, which its frame could hold", () => {
    const batch = { numRows: 5000, columns: [{ values: new Uint8Array(40_000), nullCount: 0 }] };
    const compress = () => new Uint8Array(33_000);
    const big = fileOf(FIELDS.slice(0, 1), [batch], () => ({ codec: "zstd", compress }));
    const at = big.places[0]!.offset + big.places[0]!.metadataLength;
    const claim = (length: number) => patched(big.bytes, (view) => i64(view, at, length));
    expect(describeBytes(claim(2 ** 30)).chunks!.maxLength).toBe(2 ** 30);
    const long = refusal(claim(2 ** 30 + 1));
    expect(long.code).toBe("UNSUPPORTED_COMPRESSION");
    expect(long.message).toContain("write the file with fewer rows a batch");
    expect(refusal(claim(33_000 * 2 ** 15)).code).toBe("UNSUPPORTED_COMPRESSION");
    expect(refusal(claim(33_000 * 2 ** 15 + 1)).code).toBe("ARROW_BUFFER");
  });

  test("a buffer too short for its prefix", () => {
    const failure = refusal(patched(bytes, (view) => i64(view, range(1) + 8, 7)));
    expect(failure).toMatchObject({ code: "ARROW_BUFFER" });
    expect(failure.message).toContain("a compressed buffer of 7 bytes has no room for its length");
  });

  test("buffers that overlap", () => {
    const failure = refusal(
      patched(bytes, (view) => {
        i64(view, range(4), startOf(3) - BODY);
        i64(view, range(4) + 8, lengthOf(3));
      }),
    );
    expect(failure.code).toBe("ARROW_BUFFER");
    expect(failure.message).toContain(`two buffers overlap, bytes [${startOf(3)}, `);
  });

  test("a prefix outside the body", () => {
    const length = WHOLE.places[0]!.bodyLength;
    const failure = refusal(patched(bytes, (view) => i64(view, range(1), length - 4)));
    expect(failure.message).toContain(`of a body of ${length} bytes`);
  });

  test.each([
    ["codec", 2, 0],
    ["codec", -1, 0],
    ["method", 0, 1],
  ])("an unknown %s", (_, codec, method) => {
    const message = messageOf((builder) => BodyCompression.createBodyCompression(builder, codec, method));
    expect(() => bodyCodecOf(message.header(new RecordBatch()), message, "record batch 0")).toThrow(
      `record batch 0: its body is compressed by method ${method} with codec ${codec}`,
    );
  });

  test("compression as it was marked before the format had it", () => {
    const message = messageOf(undefined, "ARROW:experimental_compression");
    const batch: RecordBatch = message.header(new RecordBatch());
    expect(() => bodyCodecOf(batch, message, "record batch 0")).toThrow("compressed as Arrow 0.17 did");
    const other = messageOf(undefined, "some other key");
    expect(bodyCodecOf(other.header(new RecordBatch()), other, "record batch 0")).toBe(ChunkCodec.stored);
  });
});

/** A record batch with this compression, or with this key in its metadata. */
function messageOf(compression?: (builder: Builder) => number, key?: string): Message {
  const builder = new Builder();
  const compressionAt = compression?.(builder);
  RecordBatch.startRecordBatch(builder);
  if (compressionAt !== undefined) RecordBatch.addCompression(builder, compressionAt);
  const batch = RecordBatch.endRecordBatch(builder);
  const entries =
    key === undefined
      ? []
      : [KeyValue.createKeyValue(builder, builder.createString(key), builder.createString("lz4"))];
  const metadata = Message.createCustomMetadataVector(builder, entries);
  Message.startMessage(builder);
  Message.addHeaderType(builder, MessageHeader.RecordBatch);
  Message.addHeader(builder, batch);
  Message.addCustomMetadata(builder, metadata);
  builder.finish(Message.endMessage(builder));
  return new MetadataBuffer(builder.asUint8Array(), "ARROW_MESSAGE", "test").root(new Message());
}

describe("null elements under null rows", () => {
  const NAMES = ["fixed-lists-zstd.arrow", "fixed-lists-lz4.arrows", "sliced-zstd.arrow"];

  test.each(NAMES)("are looked for in what is decoded: %s", (name) => {
    const file = golden(name);
    let decoded = 0;
    const decode = decoderOf(file);
    const description = describeArrow(readerOf(file), file.length, undefined, (...chunk) => {
      decoded++;
      return decode(...chunk);
    });
    expect(decoded).toBeGreaterThan(0);
    expect(logicalBytes(file, description)).toHaveLength(description.chunks!.byteLength);
  });

  test("are refused where nothing decodes, and other columns are not", () => {
    const file = golden("fixed-lists-zstd.arrow");
    const failure = refusal(file);
    expect(failure.code).toBe("UNSUPPORTED_COMPRESSION");
    expect(failure.message).toContain("cannot be told apart without decompressing");
    expect(describeBytes(file, ["words", "days"]).rows!.numRows).toBe(20);
  });

  test("give what decoding throws", () => {
    const file = golden("fixed-lists-zstd.arrow");
    const broken = new HeadraceError("BAD_CHUNK", "corrupt");
    const decode = () => {
      throw broken;
    };
    expect(() => describeArrow(readerOf(file), file.length, undefined, decode)).toThrow(broken);
  });
});
