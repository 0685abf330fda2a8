/**
 * Arrow IPC files, a batch at a time: `encodeSchema`, then `encodeBatch` as often as there are rows, then
 * `encodeFooter`. What comes out one after another is the file. Pure; nothing is kept between the calls, so that batches
 * may be encoded on different threads.
 *
 * Every message and every body is a multiple of 64 bytes long, and so are the buffers of bodies that are not
 * compressed: wherever a batch comes to stand, its buffers are aligned as the format advises.
 */
import { CompressionType } from "apache-arrow/fb/compression-type";
import { HeadraceError } from "../errors.ts";
import {
  ALIGNMENT,
  type BodyRange,
  batchMessage,
  footerOf,
  type MessagePlace,
  type NodeSize,
  schemaMessage,
} from "./arrow-encode-messages.ts";
import { hasArrowType, listSizesOf, type SchemaField } from "./arrow-encode-schema.ts";
import { MAGIC } from "./arrow-file.ts";
import { quoted } from "./arrow-metadata.ts";
import { dtypeBits } from "./dtype.ts";
import { alignedTo } from "./output-layout.ts";

/** One column of the file. */
export interface WriteField extends SchemaField {
  readonly kind: "fixed" | "list" | "utf8" | "binary";
}

/** One column of some rows. */
export interface WriteColumn {
  /** The elements of all rows, back to back, little-endian; BOOL is one byte an element, 0 or 1. */
  readonly values: Uint8Array;
  /** `numRows + 1` counts of elements, the first 0: absent where `fixed`. */
  readonly offsets?: Int32Array | undefined;
  /** One byte a row, 0 = null; absent where no row is null. */
  readonly validity?: Uint8Array | undefined;
  readonly nullCount: number;
}

/** How buffers are compressed, each by itself. */
export interface BodyCodec {
  readonly codec: "zstd" | "lz4";
  /** One frame of `bytes`, with its size in it. What it gives is kept until the batch is written. */
  compress(bytes: Uint8Array): Uint8Array;
}

/** A record batch as it stands in the file. */
export interface EncodedBatch {
  /** One after another, `metadataLength + bodyLength` bytes in all. Some are the columns' own arrays. */
  readonly pieces: readonly Uint8Array[];
  readonly metadataLength: number;
  readonly bodyLength: number;
}

/** Where a batch was written, in bytes of the file. */
export type BatchPlace = MessagePlace;

/** Throws `UNSUPPORTED_TYPE` for a column that Arrow has no type for, or that readers here would not take. */
export function checkWriteField({ name, kind, dtype }: WriteField): void {
  if (kind === "utf8" || kind === "binary") return;
  const what = `column ${quoted(name)} is of ${dtype}`;
  if (!hasArrowType(dtype))
    throw new HeadraceError(
      "UNSUPPORTED_TYPE",
      `${what}, which Arrow has no type for; store it as another type, or as safetensors`,
    );
  if (kind === "list" && dtype === "BOOL")
    throw new HeadraceError("UNSUPPORTED_TYPE", `${what} in lists; store it as U8`);
}

/** What the file begins with. */
export function encodeSchema(fields: readonly WriteField[]): Uint8Array {
  const head = alignedTo(MAGIC.length, 8);
  const message = schemaMessage(fields, ALIGNMENT, head);
  const bytes = new Uint8Array(head + message.length);
  bytes.set(MAGIC);
  bytes.set(message, head);
  return bytes;
}

/**
 * The next rows, at least one. Of each column it takes as many values as the rows need and leaves the rest. A buffer that
 * does not become smaller is stored as it is. Throws `OUT_OF_RANGE` where a column has fewer bytes than its rows need.
 */
export function encodeBatch(
  fields: readonly WriteField[],
  numRows: number,
  columns: readonly WriteColumn[],
  compression?: BodyCodec,
): EncodedBatch {
  const body = new Body(compression);
  const nodes: NodeSize[] = [];
  fields.forEach((field, i) => {
    addColumn(body, nodes, field, numRows, columns[i]!);
  });
  const bodyLength = body.finish();
  const codec = compression === undefined ? undefined : CODECS[compression.codec];
  const message = { nodes, buffers: body.buffers, length: bodyLength, codec };
  const metadata = batchMessage(numRows, message, undefined, ALIGNMENT);
  return { pieces: [metadata, ...body.pieces], metadataLength: metadata.length, bodyLength };
}

/** What the file ends with, behind its last batch. */
export function encodeFooter(fields: readonly WriteField[], batches: readonly BatchPlace[]): Uint8Array {
  return footerOf(fields, [], batches);
}

const CODECS = { lz4: CompressionType.LZ4_FRAME, zstd: CompressionType.ZSTD } as const;
/** Stands before a compressed buffer for its length, or for its being stored as it is. */
const PREFIX_BYTES = 8;
const STORED = -1n;
/** Of compressed buffers: they are not read where they lie. */
const FRAME_ALIGNMENT = 8;

/** The buffers of one body, as they come. */
class Body {
  readonly buffers: BodyRange[] = [];
  readonly pieces: Uint8Array[] = [];
  readonly #compression: BodyCodec | undefined;
  #length = 0;

  constructor(compression: BodyCodec | undefined) {
    this.#compression = compression;
  }

  add(bytes: Uint8Array): void {
    const offset = this.#length;
    if (this.#compression !== undefined && bytes.length > 0) this.#addCompressed(bytes, this.#compression);
    else this.#put(bytes);
    this.buffers.push({ offset, length: this.#length - offset });
    this.#pad(this.#compression === undefined ? ALIGNMENT : FRAME_ALIGNMENT);
  }

  /** Returns the body's length. */
  finish(): number {
    this.#pad(ALIGNMENT);
    return this.#length;
  }

  #addCompressed(bytes: Uint8Array, { compress }: BodyCodec): void {
    const frame = compress(bytes);
    const smaller = frame.length < bytes.length;
    const prefix = new Uint8Array(PREFIX_BYTES);
    new DataView(prefix.buffer).setBigInt64(0, smaller ? BigInt(bytes.length) : STORED, true);
    this.#put(prefix);
    this.#put(smaller ? frame : bytes);
  }

  #put(bytes: Uint8Array): void {
    if (bytes.length > 0) this.pieces.push(bytes);
    this.#length += bytes.length;
  }

  #pad(alignment: number): void {
    this.#put(new Uint8Array(alignedTo(this.#length, alignment) - this.#length));
  }
}

function addColumn(
  body: Body,
  nodes: NodeSize[],
  field: WriteField,
  numRows: number,
  { values, offsets, validity, nullCount }: WriteColumn,
): void {
  const exactly = (what: string, bytes: Uint8Array, needed: number) => {
    if (bytes.length >= needed) return bytes.subarray(0, needed);
    throw new HeadraceError(
      "OUT_OF_RANGE",
      `column ${quoted(field.name)}: its ${what} of ${numRows} rows need ${needed} bytes, it has ${bytes.length}`,
    );
  };
  nodes.push({ length: numRows, nullCount });
  body.add(
    nullCount === 0 ? new Uint8Array() : packBits(exactly("validity", validity ?? new Uint8Array(), numRows)),
  );
  const elementBytes = field.dtype === "BOOL" ? 1 : dtypeBits(field.dtype) / 8;
  if (field.kind === "fixed") {
    let count = numRows;
    for (const size of listSizesOf(field)) {
      count *= size;
      nodes.push({ length: count, nullCount: 0 });
      body.add(new Uint8Array());
    }
    const elements = exactly("values", values, count * elementBytes);
    body.add(field.dtype === "BOOL" ? packBits(elements) : elements);
    return;
  }
  const counts = offsets ?? new Int32Array();
  const bytes = new Uint8Array(counts.buffer, counts.byteOffset, counts.byteLength);
  body.add(exactly("offsets", bytes, 4 * (numRows + 1)));
  const count = counts[numRows]!;
  if (field.kind === "list") {
    nodes.push({ length: count, nullCount: 0 });
    body.add(new Uint8Array());
  }
  body.add(exactly("values", values, field.kind === "list" ? count * elementBytes : count));
}

/** Least significant bit first; any byte but 0 is a 1. */
function packBits(bytes: Uint8Array): Uint8Array {
  const bits = new Uint8Array(Math.ceil(bytes.length / 8));
  for (let i = 0; i < bytes.length; i++) if (bytes[i] !== 0) bits[i >> 3]! |= 1 << (i & 7);
  return bits;
}
