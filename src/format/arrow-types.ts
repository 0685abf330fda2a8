/**
 * The Arrow types: what each is called, and how its arrays lie in a record batch.
 *
 * Layouts are those of the Arrow columnar format, names follow its own in lower case (`int32`, `utf8`,
 * `timestamp[us, UTC]`).
 */
import { Date as DateType } from "apache-arrow/fb/date";
import { Decimal } from "apache-arrow/fb/decimal";
import { Duration } from "apache-arrow/fb/duration";
import type { Field } from "apache-arrow/fb/field";
import { FixedSizeBinary } from "apache-arrow/fb/fixed-size-binary";
import { FixedSizeList } from "apache-arrow/fb/fixed-size-list";
import { FloatingPoint } from "apache-arrow/fb/floating-point";
import { Int } from "apache-arrow/fb/int";
import { Interval } from "apache-arrow/fb/interval";
import { Time } from "apache-arrow/fb/time";
import { Timestamp } from "apache-arrow/fb/timestamp";
import { Type } from "apache-arrow/fb/type";
import { Union } from "apache-arrow/fb/union";
import type { DType, Shape } from "../types.ts";
import type { MetadataBuffer } from "./arrow-metadata.ts";

/** One type without its children. Every form but `skipped` can become a column. */
export type ArrowType =
  /** A validity bitmap and a values buffer of `bits` an element. */
  | {
      readonly form: "fixed";
      readonly name: string;
      readonly dtype: DType;
      /** Of one array element: 1 for bool, `8 * width` for fixed-size binary. */
      readonly bits: number;
      /** `[]`, or `[width]` for fixed-size binary. */
      readonly shape: Shape;
      readonly logical: string;
    }
  /** A validity bitmap, offsets and bytes. */
  | {
      readonly form: "bytes";
      readonly name: string;
      readonly offsetWidth: 4 | 8;
      readonly logical: "utf8" | "binary";
    }
  /** A validity bitmap and offsets into the one child. */
  | { readonly form: "list"; readonly name: string; readonly offsetWidth: 4 | 8 }
  /** A validity bitmap; `size` elements of the one child for each element. */
  | { readonly form: "fixed-list"; readonly name: string; readonly size: number }
  /** Not readable as a column: only how many buffers come before those of its children. */
  | {
      readonly form: "skipped";
      readonly name: string;
      readonly buffers: number;
      /** Whether further buffers follow, counted by the batch's `variadicBufferCounts`. */
      readonly variadic: boolean;
    };

/** A field of the schema, with its children. */
export interface ArrowField {
  readonly name: string;
  readonly nullable: boolean;
  /** Of the values; where {@link ArrowField.dictionary} is set, of the dictionary's entries. */
  readonly type: ArrowType;
  readonly children: readonly ArrowField[];
  readonly dictionary?: {
    readonly id: bigint;
    readonly index: ArrowType & { readonly form: "fixed" };
  };
}

const TIME_UNITS = ["s", "ms", "us", "ns"] as const;
const INTEGERS: Readonly<Record<number, readonly [unsigned: DType, signed: DType]>> = {
  8: ["U8", "I8"],
  16: ["U16", "I16"],
  32: ["U32", "I32"],
  64: ["U64", "I64"],
};

/** The type of a field, or undefined for a type number that this reader does not know. */
export function parseType(buffer: MetadataBuffer, field: Field, version: number): ArrowType | undefined {
  switch (field.typeType()) {
    case Type.Null:
      return skipped("null", 0);
    case Type.Int:
      return parseInteger(buffer, require(buffer, field.type(new Int())));
    case Type.FloatingPoint:
      return parseFloatingPoint(buffer, require(buffer, field.type(new FloatingPoint())));
    case Type.Binary:
      return { form: "bytes", name: "binary", offsetWidth: 4, logical: "binary" };
    case Type.LargeBinary:
      return { form: "bytes", name: "large_binary", offsetWidth: 8, logical: "binary" };
    case Type.Utf8:
      return { form: "bytes", name: "utf8", offsetWidth: 4, logical: "utf8" };
    case Type.LargeUtf8:
      return { form: "bytes", name: "large_utf8", offsetWidth: 8, logical: "utf8" };
    case Type.Bool:
      return { form: "fixed", name: "bool", dtype: "BOOL", bits: 1, shape: [], logical: "number" };
    case Type.FixedSizeBinary:
      return parseFixedSizeBinary(buffer, require(buffer, field.type(new FixedSizeBinary())));
    case Type.List:
      return { form: "list", name: "list", offsetWidth: 4 };
    case Type.LargeList:
      return { form: "list", name: "large_list", offsetWidth: 8 };
    case Type.FixedSizeList: {
      const type = require<FixedSizeList>(buffer, field.type(new FixedSizeList()));
      const size = buffer.size(type.listSize(), "the size of a fixed-size list");
      return { form: "fixed-list", name: "fixed_size_list", size };
    }
    default:
      return parseTemporal(buffer, field) ?? parseSkipped(buffer, field, version);
  }
}

/** The integer type of a dictionary's codes; the format's default is int32. */
export function parseIndexType(buffer: MetadataBuffer, type: Int | null): ArrowType & { form: "fixed" } {
  return type === null ? integer("I32", 32, "int32") : parseInteger(buffer, type);
}

/** A type with its children, for messages: `struct<a: int32>`, `list<float32>`. */
export function typeName(field: ArrowField): string {
  const name = valueTypeName(field);
  return field.dictionary === undefined ? name : `dictionary<${name}>`;
}

/** As {@link typeName}, without regard to the field's own dictionary. */
export function valueTypeName(field: ArrowField): string {
  const { type, children } = field;
  if (type.form === "fixed" || type.form === "bytes") return type.name;
  // A list's child has a different name with every writer; a list is the same type with all of them.
  if (type.form === "list") return `${type.name}<${children.map(typeName)}>`;
  if (type.form === "fixed-list") return `${type.name}<${children.map(typeName)}>[${type.size}]`;
  if (children.length === 0) return type.name;
  const shown = children.slice(0, 4).map((child) => `${child.name}: ${typeName(child)}`);
  return `${type.name}<${shown.join(", ")}${children.length > 4 ? ", …" : ""}>`;
}

function require<T>(buffer: MetadataBuffer, table: T | null): T {
  return table ?? buffer.fail("a field lacks its type's description");
}

function integer(dtype: DType, bits: number, name: string, logical = "number") {
  return { form: "fixed", name, dtype, bits, shape: [], logical } as const;
}

function parseInteger(buffer: MetadataBuffer, type: Int) {
  const bits = type.bitWidth();
  const signed = type.isSigned();
  const dtype = INTEGERS[bits]?.[signed ? 1 : 0];
  if (dtype === undefined) return buffer.fail(`an integer type has ${bits} bits, not 8, 16, 32 or 64`);
  return integer(dtype, bits, `${signed ? "int" : "uint"}${bits}`);
}

function parseFloatingPoint(buffer: MetadataBuffer, type: FloatingPoint): ArrowType {
  const precision = type.precision();
  const dtype = (["F16", "F32", "F64"] as const)[precision];
  if (dtype === undefined) return buffer.fail(`a floating-point type has the unknown precision ${precision}`);
  const bits = 16 << precision;
  return { form: "fixed", name: `float${bits}`, dtype, bits, shape: [], logical: "number" };
}

function parseFixedSizeBinary(buffer: MetadataBuffer, type: FixedSizeBinary): ArrowType {
  const width = buffer.size(type.byteWidth(), "the width of a fixed-size binary");
  return {
    form: "fixed",
    name: `fixed_size_binary[${width}]`,
    dtype: "U8",
    bits: 8 * width,
    shape: [width],
    logical: "fixed_size_binary",
  };
}

/** Dates, times, timestamps and durations: integers whose name says what they count. */
function parseTemporal(buffer: MetadataBuffer, field: Field): ArrowType | undefined {
  switch (field.typeType()) {
    case Type.Date: {
      const unit = require<DateType>(buffer, field.type(new DateType())).unit();
      if (unit !== 0 && unit !== 1) return buffer.fail(`a date type has the unknown unit ${unit}`);
      return unit === 0 ? temporal(32, "date32[day]") : temporal(64, "date64[ms]");
    }
    case Type.Time: {
      const type = require<Time>(buffer, field.type(new Time()));
      const unit = timeUnit(buffer, type.unit());
      const bits = type.bitWidth();
      if (bits !== (unit === "s" || unit === "ms" ? 32 : 64))
        return buffer.fail(`a time type in ${unit} has ${bits} bits`);
      return temporal(bits, `time${bits}[${unit}]`);
    }
    case Type.Timestamp: {
      const type = require<Timestamp>(buffer, field.type(new Timestamp()));
      const unit = timeUnit(buffer, type.unit());
      const timezone = type.timezone();
      return temporal(64, timezone ? `timestamp[${unit}, ${timezone}]` : `timestamp[${unit}]`);
    }
    case Type.Duration: {
      const type = require<Duration>(buffer, field.type(new Duration()));
      return temporal(64, `duration[${timeUnit(buffer, type.unit())}]`);
    }
    default:
      return undefined;
  }
}

function temporal(bits: 32 | 64, name: string): ArrowType {
  return integer(bits === 32 ? "I32" : "I64", bits, name, name);
}

function timeUnit(buffer: MetadataBuffer, unit: number): string {
  return TIME_UNITS[unit] ?? buffer.fail(`a time type has the unknown unit ${unit}`);
}

/** Types that no column is made of, with the number of their own buffers. `version` is the metadata's,
 * counted from 0: unions have had no validity bitmap since V5. */
function parseSkipped(buffer: MetadataBuffer, field: Field, version: number): ArrowType | undefined {
  switch (field.typeType()) {
    case Type.Decimal: {
      const type = require<Decimal>(buffer, field.type(new Decimal()));
      return skipped(`decimal${type.bitWidth()}(${type.precision()}, ${type.scale()})`, 2);
    }
    case Type.Interval: {
      const unit = require<Interval>(buffer, field.type(new Interval())).unit();
      return skipped(`interval[${["year_month", "day_time", "month_day_nano"][unit] ?? unit}]`, 2);
    }
    case Type.Struct_:
      return skipped("struct", 1);
    case Type.Map:
      return skipped("map", 2);
    case Type.Union: {
      const dense = require<Union>(buffer, field.type(new Union())).mode() === 1;
      return skipped(dense ? "dense_union" : "sparse_union", (dense ? 2 : 1) + (version < 4 ? 1 : 0));
    }
    case Type.RunEndEncoded:
      return skipped("run_end_encoded", 0);
    case Type.BinaryView:
      return skipped("binary_view", 2, true);
    case Type.Utf8View:
      return skipped("utf8_view", 2, true);
    case Type.ListView:
      return skipped("list_view", 3);
    case Type.LargeListView:
      return skipped("large_list_view", 3);
    default:
      return undefined;
  }
}

function skipped(name: string, buffers: number, variadic = false): ArrowType {
  return { form: "skipped", name, buffers, variadic };
}
