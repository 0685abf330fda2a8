/**
 * The files inside a tar archive, in order.
 * Format: POSIX.1-2017 `pax` (ustar and extended headers), and GNU tar's long names and sizes.
 */
import { quoted } from "../../format/json.ts";
import type { PieceReader } from "./pieces.ts";
import { badInput } from "./source.ts";

export interface TarFile {
  readonly name: string;
  readonly bytes: Uint8Array;
}

const BLOCK = 512;
/** Of one file, which is held in memory. */
const MAX_FILE_BYTES = 2 ** 30;
const MAX_HEADER_BYTES = 2 ** 20;

/** What headers in front of a file say of it. */
interface Pending {
  name?: string | undefined;
  size?: number | undefined;
}

/** Reads the archive's plain files; folders and devices are passed over, links too, for each of which `onLink` is called.
 * Throws `BAD_INPUT` naming `path` and byte. */
export async function* tarFiles(
  reader: PieceReader,
  path: string,
  onLink: () => void,
): AsyncGenerator<TarFile> {
  const block = new Uint8Array(BLOCK);
  let pending: Pending = {};
  for (;;) {
    const at = reader.position;
    const filled = await reader.fill(block);
    // Writers end with two blocks of zeros; some end without.
    if (filled === 0 || (filled === BLOCK && block.every((byte) => byte === 0))) return;
    if (filled < BLOCK) throw badInput(path, `ends within the header at byte ${at}`);
    const header = parseHeader(block, `${path}: the header at byte ${at}`);
    const size = pending.size ?? header.size;
    const place = `${path}: ${quoted(pending.name ?? header.name)} at byte ${at}`;
    if (header.kind === "x" || header.kind === "L") {
      const bytes = await contents(reader, header.size, MAX_HEADER_BYTES, place);
      if (header.kind === "x") pending = { ...pending, ...paxFields(bytes, place) };
      else pending.name = cString(bytes);
      continue;
    }
    if (header.kind === "file") {
      yield { name: pending.name ?? header.name, bytes: await contents(reader, size, MAX_FILE_BYTES, place) };
    } else {
      if (header.kind === "sparse") throw badInput(place, "is a sparse file, which cannot be read");
      if (header.kind === "link") onLink();
      await passOver(reader, header.kind === "other" ? padded(size) : 0, place);
    }
    pending = {};
  }
}

function parseHeader(block: Uint8Array, place: string) {
  let sum = 0;
  for (let i = 0; i < BLOCK; i++) sum += i >= 148 && i < 156 ? 0x20 : block[i]!;
  const written = octal(block.subarray(148, 156), place);
  if (sum !== written)
    throw badInput(place, `has the checksum ${sum}, and ${written} is written: no tar, or damaged`);
  const size = octal(block.subarray(124, 136), place);
  const isUstar = cString(block.subarray(257, 262)) === "ustar";
  const prefix = isUstar && block[263] === 0x30 ? cString(block.subarray(345, 500)) : "";
  const name = cString(block.subarray(0, 100));
  return {
    name: prefix === "" ? name : `${prefix}/${name}`,
    size,
    kind: kindOf(String.fromCharCode(block[156]!)),
  };
}

function kindOf(flag: string): "file" | "x" | "L" | "sparse" | "link" | "bare" | "other" {
  if (flag === "0" || flag === "\0" || flag === "7") return "file";
  if (flag === "x" || flag === "L") return flag;
  if (flag === "S") return "sparse";
  // These have no contents, whatever size they give.
  if (flag === "1" || flag === "2") return "link";
  return /^[3-6]$/.test(flag) ? "bare" : "other";
}

/** A number in octal digits, or in binary where the first bit is set (GNU). */
function octal(field: Uint8Array, place: string): number {
  if ((field[0]! & 0x80) !== 0) {
    let value = field[0]! & 0x7f;
    for (const byte of field.subarray(1)) value = value * 256 + byte;
    if (!Number.isSafeInteger(value)) throw badInput(place, "has a size past 2^53 - 1");
    return value;
  }
  const text = cString(field).trim();
  if (!/^[0-7]*$/.test(text)) throw badInput(place, `has ${quoted(text)} where a number in octal belongs`);
  return text === "" ? 0 : Number.parseInt(text, 8);
}

function cString(bytes: Uint8Array): string {
  const end = bytes.indexOf(0);
  return new TextDecoder().decode(end < 0 ? bytes : bytes.subarray(0, end));
}

/** `LENGTH KEY=VALUE\n`, of which name and size matter here. */
function paxFields(bytes: Uint8Array, place: string): Pending {
  const fields: Pending = {};
  for (let at = 0; at < bytes.length && bytes[at] !== 0; ) {
    const space = bytes.indexOf(0x20, at);
    const length = Number(new TextDecoder().decode(bytes.subarray(at, Math.max(at, space))));
    if (!Number.isInteger(length) || length < 5 || at + length > bytes.length) {
      throw badInput(place, `its extended header is damaged at byte ${at}`);
    }
    const record = new TextDecoder().decode(bytes.subarray(space + 1, at + length - 1));
    const equals = record.indexOf("=");
    const key = record.slice(0, equals);
    const value = record.slice(equals + 1);
    if (key === "path") fields.name = value;
    if (key === "size") {
      fields.size = Number(value);
      if (!/^\d+$/.test(value) || !Number.isSafeInteger(fields.size)) {
        throw badInput(place, `its extended header gives the size ${quoted(value)}`);
      }
    }
    at += length;
  }
  return fields;
}

function padded(size: number): number {
  return Math.ceil(size / BLOCK) * BLOCK;
}

async function contents(reader: PieceReader, size: number, most: number, place: string): Promise<Uint8Array> {
  if (size > most) throw badInput(place, `has ${size} bytes of at most ${most}`);
  const bytes = new Uint8Array(size);
  const filled = await reader.fill(bytes);
  if (filled < size) throw badInput(place, `ends after ${filled} of ${size} bytes`);
  await passOver(reader, padded(size) - size, place);
  return bytes;
}

async function passOver(reader: PieceReader, length: number, place: string): Promise<void> {
  const skipped = await reader.skip(length);
  if (skipped < length) throw badInput(place, `the archive ends ${length - skipped} bytes too early`);
}
