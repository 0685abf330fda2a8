/**
 * The header of a NumPy array.
 *
 * Format: "A Simple File Format for NumPy Arrays" (numpy.lib.format), versions 1.0 to 3.0. The header is the text of a
 * Python dictionary of three keys, as NumPy's own writer has it; nothing of it is evaluated.
 */
import { HeadraceError } from "../../errors.ts";
import { byteLengthOf } from "../../format/dtype.ts";
import { quoted } from "../../format/json.ts";
import type { DType, Shape } from "../../types.ts";
import { badInput } from "./source.ts";

/** What an array's bytes mean. */
export interface NpyHeader {
  readonly dtype: DType;
  /** C order. */
  readonly shape: Shape;
  /** Bytes of an element that are in the other order, to be turned round; 1 where there is nothing to do. */
  readonly swap: 1 | 2 | 4 | 8;
  /** Bytes of all elements. */
  readonly byteLength: number;
}

/** Bytes of the part that says how long the rest is, at most. */
export const NPY_PREFIX_BYTES = 12;
const MAX_HEADER_BYTES = 2 ** 20;
const MAGIC = [0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59];

const DTYPES: Readonly<Record<string, DType>> = {
  b1: "BOOL",
  i1: "I8",
  u1: "U8",
  i2: "I16",
  u2: "U16",
  i4: "I32",
  u4: "U32",
  i8: "I64",
  u8: "U64",
  f2: "F16",
  f4: "F32",
  f8: "F64",
  c8: "C64",
};

export function isNpy(head: Uint8Array): boolean {
  return MAGIC.every((byte, i) => head[i] === byte);
}

/** Where the header's text lies, by the first {@link NPY_PREFIX_BYTES} of the file. Throws `BAD_INPUT`. */
export function npyHeaderRange(
  head: Uint8Array,
  place: string,
): { readonly start: number; readonly end: number } {
  if (!isNpy(head)) throw badInput(place, "is no NumPy array: it does not begin with \\x93NUMPY");
  const version = head[6]!;
  if (version < 1 || version > 3) throw badInput(place, `is of version ${version}; 1 to 3 can be read`);
  const view = new DataView(head.buffer, head.byteOffset, head.byteLength);
  const start = version === 1 ? 10 : 12;
  if (head.length < start) throw badInput(place, `ends after ${head.length} bytes, within its header`);
  const length = version === 1 ? view.getUint16(8, true) : view.getUint32(8, true);
  if (length > MAX_HEADER_BYTES) {
    throw badInput(place, `claims a header of ${length} bytes of at most ${MAX_HEADER_BYTES}`);
  }
  return { start, end: start + length };
}

/** Reads the header's text. Throws `BAD_INPUT`, and `UNSUPPORTED_TYPE` for arrays that cannot be carried. */
export function parseNpyHeader(text: string, place: string): NpyHeader {
  const descr = /'descr':\s*(?:'([^']*)'|(\[))/.exec(text);
  const order = /'fortran_order':\s*(True|False)/.exec(text);
  const dims = /'shape':\s*\(([\d,\sL]*)\)/.exec(text);
  if (descr === null || order === null || dims === null || !/^\{.*\}\s*$/s.test(text)) {
    throw badInput(place, `has a header that NumPy did not write: ${quoted(text)}`);
  }
  if (descr[2] !== undefined)
    throw unsupported(place, "a structured array; save each field as an array of its own");
  const { dtype, swap } = typeOf(descr[1]!, place);
  const shape = dims[1]!
    .split(",")
    .map((dim) => dim.trim().replace(/L$/, ""))
    .filter((dim) => dim !== "")
    .map(Number);
  if (order[1] === "True" && shape.filter((dim) => dim !== 1).length > 1) {
    throw unsupported(place, "in Fortran order; save numpy.ascontiguousarray of it");
  }
  try {
    return { dtype, shape, swap, byteLength: byteLengthOf(dtype, shape) };
  } catch (error) {
    throw error instanceof HeadraceError ? badInput(place, error.message, error) : error;
  }
}

/** Turns round the bytes of each element, in place. `bytes` are whole elements. */
export function swapBytes(bytes: Uint8Array, swap: NpyHeader["swap"]): void {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  if (swap === 2) buffer.swap16();
  if (swap === 4) buffer.swap32();
  if (swap === 8) buffer.swap64();
}

function typeOf(descr: string, place: string): Pick<NpyHeader, "dtype" | "swap"> {
  const match = /^([<>|=]?)([a-zA-Z]\d*)/.exec(descr);
  const dtype = match === null || !Object.hasOwn(DTYPES, match[2]!) ? undefined : DTYPES[match[2]!];
  if (dtype === undefined || match![0] !== descr) {
    const kind = match?.[2]?.[0];
    if (kind === "O") throw unsupported(place, "an array of Python objects, which takes pickle to read");
    if (kind === "U" || kind === "S")
      throw unsupported(place, `an array of texts (${descr}); write JSONL or Parquet`);
    throw unsupported(place, `an array of ${quoted(descr)}; known are ${Object.keys(DTYPES).join(", ")}`);
  }
  const bytes = dtype === "C64" ? 4 : byteLengthOf(dtype, []);
  return { dtype, swap: match![1] === ">" ? (bytes as NpyHeader["swap"]) : 1 };
}

function unsupported(place: string, what: string): HeadraceError {
  return new HeadraceError("UNSUPPORTED_TYPE", `${place}: is ${what}`);
}
