/**
 * What the files of a WebDataset's samples become, one column an ending, found out from the first samples.
 *
 * `txt`, `text`, `transcript`, `caption`: text. `cls`, `cls2`, `id`, `index`: I64. `npy`: arrays of one shape, else lists
 * where all have one dimension, else the file's bytes. `json`: a column `json.KEY` for each key where all are objects of
 * numbers, booleans and texts, each of one type, else the text. All else: bytes.
 */
import { quoted } from "../../format/json.ts";
import { chooseNames } from "../../loader/schema.ts";
import type { DType, Shape } from "../../types.ts";
import type { PackField } from "../rows.ts";
import { NPY_PREFIX_BYTES, npyHeaderRange, parseNpyHeader, swapBytes } from "./npy.ts";
import { badInput } from "./source.ts";

/** The files of one sample, by ending. */
export interface TarSample {
  readonly key: string;
  /** For messages: archive and key. */
  readonly place: string;
  readonly files: ReadonlyMap<string, Uint8Array>;
}

/** A column of samples. */
export interface TarColumn {
  readonly field: PackField;
  /** The ending that it is made of; undefined for the key. */
  readonly ending: string | undefined;
  /** The bytes of a sample's value; null where it is missing. Throws `BAD_INPUT`. */
  value(sample: TarSample): Uint8Array | null;
}

const KEY = "__key__";
const TEXTS = ["txt", "text", "transcript", "caption"];
const INTEGERS = ["cls", "cls2", "id", "index"];

interface NpyValue {
  readonly dtype: DType;
  readonly shape: Shape;
  readonly bytes: Uint8Array;
}

/** The columns of `samples`, those chosen by `wanted` alone. A wanted `json` is the text. Throws `BAD_INPUT`,
 * `UNSUPPORTED_TYPE`, `UNKNOWN_COLUMN`. */
export function tarColumns(
  samples: readonly TarSample[],
  wanted: readonly string[] | undefined,
): readonly TarColumn[] {
  const endings = [...new Set(samples.flatMap(({ files }) => [...files.keys()]))].sort();
  const all = [keyColumn(), ...endings.flatMap((ending) => columnsOf(ending, samples, wanted))];
  if (wanted === undefined) return all;
  const names = new Set(
    chooseNames(
      all.map(({ field }) => field.name),
      wanted,
    ),
  );
  return all.filter(({ field }) => names.has(field.name));
}

function keyColumn(): TarColumn {
  const field: PackField = { name: KEY, kind: "utf8", dtype: "U8", shape: [], nullable: false };
  return { field, ending: undefined, value: ({ key }) => new TextEncoder().encode(key) };
}

function columnsOf(
  ending: string,
  samples: readonly TarSample[],
  wanted: readonly string[] | undefined,
): readonly TarColumn[] {
  const last = ending.split(".").at(-1)!;
  if (TEXTS.includes(last)) return [bytesOf(ending, "utf8")];
  if (INTEGERS.includes(last)) return [integerOf(ending)];
  if (last === "npy") return [arrayOf(ending, samples)];
  if (last === "json") return wanted?.includes(ending) ? [bytesOf(ending, "utf8")] : jsonOf(ending, samples);
  return [bytesOf(ending, "binary")];
}

function bytesOf(ending: string, kind: "utf8" | "binary"): TarColumn {
  const field: PackField = { name: ending, kind, dtype: "U8", shape: [], nullable: true };
  return { field, ending, value: ({ files }) => files.get(ending) ?? null };
}

function integerOf(ending: string): TarColumn {
  const field: PackField = { name: ending, kind: "fixed", dtype: "I64", shape: [], nullable: true };
  return {
    field,
    ending,
    value({ files, place }) {
      const bytes = files.get(ending);
      if (bytes === undefined) return null;
      const text = new TextDecoder().decode(bytes).trim();
      if (!/^[+-]?\d{1,19}$/.test(text) || BigInt.asIntN(64, BigInt(text)) !== BigInt(text)) {
        throw badInput(place, `its .${ending} holds ${quoted(text)}, which is no integer of 64 bits`);
      }
      return new Uint8Array(BigInt64Array.of(BigInt(text)).buffer);
    },
  };
}

function arrayOf(ending: string, samples: readonly TarSample[]): TarColumn {
  const found = samples.flatMap((sample) => npyOf(sample, ending) ?? []);
  const { dtype, shape } = found[0]!;
  const alike = found.every((one) => one.dtype === dtype && one.shape.join() === shape.join());
  const lists = found.every((one) => one.dtype === dtype && one.shape.length === 1);
  if (!alike && !lists) return bytesOf(ending, "binary");
  const kind = alike ? "fixed" : "list";
  const field: PackField = { name: ending, kind, dtype, shape: alike ? shape : [], nullable: true };
  return {
    field,
    ending,
    value(sample) {
      const array = npyOf(sample, ending);
      if (array === undefined) return null;
      const fits = alike ? array.shape.join() === shape.join() : array.shape.length === 1;
      if (fits && array.dtype === dtype) return array.bytes;
      const text = `its .${ending} is ${array.dtype} [${array.shape.join(",")}]`;
      throw badInput(
        sample.place,
        `${text}, and the first samples have ${kind} ${dtype} [${shape.join(",")}]`,
      );
    },
  };
}

function npyOf({ files, place }: TarSample, ending: string): NpyValue | undefined {
  const bytes = files.get(ending);
  if (bytes === undefined) return undefined;
  const what = `${place}: its .${ending}`;
  const { start, end } = npyHeaderRange(bytes.subarray(0, NPY_PREFIX_BYTES), what);
  const header = parseNpyHeader(new TextDecoder("latin1").decode(bytes.subarray(start, end)), what);
  const values = bytes.slice(end);
  if (values.length !== header.byteLength) {
    throw badInput(what, `holds ${values.length} bytes of values, and its header says ${header.byteLength}`);
  }
  swapBytes(values, header.swap);
  return { dtype: header.dtype, shape: header.shape, bytes: values };
}

/** Values of texts that are in hand. */
type ParsedTexts = WeakMap<Uint8Array, unknown>;

type Scalar = "I64" | "F64" | "BOOL" | "utf8";

function jsonOf(ending: string, samples: readonly TarSample[]): readonly TarColumn[] {
  const types = new Map<string, Scalar | undefined>();
  for (const sample of samples) {
    const value = parseJson(sample, ending);
    if (value === undefined) continue;
    if (!isObject(value)) return [bytesOf(ending, "utf8")];
    for (const [key, one] of Object.entries(value)) {
      const known = types.get(key);
      if (one === null) types.set(key, known);
      else {
        const type = scalarOf(one);
        if (type === undefined) return [bytesOf(ending, "utf8")];
        const both = known === undefined || known === type ? type : numberOf(known, type);
        if (both === undefined) return [bytesOf(ending, "utf8")];
        types.set(key, both);
      }
    }
  }
  const known = [...types].flatMap(([key, type]) => (type === undefined ? [] : [[key, type] as const]));
  if (known.length < types.size || known.length === 0) return [bytesOf(ending, "utf8")];
  const keys = new Set(types.keys());
  const texts: ParsedTexts = new WeakMap();
  return known
    .toSorted(([a], [b]) => (a < b ? -1 : 1))
    .map(([key, type]) => scalarColumn(ending, key, type, keys, texts));
}

function scalarColumn(
  ending: string,
  key: string,
  type: Scalar,
  keys: ReadonlySet<string>,
  texts: ParsedTexts,
): TarColumn {
  const kind = type === "utf8" ? "utf8" : "fixed";
  const dtype: DType = type === "utf8" ? "U8" : type;
  const field: PackField = { name: `${ending}.${key}`, kind, dtype, shape: [], nullable: true };
  return {
    field,
    ending,
    value(sample) {
      const object = parseJson(sample, ending, texts);
      if (object === undefined) return null;
      const odd = isObject(object) ? Object.keys(object).find((one) => !keys.has(one)) : "";
      const value = isObject(object) && Object.hasOwn(object, key) ? object[key] : null;
      const found = value === null ? type : scalarOf(value);
      if (odd === undefined && (found === type || (type === "F64" && found === "I64"))) {
        return value === null ? null : bytesOfScalar(value, type);
      }
      const problem = odd === undefined ? `${quoted(key)} is no ${type}` : `it has ${quoted(odd)}`;
      const way = `choose ${ending} by --columns to have the text`;
      throw badInput(
        sample.place,
        `its .${ending} is not like those of the first samples: ${problem}; ${way}`,
      );
    },
  };
}

function bytesOfScalar(value: unknown, type: Scalar): Uint8Array {
  if (type === "utf8") return new TextEncoder().encode(value as string);
  if (type === "BOOL") return Uint8Array.of(value === true ? 1 : 0);
  if (type === "F64") return new Uint8Array(Float64Array.of(value as number).buffer);
  return new Uint8Array(BigInt64Array.of(BigInt(value as number)).buffer);
}

function scalarOf(value: unknown): Scalar | undefined {
  if (typeof value === "string") return "utf8";
  if (typeof value === "boolean") return "BOOL";
  if (typeof value === "number") return Number.isSafeInteger(value) ? "I64" : "F64";
  return undefined;
}

function numberOf(a: Scalar, b: Scalar): Scalar | undefined {
  const numbers = ["I64", "F64"];
  return numbers.includes(a) && numbers.includes(b) ? "F64" : undefined;
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Undefined where the sample has none. Each text is parsed once, whatever the number of its columns. */
function parseJson({ files, place }: TarSample, ending: string, texts?: ParsedTexts): unknown {
  const bytes = files.get(ending);
  if (bytes === undefined) return undefined;
  if (texts?.has(bytes)) return texts.get(bytes);
  try {
    const value: unknown = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
    texts?.set(bytes, value);
    return value;
  } catch (cause) {
    throw badInput(place, `its .${ending} is not JSON: ${(cause as Error).message}`, cause);
  }
}
