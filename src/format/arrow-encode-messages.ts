/** The flatbuffers of Arrow IPC files as they stand in a file, built by the generated code that apache-arrow comes with. */
import { Block } from "apache-arrow/fb/block";
import { Buffer as BufferStruct } from "apache-arrow/fb/buffer";
import { DictionaryBatch } from "apache-arrow/fb/dictionary-batch";
import { DictionaryEncoding } from "apache-arrow/fb/dictionary-encoding";
import { Field } from "apache-arrow/fb/field";
import { FieldNode } from "apache-arrow/fb/field-node";
import { FixedSizeList } from "apache-arrow/fb/fixed-size-list";
import { FloatingPoint } from "apache-arrow/fb/floating-point";
import { Footer } from "apache-arrow/fb/footer";
import { Int } from "apache-arrow/fb/int";
import { List } from "apache-arrow/fb/list";
import { Message } from "apache-arrow/fb/message";
import { MessageHeader } from "apache-arrow/fb/message-header";
import { MetadataVersion } from "apache-arrow/fb/metadata-version";
import { RecordBatch } from "apache-arrow/fb/record-batch";
import { Schema } from "apache-arrow/fb/schema";
import { Type } from "apache-arrow/fb/type";
import { Utf8 } from "apache-arrow/fb/utf8";
import { Builder } from "flatbuffers";
import { MAGIC } from "./arrow-file.ts";
import { alignedTo, type OutputField } from "./output-layout.ts";

/** Bytes on whose multiples buffers start: what the format advises, and a cache line. */
export const ALIGNMENT = 64;
const MESSAGE_ALIGNMENT = 8;
/** Continuation and length. */
const PREFIX_BYTES = 8;
/** Precisions by their number: half, single, double. */
const FLOATS: Readonly<Record<string, number>> = { F16: 0, F32: 1, F64: 2 };
const INTEGER = /^([IU])(8|16|32|64)$/;

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
}

/** Where a message lies in the file. */
export interface MessagePlace {
  readonly offset: number;
  readonly metadataLength: number;
  readonly bodyLength: number;
}

/** Whether there is a type for elements of `dtype`. */
export function hasArrowType(dtype: string): boolean {
  return INTEGER.test(dtype) || dtype in FLOATS;
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

/** What a file's stream begins with. */
export function schemaMessage(fields: readonly OutputField[]): Uint8Array {
  return framed(message(MessageHeader.Schema, 0, (builder) => schemaTable(builder, fields)));
}

/** The metadata of a record batch, padded to `byteLength` bytes where that is given. */
export function batchMessage(
  numRows: number,
  { nodes, buffers, length }: BatchBody,
  byteLength?: number,
): Uint8Array {
  const flatbuffer = message(MessageHeader.RecordBatch, length, (builder) =>
    batchTable(builder, numRows, nodes, buffers),
  );
  return framed(flatbuffer, byteLength);
}

function batchTable(
  builder: Builder,
  numRows: number,
  nodes: readonly NodeSize[],
  buffers: readonly BodyRange[],
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
  RecordBatch.startRecordBatch(builder);
  RecordBatch.addLength(builder, BigInt(numRows));
  RecordBatch.addNodes(builder, nodesAt);
  RecordBatch.addBuffers(builder, buffersAt);
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
    const data = batchTable(builder, 1, [{ length: 1, nullCount: 0 }], buffers);
    DictionaryBatch.startDictionaryBatch(builder);
    DictionaryBatch.addId(builder, BigInt(id));
    DictionaryBatch.addData(builder, data);
    return DictionaryBatch.endDictionaryBatch(builder);
  });
  return { metadata: framed(flatbuffer), body };
}

function schemaTable(builder: Builder, fields: readonly OutputField[]): number {
  const offsets = fields.map((field, id) => fieldTable(builder, field, id));
  return Schema.createSchema(builder, 0, Schema.createFieldsVector(builder, offsets), 0, 0);
}

function fieldTable(builder: Builder, field: OutputField, id: number): number {
  const { name, nullable, kind } = field;
  const text = () => ({ type: Type.Utf8, at: Utf8.createUtf8(builder) });
  if (kind === "utf8") return makeField(builder, name, nullable, text(), []);
  if (kind === "name") {
    const index = Int.createInt(builder, 32, true);
    DictionaryEncoding.startDictionaryEncoding(builder);
    DictionaryEncoding.addId(builder, BigInt(id));
    DictionaryEncoding.addIndexType(builder, index);
    const dictionary = DictionaryEncoding.endDictionaryEncoding(builder);
    return makeField(builder, name, nullable, text(), [], dictionary);
  }
  const element = elementType(builder, field);
  if (kind === "fixed" && field.length === undefined) return makeField(builder, name, nullable, element, []);
  const item = makeField(builder, "item", false, element, []);
  const list =
    kind === "list"
      ? { type: Type.List, at: List.createList(builder) }
      : { type: Type.FixedSizeList, at: FixedSizeList.createFixedSizeList(builder, field.length!) };
  return makeField(builder, name, nullable, list, [item]);
}

function elementType(builder: Builder, { dtype }: OutputField): { type: Type; at: number } {
  const integer = INTEGER.exec(dtype);
  if (integer !== null) {
    return { type: Type.Int, at: Int.createInt(builder, Number(integer[2]), integer[1] === "I") };
  }
  return {
    type: Type.FloatingPoint,
    at: FloatingPoint.createFloatingPoint(builder, FLOATS[dtype]!),
  };
}

function makeField(
  builder: Builder,
  name: string,
  nullable: boolean,
  { type, at }: { type: Type; at: number },
  children: number[],
  dictionary?: number,
): number {
  const nameAt = builder.createString(name);
  // Readers of C++ want the vector of children also where it is empty.
  const childrenAt = Field.createChildrenVector(builder, children);
  Field.startField(builder);
  Field.addName(builder, nameAt);
  Field.addNullable(builder, nullable);
  Field.addTypeType(builder, type);
  Field.addType(builder, at);
  if (dictionary !== undefined) Field.addDictionary(builder, dictionary);
  Field.addChildren(builder, childrenAt);
  return Field.endField(builder);
}

/** All that stands behind the last record batch: the end of the stream, the footer, its length and the magic. */
export function footerOf(
  fields: readonly OutputField[],
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
