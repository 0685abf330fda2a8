/** What zstd frames say of themselves (RFC 8878): their headers, and how long they are by hopping over their blocks. */
import { HeadraceError } from "../errors.ts";
import type { FrameCursor } from "./frame-cursor.ts";

export const ZSTD_MAGIC = 0xfd2fb528;
const BLOCK_HEADER_BYTES = 3;
const MAX_BLOCK_BYTES = 2 ** 17;
const RLE = 1;
const RESERVED = 3;

export interface ZstdFrameHeader {
  /** Of magic and header together. */
  readonly byteLength: number;
  /** Of what the frame decompresses to, where it says so. */
  readonly contentLength: number | undefined;
  readonly hasChecksum: boolean;
  /** Of the dictionary that it was made with; 0 for none. */
  readonly dictionary: number;
  /** Bytes that a streaming decoder has to keep. */
  readonly windowBytes: number;
}

/** The header of the frame at `offset`, whose magic was seen. Throws `BAD_CHUNK`, and what reading throws. */
export function parseZstdHeader(cursor: FrameCursor, offset: number): ZstdFrameHeader {
  const descriptor = cursor.u8(offset + 4);
  if ((descriptor & 0x08) !== 0) throw bad(offset, "its header has a bit set that is reserved");
  const single = (descriptor & 0x20) !== 0;
  let at = offset + 5;
  let windowBytes = 0;
  if (!single) {
    const window = cursor.u8(at++);
    const base = 2 ** (10 + (window >>> 3));
    windowBytes = base + (base / 8) * (window & 7);
  }
  const dictionaryBytes = [0, 1, 2, 4][descriptor & 3]!;
  let dictionary = 0;
  for (let i = 0; i < dictionaryBytes; i++) dictionary += cursor.u8(at + i) * 256 ** i;
  at += dictionaryBytes;
  const sizeFlag = descriptor >>> 6;
  const sizeBytes = sizeFlag === 0 ? (single ? 1 : 0) : 2 ** sizeFlag;
  const contentLength = readSize(cursor, at, sizeBytes);
  return {
    byteLength: at + sizeBytes - offset,
    contentLength,
    hasChecksum: (descriptor & 0x04) !== 0,
    dictionary,
    windowBytes: single ? contentLength! : windowBytes,
  };
}

function readSize(cursor: FrameCursor, at: number, sizeBytes: number): number | undefined {
  if (sizeBytes === 0) return undefined;
  if (sizeBytes === 1) return cursor.u8(at);
  if (sizeBytes === 2) return cursor.u16(at) + 256;
  return sizeBytes === 4 ? cursor.u32(at) : cursor.u64(at);
}

/** Where the frame at `offset` ends, by its blocks' headers alone. Throws `BAD_CHUNK` where it ends past the file or
 * has a block that cannot be. */
export function zstdFrameEnd(cursor: FrameCursor, offset: number, header: ZstdFrameHeader): number {
  let at = offset + header.byteLength;
  for (let last = false; !last; ) {
    const block = cursor.u24(at);
    last = (block & 1) === 1;
    const type = (block >>> 1) & 3;
    const size = block >>> 3;
    if (type === RESERVED) throw bad(offset, `the block at ${at} is of a reserved type`);
    if (size > MAX_BLOCK_BYTES) throw bad(offset, `the block at ${at} claims ${size} bytes`);
    at += BLOCK_HEADER_BYTES + (type === RLE ? 1 : size);
  }
  const end = at + (header.hasChecksum ? 4 : 0);
  if (end <= cursor.fileLength) return end;
  throw bad(offset, `it ends at ${end}, and the file has only ${cursor.fileLength} bytes: it is cut off`);
}

/** Where the frame at `offset` ends if it has nothing but one block without content; undefined where it has more. */
export function emptyZstdEnd(
  cursor: FrameCursor,
  offset: number,
  header: ZstdFrameHeader,
): number | undefined {
  const block = cursor.u24(offset + header.byteLength);
  // The last block, its bytes as they are, none of them.
  if (block !== 1 || (header.contentLength ?? 0) > 0) return undefined;
  return zstdFrameEnd(cursor, offset, header);
}

function bad(offset: number, message: string): HeadraceError {
  return new HeadraceError("BAD_CHUNK", `the zstd frame at ${offset} is wrong: ${message}`);
}
