/** What `verify` looks for in values: bounds that are listed, and text that is UTF-8. */
import { isUtf8 } from "node:buffer";
import { HeadraceError } from "../errors.ts";
import type { ManifestShard } from "../format/manifest.ts";
import type { Column } from "../loader/batch.ts";
import type { ColumnSchema } from "../types.ts";
import { isNumeric, Range } from "./stats.ts";

/** What a column holds, to be compared with what is listed. */
export interface Bounds {
  readonly name: string;
  readonly range: Range;
  nulls: number;
}

/** The columns of which the least and largest value and the nulls are listed. */
export function boundsOf(columns: readonly ColumnSchema[], listed: ManifestShard | undefined): Bounds[] {
  return columns.flatMap(({ name, dtype, ragged, logical }) => {
    const kind = ragged ? "list" : "fixed";
    const known = listed?.columns !== undefined && Object.hasOwn(listed.columns, name);
    if (!known || logical !== "number" || !isNumeric({ kind, dtype })) return [];
    return [{ name, range: new Range(dtype), nulls: 0 }];
  });
}

/** Takes the values of a batch. */
export function addBounds(bounds: Bounds, column: Column): void {
  const { view } = column;
  const bytes = new Uint8Array(view.buffer as ArrayBuffer, view.byteOffset, view.byteLength);
  const rows = column.offsets === undefined ? column.shape[0]! : column.offsets.shape[0]! - 1;
  const validity = column.validity?.view as Uint8Array | undefined;
  const start = (row: number) =>
    column.offsets === undefined ? (row * view.length) / rows : Number(column.offsets.view[row]);
  for (let row = 0; row < rows; ) {
    if (validity?.[row] === 0) {
      bounds.nulls++;
      row++;
      continue;
    }
    const from = row;
    if (validity === undefined) row = rows;
    else while (row < rows && validity[row] !== 0) row++;
    bounds.range.add(bytes, start(from), start(row));
  }
}

/** Throws `DIGEST_MISMATCH`. */
export function checkBounds(path: string, bounds: readonly Bounds[], { columns }: ManifestShard): void {
  for (const { name, range, nulls } of bounds) {
    const found = { ...range.result(), nulls };
    const listed = columns![name]!;
    for (const what of ["min", "max", "nulls"] as const) {
      if (found[what] === listed[what]) continue;
      const text = `${path}: column ${JSON.stringify(name)} has ${what} ${found[what] ?? "none"}, and dataset.json lists ${listed[what] ?? "none"}`;
      throw new HeadraceError("DIGEST_MISMATCH", text);
    }
  }
}

/** Throws `BAD_INPUT` for a row that is no UTF-8; `firstRow` is the number of the batch's first one. */
export function checkText(path: string, column: Column, firstRow: number): void {
  if (column.dictionary !== undefined || column.offsets === undefined) return;
  const bytes = column.view as Uint8Array;
  const rows = column.offsets.shape[0]! - 1;
  // Characters that are whole in all do not make each row's whole.
  const starts = column.offsets.view;
  let whole = isUtf8(bytes);
  for (let row = 1; row < rows && whole; row++) whole = ((bytes[Number(starts[row])] ?? 0) & 0xc0) !== 0x80;
  if (whole) return;
  for (let row = 0; row < rows; row++) {
    if (isUtf8(column.row(row) as Uint8Array)) continue;
    const text = `${path}: row ${firstRow + row} of column ${JSON.stringify(column.name)} is no UTF-8`;
    throw new HeadraceError("BAD_INPUT", text);
  }
}
