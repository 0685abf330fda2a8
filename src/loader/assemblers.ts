/** Chooses how a column is assembled. */
import type { ColumnSchema } from "../types.ts";
import { CodesColumn, type ColumnAssembler, FixedColumn } from "./columns.ts";
import type { DatasetDictionary } from "./dictionary.ts";
import { PaddedColumn, RaggedColumn } from "./ragged.ts";

/** The assembler for `column`, the `position`-th of its schema. */
export function assemblerOf(
  column: ColumnSchema,
  position: number,
  dictionary: DatasetDictionary | undefined,
  pad: { readonly multiple: number; readonly value: number } | undefined,
): ColumnAssembler {
  if (dictionary !== undefined) return new CodesColumn(column, position, dictionary);
  if (!column.ragged) return new FixedColumn(column, position);
  return pad === undefined ? new RaggedColumn(column, position) : new PaddedColumn(column, position, pad);
}
