/**
 * Compressed files as a whole, by what their frames say: which logical bytes lie in which chunk. Reads headers and
 * tables alone, never data (but for blocks of an LZ4 frame that does not say its length).
 */
import { HeadraceError, withContext } from "../errors.ts";
import type { ByteReader, ChunkTable } from "../types.ts";
import { ChunkList } from "./chunk-list.ts";
import { ChunkCodec } from "./chunks.ts";
import { parseContainerName } from "./container-names.ts";
import { FrameCursor } from "./frame-cursor.ts";
import { FRAME_NAMES, frameKind, skippableEnd, walkFrames } from "./frame-walk.ts";
import { emptyLz4End, type Lz4Block, parseLz4Header, walkLz4Blocks } from "./lz4-frames.ts";
import { lz4Lengths, MAX_MEASURED_BYTES, type MeasureBudget } from "./lz4-lengths.ts";
import { isPlaneTable, parsePlaneTable, planeTableLength } from "./plane-table.ts";
import { readSeekTable, type SeekTable } from "./seek-table.ts";
import { emptyZstdEnd, parseZstdHeader, zstdFrameEnd } from "./zstd-frames.ts";

/** Bytes of a frame that is still decoded as one chunk, where the file has no table. */
export const MAX_FRAME_BYTES = 64 * 2 ** 20;
/** Chunks that are found without a table: what is known of them is kept in memory, and a file may be made of nothing
 * else. One with more is decoded as a whole. */
const MAX_FOUND_CHUNKS = 2 ** 21;
/** Tables of one file: they may list nothing, and be 17 bytes that cost three reads. */
export const MAX_TABLES = 2 ** 16;

interface ContainerBase {
  readonly inner: "safetensors" | "arrow";
  readonly codec: "zstd" | "lz4";
}

/** A file whose chunks can be decoded each by itself. */
export interface SeekableContainer extends ContainerBase {
  readonly seekable: true;
  readonly table: ChunkTable;
  /** Whether the file has a table of its chunks; else they were found frame by frame. */
  readonly hasTable: boolean;
}

/** A file that can only be decoded from its start to its end. */
export interface WholeContainer extends ContainerBase {
  readonly seekable: false;
  /** For people: why. */
  readonly wholeReason: string;
}

/**
 * Describes the compressed file at `path` of `fileLength` bytes. Its name says codec and inside.
 *
 * Throws, with `path` in the message: `UNKNOWN_FORMAT` where the name or the first bytes are no container's,
 * `UNSUPPORTED_COMPRESSION` for dictionaries, `BAD_CHUNK` for frames and tables that are cut off, malformed, or claim
 * what cannot be; and what `read` throws. Without a table this reads the headers of all blocks.
 */
export function describeContainer(
  read: ByteReader,
  fileLength: number,
  path: string,
): SeekableContainer | WholeContainer {
  return withContext(path, () => {
    const name = parseContainerName(path);
    if (name === undefined) throw new HeadraceError("UNKNOWN_FORMAT", "its ending is no compressed shard's");
    const { inner, codec } = name;
    const cursor = new FrameCursor(read, fileLength);
    checkStart(cursor, codec);
    const tables = findTables(read, fileLength, codec);
    const chunks = new ChunkList();
    const unlisted = tables[0]?.start ?? fileLength;
    const wholeReason =
      tables.length === 0 ? hop(cursor, codec, chunks) : hopBefore(tables[0]!, read, codec, chunks);
    if (wholeReason !== undefined) return { inner, codec, seekable: false, wholeReason };
    const planes = addListed(tables, cursor, codec, chunks);
    const table = chunks.finish(planes);
    if (table.byteLength === 0) throw bad("it decompresses to nothing");
    if (name.planes && planes === undefined) {
      throw bad("its name says that it has byte planes, but no table of them is in it");
    }
    return { inner, codec, seekable: true, table, hasTable: unlisted === 0 };
  });
}

function checkStart(cursor: FrameCursor, codec: "zstd" | "lz4"): void {
  if (cursor.fileLength >= 4 && frameKind(cursor.u32(0), codec) !== undefined) return;
  throw new HeadraceError("UNKNOWN_FORMAT", `it does not begin as ${FRAME_NAMES[codec]} file does`);
}

/** A table with where its first frame starts. */
interface PlacedTable extends SeekTable {
  readonly start: number;
}

/** The tables of a file, in its order, which is one; where several files with tables were put together, each has its own. */
function findTables(read: ByteReader, fileLength: number, codec: "zstd" | "lz4"): PlacedTable[] {
  const tables: PlacedTable[] = [];
  for (let end = fileLength; end > 0; ) {
    const table = readSeekTable(read, end, codec);
    if (table === undefined) break;
    if (tables.length === MAX_TABLES) {
      const advice = "decompress it and compress it again in one piece";
      throw bad(`it has more than ${MAX_TABLES} tables of chunks; ${advice}`);
    }
    end = table.tableOffset - table.framesLength;
    tables.push({ ...table, start: end });
  }
  return tables.reverse();
}

/** {@link hop} over what lies before the frames of the first table, which is a file without one, or nothing. */
function hopBefore(
  { start, tableOffset, numFrames }: PlacedTable,
  read: ByteReader,
  codec: "zstd" | "lz4",
  chunks: ChunkList,
): string | undefined {
  try {
    return hop(new FrameCursor(read, start), codec, chunks);
  } catch (cause) {
    if (!(cause instanceof HeadraceError) || cause.code !== "BAD_CHUNK") throw cause;
    const frames = `its ${numFrames} frames end at ${tableOffset - start}, and the table itself starts at ${tableOffset}`;
    const text = `the table of chunks is wrong: ${frames}, with no file of its own before them (${cause.message})`;
    throw new HeadraceError("BAD_CHUNK", text, { cause });
  }
}

/** Adds the chunks of all tables; returns the planes of each chunk where the file has them. */
function addListed(
  tables: readonly PlacedTable[],
  cursor: FrameCursor,
  codec: "zstd" | "lz4",
  chunks: ChunkList,
): Uint8Array | undefined {
  let planesAt: number | undefined;
  for (const table of tables) planesAt = addTable(table, cursor, codec, chunks) ?? planesAt;
  if (planesAt === undefined || codec !== "zstd") return undefined;
  const { numChunks, starts } = chunks;
  if (tables.length > 1 || tables[0]!.start > 0) throw planesInPart();
  return parsePlaneTable(cursor.bytes(planesAt, planeTableLength(numChunks)), starts, numChunks);
}

/** Returns where a table of planes lies that is made for its chunks. */
function addTable(
  { start, numFrames, fileLength, length, checksums }: PlacedTable,
  cursor: FrameCursor,
  codec: "zstd" | "lz4",
  chunks: ChunkList,
): number | undefined {
  const kind = codec === "zstd" ? ChunkCodec.zstd : ChunkCodec.lz4Frame;
  const before = chunks.numChunks;
  let fileOffset = start;
  let planesAt: number | undefined;
  for (let i = 0; i < numFrames; i++) {
    const bytes = fileLength[i]!;
    if (length[i]! > 0) {
      if (chunks.numChunks === before) checkDictionary(cursor, fileOffset, codec);
      const checksum = checksums?.[i];
      chunks.add({ fileOffset, fileLength: bytes, length: length[i]!, codec: kind, checksum });
    } else {
      checkEmpty(cursor, fileOffset, bytes, codec);
      if (bytes === planeTableLength(chunks.numChunks - before)) planesAt = fileOffset;
    }
    fileOffset += bytes;
  }
  if (planesAt === undefined) return undefined;
  return isPlaneTable(cursor.bytes(planesAt, planeTableLength(0))) ? planesAt : undefined;
}

/** A frame that is listed without content must not have any, which nobody would decode. */
function checkEmpty(cursor: FrameCursor, offset: number, byteLength: number, codec: "zstd" | "lz4"): void {
  const kind = frameKind(cursor.u32(offset), codec);
  let end: number | undefined;
  if (kind === "skippable") end = skippableEnd(cursor, offset);
  else if (kind === "content") {
    end =
      codec === "zstd"
        ? emptyZstdEnd(cursor, offset, parseZstdHeader(cursor, offset))
        : emptyLz4End(cursor, offset, parseLz4Header(cursor, offset));
  }
  if (end === offset + byteLength) return;
  throw bad(
    `the table of chunks lists ${byteLength} bytes at ${offset} that give nothing, and they are no such frame`,
  );
}

function planesInPart(): HeadraceError {
  return new HeadraceError(
    "UNSUPPORTED_COMPRESSION",
    "it has byte planes in a part that was put together with others; pack it again",
  );
}

/** Whoever makes all frames of a file makes them alike: the first speaks for the others, whose decoding fails. */
function checkDictionary(cursor: FrameCursor, offset: number, codec: "zstd" | "lz4"): void {
  if (frameKind(cursor.u32(offset), codec) !== "content") return;
  const has =
    codec === "zstd"
      ? parseZstdHeader(cursor, offset).dictionary !== 0
      : parseLz4Header(cursor, offset).hasDictionary;
  if (has) throw dictionaryError();
}

function dictionaryError(): HeadraceError {
  return new HeadraceError(
    "UNSUPPORTED_COMPRESSION",
    "it was compressed with a dictionary, which is not in the file; compress it again without one",
  );
}

/** Goes from frame to frame and adds their chunks. Returns why the file has to be decoded as a whole, where it has. */
function hop(cursor: FrameCursor, codec: "zstd" | "lz4", chunks: ChunkList): string | undefined {
  const budget = { bytes: MAX_MEASURED_BYTES };
  const add = (offset: number) =>
    codec === "zstd" ? addZstd(cursor, offset, chunks) : addLz4(cursor, offset, chunks, budget);
  return walkFrames<string>(
    cursor,
    codec,
    (offset) => (chunks.numChunks < MAX_FOUND_CHUNKS ? add(offset) : TOO_MANY),
    (offset, end) => {
      const length = Math.min(end - offset, planeTableLength(0));
      if (codec === "zstd" && isPlaneTable(cursor.bytes(offset, length))) throw planesInPart();
    },
  );
}

const TOO_MANY = `it has more than ${MAX_FOUND_CHUNKS} chunks and no table of them`;

/** Returns where the frame ends, or why the file has to be decoded as a whole. */
function addZstd(cursor: FrameCursor, offset: number, chunks: ChunkList): number | string {
  const header = parseZstdHeader(cursor, offset);
  if (header.dictionary !== 0) throw dictionaryError();
  const { contentLength: length } = header;
  const emptyEnd = emptyZstdEnd(cursor, offset, header);
  if (emptyEnd !== undefined) return emptyEnd;
  if (length === 0) return saysEmpty(offset);
  if (length === undefined) return `the frame at ${offset} does not say its length`;
  if (length > MAX_FRAME_BYTES) return tooLong(offset, length);
  const end = zstdFrameEnd(cursor, offset, header);
  chunks.add({ fileOffset: offset, fileLength: end - offset, length, codec: ChunkCodec.zstd });
  return end;
}

function saysEmpty(offset: number): string {
  return `the frame at ${offset} says that it is empty, and has blocks`;
}

function tooLong(offset: number, contentLength: number): string {
  return `the frame at ${offset} has ${contentLength} bytes in one piece`;
}

/** Returns where the frame ends, or why the file has to be decoded as a whole. */
function addLz4(
  cursor: FrameCursor,
  offset: number,
  chunks: ChunkList,
  budget: MeasureBudget,
): number | string {
  const header = parseLz4Header(cursor, offset);
  if (header.hasDictionary) throw dictionaryError();
  const { contentLength, independent } = header;
  const emptyEnd = emptyLz4End(cursor, offset, header);
  if (emptyEnd !== undefined) return emptyEnd;
  if (contentLength === 0) return saysEmpty(offset);
  if (!independent) {
    if (contentLength === undefined) return `the linked frame at ${offset} does not say its length`;
    if (contentLength > MAX_FRAME_BYTES) return tooLong(offset, contentLength);
  }
  const blocks: Lz4Block[] = [];
  const room = MAX_FOUND_CHUNKS - chunks.numChunks;
  // Linked ones are a chunk together, and are only hopped over.
  const visit = independent ? (block: Lz4Block) => blocks.push(block) <= room : () => true;
  const end = walkLz4Blocks(cursor, offset, header, visit);
  if (end === undefined) return TOO_MANY;
  // A frame of one block is a chunk with its checksums.
  if (!independent || (blocks.length === 1 && !header.legacy)) {
    const length = contentLength ?? lz4Lengths(cursor, header, blocks, budget)?.[0];
    if (length === undefined) return unknownBlocks(offset);
    const place = { fileOffset: offset, fileLength: end - offset };
    if (length > 0) chunks.add({ ...place, length, codec: ChunkCodec.lz4Frame });
    return end;
  }
  const lengths = lz4Lengths(cursor, header, blocks, budget);
  if (lengths === undefined) return unknownBlocks(offset);
  checkContent(offset, contentLength, lengths);
  for (const [i, { offset: fileOffset, byteLength: fileLength, stored }] of blocks.entries()) {
    const codec = stored ? ChunkCodec.stored : ChunkCodec.lz4Block;
    if (lengths[i]! > 0) chunks.add({ fileOffset, fileLength, length: lengths[i]!, codec });
  }
  if (header.contentChecksum || header.blockChecksums) chunks.addUnverifiedFrame();
  return end;
}

function unknownBlocks(offset: number): string {
  return `the frame at ${offset} has blocks of unknown length`;
}

function checkContent(offset: number, contentLength: number | undefined, lengths: Uint32Array): void {
  const given = lengths.reduce((sum, length) => sum + length, 0);
  if (contentLength === undefined || contentLength === given) return;
  throw bad(`the LZ4 frame at ${offset} gives ${given} bytes and claims ${contentLength}`);
}

function bad(message: string): HeadraceError {
  return new HeadraceError("BAD_CHUNK", message);
}
