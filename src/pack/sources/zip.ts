/**
 * The entries of a ZIP archive, as far as `npz` files need them: stored or deflated, also of over 4 GiB.
 * Format: APPNOTE.TXT 6.3.10 of PKWARE, sections 4.3 and 4.5.3 (ZIP64).
 */
import { crc32 } from "node:zlib";
import { quoted } from "../../format/json.ts";
import type { InputFile } from "./files.ts";
import { decompressed, filePieces } from "./pieces.ts";
import { badInput } from "./source.ts";

export interface ZipEntry {
  readonly name: string;
  /** 0: stored, 8: deflated. */
  readonly method: 0 | 8;
  readonly crc: number;
  /** In the file, and decompressed. */
  readonly compressedBytes: number;
  readonly byteLength: number;
  /** Of the entry's own header. */
  readonly headerOffset: number;
}

const END = 0x06054b50;
const END64 = 0x06064b50;
const LOCATOR64 = 0x07064b50;
const CENTRAL = 0x02014b50;
const LOCAL = 0x04034b50;
const END_BYTES = 22;
const MAX_COMMENT_BYTES = 65_535;
const MAX_DIRECTORY_BYTES = 64 * 2 ** 20;
const FULL32 = 0xffffffff;
const ENCRYPTED = 1;

/** Reads the directory at the archive's end, in its order. Throws `BAD_INPUT`. */
export async function zipEntries(file: InputFile): Promise<readonly ZipEntry[]> {
  const { offset, length, count } = await directoryOf(file);
  if (length > MAX_DIRECTORY_BYTES) {
    throw badInput(file.path, `has a directory of ${length} bytes of at most ${MAX_DIRECTORY_BYTES}`);
  }
  const bytes = await file.read(offset, offset + length);
  const view = new DataView(bytes.buffer);
  const entries: ZipEntry[] = [];
  let at = 0;
  for (let i = 0; i < count; i++) {
    if (at + 46 > length || view.getUint32(at, true) !== CENTRAL) {
      throw badInput(file.path, `its directory has no entry ${i} of ${count} at byte ${offset + at}`);
    }
    const [nameLength, extraLength, commentLength] = [28, 30, 32].map((field) =>
      view.getUint16(at + field, true),
    );
    const end = at + 46 + nameLength! + extraLength! + commentLength!;
    if (end > length) throw badInput(file.path, `entry ${i} of its directory leads out of it`);
    const name = new TextDecoder().decode(bytes.subarray(at + 46, at + 46 + nameLength!));
    const extra = new DataView(bytes.buffer, at + 46 + nameLength!, extraLength!);
    entries.push(entryAt(view, at, name, extra, file));
    at = end;
  }
  return entries;
}

/** The bytes of an entry in pieces, whose checksum and length are checked when the last has come. Throws `BAD_INPUT`. */
export async function* zipPieces(file: InputFile, entry: ZipEntry): AsyncGenerator<Uint8Array> {
  const { headerOffset, compressedBytes, byteLength, method, crc } = entry;
  const place = `${file.path}: ${entry.name}`;
  const header = await file.read(headerOffset, Math.min(file.byteLength, headerOffset + 30));
  const view = new DataView(header.buffer);
  if (header.length < 30 || view.getUint32(0, true) !== LOCAL) {
    throw badInput(place, `there is no entry at byte ${headerOffset}`);
  }
  const start = headerOffset + 30 + view.getUint16(26, true) + view.getUint16(28, true);
  if (start + compressedBytes > file.byteLength) {
    throw badInput(
      place,
      `its ${compressedBytes} bytes at ${start} lead out of the file's ${file.byteLength}`,
    );
  }
  const raw = filePieces(file, start, start + compressedBytes);
  let length = 0;
  let sum = 0;
  for await (const piece of method === 0 ? raw : decompressed(raw, "deflate", place)) {
    length += piece.length;
    if (length > byteLength)
      throw badInput(place, `holds more than the ${byteLength} bytes that the directory says`);
    sum = crc32(piece, sum);
    yield piece;
  }
  if (length !== byteLength) throw badInput(place, `ends after ${length} of ${byteLength} bytes`);
  if (sum !== crc) throw badInput(place, `its bytes have the checksum ${sum}, and ${crc} was written`);
}

async function directoryOf(file: InputFile): Promise<{ offset: number; length: number; count: number }> {
  const start = Math.max(0, file.byteLength - END_BYTES - MAX_COMMENT_BYTES);
  const tail = await file.read(start, file.byteLength);
  const view = new DataView(tail.buffer);
  let at = tail.length - END_BYTES;
  while (at >= 0 && view.getUint32(at, true) !== END) at--;
  if (at < 0) throw badInput(file.path, "is no ZIP archive, or was cut off: it has no directory at its end");
  const count = view.getUint16(at + 10, true);
  const length = view.getUint32(at + 12, true);
  const offset = view.getUint32(at + 16, true);
  if (count !== 0xffff && length !== FULL32 && offset !== FULL32) return { offset, length, count };
  if (at < 20 || view.getUint32(at - 20, true) !== LOCATOR64) return { offset, length, count };
  const end64 = safe(view.getBigUint64(at - 12, true), file);
  const record = new DataView((await file.read(end64, end64 + 56)).buffer);
  if (record.getUint32(0, true) !== END64) throw badInput(file.path, `has no directory at byte ${end64}`);
  return {
    count: safe(record.getBigUint64(32, true), file),
    length: safe(record.getBigUint64(40, true), file),
    offset: safe(record.getBigUint64(48, true), file),
  };
}

function entryAt(view: DataView, at: number, name: string, extra: DataView, file: InputFile): ZipEntry {
  const place = `${file.path}: ${quoted(name)}`;
  const method = view.getUint16(at + 10, true);
  if ((view.getUint16(at + 8, true) & ENCRYPTED) !== 0) throw badInput(place, "is encrypted");
  if (method !== 0 && method !== 8)
    throw badInput(place, `is compressed by method ${method}; 0 and 8 can be read`);
  const longs = longFields(extra);
  const field = (offset: number): number => {
    const value = view.getUint32(at + offset, true);
    if (value !== FULL32) return value;
    const long = longs.shift();
    if (long === undefined) throw badInput(place, "has a size or offset of over 4 GiB that is not given");
    return safe(long, file);
  };
  // In the order in which the extra field holds those that are full.
  const byteLength = field(24);
  const compressedBytes = field(20);
  const headerOffset = field(42);
  return { name, method, crc: view.getUint32(at + 16, true), byteLength, compressedBytes, headerOffset };
}

/** The numbers of the ZIP64 extra field. */
function longFields(extra: DataView): bigint[] {
  for (let at = 0; at + 4 <= extra.byteLength; ) {
    const length = extra.getUint16(at + 2, true);
    if (extra.getUint16(at, true) === 1) {
      const numbers: bigint[] = [];
      const end = Math.min(extra.byteLength, at + 4 + length);
      for (let field = at + 4; field + 8 <= end; field += 8) numbers.push(extra.getBigUint64(field, true));
      return numbers;
    }
    at += 4 + length;
  }
  return [];
}

function safe(value: bigint, file: InputFile): number {
  if (value <= BigInt(Number.MAX_SAFE_INTEGER)) return Number(value);
  throw badInput(file.path, `its directory has the number ${value}, past 2^53 - 1`);
}
