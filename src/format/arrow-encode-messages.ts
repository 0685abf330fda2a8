/** The flatbuffers of Arrow IPC files as they stand in a file, built by the generated code that apache-arrow comes with. */
import { Block } from "apache-arrow/fb/block";
import { BodyCompression } from "apache-arrow/fb/body-compression";
import { BodyCompressionMethod } from "apache-arrow/fb/body-compression-method";
import { Buffer as BufferStruct } from "apache-arrow/fb/buffer";
import type { CompressionType } from "apache-arrow/fb/compression-type";
import { DictionaryBatch } from "apache-arrow/fb/dictionary-batch";
import { FieldNode } from "apache-arrow/fb/field-node";
import { Footer } from "apache-arrow/fb/footer";
import { Message } from "apache-arrow/fb/message";
import { MessageHeader } from "apache-arrow/fb/message-header";
import { MetadataVersion } from "apache-arrow/fb/metadata-version";
import { RecordBatch } from "apache-arrow/fb/record-batch";
import { Builder } from "flatbuffers";
import { type SchemaField, schemaTable } from "./arrow-encode-schema.ts";
import { MAGIC } from "./arrow-file.ts";
import { alignedTo } from "./output-layout.ts";

/** Bytes on whose multiples buffers start: what the format advises, and a cache line. */
export const ALIGNMENT = 64;
const MESSAGE_ALIGNMENT = 8;
/** Continuation and length. */
const PREFIX_BYTES = 8;
/** Bytes `[offset, offset + length)` of a body. */
export interface BodyRange {
  readonly offset: number;
  readonly length: number;
}

/** Of a column, or of what its lists hold. */
export interface NodeSize {
  readonly length: number;
  readonly nullCount: number;
}

/** What a record batch's body holds. */
export interface BatchBody {
  readonly nodes: readonly NodeSize[];
  readonly buffers: readonly BodyRange[];
  /** Of the body, in bytes. */
  readonly length: number;
  /** By its number in the format, where the buffers are compressed. */
  readonly codec?: CompressionType | undefined;
}

/** Where a message lies in the file. */
export interface MessagePlace {
  readonly offset: number;
  readonly metadataLength: number;
  readonly bodyLength: number;
}

/** A flatbuffer as a message in a file: continuation, length, padding, `byteLength` bytes in all where that is given. */
function framed(flatbuffer: Uint8Array, byteLength?: number): Uint8Array {
  const whole = byteLength ?? alignedTo(PREFIX_BYTES + flatbuffer.length, MESSAGE_ALIGNMENT);
  const bytes = new Uint8Array(whole);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, 0xffffffff, true);
  view.setInt32(4, whole - PREFIX_BYTES, true);
  bytes.set(flatbuffer, PREFIX_BYTES);
  return bytes;
}

function message(header: MessageHeader, bodyLength: number, build: (builder: Builder) => number): Uint8Array {
  const builder = new Builder(1024);
  const offset = build(builder);
  Message.startMessage(builder);
  Message.addVersion(builder, MetadataVersion.V5);
  Message.addHeaderType(builder, header);
  Message.addHeader(builder, offset);
  Message.addBodyLength(builder, BigInt(bodyLength));
  builder.finish(Message.endMessage(builder));
  return builder.asUint8Array();
}

/** What a file's stream begins with, padded to a multiple of `alignment` bytes past the `before` that stand before it. */
export function schemaMessage(
  fields: readonly SchemaField[],
  alignment = MESSAGE_ALIGNMENT,
  before = 0,
): Uint8Array {
  const flatbuffer = message(MessageHeader.Schema, 0, (builder) => schemaTable(builder, fields));
  return framed(flatbuffer, alignedTo(before + PREFIX_BYTES + flatbuffer.length, alignment) - before);
}

/** The metadata of a record batch, padded to `byteLength` bytes where that is given, else to a multiple of
 * `alignment`. */
export function batchMessage(
  numRows: number,
  body: BatchBody,
  byteLength?: number,
  alignment = MESSAGE_ALIGNMENT,
): Uint8Array {
  const flatbuffer = message(MessageHeader.RecordBatch, body.length, (builder) =>
    batchTable(builder, numRows, body),
  );
  return framed(flatbuffer, byteLength ?? alignedTo(PREFIX_BYTES + flatbuffer.length, alignment));
}

function batchTable(
  builder: Builder,
  numRows: number,
  { nodes, buffers, codec }: Omit<BatchBody, "length">,
): number {
  RecordBatch.startNodesVector(builder, nodes.length);
  for (const { length, nullCount } of nodes.toReversed()) {
    FieldNode.createFieldNode(builder, BigInt(length), BigInt(nullCount));
  }
  const nodesAt = builder.endVector();
  RecordBatch.startBuffersVector(builder, buffers.length);
  for (const { offset, length } of buffers.toReversed()) {
    BufferStruct.createBuffer(builder, BigInt(offset), BigInt(length));
  }
  const buffersAt = builder.endVector();
  const compressionAt =
    codec === undefined
      ? undefined
      : BodyCompression.createBodyCompression(builder, codec, BodyCompressionMethod.BUFFER);
  RecordBatch.startRecordBatch(builder);
  RecordBatch.addLength(builder, BigInt(numRows));
  RecordBatch.addNodes(builder, nodesAt);
  RecordBatch.addBuffers(builder, buffersAt);
  if (compressionAt !== undefined) RecordBatch.addCompression(builder, compressionAt);
  return RecordBatch.endRecordBatch(builder);
}

/** A dictionary of the one entry `text`. */
export function dictionaryMessage(id: number, text: string): { metadata: Uint8Array; body: Uint8Array } {
  const entry = new TextEncoder().encode(text);
  const body = new Uint8Array(ALIGNMENT + alignedTo(entry.length, ALIGNMENT));
  new DataView(body.buffer).setInt32(4, entry.length, true);
  body.set(entry, ALIGNMENT);
  const buffers = [
    { offset: 0, length: 0 },
    { offset: 0, length: 8 },
    { offset: ALIGNMENT, length: entry.length },
  ];
  const flatbuffer = message(MessageHeader.DictionaryBatch, body.length, (builder) => {
    const data = batchTable(builder, 1, { nodes: [{ length: 1, nullCount: 0 }], buffers });
    DictionaryBatch.startDictionaryBatch(builder);
    DictionaryBatch.addId(builder, BigInt(id));
    DictionaryBatch.addData(builder, data);
    return DictionaryBatch.endDictionaryBatch(builder);
  });
  return { metadata: framed(flatbuffer), body };
}

/** All that stands behind the last record batch: the end of the stream, the footer, its length and the magic. */
export function footerOf(
  fields: readonly SchemaField[],
  dictionaries: readonly MessagePlace[],
  batches: readonly MessagePlace[],
): Uint8Array {
  const builder = new Builder(1024);
  const schema = schemaTable(builder, fields);
  const vector = (
    blocks: readonly MessagePlace[],
    start: (builder: Builder, length: number) => void,
  ): number => {
    start(builder, blocks.length);
    for (const { offset, metadataLength, bodyLength } of blocks.toReversed()) {
      Block.createBlock(builder, BigInt(offset), metadataLength, BigInt(bodyLength));
    }
    return builder.endVector();
  };
  const dictionariesAt = vector(dictionaries, Footer.startDictionariesVector);
  const batchesAt = vector(batches, Footer.startRecordBatchesVector);
  Footer.startFooter(builder);
  Footer.addVersion(builder, MetadataVersion.V5);
  Footer.addSchema(builder, schema);
  Footer.addDictionaries(builder, dictionariesAt);
  Footer.addRecordBatches(builder, batchesAt);
  builder.finish(Footer.endFooter(builder));
  const footer = builder.asUint8Array();
  const end = PREFIX_BYTES + footer.length;
  const bytes = new Uint8Array(end + 4 + MAGIC.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, 0xffffffff, true);
  bytes.set(footer, PREFIX_BYTES);
  view.setInt32(end, footer.length, true);
  bytes.set(MAGIC, end + 4);
  return bytes;
}
