/** The columns of outputs as callers name them, and how a row's values become bytes. */
import { HeadraceError } from "../../errors.ts";
import { ARROW_OUTPUT } from "../../format/arrow-encode.ts";
import { dtypeBits, isDType } from "../../format/dtype.ts";
import { isVariable, type OutputField, type OutputFormat, rowBytesOf } from "../../format/output-layout.ts";
import { SAFETENSORS_OUTPUT } from "../../format/safetensors-encode.ts";
import type { DType } from "../../types.ts";

/** One column of outputs. */
export interface OutputColumn {
  readonly name: string;
  /** `fixed`: `length` elements a row, one where that is absent. `list`: any number of elements. `utf8`: text. */
  readonly kind: "fixed" | "list" | "utf8";
  /** Of the elements of `fixed` and `list`. */
  readonly dtype?: DType | undefined;
  readonly length?: number | undefined;
  /** Whether a row may have no value; default false. */
  readonly nullable?: boolean | undefined;
}

/** Formats by the name that options use. */
export const OUTPUT_FORMATS: Readonly<Record<OutputFormatName, OutputFormat>> = {
  arrow: ARROW_OUTPUT,
  safetensors: SAFETENSORS_OUTPUT,
};

export type OutputFormatName = "arrow" | "safetensors";

/** Columns that every file has: the row's index in its dataset, and its shard. */
export const ROW_COLUMN = "row";
export const SHARD_COLUMN = "shard";
/** Fields before those of the caller's columns. */
export const OWN_FIELDS = 2;
/** Names that an output uses for other things, or that a file would give another meaning. */
const RESERVED = [ROW_COLUMN, SHARD_COLUMN, "attempts"];

/** The fields of the files: `row`, `shard`, columns of fixed size, then the others, each in the order given. Throws
 * `BAD_OPTION`, `UNKNOWN_DTYPE`, `UNSUPPORTED_TYPE`. */
export function fieldsOf(columns: readonly OutputColumn[], format: OutputFormat): readonly OutputField[] {
  const seen = new Set(RESERVED);
  const fields = columns.map((column) => {
    const field = fieldOf(column);
    if (seen.has(field.name)) throw bad(`column ${JSON.stringify(field.name)} is reserved, or given twice`);
    seen.add(field.name);
    format.check(field);
    return field;
  });
  const own: OutputField[] = [
    { name: ROW_COLUMN, kind: "fixed", dtype: "I64", nullable: false },
    { name: SHARD_COLUMN, kind: "name", dtype: "I32", nullable: false },
  ];
  const all = [...own, ...fields.filter((field) => !isVariable(field)), ...fields.filter(isVariable)];
  if (!format.hasNulls) {
    const clash = all.find((field) => isVariable(field) && seen.has(`${field.name}.offsets`));
    if (clash !== undefined)
      throw bad(`column ${JSON.stringify(`${clash.name}.offsets`)} is a name of the format's own`);
  }
  return all;
}

function fieldOf({ name, kind, dtype, length, nullable = false }: OutputColumn): OutputField {
  const what = `column ${JSON.stringify(name)}`;
  if (typeof name !== "string" || name === "" || !name.isWellFormed())
    throw bad(`${what} has no usable name`);
  if (name.startsWith("__")) throw bad(`${what}: names that begin with __ are reserved`);
  if (kind === "utf8") return { name, kind, dtype: "U8", nullable };
  if (kind !== "fixed" && kind !== "list")
    throw bad(`${what} is of kind ${String(kind)}, not fixed, list or utf8`);
  if (dtype === undefined) throw bad(`${what} of kind ${kind} has no dtype`);
  if (!isDType(dtype))
    throw new HeadraceError("UNKNOWN_DTYPE", `${what} has the unknown dtype ${String(dtype)}`);
  if (dtypeBits(dtype) % 8 !== 0) {
    throw new HeadraceError("UNSUPPORTED_TYPE", `${what} is of ${dtype}, which is not whole bytes`);
  }
  if (kind === "list") return { name, kind, dtype, nullable };
  if (length === undefined) return { name, kind, dtype, nullable };
  const most = Math.floor((2 ** 31 - 1) / (dtypeBits(dtype) / 8));
  if (!Number.isInteger(length) || length < 1 || length > most) {
    throw bad(`${what} has length ${String(length)}; it must be a whole number from 1 to ${most}`);
  }
  return { name, kind, dtype, length, nullable };
}

/** Names of views that hold each dtype; others come as bytes. */
const VIEWS: Readonly<Partial<Record<DType, readonly string[]>>> = {
  I8: ["Int8Array"],
  U8: ["Uint8Array", "Buffer"],
  I16: ["Int16Array"],
  U16: ["Uint16Array"],
  F16: ["Float16Array", "Uint16Array"],
  BF16: ["Uint16Array"],
  I32: ["Int32Array"],
  U32: ["Uint32Array"],
  F32: ["Float32Array"],
  C64: ["Float32Array"],
  F64: ["Float64Array"],
  I64: ["BigInt64Array"],
  U64: ["BigUint64Array"],
};

/** The bytes of a list or a fixed value, borrowed. Scalars may come as numbers. Throws `BAD_OPTION`. */
export function bytesOfValue(field: OutputField, value: unknown, row: number): Uint8Array {
  const expected = VIEWS[field.dtype] ?? ["Uint8Array", "Buffer"];
  if (!ArrayBuffer.isView(value) || !expected.includes(value.constructor.name)) {
    if (field.kind === "fixed" && field.length === undefined) return scalarBytes(field, value, row);
    const what = ArrayBuffer.isView(value) ? value.constructor.name : typeof value;
    throw bad(`row ${row}, column ${field.name}: a value of ${field.dtype} is a ${expected[0]}, not ${what}`);
  }
  if (field.kind === "fixed" && value.byteLength !== rowBytesOf(field)) {
    throw bad(
      `row ${row}, column ${field.name}: its value has ${value.byteLength} bytes, and the column's have ${rowBytesOf(field)}`,
    );
  }
  return new Uint8Array(value.buffer, value.byteOffset, value.byteLength);
}

function scalarBytes({ name, dtype }: OutputField, value: unknown, row: number): Uint8Array {
  const bits = dtypeBits(dtype);
  const view = new DataView(new ArrayBuffer(bits / 8));
  const integer = /^([IU])(8|16|32|64)$/.exec(dtype);
  if (integer !== null && (typeof value === "bigint" || Number.isSafeInteger(value))) {
    const whole = BigInt(value as number | bigint);
    const kept = integer[1] === "I" ? BigInt.asIntN(bits, whole) : BigInt.asUintN(bits, whole);
    if (kept === whole) {
      for (let i = 0; i < bits / 8; i++) view.setUint8(i, Number((whole >> BigInt(8 * i)) & 255n));
      return new Uint8Array(view.buffer);
    }
  } else if (typeof value === "number" && /^F(16|32|64)$/.test(dtype)) {
    if (dtype === "F32") view.setFloat32(0, value, true);
    else if (dtype === "F64") view.setFloat64(0, value, true);
    else view.setFloat16(0, value, true);
    return new Uint8Array(view.buffer);
  }
  throw bad(`row ${row}, column ${name}: ${String(value)} is no ${dtype}`);
}

function bad(message: string): HeadraceError {
  return new HeadraceError("BAD_OPTION", message);
}
