/** What the header of a library's file says: which processors it is for, and how long the file must be. */
import { closeSync, fstatSync, openSync, readSync } from "node:fs";

/** A library's file. */
export interface Image {
  /** By the names of `process.arch`. */
  readonly architectures: readonly string[];
  /** Bytes that the file has. */
  readonly byteLength: number;
  /** Bytes that it must have: loading a shorter one ends the process with SIGBUS. */
  readonly neededBytes: number;
}

/** CPU types of Mach-O and machines of ELF, by the names of `process.arch`. */
const MACH_O: ReadonlyMap<number, string> = new Map([
  [0x0100000c, "arm64"],
  [0x01000007, "x64"],
]);
const ELF: ReadonlyMap<number, string> = new Map([
  [183, "arm64"],
  [62, "x64"],
]);

const LEAST_BYTES = 64;
const FAT_ENTRY = 20;
const SEGMENT_64 = 0x19;
/** Tables longer than this are those of no library; what is read of a file stays small. */
const MOST_TABLE = 2 ** 20;

/** Reads the header of a file; undefined where `platform` could not load it at all. Throws what the system
 * throws where it cannot be read. */
export function readImage(path: string, platform: string = process.platform): Image | undefined {
  const fd = openSync(path, "r");
  try {
    const { size } = fstatSync(fd);
    const header = bytesAt(fd, 0, LEAST_BYTES);
    if (header.byteLength < LEAST_BYTES) return undefined;
    const magic = header.getUint32(0, false);
    if (platform === "linux") return magic === 0x7f454c46 ? elfImage(fd, header, size) : undefined;
    if (magic === 0xcffaedfe) return machImage(fd, header, size);
    return magic === 0xcafebabe ? fatImage(fd, header, size) : undefined;
  } finally {
    closeSync(fd);
  }
}

/** ELF of 64 bits, little endian: the end of the section headers, which come last, and of each segment. */
function elfImage(fd: number, header: DataView, byteLength: number): Image | undefined {
  if (header.getUint8(4) !== 2 || header.getUint8(5) !== 1) return undefined;
  const tableAt = u64(header, 32);
  const entry = header.getUint16(54, true);
  const tableBytes = entry * header.getUint16(56, true);
  const sections = u64(header, 40) + header.getUint16(58, true) * header.getUint16(60, true);
  let neededBytes = Math.max(LEAST_BYTES, tableAt + tableBytes, sections);
  if (entry >= 56 && tableAt + tableBytes <= byteLength) {
    const table = bytesAt(fd, tableAt, tableBytes);
    for (let at = 0; at + entry <= table.byteLength; at += entry) {
      neededBytes = Math.max(neededBytes, u64(table, at + 8) + u64(table, at + 32));
    }
  }
  return { architectures: [nameOf(ELF, header.getUint16(18, true))], byteLength, neededBytes };
}

/** Mach-O of 64 bits: the end of the load commands and of each segment. */
function machImage(fd: number, header: DataView, byteLength: number): Image {
  const tableBytes = header.getUint32(20, true);
  let neededBytes = Math.max(LEAST_BYTES, 32 + tableBytes);
  const table = bytesAt(fd, 32, Math.min(tableBytes, MOST_TABLE));
  for (let at = 0; at + 8 <= table.byteLength; ) {
    const size = table.getUint32(at + 4, true);
    if (table.getUint32(at, true) === SEGMENT_64 && at + 56 <= table.byteLength) {
      neededBytes = Math.max(neededBytes, u64(table, at + 40) + u64(table, at + 48));
    }
    // A damaged command of no length would never end.
    at += Math.max(8, size);
  }
  return { architectures: [nameOf(MACH_O, header.getUint32(4, true))], byteLength, neededBytes };
}

/** Several Mach-O files in one: the slice for this process must be whole. */
function fatImage(fd: number, header: DataView, byteLength: number): Image {
  const tableBytes = Math.min(header.getUint32(4, false) * FAT_ENTRY, MOST_TABLE);
  const table = bytesAt(fd, 8, tableBytes);
  const architectures: string[] = [];
  let neededBytes = 8 + tableBytes;
  for (let at = 0; at + FAT_ENTRY <= table.byteLength; at += FAT_ENTRY) {
    const name = nameOf(MACH_O, table.getUint32(at, false));
    architectures.push(name);
    // Metal is on arm64 alone; another slice may be cut off without harm.
    if (name !== "arm64") continue;
    neededBytes = Math.max(neededBytes, table.getUint32(at + 8, false) + table.getUint32(at + 12, false));
  }
  return { architectures, byteLength, neededBytes };
}

function nameOf(table: ReadonlyMap<number, string>, type: number): string {
  return table.get(type) ?? `machine 0x${type.toString(16)}`;
}

function u64(view: DataView, at: number): number {
  return Number(view.getBigUint64(at, true));
}

/** What the file has there, which may be less than asked for. */
function bytesAt(fd: number, at: number, byteLength: number): DataView<ArrayBuffer> {
  const bytes = new ArrayBuffer(byteLength);
  const done = byteLength === 0 ? 0 : readSync(fd, new Uint8Array(bytes), 0, byteLength, at);
  return new DataView(bytes, 0, done);
}
