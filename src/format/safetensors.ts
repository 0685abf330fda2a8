/**
 * Reads what a safetensors file says of itself: eight bytes of header length (little-endian), a JSON header,
 * then the tensors' bytes without gaps. The rules, and the order in which they are checked, are those of the
 * format's reference reader; where this one is stricter, the function says so.
 */
import { HeadraceError } from "../errors.ts";
import type { ByteReader, ShardDescription, TensorLayout } from "../types.ts";
import { byteLengthOf, shapeText } from "./dtype.ts";
import { decodeUtf8, quoted } from "./json.ts";
import { type HeaderEntry, parseEntries } from "./safetensors-entries.ts";
import { rowsOf } from "./safetensors-rows.ts";
import { didYouMean } from "./suggest.ts";

/** Bytes in front of the header: its length. */
export const PREFIX_BYTES = 8;

/** Bytes of a header, at most, as the format sets it. */
export const MAX_HEADER_BYTES = 100_000_000;

/** Names of this project's own page padding: U8 tensors that hold nothing. */
export const PADDING_NAME = /^__pad_\d+__$/;

/**
 * Describes a safetensors file of `fileLength` bytes; reads its header alone, by two calls of `read`.
 *
 * Tensors come in the order of their bytes, empty ones at the same place by name in code-unit order. U8
 * tensors with a {@link PADDING_NAME} are checked like all others, then left out. Beyond the format's rules,
 * a key may not come twice in any object, names and keys are whole Unicode text, and all sizes and offsets
 * are below 2^53.
 *
 * Throws, in this order: `HEADER_TOO_SMALL`, `HEADER_TOO_LARGE`, `HEADER_LENGTH`, `HEADER_NOT_UTF8`; then
 * whichever comes first in the header of `HEADER_NOT_JSON`, `HEADER_DUPLICATE_KEY`, `HEADER_BAD_ENTRY` and
 * `UNKNOWN_DTYPE`; then for each tensor `TENSOR_OFFSETS`, `TENSOR_OVERFLOW`, `TENSOR_MISALIGNED` and
 * `TENSOR_SIZE`; then `DATA_INCOMPLETE`. Also what `read` throws.
 */
export function describeSafetensors(read: ByteReader, fileLength: number): ShardDescription {
  const headerLength = readHeaderLength(read, fileLength);
  const text = decodeHeader(readExactly(read, PREFIX_BYTES, headerLength));
  const { metadata, entries } = parseEntries(text);
  sortByBytes(entries);
  const dataStart = PREFIX_BYTES + headerLength;
  const dataEnd = dataStart + checkEntries(entries);
  if (dataEnd !== fileLength) throw incomplete(dataEnd, fileLength);
  const tensors = entries.filter((entry) => !isPadding(entry)).map((entry) => layoutOf(entry, dataStart));
  return { format: "safetensors", byteLength: fileLength, metadata, tensors, ...rowsOf(tensors) };
}

/**
 * The tensor of a description called `name`.
 *
 * Throws `TENSOR_NOT_FOUND` with the nearest names. Takes time in proportion to the number of tensors.
 */
export function findTensor(description: ShardDescription, name: string): TensorLayout {
  const tensors = description.tensors ?? [];
  const found = tensors.find((tensor) => tensor.name === name);
  if (found !== undefined) return found;
  const near = didYouMean(
    name,
    tensors.map((tensor) => tensor.name),
  );
  throw new HeadraceError(
    "TENSOR_NOT_FOUND",
    `no tensor ${quoted(name)} among the ${tensors.length} of the file${near}`,
  );
}

function readHeaderLength(read: ByteReader, fileLength: number): number {
  if (fileLength < PREFIX_BYTES) {
    throw new HeadraceError(
      "HEADER_TOO_SMALL",
      `the file has ${fileLength} bytes, and a header's length alone takes ${PREFIX_BYTES}`,
    );
  }
  const prefix = readExactly(read, 0, PREFIX_BYTES);
  const length = new DataView(prefix.buffer, prefix.byteOffset, PREFIX_BYTES).getBigUint64(0, true);
  if (length > MAX_HEADER_BYTES) {
    throw new HeadraceError(
      "HEADER_TOO_LARGE",
      `the header claims ${length} bytes of at most ${MAX_HEADER_BYTES}; perhaps this is no safetensors file`,
    );
  }
  if (PREFIX_BYTES + Number(length) > fileLength) {
    throw new HeadraceError(
      "HEADER_LENGTH",
      `the header claims ${length} bytes after the first ${PREFIX_BYTES}, but the file has only ${fileLength} ` +
        "in all; perhaps an incomplete download",
    );
  }
  return Number(length);
}

/** A reader that gives fewer bytes than asked must not pass for a file with a shorter header. */
function readExactly(read: ByteReader, byteOffset: number, byteLength: number): Uint8Array {
  const bytes = read(byteOffset, byteLength);
  if (bytes.byteLength === byteLength) return bytes;
  throw new HeadraceError(
    "SHORT_READ",
    `asked for ${byteLength} bytes at ${byteOffset}, got ${bytes.byteLength}`,
  );
}

const FOUR_SPACES = 0x20202020;

/** Text of the header without the padding behind it, of which strings cut from the text would keep hold. */
function decodeHeader(bytes: Uint8Array): string {
  let end = bytes.length;
  if (bytes.byteOffset % 4 === 0) {
    // Up to a page of spaces, before the engine has compiled anything: four at a time.
    const words = new Int32Array(bytes.buffer, bytes.byteOffset, end >>> 2);
    while (end > 0 && end % 4 === 0 && words[end / 4 - 1] === FOUR_SPACES) end -= 4;
  }
  while (end > 0 && isWhiteSpace(bytes[end - 1]!)) end--;
  const text = decodeUtf8(bytes.subarray(0, end));
  if (text !== undefined) return text;
  throw new HeadraceError("HEADER_NOT_UTF8", `the header's ${bytes.length} bytes are not valid UTF-8`);
}

function isWhiteSpace(byte: number): boolean {
  return byte === 0x20 || byte === 0x0a || byte === 0x0d || byte === 0x09;
}

function sortByBytes(entries: HeaderEntry[]): void {
  // Writers place tensors in order, as a rule; looking costs little beside sorting.
  for (let index = 1; index < entries.length; index++) {
    if (compareByBytes(entries[index - 1]!, entries[index]!) > 0) {
      entries.sort(compareByBytes);
      return;
    }
  }
}

function compareByBytes(a: HeaderEntry, b: HeaderEntry): number {
  if (a.start !== b.start) return a.start < b.start ? -1 : 1;
  if (a.end !== b.end) return a.end < b.end ? -1 : 1;
  return a.name < b.name ? -1 : 1;
}

/** Checks sorted entries against each other and their own shapes; returns where the last one ends. */
function checkEntries(entries: readonly HeaderEntry[]): number {
  let previous: HeaderEntry | undefined;
  for (const entry of entries) {
    const { name, dtype, shape, start, end } = entry;
    if (start !== (previous?.end ?? 0) || end < start || end > Number.MAX_SAFE_INTEGER) {
      throw badOffsets(entry, previous);
    }
    const expected = checkedByteLength(entry);
    if (end - start !== expected) {
      throw new HeadraceError(
        "TENSOR_SIZE",
        `tensor ${quoted(name)} is given ${end - start} bytes, but ${dtype} ${shapeText(shape)} takes ${expected}`,
      );
    }
    previous = entry;
  }
  return previous?.end ?? 0;
}

function checkedByteLength({ name, dtype, shape }: HeaderEntry): number {
  try {
    return byteLengthOf(dtype, shape);
  } catch (error) {
    throw error instanceof HeadraceError ? error.within(`tensor ${quoted(name)}`) : error;
  }
}

function badOffsets(entry: HeaderEntry, previous: HeaderEntry | undefined): HeadraceError {
  const { name, start, end } = entry;
  const before = previous?.end ?? 0;
  const where =
    previous === undefined ? "the data starts at 0" : `${quoted(previous.name)} ends at ${before}`;
  const problem =
    end < start
      ? "it ends before it starts"
      : start > before
        ? `${where}: a hole of ${start - before} bytes`
        : start < before
          ? `${where}: they overlap`
          : `it ends beyond ${Number.MAX_SAFE_INTEGER}`;
  return new HeadraceError(
    "TENSOR_OFFSETS",
    `tensor ${quoted(name)} has data_offsets [${start},${end}], but ${problem}`,
  );
}

function incomplete(dataEnd: number, fileLength: number): HeadraceError {
  const problem =
    dataEnd > fileLength
      ? `${dataEnd - fileLength} bytes are missing; perhaps an incomplete download`
      : `${fileLength - dataEnd} extra bytes follow the last tensor`;
  return new HeadraceError(
    "DATA_INCOMPLETE",
    `the header describes a file of ${dataEnd} bytes, but this one has ${fileLength}: ${problem}`,
  );
}

function isPadding({ name, dtype }: HeaderEntry): boolean {
  return dtype === "U8" && PADDING_NAME.test(name);
}

function layoutOf({ name, dtype, shape, start, end }: HeaderEntry, dataStart: number): TensorLayout {
  return { name, dtype, shape, range: { start: dataStart + start, end: dataStart + end } };
}
