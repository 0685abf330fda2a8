/**
 * What columns of Parquet files become.
 *
 * Numbers, booleans, text, bytes and lists of numbers are what they are. Dates are I32 days, times and timestamps I64
 * microseconds (nanoseconds rounded down), decimals F64, or I64 where they have no fraction; UUIDs and bytes of fixed
 * length are U8 of that length. Format: "Logical Types" of the Apache Parquet format specification.
 */
import type { SchemaElement, SchemaTree } from "hyparquet";
import { HeadraceError } from "../../errors.ts";
import { quoted } from "../../format/json.ts";
import type { DType, TypedArray } from "../../types.ts";
import type { PackField } from "../rows.ts";

/** Writes one value, as it lies in the file, to element `index`. */
export type Put = (target: TypedArray, index: number, value: unknown) => void;

/** One column that is read. */
export interface ParquetColumn {
  readonly field: PackField;
  /** Absent where values are bytes of any length. */
  readonly put?: Put | undefined;
  /** Whether arrays of the file's own values are the elements already. */
  readonly direct: boolean;
  /** Whether the rows of a `fixed` field are lists in the file. */
  readonly isVector?: boolean;
}

interface Element {
  readonly dtype: DType;
  readonly put: Put;
  readonly direct?: boolean;
  /** Elements of a value; 1 where absent. */
  readonly length?: number;
}

/** Digits of decimals that a double always holds. */
const EXACT_DIGITS = 15;
/** Digits that 64 bits always hold. */
const LONG_DIGITS = 18;

const putNumber: Put = (target, index, value) => {
  (target as unknown as unknown[])[index] = value;
};
function putBytes(length: number): Put {
  return (target, index, value) => {
    const bytes = value as Uint8Array;
    if (bytes.length !== length)
      throw new RangeError(`a value of ${bytes.length} bytes among those of ${length}`);
    (target as Uint8Array).set(bytes, index * length);
  };
}
const putHalf: Put = (target, index, value) => {
  const bytes = value as Uint8Array;
  new Uint16Array(target.buffer, target.byteOffset, target.length)[index] = bytes[0]! | (bytes[1]! << 8);
};

/** Throws `UNSUPPORTED_TYPE` naming the column. */
export function parquetColumn(node: SchemaTree): ParquetColumn {
  const { name, repetition_type } = node.element;
  if (isLeaf(node) && repetition_type !== "REPEATED") return leafColumn(node.element);
  const leaf = listElement(node);
  if (leaf === undefined) throw unsupported(name, describe(node));
  const element = elementOf(leaf);
  if (element === undefined || element.length !== undefined) {
    throw unsupported(name, `a list of ${describe({ ...node, element: leaf, children: [] })}`);
  }
  const { dtype, put, direct = false } = element;
  const nullable = repetition_type === "OPTIONAL";
  return { field: { name, kind: "list", dtype, shape: [], nullable }, put, direct };
}

/** `schema` without the meanings of values, which then come as they are stored. */
export function bareElement(element: SchemaElement): SchemaElement {
  if (element.type === undefined) return element;
  const { converted_type: _, logical_type: __, ...bare } = element;
  return bare;
}

function leafColumn(leaf: SchemaElement): ParquetColumn {
  const { name } = leaf;
  const nullable = leaf.repetition_type === "OPTIONAL";
  const element = elementOf(leaf);
  if (element !== undefined) {
    const { dtype, put, direct = false, length } = element;
    const shape = length === undefined ? [] : [length];
    return { field: { name, kind: "fixed", dtype, shape, nullable }, put, direct };
  }
  if (leaf.type !== "BYTE_ARRAY") throw unsupported(name, describeLeaf(leaf));
  const kind = isText(leaf) ? "utf8" : "binary";
  return { field: { name, kind, dtype: "U8", shape: [], nullable }, direct: false };
}

function isText({ converted_type: converted, logical_type: logical }: SchemaElement): boolean {
  const texts = ["UTF8", "ENUM", "JSON", "STRING"];
  return texts.includes(converted ?? "") || texts.includes(logical?.type ?? "");
}

function isLeaf({ children }: SchemaTree): boolean {
  return children.length === 0;
}

/** The element of a list of three levels or of two, or of a leaf that is repeated. */
function listElement(node: SchemaTree): SchemaElement | undefined {
  if (isLeaf(node)) return node.element;
  const isList = node.element.converted_type === "LIST" || node.element.logical_type?.type === "LIST";
  const repeated = node.children[0]!;
  if (!isList || node.children.length !== 1 || repeated.element.repetition_type !== "REPEATED")
    return undefined;
  if (isLeaf(repeated)) return repeated.element;
  const [item] = repeated.children;
  return repeated.children.length === 1 && isLeaf(item!) && item!.element.repetition_type !== "REPEATED"
    ? item!.element
    : undefined;
}

/** Undefined for bytes of any length, and for what has no element. */
function elementOf(leaf: SchemaElement): Element | undefined {
  const decimal = decimalOf(leaf);
  if (decimal !== undefined) return decimal;
  switch (leaf.type) {
    case "BOOLEAN":
      return { dtype: "BOOL", put: (target, index, value) => putNumber(target, index, value ? 1 : 0) };
    case "INT32":
      return smallInteger(leaf);
    case "INT64":
      return longInteger(leaf);
    case "INT96":
      return { dtype: "I64", put: microsOf(1000n, false) };
    case "FLOAT":
      return { dtype: "F32", put: putNumber, direct: true };
    case "DOUBLE":
      return { dtype: "F64", put: putNumber, direct: true };
    case "FIXED_LEN_BYTE_ARRAY":
      if (leaf.logical_type?.type === "FLOAT16") return { dtype: "F16", put: putHalf };
      return { dtype: "U8", put: putBytes(leaf.type_length ?? 0), length: leaf.type_length ?? 0 };
    default:
      return undefined;
  }
}

function smallInteger({ converted_type: converted, logical_type: logical }: SchemaElement): Element {
  if (converted === "TIME_MILLIS" || logical?.type === "TIME") {
    return { dtype: "I64", put: (target, i, value) => putNumber(target, i, BigInt(value as number) * 1000n) };
  }
  const bits =
    logical?.type === "INTEGER" ? logical.bitWidth : Number(/INT_(\d+)/.exec(converted ?? "")?.[1] ?? 32);
  const signed = logical?.type === "INTEGER" ? logical.isSigned : !converted?.startsWith("U");
  const dtype = `${signed ? "I" : "U"}${bits}` as DType;
  return { dtype, put: putNumber, direct: bits === 32 };
}

function longInteger({ converted_type: converted, logical_type: logical }: SchemaElement): Element {
  const unit = logical?.type === "TIMESTAMP" || logical?.type === "TIME" ? logical.unit : undefined;
  if (unit === "NANOS") return { dtype: "I64", put: microsOf(1000n, false) };
  if (unit === "MILLIS" || converted === "TIMESTAMP_MILLIS")
    return { dtype: "I64", put: microsOf(1000n, true) };
  const unsigned = converted === "UINT_64" || (logical?.type === "INTEGER" && !logical.isSigned);
  return { dtype: unsigned ? "U64" : "I64", put: putNumber, direct: true };
}

/** From nanoseconds, rounded down, or from milliseconds. */
function microsOf(factor: bigint, times: boolean): Put {
  return (target, index, value) => {
    const whole = value as bigint;
    const rest = whole % factor;
    const micros = times ? whole * factor : (whole - rest) / factor - (rest < 0n ? 1n : 0n);
    putNumber(target, index, micros);
  };
}

function decimalOf(leaf: SchemaElement): Element | undefined {
  const { logical_type: logical, converted_type: converted } = leaf;
  if (logical?.type !== "DECIMAL" && converted !== "DECIMAL") return undefined;
  const { precision = 0, scale = 0 } = logical?.type === "DECIMAL" ? logical : leaf;
  if (scale === 0 && precision <= LONG_DIGITS) {
    return { dtype: "I64", put: (target, index, value) => putNumber(target, index, unscaled(value)) };
  }
  if (precision > EXACT_DIGITS || scale < 0) {
    const text = `a decimal of ${precision} digits, ${scale} of them behind the point`;
    throw unsupported(leaf.name, `${text} (a double holds ${EXACT_DIGITS})`);
  }
  const divisor = 10 ** scale;
  return {
    dtype: "F64",
    put: (target, index, value) => putNumber(target, index, Number(unscaled(value)) / divisor),
  };
}

/** The integer of a decimal: a number, or bytes with the highest first. */
function unscaled(value: unknown): bigint {
  if (!(value instanceof Uint8Array)) return BigInt(value as number | bigint);
  let whole = 0n;
  for (const byte of value) whole = (whole << 8n) | BigInt(byte);
  whole = BigInt.asIntN(8 * value.length, whole);
  if (whole !== BigInt.asIntN(64, whole))
    throw new RangeError(`the decimal ${whole}, which its type has no digits for`);
  return whole;
}

function describe(node: SchemaTree): string {
  if (isLeaf(node)) return describeLeaf(node.element);
  const { converted_type: converted, logical_type: logical } = node.element;
  const type = logical?.type ?? converted;
  if (type === "LIST") return "a list of lists or groups";
  return type === undefined ? `a group of ${node.children.length} columns` : `a ${type.toLowerCase()}`;
}

function describeLeaf({ type, converted_type: converted, logical_type: logical }: SchemaElement): string {
  return (logical?.type ?? converted ?? type ?? "nothing").toLowerCase();
}

function unsupported(name: string, what: string): HeadraceError {
  const text = `column ${quoted(name)} is ${what}, which cannot be packed; choose others by --columns`;
  return new HeadraceError("UNSUPPORTED_TYPE", text);
}
