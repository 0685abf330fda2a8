/** The flatbuffer of a schema, as files that are written here have it. */
import { Binary } from "apache-arrow/fb/binary";
import { Bool } from "apache-arrow/fb/bool";
import { DictionaryEncoding } from "apache-arrow/fb/dictionary-encoding";
import { Field } from "apache-arrow/fb/field";
import { FixedSizeList } from "apache-arrow/fb/fixed-size-list";
import { FloatingPoint } from "apache-arrow/fb/floating-point";
import { Int } from "apache-arrow/fb/int";
import { List } from "apache-arrow/fb/list";
import { Schema } from "apache-arrow/fb/schema";
import { Type } from "apache-arrow/fb/type";
import { Utf8 } from "apache-arrow/fb/utf8";
import type { Builder } from "flatbuffers";
import type { DType, Shape } from "../types.ts";

/** Precisions by their number: half, single, double. */
const FLOATS: Readonly<Record<string, number>> = { F16: 0, F32: 1, F64: 2 };
const INTEGER = /^([IU])(8|16|32|64)$/;

/** A column of a file that is written. */
export interface SchemaField {
  readonly name: string;
  /** `fixed`: the same number of elements in each row. `list`: any number. `utf8`, `binary`: bytes. `name`: text from a
   * dictionary, by its number among the fields. */
  readonly kind: "fixed" | "list" | "utf8" | "binary" | "name";
  /** Of the elements of `fixed` and `list`. */
  readonly dtype: DType;
  /** `fixed`: dimensions of one row, outermost first; where there is but one, `length` may say it. */
  readonly shape?: Shape | undefined;
  readonly length?: number | undefined;
  readonly nullable: boolean;
}

/** Whether there is a type for elements of `dtype`. */
export function hasArrowType(dtype: string): boolean {
  return INTEGER.test(dtype) || dtype in FLOATS || dtype === "BOOL";
}

/** The fixed-size lists around each element of a field, outermost first. */
export function listSizesOf({ kind, shape, length }: SchemaField): Shape {
  if (kind !== "fixed") return [];
  return shape ?? (length === undefined ? [] : [length]);
}

/** Adds the table of a schema. */
export function schemaTable(builder: Builder, fields: readonly SchemaField[]): number {
  const offsets = fields.map((field, id) => fieldTable(builder, field, id));
  return Schema.createSchema(builder, 0, Schema.createFieldsVector(builder, offsets), 0, 0);
}

function fieldTable(builder: Builder, field: SchemaField, id: number): number {
  const { name, nullable, kind } = field;
  const text = () => ({ type: Type.Utf8, at: Utf8.createUtf8(builder) });
  if (kind === "utf8") return makeField(builder, name, nullable, text(), []);
  if (kind === "name") {
    const index = Int.createInt(builder, 32, true);
    DictionaryEncoding.startDictionaryEncoding(builder);
    DictionaryEncoding.addId(builder, BigInt(id));
    DictionaryEncoding.addIndexType(builder, index);
    const dictionary = DictionaryEncoding.endDictionaryEncoding(builder);
    return makeField(builder, name, nullable, text(), [], dictionary);
  }
  if (kind === "binary") {
    return makeField(builder, name, nullable, { type: Type.Binary, at: Binary.createBinary(builder) }, []);
  }
  // Built from the inside out: flatbuffers refer backwards.
  let type = elementType(builder, field);
  let children: number[] = [];
  for (const size of listSizesOf(field).toReversed()) {
    children = [makeField(builder, "item", false, type, children)];
    type = { type: Type.FixedSizeList, at: FixedSizeList.createFixedSizeList(builder, size) };
  }
  if (kind === "list") {
    children = [makeField(builder, "item", false, type, children)];
    type = { type: Type.List, at: List.createList(builder) };
  }
  return makeField(builder, name, nullable, type, children);
}

function elementType(builder: Builder, { dtype }: SchemaField): { type: Type; at: number } {
  const integer = INTEGER.exec(dtype);
  if (integer !== null) {
    return { type: Type.Int, at: Int.createInt(builder, Number(integer[2]), integer[1] === "I") };
  }
  if (dtype === "BOOL") return { type: Type.Bool, at: Bool.createBool(builder) };
  return {
    type: Type.FloatingPoint,
    at: FloatingPoint.createFloatingPoint(builder, FLOATS[dtype]!),
  };
}

function makeField(
  builder: Builder,
  name: string,
  nullable: boolean,
  { type, at }: { type: Type; at: number },
  children: number[],
  dictionary?: number,
): number {
  const nameAt = builder.createString(name);
  // Readers of C++ want the vector of children also where it is empty.
  const childrenAt = Field.createChildrenVector(builder, children);
  Field.startField(builder);
  Field.addName(builder, nameAt);
  Field.addNullable(builder, nullable);
  Field.addTypeType(builder, type);
  Field.addType(builder, at);
  if (dictionary !== undefined) Field.addDictionary(builder, dictionary);
  Field.addChildren(builder, childrenAt);
  return Field.endField(builder);
}
