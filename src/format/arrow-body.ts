/**
 * The buffers of one message's body, as they lie in the shard: where bodies are compressed, each buffer is a frame of its
 * own behind eight bytes that say how long it will be, and becomes a chunk.
 *
 * The logical bytes of such a shard are its wanted buffers, decompressed, one after another in the order in which they
 * are met, without the padding between them: a table of chunks has no gaps. Buffers are therefore not aligned in
 * logical bytes, which nobody needs, as they are never mapped.
 *
 * Format: "Compression" under "Serialization and Interprocess Communication" of the Arrow columnar format specification.
 */
import { BodyCompressionMethod } from "apache-arrow/fb/body-compression-method";
import { CompressionType } from "apache-arrow/fb/compression-type";
import type { Message } from "apache-arrow/fb/message";
import type { RecordBatch } from "apache-arrow/fb/record-batch";
import { type ErrorCode, HeadraceError } from "../errors.ts";
import type { ByteRange, ByteReader } from "../types.ts";
import type { BitmapPlace } from "./arrow-nulls.ts";
import { type ChunkList, type ListedChunk, MAX_CHUNK_BYTES, MAX_EXPANSION } from "./chunk-list.ts";
import { ChunkCodec } from "./chunks.ts";

/** Decodes the chunk of kind `codec` that lies at `[fileOffset, fileOffset + fileLength)` to its `byteLength` bytes.
 * Throws `BAD_CHUNK` and what reading throws. */
export type DecodeChunk = (
  codec: number,
  fileOffset: number,
  fileLength: number,
  byteLength: number,
) => Uint8Array;

const PREFIX_BYTES = 8;
/** Read at once from where a prefix is: those of small buffers come together. */
const WINDOW_BYTES = 4096;
const STORED = -1n;
/** Of bitmaps that are decompressed while a shard is described, each. */
const MAX_BITMAP_BYTES = 64 * 2 ** 20;
const EXPERIMENTAL_KEY = "ARROW:experimental_compression";

const CODEC_NAMES: Readonly<Record<number, string>> = {
  [ChunkCodec.lz4Frame]: "LZ4",
  [ChunkCodec.zstd]: "zstd",
};

const JAVASCRIPT_HINT =
  " by its prefix, which is the length of its frame: a mistake of apache-arrow for JavaScript; write the file with another library";

/** How the buffers of `batch`, which `message` holds, are compressed: of `ChunkCodec`. Throws
 * `UNSUPPORTED_COMPRESSION`. */
export function bodyCodecOf(batch: RecordBatch, message: Message, what: string): number {
  const compression = batch.compression();
  if (compression === null) {
    checkNotExperimental(message, what);
    return ChunkCodec.stored;
  }
  const [method, codec] = [compression.method(), compression.codec()];
  if (method === BodyCompressionMethod.BUFFER) {
    if (codec === CompressionType.LZ4_FRAME) return ChunkCodec.lz4Frame;
    if (codec === CompressionType.ZSTD) return ChunkCodec.zstd;
  }
  throw new HeadraceError(
    "UNSUPPORTED_COMPRESSION",
    `${what}: its body is compressed by method ${method} with codec ${codec}, which the format does not have; ` +
      "write the file with LZ4_FRAME or ZSTD, or without compression",
  );
}

/** Before the format had compression, one release of Arrow marked it beside the batch. */
function checkNotExperimental(message: Message, what: string): void {
  for (let i = 0; i < message.customMetadataLength(); i++) {
    if (message.customMetadata(i)?.key() !== EXPERIMENTAL_KEY) continue;
    throw new HeadraceError(
      "UNSUPPORTED_COMPRESSION",
      `${what}: its body is compressed as Arrow 0.17 did before the format had compression; write the file again with a newer Arrow`,
    );
  }
}

export interface BodyParts {
  readonly read: ByteReader;
  readonly body: ByteRange;
  /** Of `ChunkCodec`. */
  readonly codec: number;
  /** Where chunks go; absent for shards without any compression, whose buffers stay where they are in the file. */
  readonly chunks: ChunkList | undefined;
  /** For the few bits that must be seen while a shard is described. */
  readonly decode: DecodeChunk | undefined;
}

type Fail = (code: ErrorCode, text: string) => never;

export class BodyBuffers {
  readonly body: ByteRange;
  readonly #parts: BodyParts;
  /** Of the buffers that became chunks. */
  readonly #ranges: ByteRange[] = [];
  #ascending = true;
  #end = 0;
  #window: Uint8Array = new Uint8Array();
  #windowStart = 0;

  constructor(parts: BodyParts) {
    this.body = parts.body;
    this.#parts = parts;
  }

  /** The bytes of the buffer that is `range` of the file, in the coordinates of the description. Where `needed` is given,
   * the first so many of them; a buffer of which none are needed is not looked at. To be called once for a buffer.
   * Fails with `ARROW_BUFFER` or `UNSUPPORTED_COMPRESSION`. */
  place(what: string, range: ByteRange, needed: number | undefined, fail: Fail): ByteRange {
    const { chunks } = this.#parts;
    if (chunks !== undefined && needed === 0) return { start: chunks.byteLength, end: chunks.byteLength };
    const { codec, fileOffset, fileLength, length } = this.#stored(what, range, needed, fail);
    const start = chunks?.byteLength ?? fileOffset;
    if (chunks !== undefined && length > 0) {
      this.#keep(range);
      chunks.add({ codec, fileOffset, fileLength, length });
    }
    return { start, end: start + (needed ?? length) };
  }

  /** A bitmap of `needed` bytes, to be read now. Fails as {@link BodyBuffers.place}, also where nothing decodes. */
  bitmap(what: string, range: ByteRange, needed: number, fail: Fail): BitmapPlace {
    const { codec, fileOffset, fileLength, length } = this.#stored(what, range, needed, fail);
    if (codec === ChunkCodec.stored)
      return { read: this.#parts.read, range: { start: fileOffset, end: fileOffset + needed } };
    const { decode } = this.#parts;
    if (decode === undefined)
      return fail(
        "UNSUPPORTED_COMPRESSION",
        "it has null rows of fixed-size lists with null elements, which cannot be told apart without decompressing",
      );
    if (length > MAX_BITMAP_BYTES)
      return fail(
        "UNSUPPORTED_TYPE",
        `it has null rows of fixed-size lists with null elements, and a compressed bitmap of ${length} bytes; ` +
          `at most ${MAX_BITMAP_BYTES} are decompressed to tell them apart: write the file with fewer rows a batch`,
      );
    const bytes = decode(codec, fileOffset, fileLength, length);
    return { read: (at, count) => bytes.subarray(at, at + count), range: { start: 0, end: needed } };
  }

  /** To be called after the last buffer: chunks do not overlap. */
  finish(fail: Fail): void {
    if (this.#ascending) return;
    const ranges = this.#ranges.toSorted((a, b) => a.start - b.start);
    for (let i = 1; i < ranges.length; i++) {
      const [a, b] = [ranges[i - 1]!, ranges[i]!];
      if (b.start < a.end)
        fail(
          "ARROW_BUFFER",
          `two buffers overlap, bytes [${a.start}, ${a.end}) and [${b.start}, ${b.end}) of the file`,
        );
    }
  }

  #keep(range: ByteRange): void {
    this.#ascending &&= range.start >= this.#end;
    this.#end = Math.max(this.#end, range.end);
    this.#ranges.push(range);
  }

  #stored(what: string, range: ByteRange, needed: number | undefined, fail: Fail): ListedChunk {
    const stored =
      this.#parts.codec === ChunkCodec.stored ? plain(range) : this.#compressed(what, range, fail);
    const { length, codec, fileLength } = stored;
    if (needed !== undefined && length < needed) {
      // apache-arrow for JavaScript put the wrong length there up to 21.2, which its own reader does not look at.
      const hint = codec !== ChunkCodec.stored && length === fileLength ? JAVASCRIPT_HINT : "";
      fail("ARROW_BUFFER", `its ${what} need ${needed} bytes, the buffer has ${length}${hint}`);
    }
    return stored;
  }

  #compressed(what: string, range: ByteRange, fail: Fail): ListedChunk {
    const length = range.end - range.start;
    if (length === 0) return plain(range);
    if (length < PREFIX_BYTES)
      fail("ARROW_BUFFER", `its ${what}: a compressed buffer of ${length} bytes has no room for its length`);
    const declared = this.#prefix(range.start);
    const fileOffset = range.start + PREFIX_BYTES;
    const fileLength = length - PREFIX_BYTES;
    if (declared === STORED) return plain({ start: fileOffset, end: range.end });
    const { codec } = this.#parts;
    if (declared < 0n || declared > fileLength * MAX_EXPANSION[codec]!)
      fail(
        "ARROW_BUFFER",
        `its ${what}: a buffer of ${declared} bytes by its prefix cannot come from ${fileLength} bytes of ${CODEC_NAMES[codec]}`,
      );
    if (declared > MAX_CHUNK_BYTES)
      fail(
        "UNSUPPORTED_COMPRESSION",
        `its ${what}: one buffer of ${declared} bytes, compressed as a whole; at most ${MAX_CHUNK_BYTES} can be ` +
          "decoded: write the file with fewer rows a batch",
      );
    return { codec, fileOffset, fileLength, length: Number(declared) };
  }

  #prefix(at: number): bigint {
    if (at < this.#windowStart || at + PREFIX_BYTES > this.#windowStart + this.#window.length) {
      // Buffers out of order are read one by one: windows of a forgery could all show the same bytes.
      const length = at >= this.#end ? Math.min(WINDOW_BYTES, this.body.end - at) : PREFIX_BYTES;
      this.#window = this.#parts.read(at, length);
      this.#windowStart = at;
    }
    const { buffer, byteOffset } = this.#window;
    return new DataView(buffer, byteOffset).getBigInt64(at - this.#windowStart, true);
  }
}

function plain({ start, end }: ByteRange): ListedChunk {
  return { codec: ChunkCodec.stored, fileOffset: start, fileLength: end - start, length: end - start };
}
