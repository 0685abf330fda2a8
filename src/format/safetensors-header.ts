/** Builds the header of a safetensors file and places its tensors. Pure: writing the bytes is up to others. */
import { HeadraceError } from "../errors.ts";
import type { ByteRange, DType, Shape } from "../types.ts";
import { byteLengthOf, DTYPES, isDType, shapeText } from "./dtype.ts";
import { quoted } from "./json.ts";
import { MAX_HEADER_BYTES, PADDING_NAME, PREFIX_BYTES } from "./safetensors.ts";
import { MAX_RANK, METADATA_KEY } from "./safetensors-entries.ts";

/** A tensor to be written. */
export interface TensorSpec {
  /** Any text but `__metadata__` and the names of page padding; no two alike. */
  readonly name: string;
  readonly dtype: DType;
  readonly shape: Shape;
  /** Must be what dtype and shape make. */
  readonly byteLength: number;
}

export interface HeaderOptions {
  /**
   * The data section starts on a multiple of so many bytes; a multiple of 8 up to 2^26. Default 16,384, the
   * largest page of common machines, so that a mapped file's data can be handed to a GPU as it is.
   */
  readonly alignment?: number;
  /**
   * Whether every tensor starts on a multiple of `alignment`. The gaps are filled by U8 tensors named
   * `__pad_0__`, `__pad_1__`, …, since the format forbids holes; other readers will list them. Default false.
   */
  readonly pageAlignTensors?: boolean;
}

/** Where everything goes. The file is `header`, then the data section. */
export interface EncodedHeader {
  /** Length, JSON and trailing spaces: all bytes before the data. */
  readonly header: Uint8Array;
  /** Indices into the given tensors, in the order of their bytes. */
  readonly order: readonly number[];
  /** Bytes of each given tensor (by its own index) in the data section. Bytes in no range are zeros. */
  readonly dataOffsets: readonly ByteRange[];
  /** Bytes of the data section. */
  readonly dataByteLength: number;
}

interface Placed {
  readonly name: string;
  readonly dtype: DType;
  readonly shape: Shape;
  readonly range: ByteRange;
}

/** What data begin at a multiple of, where nothing else is asked for. */
export const DEFAULT_ALIGNMENT = 16_384;
const MAX_ALIGNMENT = 2 ** 26;

/**
 * Encodes the header of a file that holds `tensors`.
 *
 * The same input gives the same bytes: tensors are placed as the format's reference writer places them, by
 * dtype (last of the enumeration first, so that all start on multiples of their elements), then by name in
 * the order of its UTF-8 bytes; metadata comes in code-unit order of its keys. The header is padded by
 * trailing spaces, which every reader must accept.
 *
 * Throws `BAD_OPTION` for names that are reserved, given twice or not whole Unicode text, for bad shapes and a
 * bad alignment; `TENSOR_SIZE`, `TENSOR_OVERFLOW`, `TENSOR_MISALIGNED` where byte lengths do not fit;
 * `UNKNOWN_DTYPE`; `HEADER_TOO_LARGE` past 100,000,000 bytes.
 */
export function encodeHeader(
  tensors: readonly TensorSpec[],
  metadata: Readonly<Record<string, string>> = {},
  options: HeaderOptions = {},
): EncodedHeader {
  const { alignment = DEFAULT_ALIGNMENT, pageAlignTensors = false } = options;
  if (!Number.isSafeInteger(alignment) || alignment < 8 || alignment > MAX_ALIGNMENT || alignment % 8 !== 0) {
    throw badOption(`alignment must be a multiple of 8 from 8 to ${MAX_ALIGNMENT}, not ${alignment}`);
  }
  checkTensors(tensors);
  const order = tensors.map((_, index) => index).sort((a, b) => compareSpecs(tensors[a]!, tensors[b]!));
  const { placed, dataOffsets, dataByteLength } = place(tensors, order, pageAlignTensors ? alignment : 1);
  const header = encode([...metadataFields(metadata), ...placed.map(entryField)], alignment);
  return { header, order, dataOffsets, dataByteLength };
}

function checkTensors(tensors: readonly TensorSpec[]): void {
  const seen = new Set<string>();
  for (const { name, dtype, shape, byteLength } of tensors) {
    const tensor = `tensor ${quoted(name)}`;
    checkText(tensor, name);
    if (name === METADATA_KEY || PADDING_NAME.test(name)) throw badOption(`${tensor} has a reserved name`);
    if (seen.size === seen.add(name).size) throw badOption(`${tensor} is given twice`);
    if (!isDType(dtype)) {
      throw new HeadraceError("UNKNOWN_DTYPE", `${tensor} has the unknown dtype ${quoted(String(dtype))}`);
    }
    if (shape.length > MAX_RANK) {
      throw badOption(`${tensor} has ${shape.length} dimensions of at most ${MAX_RANK}`);
    }
    const expected = checkedByteLength(tensor, dtype, shape);
    if (byteLength !== expected) {
      throw new HeadraceError(
        "TENSOR_SIZE",
        `${tensor} has ${byteLength} bytes, but ${dtype} ${shapeText(shape)} takes ${expected}`,
      );
    }
  }
}

function checkedByteLength(tensor: string, dtype: DType, shape: Shape): number {
  try {
    return byteLengthOf(dtype, shape);
  } catch (error) {
    throw error instanceof HeadraceError ? error.within(tensor) : error;
  }
}

function checkText(what: string, text: string): void {
  if (!text.isWellFormed()) throw badOption(`${what} has half a surrogate pair, which UTF-8 cannot hold`);
}

function compareSpecs(a: TensorSpec, b: TensorSpec): number {
  if (a.dtype !== b.dtype) return DTYPES.indexOf(b.dtype) - DTYPES.indexOf(a.dtype);
  return compareByUtf8(a.name, b.name);
}

/** Orders texts as their UTF-8 bytes, which differs from code units where one has a surrogate pair. */
function compareByUtf8(a: string, b: string): number {
  const length = Math.min(a.length, b.length);
  for (let at = 0; at < length; at++) {
    const left = a.charCodeAt(at);
    const right = b.charCodeAt(at);
    if (left !== right) return utf8Rank(left) - utf8Rank(right);
  }
  return a.length - b.length;
}

/** Moves surrogates, which stand for code points past U+FFFF, behind all other code units. */
function utf8Rank(unit: number): number {
  return unit >= 0xd800 && unit < 0xe000 ? unit + 0x10000 : unit;
}

function place(tensors: readonly TensorSpec[], order: readonly number[], alignment: number) {
  const placed: Placed[] = [];
  const dataOffsets: ByteRange[] = new Array(tensors.length);
  let at = 0;
  let numFillers = 0;
  for (const index of order) {
    const { name, dtype, shape, byteLength } = tensors[index]!;
    const start = Math.ceil(at / alignment) * alignment;
    if (start > at) {
      const range = { start: at, end: start };
      placed.push({ name: `__pad_${numFillers++}__`, dtype: "U8", shape: [start - at], range });
    }
    at = start + byteLength;
    if (at > Number.MAX_SAFE_INTEGER) {
      throw new HeadraceError(
        "TENSOR_OVERFLOW",
        `tensor ${quoted(name)} ends past ${Number.MAX_SAFE_INTEGER}`,
      );
    }
    dataOffsets[index] = { start, end: at };
    placed.push({ name, dtype, shape, range: { start, end: at } });
  }
  return { placed, dataOffsets, dataByteLength: at };
}

function metadataFields(metadata: Readonly<Record<string, string>>): string[] {
  const keys = Object.keys(metadata).sort();
  if (keys.length === 0) return [];
  const pairs = keys.map((key) => {
    const value: unknown = metadata[key];
    const what = `metadata ${quoted(key)}`;
    if (typeof value !== "string") throw badOption(`${what} must be a string`);
    checkText(what, key + value);
    return `${JSON.stringify(key)}:${JSON.stringify(value)}`;
  });
  return [`"${METADATA_KEY}":{${pairs.join(",")}}`];
}

function entryField({ name, dtype, shape, range }: Placed): string {
  const offsets = `[${range.start},${range.end}]`;
  return `${JSON.stringify(name)}:{"dtype":"${dtype}","shape":[${shape.join(",")}],"data_offsets":${offsets}}`;
}

function encode(fields: readonly string[], alignment: number): Uint8Array {
  const json = new TextEncoder().encode(`{${fields.join(",")}}`);
  const byteLength = Math.ceil((PREFIX_BYTES + json.length) / alignment) * alignment;
  const headerLength = byteLength - PREFIX_BYTES;
  if (headerLength > MAX_HEADER_BYTES) {
    throw new HeadraceError(
      "HEADER_TOO_LARGE",
      `the header of these tensors takes ${headerLength} bytes of at most ${MAX_HEADER_BYTES}; use more shards`,
    );
  }
  const header = new Uint8Array(byteLength).fill(0x20);
  new DataView(header.buffer).setBigUint64(0, BigInt(headerLength), true);
  header.set(json, PREFIX_BYTES);
  return header;
}

function badOption(message: string): HeadraceError {
  return new HeadraceError("BAD_OPTION", message);
}
