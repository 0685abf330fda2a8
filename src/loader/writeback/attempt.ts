/**
 * Attempt files: rows that are finished while their shard is not, in the order in which they came.
 *
 * A file is {@link HEADER_BYTES} that say whose it is, then records. A record is its length, a checksum of all behind
 * that, the row and its place in the shard, and one cell a field: bytes, or a mark that there are none. Records are
 * only ever appended. What a crash has left of the last one fails its checksum, and is cut off.
 */
import type { OpenedFile } from "./files.ts";

/** In place of a cell's length: the row has no value. */
export const NULL_CELL = 0xffffffff;
/** In place of a cell's length: the value stands where it belongs already, written by a device. */
export const PLACED_CELL = 0xfffffffe;

const MAGIC = new TextEncoder().encode("HRATT001");
export const HEADER_BYTES: number = MAGIC.length + 32;
const RECORD_HEADER = 32;
const CHECKED_FROM = 8;
/** Bytes of the longest record, so that a length that lies asks for no more. */
export const MAX_RECORD_BYTES: number = 2 ** 31 - 8;
/** Bytes that a scan reads at once: others get their turn in between. */
const SCAN_BYTES = 256 * 1024;

/** `owner` is a sha256 in hex. */
export function attemptHeader(owner: string): Uint8Array {
  const header = new Uint8Array(HEADER_BYTES);
  header.set(MAGIC);
  header.set(Buffer.from(owner, "hex"), MAGIC.length);
  return header;
}

/** Collects records in memory that grows and is handed over whole. */
export class RecordSink {
  #bytes = new Uint8Array(4096);
  #view = new DataView(this.#bytes.buffer);
  #start = 0;
  #at = 0;
  #cell = 0;

  /** Bytes of all records. */
  get byteLength(): number {
    return this.#at;
  }

  /** Begins a record of `numFields` cells, which follow in order. */
  begin(row: number, position: number, count: number, attempts: number, numFields: number): void {
    this.#start = this.#at;
    const header = RECORD_HEADER + 4 * numFields;
    this.#reserve(header);
    const view = this.#view;
    const at = this.#start;
    view.setFloat64(at + 8, row, true);
    view.setFloat64(at + 16, position, true);
    view.setUint32(at + 24, count, true);
    view.setUint32(at + 28, attempts, true);
    this.#cell = at + RECORD_HEADER;
    this.#at += header;
  }

  mark(cell: typeof NULL_CELL | typeof PLACED_CELL): void {
    this.#view.setUint32(this.#cell, cell, true);
    this.#cell += 4;
  }

  bytes(bytes: Uint8Array): void {
    this.#reserve(bytes.length);
    this.#bytes.set(bytes, this.#at);
    this.#endCell(bytes.length);
  }

  /** As UTF-8; half surrogate pairs become U+FFFD. */
  text(text: string): void {
    this.#reserve(text.length * 3);
    this.#endCell(ENCODER.encodeInto(text, this.#bytes.subarray(this.#at)).written);
  }

  /** Seals the record, which is not longer than {@link MAX_RECORD_BYTES}. */
  end(): void {
    const start = this.#start;
    const end = Math.ceil(this.#at / 8) * 8;
    this.#reserve(end - this.#at);
    this.#bytes.fill(0, this.#at, end);
    this.#at = end;
    this.#view.setUint32(start, end - start, true);
    this.#view.setUint32(start + 4, Bun.hash.crc32(this.#bytes.subarray(start + CHECKED_FROM, end)), true);
  }

  /** Adds records that were sealed in another sink. */
  append(records: Uint8Array): void {
    this.#reserve(records.length);
    this.#bytes.set(records, this.#at);
    this.#at += records.length;
  }

  /** All records, and the memory with them. */
  take(): Uint8Array {
    const taken = this.#bytes.subarray(0, this.#at);
    this.#bytes = new Uint8Array(4096);
    this.#view = new DataView(this.#bytes.buffer);
    this.#at = 0;
    return taken;
  }

  #endCell(length: number): void {
    this.#view.setUint32(this.#cell, length, true);
    this.#cell += 4;
    this.#at += length;
  }

  #reserve(length: number): void {
    const needed = this.#at + length + 8;
    if (needed <= this.#bytes.length) return;
    const larger = new Uint8Array(Math.max(needed, this.#bytes.length * 2));
    larger.set(this.#bytes.subarray(0, this.#at));
    this.#bytes = larger;
    this.#view = new DataView(larger.buffer);
  }
}

const ENCODER = new TextEncoder();

/** One record of a file, borrowed while it is looked at. */
export interface AttemptRecord {
  /** In the file. */
  readonly at: number;
  readonly byteLength: number;
  /** First of `count` rows, which share all cells that are not placed. */
  readonly row: number;
  readonly position: number;
  readonly count: number;
  readonly attempts: number;
  /** Bytes of a field's cell, {@link NULL_CELL} or {@link PLACED_CELL}. */
  lengthOf(field: number): number;
  /** Of all cells, back to back. */
  readonly cells: Uint8Array;
}

class ParsedRecord implements AttemptRecord {
  readonly at: number;
  readonly byteLength: number;
  readonly row: number;
  readonly position: number;
  readonly count: number;
  readonly attempts: number;
  readonly cells: Uint8Array;
  readonly #view: DataView;

  constructor(bytes: Uint8Array, at: number, numFields: number) {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#view = view;
    this.at = at;
    this.byteLength = bytes.length;
    this.row = view.getFloat64(8, true);
    this.position = view.getFloat64(16, true);
    this.count = view.getUint32(24, true);
    this.attempts = view.getUint32(28, true);
    this.cells = bytes.subarray(RECORD_HEADER + 4 * numFields);
  }

  lengthOf(field: number): number {
    return this.#view.getUint32(RECORD_HEADER + 4 * field, true);
  }
}

/**
 * Shows whole records from `start` of the file on, in order, until `end`, or `see` gives false. Returns where the first
 * one that is torn begins, else `end`.
 */
export async function scanRecords(
  file: OpenedFile,
  start: number,
  end: number,
  numFields: number,
  see: (record: AttemptRecord) => boolean,
): Promise<number> {
  let chunk = new Uint8Array(new ArrayBuffer(SCAN_BYTES));
  let at = start;
  while (at < end) {
    const wanted = chunk.subarray(0, Math.min(chunk.length, end - at));
    const length = await file.read(wanted, at);
    const bytes = wanted.subarray(0, length);
    let used = 0;
    for (;;) {
      const size = recordLength(bytes, used, numFields);
      if (size === undefined) return at + used;
      if (size > length - used) {
        if (size > end - at - used) return at + used;
        break;
      }
      if (size === 0) break;
      const record = bytes.subarray(used, used + size);
      if (!isWhole(record)) return at + used;
      if (!see(new ParsedRecord(record, at + used, numFields))) return at + used;
      used += size;
    }
    if (used === 0) {
      // Not even one record: it is longer than the chunk, or the file ends inside its head.
      const size = recordLength(bytes, 0, numFields) ?? 0;
      if (size <= chunk.length) return at;
      chunk = new Uint8Array(new ArrayBuffer(size));
    }
    at += used;
  }
  return at;
}

/** Bytes of the record at `at`; 0 where too few bytes are there to tell, undefined where that is no length. */
function recordLength(bytes: Uint8Array, at: number, numFields: number): number | undefined {
  if (bytes.length - at < 4) return 0;
  const size = new DataView(bytes.buffer, bytes.byteOffset).getUint32(at, true);
  const fits = size >= RECORD_HEADER + 4 * numFields && size <= MAX_RECORD_BYTES && size % 8 === 0;
  return fits ? size : undefined;
}

function isWhole(record: Uint8Array): boolean {
  const sum = new DataView(record.buffer, record.byteOffset).getUint32(4, true);
  return Bun.hash.crc32(record.subarray(CHECKED_FROM)) === sum;
}
