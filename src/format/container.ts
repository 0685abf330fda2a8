/**
 * Compressed files as a whole, by what their frames say: which logical bytes lie in which chunk. Reads headers and
 * tables alone, never data (but for the last block of an LZ4 frame that does not say its length).
 */
import { HeadraceError, withContext } from "../errors.ts";
import type { ByteReader, ChunkTable } from "../types.ts";
import { ChunkList } from "./chunk-list.ts";
import { ChunkCodec } from "./chunks.ts";
import { parseContainerName } from "./container-names.ts";
import { FrameCursor } from "./frame-cursor.ts";
import {
  LZ4_LEGACY_MAGIC,
  LZ4_MAGIC,
  type Lz4Block,
  type Lz4FrameHeader,
  measureLz4Block,
  parseLz4Header,
  walkLz4Blocks,
} from "./lz4-frames.ts";
import { isPlaneTable, parsePlaneTable, planeTableLength } from "./plane-table.ts";
import { readSeekTable, SKIPPABLE_HEADER_BYTES, SKIPPABLE_MAGIC } from "./seek-table.ts";
import { parseZstdHeader, ZSTD_MAGIC, zstdFrameEnd } from "./zstd-frames.ts";

/** Bytes of a frame that is still decoded as one chunk, where the file has no table. */
export const MAX_FRAME_BYTES = 64 * 2 ** 20;

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
 * `UNSUPPORTED_COMPRESSION` for dictionaries and LZ4's legacy frames, `BAD_CHUNK` for frames and tables that are cut off,
 * malformed, or claim what cannot be; and what `read` throws. Without a table this reads the headers of all blocks.
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
    const listed = readSeekTable(read, fileLength, codec);
    const found = listed === undefined ? hop(cursor, codec) : fromSeekTable(listed, cursor, codec);
    if (typeof found === "string") return { inner, codec, seekable: false, wholeReason: found };
    if (found.byteLength === 0) throw new HeadraceError("BAD_CHUNK", "it decompresses to nothing");
    if (name.planes && found.planes === undefined) {
      throw new HeadraceError(
        "BAD_CHUNK",
        "its name says that it has byte planes, but no table of them is in it",
      );
    }
    return { inner, codec, seekable: true, table: found, hasTable: listed !== undefined };
  });
}

function checkStart(cursor: FrameCursor, codec: "zstd" | "lz4"): void {
  const magic = cursor.fileLength < 4 ? undefined : cursor.u32(0);
  if (magic === LZ4_LEGACY_MAGIC) {
    throw new HeadraceError(
      "UNSUPPORTED_COMPRESSION",
      "it is made of LZ4's legacy frames (lz4 -l), which are not read; compress it again without -l",
    );
  }
  const expected = codec === "zstd" ? ZSTD_MAGIC : LZ4_MAGIC;
  if (magic === expected || (magic !== undefined && isSkippable(magic))) return;
  throw new HeadraceError("UNKNOWN_FORMAT", `it does not begin as ${FRAME_NAMES[codec]} file does`);
}

const FRAME_NAMES = { zstd: "a zstd", lz4: "an LZ4" } as const;

function isSkippable(magic: number): boolean {
  return magic >= SKIPPABLE_MAGIC && magic < SKIPPABLE_MAGIC + 16;
}

function fromSeekTable(
  listed: NonNullable<ReturnType<typeof readSeekTable>>,
  cursor: FrameCursor,
  codec: "zstd" | "lz4",
): ChunkTable {
  const chunks = new ChunkList();
  const kind = codec === "zstd" ? ChunkCodec.zstd : ChunkCodec.lz4Frame;
  let offset = 0;
  let planesAt: number | undefined;
  for (let i = 0; i < listed.numFrames; i++) {
    const fileLength = listed.fileLength[i]!;
    const length = listed.length[i]!;
    if (length > 0) {
      if (chunks.numChunks === 0) checkDictionary(cursor, offset, codec);
      chunks.add({ fileOffset: offset, fileLength, length, codec: kind, checksum: listed.checksums?.[i] });
    } else if (fileLength === planeTableLength(chunks.numChunks)) planesAt = offset;
    offset += fileLength;
  }
  const table = chunks.finish();
  if (planesAt === undefined || codec !== "zstd") return table;
  const bytes = cursor.bytes(planesAt, planeTableLength(table.numChunks));
  return isPlaneTable(bytes) ? chunks.finish(parsePlaneTable(bytes, table.starts, table.numChunks)) : table;
}

/** Whoever makes all frames of a file makes them alike: the first speaks for the others, whose decoding fails. */
function checkDictionary(cursor: FrameCursor, offset: number, codec: "zstd" | "lz4"): void {
  const magic = cursor.u32(offset);
  const has =
    codec === "zstd"
      ? magic === ZSTD_MAGIC && parseZstdHeader(cursor, offset).dictionary !== 0
      : magic === LZ4_MAGIC && parseLz4Header(cursor, offset).hasDictionary;
  if (has) throw dictionaryError();
}

function dictionaryError(): HeadraceError {
  return new HeadraceError(
    "UNSUPPORTED_COMPRESSION",
    "it was compressed with a dictionary, which is not in the file; compress it again without one",
  );
}

/** Goes from frame to frame. Returns the chunks, or why the file has to be decoded as a whole. */
function hop(cursor: FrameCursor, codec: "zstd" | "lz4"): ChunkTable | string {
  const chunks = new ChunkList();
  const magicOfFrames = codec === "zstd" ? ZSTD_MAGIC : LZ4_MAGIC;
  for (let offset = 0; offset < cursor.fileLength; ) {
    const magic = cursor.u32(offset);
    if (isSkippable(magic)) {
      offset += SKIPPABLE_HEADER_BYTES + cursor.u32(offset + 4);
      if (offset > cursor.fileLength) throw bad(`the skippable frame before ${offset} ends past the file`);
      continue;
    }
    if (magic !== magicOfFrames) throw bad(`neither ${FRAME_NAMES[codec]} frame nor the end is at ${offset}`);
    const end = codec === "zstd" ? addZstd(cursor, offset, chunks) : addLz4(cursor, offset, chunks);
    if (typeof end === "string") return end;
    offset = end;
  }
  return chunks.finish();
}

function addZstd(cursor: FrameCursor, offset: number, chunks: ChunkList): number | string {
  const header = parseZstdHeader(cursor, offset);
  if (header.dictionary !== 0) throw dictionaryError();
  const { contentLength } = header;
  if (contentLength === undefined) return `the frame at ${offset} does not say its length`;
  if (contentLength > MAX_FRAME_BYTES) return tooLong(offset, contentLength);
  const end = zstdFrameEnd(cursor, offset, header);
  if (contentLength > 0) {
    chunks.add({
      fileOffset: offset,
      fileLength: end - offset,
      length: contentLength,
      codec: ChunkCodec.zstd,
    });
  }
  return end;
}

function tooLong(offset: number, contentLength: number): string {
  return `the frame at ${offset} has ${contentLength} bytes in one piece`;
}

function addLz4(cursor: FrameCursor, offset: number, chunks: ChunkList): number | string {
  const header = parseLz4Header(cursor, offset);
  if (header.hasDictionary) throw dictionaryError();
  const { contentLength } = header;
  if (!header.independent) {
    if (contentLength === undefined) return `the linked frame at ${offset} does not say its length`;
    if (contentLength > MAX_FRAME_BYTES) return tooLong(offset, contentLength);
  }
  const blocks: Lz4Block[] = [];
  const end = walkLz4Blocks(cursor, offset, header, (block) => blocks.push(block) > 0)!;
  // A frame of one block is a chunk with its checksums.
  const length = blocks.length === 1 ? oneBlockLength(cursor, header, blocks[0]!) : contentLength;
  if (blocks.length === 1 || !header.independent) {
    const codec = ChunkCodec.lz4Frame;
    if (length! > 0) chunks.add({ fileOffset: offset, fileLength: end - offset, length: length!, codec });
    return end;
  }
  if (!addBlocks(cursor, header, blocks, chunks)) {
    return `the frame at ${offset} has blocks of different lengths`;
  }
  if (header.contentChecksum || header.blockChecksums) chunks.addUnverifiedFrame();
  return end;
}

/** What the frame claims, which its decoding proves, or what its block gives. */
function oneBlockLength(cursor: FrameCursor, header: Lz4FrameHeader, block: Lz4Block): number {
  return header.contentLength ?? lengthOfBlock(cursor, block, header.maxBlockBytes) ?? malformed(block);
}

/** Undefined for a block that is malformed. */
function lengthOfBlock(
  cursor: FrameCursor,
  { offset, byteLength, stored }: Lz4Block,
  maxBlockBytes: number,
): number | undefined {
  return stored ? byteLength : measureLz4Block(cursor.bytes(offset, byteLength), maxBlockBytes);
}

function malformed({ offset }: Lz4Block): never {
  throw bad(`the LZ4 block at ${offset} is malformed`);
}

/** Blocks do not say their lengths, but writers fill all but the last. Returns whether this one seems to have. */
function addBlocks(
  cursor: FrameCursor,
  header: Lz4FrameHeader,
  blocks: readonly Lz4Block[],
  chunks: ChunkList,
): boolean {
  const { maxBlockBytes, contentLength } = header;
  if (blocks.length === 0) return (contentLength ?? 0) === 0;
  const lengthOf = (block: Lz4Block) => lengthOfBlock(cursor, block, maxBlockBytes);
  const last = lengthOf(blocks.at(-1)!) ?? malformed(blocks.at(-1)!);
  if (contentLength !== undefined && maxBlockBytes * (blocks.length - 1) + last !== contentLength) {
    return false;
  }
  if (lengthOf(blocks[0]!) !== maxBlockBytes) return false;
  if (
    blocks.some(
      ({ stored, byteLength }, i) => stored && i < blocks.length - 1 && byteLength !== maxBlockBytes,
    )
  ) {
    return false;
  }
  for (const [i, { offset, byteLength, stored }] of blocks.entries()) {
    const length = i === blocks.length - 1 ? last : maxBlockBytes;
    const codec = stored ? ChunkCodec.stored : ChunkCodec.lz4Block;
    if (length > 0) chunks.add({ fileOffset: offset, fileLength: byteLength, length, codec });
  }
  return true;
}

function bad(message: string): HeadraceError {
  return new HeadraceError("BAD_CHUNK", message);
}
