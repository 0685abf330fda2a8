/** What LZ4 frames say of themselves (LZ4 frame format 1.6.x), and lengths that their blocks do not say. */
import { HeadraceError } from "../errors.ts";
import type { FrameCursor } from "./frame-cursor.ts";
import { xxHash32OfFew } from "./xxhash.ts";

export const LZ4_MAGIC = 0x184d2204;
/** Frames of a form that was given up in 2013, and is still written by `lz4 -l` and the Linux kernel's build. */
export const LZ4_LEGACY_MAGIC = 0x184c2102;
/** Set in a block's length where its bytes are stored as they are. */
export const LZ4_STORED = 0x80000000;

export interface Lz4FrameHeader {
  /** Of magic and header together. */
  readonly byteLength: number;
  /** Whether blocks can be decoded each by itself. */
  readonly independent: boolean;
  readonly blockChecksums: boolean;
  readonly contentChecksum: boolean;
  /** Of what the frame decompresses to, where it says so. */
  readonly contentLength: number | undefined;
  /** Bytes of what a block decompresses to, at most. */
  readonly maxBlockBytes: number;
  readonly hasDictionary: boolean;
  /** Bytes of a block in the file, at most. */
  readonly maxStoredBytes: number;
  /** Of the old form: blocks without an end mark, up to the next frame or the file's end. */
  readonly legacy: boolean;
}

/** Blocks of the old form give 8 MiB, but for the last, and are never stored as they are. */
const LEGACY_BLOCK_BYTES = 2 ** 23;
const LEGACY_HEADER: Lz4FrameHeader = {
  byteLength: 4,
  independent: true,
  blockChecksums: false,
  contentChecksum: false,
  contentLength: undefined,
  maxBlockBytes: LEGACY_BLOCK_BYTES,
  hasDictionary: false,
  // LZ4_COMPRESSBOUND.
  maxStoredBytes: LEGACY_BLOCK_BYTES + Math.floor(LEGACY_BLOCK_BYTES / 255) + 16,
  legacy: true,
};

/** Bytes of the longest header, and of the shortest. */
const MAX_HEADER = 19;
const MIN_HEADER = 7;

/** The header of the frame at `offset`, whose magic was seen. Throws `BAD_CHUNK`, and what reading throws. */
export function parseLz4Header(cursor: FrameCursor, offset: number): Lz4FrameHeader {
  if (cursor.u32(offset) === LZ4_LEGACY_MAGIC) return LEGACY_HEADER;
  const byteLength = Math.min(MAX_HEADER, cursor.fileLength - offset);
  return lz4HeaderIn(cursor.bytes(offset, byteLength), 0, byteLength, offset);
}

/** The header at `bytes[at]`, of a frame of which `byteLength` bytes are there and whose magic was seen; messages say that
 * it is at `offset`. Reads bytes one by one, as each chunk of a shard has one. Throws `BAD_CHUNK`. */
export function lz4HeaderIn(
  bytes: Uint8Array,
  at: number,
  byteLength: number,
  offset: number,
): Lz4FrameHeader {
  if (byteLength < MIN_HEADER) throw bad(offset, `it has only ${byteLength} bytes: it is cut off`);
  const flags = bytes[at + 4]!;
  const sizes = bytes[at + 5]!;
  if (flags >>> 6 !== 1) throw bad(offset, `it is of version ${flags >>> 6}, and only version 1 is known`);
  const block = (sizes >>> 4) & 7;
  if ((flags & 2) !== 0 || (sizes & 0x8f) !== 0 || block < 4) {
    throw bad(offset, `its descriptor ${flags}, ${sizes} has bits set that are reserved`);
  }
  const hasLength = (flags & 8) !== 0;
  const hasDictionary = (flags & 1) !== 0;
  const described = 2 + (hasLength ? 8 : 0) + (hasDictionary ? 4 : 0);
  if (byteLength < 4 + described + 1) throw bad(offset, `it has only ${byteLength} bytes: it is cut off`);
  const contentLength = hasLength ? u32At(bytes, at + 6) + u32At(bytes, at + 10) * 2 ** 32 : undefined;
  if (contentLength !== undefined && !Number.isSafeInteger(contentLength)) {
    throw bad(offset, `its length of ${contentLength} bytes is past 2^53`);
  }
  const expected = (xxHash32OfFew(bytes, at + 4, described) >>> 8) & 0xff;
  const found = bytes[at + 4 + described]!;
  if (found !== expected) throw bad(offset, `its header's checksum is ${found} and should be ${expected}`);
  return {
    byteLength: 4 + described + 1,
    independent: (flags & 0x20) !== 0,
    blockChecksums: (flags & 0x10) !== 0,
    contentChecksum: (flags & 4) !== 0,
    contentLength,
    maxBlockBytes: 2 ** (8 + 2 * block),
    hasDictionary,
    maxStoredBytes: 2 ** (8 + 2 * block),
    legacy: false,
  };
}

/** A block of a frame: its bytes without their length and checksum. */
export interface Lz4Block {
  readonly offset: number;
  readonly byteLength: number;
  readonly stored: boolean;
}

/** The blocks of the frame at `offset`, and where it ends. Throws `BAD_CHUNK` where it ends past the file or a block is
 * longer than the frame allows. `visit` returning false ends the walk, which then gives undefined. */
export function walkLz4Blocks(
  cursor: FrameCursor,
  offset: number,
  header: Lz4FrameHeader,
  visit: (block: Lz4Block) => boolean,
): number | undefined {
  const { maxStoredBytes, blockChecksums, contentChecksum, legacy } = header;
  let at = offset + header.byteLength;
  for (;;) {
    if (legacy && at === cursor.fileLength) return at;
    const word = cursor.u32(at);
    // No block of the old form is so long: the number of another frame.
    if (legacy && word > maxStoredBytes) return at;
    at += 4;
    if (!legacy && word === 0) break;
    const stored = word >= LZ4_STORED;
    const byteLength = stored ? word - LZ4_STORED : word;
    if (byteLength > maxStoredBytes || word === 0) {
      throw bad(offset, `the block at ${at} claims ${byteLength} bytes of at most ${maxStoredBytes}`);
    }
    if (at + byteLength > cursor.fileLength) {
      throw bad(
        offset,
        `its block ends at ${at + byteLength}, and the file has only ${cursor.fileLength} bytes: it is cut off`,
      );
    }
    if (!visit({ offset: at, byteLength, stored })) return undefined;
    at += byteLength + (blockChecksums ? 4 : 0);
  }
  const end = at + (contentChecksum ? 4 : 0);
  if (end > cursor.fileLength)
    throw bad(offset, `its checksum lies past the file's ${cursor.fileLength} bytes`);
  return end;
}

/** Where the frame at `offset` ends if it has no blocks and claims none; undefined where it has. */
export function emptyLz4End(cursor: FrameCursor, offset: number, header: Lz4FrameHeader): number | undefined {
  if ((header.contentLength ?? 0) > 0) return undefined;
  return walkLz4Blocks(cursor, offset, header, () => false);
}

/** Bytes that the block in `bytes` decompresses to, by its tokens alone; undefined where it is malformed. Goes no
 * further than `limit` bytes. */
export function measureLz4Block(bytes: Uint8Array, limit: number): number | undefined {
  let at = 0;
  let length = 0;
  while (at < bytes.length) {
    const token = bytes[at++]!;
    let run = token >>> 4;
    if (run === 15) {
      let more = 255;
      while (more === 255 && at < bytes.length) run += more = bytes[at++]!;
    }
    at += run;
    length += run;
    // The last sequence has literals alone.
    if (at === bytes.length) return length <= limit ? length : undefined;
    at += 2;
    let match = token & 15;
    if (match === 15) {
      let more = 255;
      while (more === 255 && at < bytes.length) match += more = bytes[at++]!;
    }
    length += match + 4;
    if (length > limit) return undefined;
  }
  return undefined;
}

const BLOCK_IDS = [4, 5, 6, 7] as const;

/** Header of a frame of independent blocks that holds its content's length; `blockBytes` is the most that a block of it
 * decompresses to. */
export function encodeLz4Header(
  contentLength: number,
  checksum: boolean,
): { header: Uint8Array<ArrayBuffer>; blockBytes: number } {
  const id = BLOCK_IDS.find((candidate) => 2 ** (8 + 2 * candidate) >= contentLength) ?? 7;
  const view = new DataView(new ArrayBuffer(15));
  view.setUint32(0, LZ4_MAGIC, true);
  view.setUint8(4, 0x40 | 0x20 | 8 | (checksum ? 4 : 0));
  view.setUint8(5, id << 4);
  view.setBigUint64(6, BigInt(contentLength), true);
  const header = new Uint8Array(view.buffer);
  header[14] = (xxHash32OfFew(header, 4, 10) >>> 8) & 0xff;
  return { header, blockBytes: 2 ** (8 + 2 * id) };
}

/** Four bytes as an unsigned integer, little-endian. */
export function u32At(bytes: Uint8Array, at: number): number {
  return (bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24)) >>> 0;
}

function bad(offset: number, message: string): HeadraceError {
  return new HeadraceError("BAD_CHUNK", `the LZ4 frame at ${offset} is wrong: ${message}`);
}
