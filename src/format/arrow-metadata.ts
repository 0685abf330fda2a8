/**
 * Arrow's flatbuffers, made safe to read. The generated accessors of apache-arrow trust every offset that
 * they meet; here they are given a buffer that checks each one.
 */
import type { Message } from "apache-arrow/fb/message";
import { type ErrorCode, HeadraceError } from "../errors.ts";

/** The buffer type that the generated accessors expect. */
export type FlatBuffer = Parameters<typeof Message.getRootAsMessage>[0];

/** Bytes; the largest footer or message metadata that is read into memory. A footer of this size holds ten
 * million record batches. */
export const MAX_METADATA_LENGTH = 256 * 1024 * 1024;

/** String bytes that may be decoded for each byte of metadata: writers may share strings, but a hostile
 * buffer may point every name at one huge string. */
const MAX_STRING_REUSE = 8;

/** A generated accessor that can be placed on any table of a buffer. */
interface Table<T> {
  __init(position: number, buffer: FlatBuffer): T;
}

/**
 * A flatbuffer of which every read is checked: outside its bytes it throws a {@link HeadraceError} with the
 * given code. Vectors are checked against the bytes behind them, so that a loop over one is bounded by the
 * length of the buffer. Keeps `bytes` for as long as it lives.
 */
export class MetadataBuffer {
  readonly byteLength: number;
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #code: ErrorCode;
  readonly #what: string;
  readonly #text = new TextDecoder("utf-8", { ignoreBOM: true });
  #stringBytes = 0;

  /** `what` names the buffer in messages: `the footer`, `record batch 3`. */
  constructor(bytes: Uint8Array, code: ErrorCode, what: string) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.byteLength = bytes.byteLength;
    this.#code = code;
    this.#what = what;
  }

  /** Places `table` on the buffer's root table. */
  root<T>(table: Table<T>): T {
    return table.__init(this.__indirect(0), this as unknown as FlatBuffer);
  }

  fail(text: string): never {
    throw new HeadraceError(this.#code, `${this.#what}: ${text}`);
  }

  /** `value` as a number; fails unless it is an integer from 0 to 2^53 - 1. */
  size(value: bigint | number, what: string): number {
    const size = Number(value);
    if (!Number.isSafeInteger(size) || size < 0)
      this.fail(`${what} is ${value}, not an integer from 0 to 2^53 - 1`);
    return size;
  }

  // What follows is what the generated accessors call, under the names that they call it by.

  readUint8(position: number): number {
    return this.#view.getUint8(this.#checked(position, 1));
  }

  readInt8(position: number): number {
    return this.#view.getInt8(this.#checked(position, 1));
  }

  readInt16(position: number): number {
    return this.#view.getInt16(this.#checked(position, 2), true);
  }

  readInt32(position: number): number {
    return this.#view.getInt32(this.#checked(position, 4), true);
  }

  readInt64(position: number): bigint {
    return this.#view.getBigInt64(this.#checked(position, 8), true);
  }

  __offset(table: number, field: number): number {
    const vtable = table - this.readInt32(table);
    return field < this.#readUint16(vtable) ? this.#readUint16(vtable + field) : 0;
  }

  __indirect(position: number): number {
    return position + this.readInt32(position);
  }

  __union(table: { bb: unknown; bb_pos: number }, position: number): unknown {
    table.bb_pos = this.__indirect(position);
    table.bb = this;
    return table;
  }

  __vector(position: number): number {
    return this.__indirect(position) + 4;
  }

  __vector_len(position: number): number {
    const start = this.__vector(position);
    const length = this.readInt32(start - 4);
    // No vector of Arrow's has elements of less than four bytes.
    if (length < 0 || length > (this.byteLength - start) / 4)
      this.fail(`a vector of ${length} elements at byte ${start} passes the end at ${this.byteLength}`);
    return length;
  }

  __string(position: number): string {
    const start = this.__vector(position);
    const length = this.readInt32(start - 4);
    if (length < 0 || length > this.byteLength - start)
      this.fail(`a string of ${length} bytes at byte ${start} passes the end at ${this.byteLength}`);
    this.#stringBytes += length;
    if (this.#stringBytes > this.byteLength * MAX_STRING_REUSE)
      this.fail(`its strings are longer than ${MAX_STRING_REUSE} times its ${this.byteLength} bytes`);
    return this.#text.decode(this.#bytes.subarray(start, start + length));
  }

  #readUint16(position: number): number {
    return this.#view.getUint16(this.#checked(position, 2), true);
  }

  #checked(position: number, length: number): number {
    if (position < 0 || position > this.byteLength - length)
      this.fail(`it refers to byte ${position}, outside its ${this.byteLength} bytes`);
    return position;
  }
}

/** `name` in quotes, on one line, at most about 80 characters: for messages. */
export function quoted(name: string): string {
  return JSON.stringify(name.length > 80 ? `${name.slice(0, 80)}…` : name);
}

/** `text` without control characters, at most about 120 characters: for messages. */
export function oneLine(text: string): string {
  const short = text.length > 120 ? `${text.slice(0, 120)}…` : text;
  return short.replace(/[\p{Cc}\p{Zl}\p{Zp}]/gu, " ");
}
