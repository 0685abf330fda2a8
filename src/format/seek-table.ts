/**
 * The table of frames at the end of a compressed file, in a skippable frame that decompressors pass over: zstd's
 * seekable format (version 0.1.0 of its specification, in zstd's repository under contrib/seekable_format). LZ4 has no
 * such format, but skippable frames of the same form; there the same table stands under another closing number.
 */
import { HeadraceError } from "../errors.ts";
import type { ByteReader } from "../types.ts";

/** First of the sixteen numbers that skippable frames begin with, in zstd and LZ4 alike. */
export const SKIPPABLE_MAGIC = 0x184d2a50;
export const SKIPPABLE_HEADER_BYTES = 8;
/** That of the table itself. */
const TABLE_MAGIC = 0x184d2a5e;
const FOOTER_BYTES = 9;
/** The last four bytes of the file: zstd's own, and ours for LZ4 (`HRL4`). */
const CLOSING = { zstd: 0x8f92eab1, lz4: 0x344c5248 } as const;
const HAS_CHECKSUMS = 0x80;
const RESERVED_BITS = 0x7c;
/** Frames of a table, at most, as zstd's library has it. */
const MAX_FRAMES = 0x8000000;

/** Frames in the order of the file, each where the one before ends, the last where the table itself starts. */
export interface SeekTable {
  readonly numFrames: number;
  /** Bytes in the file, and of what they decompress to (0 for skippable frames). */
  readonly fileLength: Uint32Array;
  readonly length: Uint32Array;
  /** Of what each decompresses to: the low 32 bits of its XXH64 as the format has it; in LZ4 files the CRC-32, which is
   * several times faster. */
  readonly checksums: Uint32Array | undefined;
  /** Where the table's own frame starts. */
  readonly tableOffset: number;
  /** Bytes of all frames: fewer than in front of the table where something else was put in front of them. */
  readonly framesLength: number;
}

/** Whether `fileLength` bytes end as a file with a table does; throws what `read` throws. */
function closes(codec: "zstd" | "lz4", footer: DataView): boolean {
  return footer.getUint32(5, true) === CLOSING[codec];
}

/**
 * The table at the end of the first `fileLength` bytes of a file, or undefined where there is none. Throws `BAD_CHUNK`
 * where it says of itself what cannot be, or its frames are longer than the file up to it.
 */
export function readSeekTable(
  read: ByteReader,
  fileLength: number,
  codec: "zstd" | "lz4",
): SeekTable | undefined {
  if (fileLength < SKIPPABLE_HEADER_BYTES + FOOTER_BYTES) return undefined;
  const footer = viewOf(read(fileLength - FOOTER_BYTES, FOOTER_BYTES));
  if (!closes(codec, footer)) return undefined;
  const numFrames = footer.getUint32(0, true);
  const descriptor = footer.getUint8(4);
  if ((descriptor & RESERVED_BITS) !== 0) {
    throw bad(`its descriptor ${descriptor} has bits set that are reserved`);
  }
  const hasChecksums = (descriptor & HAS_CHECKSUMS) !== 0;
  const entryBytes = hasChecksums ? 12 : 8;
  const contentBytes = numFrames * entryBytes + FOOTER_BYTES;
  const tableOffset = fileLength - contentBytes - SKIPPABLE_HEADER_BYTES;
  if (numFrames > MAX_FRAMES || tableOffset < 0) {
    throw bad(`it claims ${numFrames} frames, more than the file's ${fileLength} bytes can list`);
  }
  const header = viewOf(read(tableOffset, SKIPPABLE_HEADER_BYTES));
  const magic = header.getUint32(0, true);
  const size = header.getUint32(4, true);
  if (magic !== TABLE_MAGIC || size !== contentBytes) {
    throw bad(
      `its ${numFrames} frames need a skippable frame of ${contentBytes} bytes at ${tableOffset}, and there is none`,
    );
  }
  const entries = viewOf(read(tableOffset + SKIPPABLE_HEADER_BYTES, numFrames * entryBytes));
  return { ...readEntries(entries, numFrames, hasChecksums, tableOffset), tableOffset };
}

function readEntries(entries: DataView, numFrames: number, hasChecksums: boolean, tableOffset: number) {
  const fileLength = new Uint32Array(numFrames);
  const length = new Uint32Array(numFrames);
  const checksums = hasChecksums ? new Uint32Array(numFrames) : undefined;
  let end = 0;
  for (let i = 0, at = 0; i < numFrames; i++, at += hasChecksums ? 12 : 8) {
    fileLength[i] = entries.getUint32(at, true);
    length[i] = entries.getUint32(at + 4, true);
    if (checksums !== undefined) checksums[i] = entries.getUint32(at + 8, true);
    if (fileLength[i] === 0) throw bad(`frame ${i} of ${numFrames} has no bytes`);
    end += fileLength[i]!;
  }
  if (end > tableOffset) {
    throw bad(`its ${numFrames} frames end at ${end}, and the table itself starts at ${tableOffset}`);
  }
  return { numFrames, fileLength, length, checksums, framesLength: end };
}

/** Bytes of a table's frame. */
export function encodeSeekTable(
  codec: "zstd" | "lz4",
  { fileLength, length, checksums }: Pick<SeekTable, "fileLength" | "length" | "checksums">,
): Uint8Array<ArrayBuffer> {
  const numFrames = fileLength.length;
  const entryBytes = checksums === undefined ? 8 : 12;
  const contentBytes = numFrames * entryBytes + FOOTER_BYTES;
  const view = new DataView(new ArrayBuffer(SKIPPABLE_HEADER_BYTES + contentBytes));
  view.setUint32(0, TABLE_MAGIC, true);
  view.setUint32(4, contentBytes, true);
  let at = SKIPPABLE_HEADER_BYTES;
  for (let i = 0; i < numFrames; i++, at += entryBytes) {
    view.setUint32(at, fileLength[i]!, true);
    view.setUint32(at + 4, length[i]!, true);
    if (checksums !== undefined) view.setUint32(at + 8, checksums[i]!, true);
  }
  view.setUint32(at, numFrames, true);
  view.setUint8(at + 4, checksums === undefined ? 0 : HAS_CHECKSUMS);
  view.setUint32(at + 5, CLOSING[codec], true);
  return new Uint8Array(view.buffer);
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function bad(message: string): HeadraceError {
  return new HeadraceError("BAD_CHUNK", `the table of chunks at the end of the file is wrong: ${message}`);
}
