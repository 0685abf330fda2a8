/** Columns of rows that are gathered, cut and measured. */
import { dtypeBits } from "../format/dtype.ts";
import type { ColumnSchema, DType, Schema } from "../types.ts";
import type { PackFormat } from "./options.ts";
import type { PackBatch, PackColumn, PackField } from "./rows.ts";

/** Bytes of one element as batches carry it. */
export function elementBytesOf(dtype: DType): number {
  return dtypeBits(dtype) / 8;
}

/** Bytes of one row of a `fixed` field. */
export function rowBytesOf({ dtype, shape }: PackField): number {
  return elementBytesOf(dtype) * shape.reduce((a, b) => a * b, 1);
}

/** Bytes of all values of `column`, whose rows end at `row`. */
export function valueBytes(field: PackField, column: PackColumn, row: number): number {
  if (field.kind === "fixed") return row * rowBytesOf(field);
  return column.offsets![row]! * elementBytesOf(field.dtype);
}

/** Bytes that a batch's values take. */
export function batchBytes(fields: readonly PackField[], batch: PackBatch): number {
  return fields.reduce((total, field, i) => total + valueBytes(field, batch.columns[i]!, batch.numRows), 0);
}

/** The columns as they are read back from files of `format`. */
export function schemaOf(fields: readonly PackField[], format: PackFormat): Schema {
  const columns = fields.map(({ name, kind, dtype, shape, nullable }): ColumnSchema => {
    const text = kind === "utf8" || kind === "binary";
    return {
      name,
      dtype: text ? "U8" : dtype,
      shape: kind === "fixed" ? shape : [],
      ragged: kind !== "fixed",
      logical: text && format === "arrow" ? kind : "number",
      nullable: nullable && format === "arrow",
    };
  });
  // Tensors of a file have no order of their own.
  if (format === "safetensors") columns.sort((a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0));
  return { columns };
}
