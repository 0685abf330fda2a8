/** The JSON text of a safetensors header, turned into entries: types and forms checked, values not yet. */
import { HeadraceError } from "../errors.ts";
import type { DType } from "../types.ts";
import { DTYPES, isDType } from "./dtype.ts";
import { JsonReader, quoted } from "./json.ts";
import { didYouMean } from "./suggest.ts";

/** One tensor as the header words it. Dimensions and offsets are whole and not negative, or Infinity. */
export interface HeaderEntry {
  readonly name: string;
  readonly dtype: DType;
  readonly shape: readonly number[];
  /** Bytes `[start, end)` of the data section, as claimed. */
  readonly start: number;
  readonly end: number;
}

export interface HeaderEntries {
  readonly metadata: Readonly<Record<string, string>>;
  /** In the order of the text. */
  readonly entries: HeaderEntry[];
}

/** The key that holds strings about the file instead of a tensor. */
export const METADATA_KEY = "__metadata__";

/** Dimensions of a tensor, at most: twice what common array libraries allow. */
export const MAX_RANK = 128;

/**
 * Parses a header's text.
 *
 * Follows the reference reader in what it lets pass: white space around the object, `__metadata__: null`,
 * and keys that an entry need not have. Unlike it, keys may not come twice, an entry may not be a list, and a
 * tensor has at most {@link MAX_RANK} dimensions. Throws `HEADER_NOT_JSON`, `HEADER_DUPLICATE_KEY`,
 * `HEADER_BAD_ENTRY` or `UNKNOWN_DTYPE`, whichever comes first in the text.
 */
export function parseEntries(text: string): HeaderEntries {
  const reader = new JsonReader(text, {
    what: "header",
    syntax: "HEADER_NOT_JSON",
    duplicate: "HEADER_DUPLICATE_KEY",
  });
  if (reader.peek() !== "object") throw badEntry(reader, "header", "must be an object of tensors");
  let metadata: Record<string, string> = Object.create(null);
  const entries: HeaderEntry[] = [];
  reader.readObject((name) => {
    if (name === METADATA_KEY) metadata = readMetadata(reader);
    else entries.push(readEntry(reader, name));
  });
  reader.end();
  return { metadata, entries };
}

function readMetadata(reader: JsonReader): Record<string, string> {
  const metadata: Record<string, string> = Object.create(null);
  const kind = reader.peek();
  if (kind === "null") reader.skipValue();
  else if (kind !== "object") throw badEntry(reader, METADATA_KEY, "must be an object of strings");
  else {
    reader.readObject((key) => {
      if (reader.peek() !== "string") {
        throw badEntry(reader, METADATA_KEY, `must hold strings alone, and ${quoted(key)} is none`);
      }
      metadata[key] = reader.readString();
    });
  }
  return metadata;
}

function readEntry(reader: JsonReader, name: string): HeaderEntry {
  const fail = (problem: string) => badEntry(reader, `tensor ${quoted(name)}`, problem);
  let dtype: DType | undefined;
  let shape: number[] | undefined;
  let offsets: number[] | undefined;
  if (reader.peek() !== "object") throw fail("must be an object with dtype, shape and data_offsets");
  reader.readObject((key) => {
    if (key === "dtype") dtype = readDType(reader, name, fail);
    else if (key === "shape") shape = readNaturals(reader, "shape", MAX_RANK, fail);
    else if (key === "data_offsets") offsets = readNaturals(reader, "data_offsets", 2, fail);
    else reader.skipValue();
  });
  if (dtype === undefined) throw lacks(name, "no dtype");
  if (shape === undefined) throw lacks(name, "no shape");
  if (offsets === undefined) throw lacks(name, "no data_offsets");
  const [start, end] = offsets;
  if (start === undefined || end === undefined) throw lacks(name, "not two numbers in data_offsets");
  return { name, dtype, shape, start, end };
}

type Fail = (problem: string) => HeadraceError;

function readDType(reader: JsonReader, tensor: string, fail: Fail): DType {
  if (reader.peek() !== "string") throw fail("must have a string as dtype");
  const name = reader.readString();
  if (isDType(name)) return name;
  const known = didYouMean(name, DTYPES) || `; known are ${DTYPES.join(", ")}`;
  throw new HeadraceError(
    "UNKNOWN_DTYPE",
    `tensor ${quoted(tensor)} has the unknown dtype ${quoted(name)}${known}`,
  );
}

function readNaturals(reader: JsonReader, key: string, limit: number, fail: Fail): number[] {
  if (reader.peek() !== "array") throw fail(`must have a list of integers as ${key}`);
  const values: number[] = [];
  reader.readArray((index) => {
    if (index === limit) throw fail(`has more than ${limit} numbers in ${key}`);
    reader.peek();
    const value = reader.readNatural();
    if (value === undefined) throw fail(`must have integers of 0 or more in ${key}`);
    values.push(value);
  });
  return values;
}

function badEntry(reader: JsonReader, subject: string, problem: string): HeadraceError {
  return new HeadraceError(
    "HEADER_BAD_ENTRY",
    `${subject} ${problem}: found ${reader.excerpt()} at ${reader.position()} of the header`,
  );
}

function lacks(tensor: string, what: string): HeadraceError {
  return new HeadraceError("HEADER_BAD_ENTRY", `tensor ${quoted(tensor)} has ${what}`);
}
