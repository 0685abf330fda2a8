/** Turns Arrow fields into columns, or says why that cannot be done. */
import type { ColumnSchema, Shape } from "../types.ts";
import { type ArrowField, type ArrowType, typeName } from "./arrow-types.ts";

type FixedType = ArrowType & { readonly form: "fixed" };

/** How the arrays of a column lie in a record batch; what {@link ColumnForm.kind} lacks is absent. */
export type ArrayForm =
  /** `listSizes` are the fixed-size lists around each element, outermost first. */
  | { readonly kind: "fixed"; readonly listSizes: Shape; readonly element: FixedType }
  /** Variable lists of what `listSizes` and `element` describe. */
  | {
      readonly kind: "list";
      readonly offsetWidth: 4 | 8;
      readonly listSizes: Shape;
      readonly element: FixedType;
    }
  /** Strings: variable lists of bytes that have no node of their own. */
  | { readonly kind: "bytes"; readonly offsetWidth: 4 | 8 };

/** A column and how to find it. */
export interface ColumnForm {
  readonly schema: ColumnSchema;
  /** Of the arrays in record batches: of the codes, where the column has a dictionary. */
  readonly array: ArrayForm;
  readonly dictionary?: { readonly id: bigint; readonly array: ArrayForm };
}

/** The column that a field becomes, or the reason why it cannot, as the end of a sentence. */
export function columnForm(field: ArrowField): ColumnForm | { readonly unsupported: string } {
  const array = arrayForm(field);
  if (typeof array === "string") return { unsupported: array };
  const values = valuesSchema(field, array);
  if (field.dictionary === undefined) return { schema: values, array };
  const { id, index } = field.dictionary;
  const schema: ColumnSchema = {
    name: field.name,
    dtype: "I32",
    shape: [],
    ragged: false,
    logical: `dictionary<${dictionaryLogical(field, values)}>`,
    nullable: field.nullable,
    dictionary: values,
  };
  return { schema, array: { kind: "fixed", listSizes: [], element: index }, dictionary: { id, array } };
}

/** The form of a field's values (its dictionary's entries, where it has one), or why there is none. */
function arrayForm(field: ArrowField): ArrayForm | string {
  const { type } = field;
  if (type.form === "bytes") return { kind: "bytes", offsetWidth: type.offsetWidth };
  if (type.form !== "list") return fixedForm(field, "fixed");
  const child = field.children[0];
  if (child === undefined) return "lists without an element type are not supported";
  if (child.dictionary !== undefined) return "lists of dictionary codes are not supported";
  const elements = fixedForm(child, "list");
  if (typeof elements === "string") return elements;
  if (elements.element.bits === 1) return "lists of bool are not supported";
  return { ...elements, kind: "list", offsetWidth: type.offsetWidth };
}

function fixedForm(field: ArrowField, inside: "fixed" | "list") {
  const listSizes: number[] = [];
  let inner = field;
  while (inner.type.form === "fixed-list") {
    listSizes.push(inner.type.size);
    const child = inner.children[0];
    if (child === undefined) return "lists without an element type are not supported";
    if (child.dictionary !== undefined) return "lists of dictionary codes are not supported";
    inner = child;
  }
  const element = inner.type;
  if (element.form !== "fixed") {
    if (inner !== field || inside === "list")
      return "only lists of numbers and of fixed-size lists of numbers are supported";
    return `${element.name} is not supported`;
  }
  // Zeros are left out so that the dimensions can be multiplied in any order.
  const bits = [...listSizes, element.bits].filter((size) => size > 0).reduce((a, b) => a * b, 1);
  if (!Number.isSafeInteger(bits)) return "one row is larger than 2^53 bits";
  return { kind: "fixed", listSizes, element } as const;
}

function valuesSchema(field: ArrowField, array: ArrayForm): ColumnSchema {
  const { name, nullable, type } = field;
  if (array.kind === "bytes") {
    const logical = type.form === "bytes" ? type.logical : "binary";
    return { name, dtype: "U8", shape: [], ragged: true, logical, nullable };
  }
  const { listSizes, element } = array;
  const shape = [...listSizes, ...element.shape];
  const ragged = array.kind === "list";
  return { name, dtype: element.dtype, shape, ragged, logical: element.logical, nullable };
}

/** What stands in `dictionary<…>`: the meaning of the entries, or their type where that says no more. */
function dictionaryLogical(field: ArrowField, values: ColumnSchema): string {
  const plain = { name: field.name, nullable: field.nullable, type: field.type, children: field.children };
  const isList = field.type.form === "list" || field.type.form === "fixed-list";
  return values.logical === "number" || isList ? typeName(plain) : values.logical;
}
