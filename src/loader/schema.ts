/** What several shards have in common, and which of it a caller wants. */
import { HeadraceError } from "../errors.ts";
import { didYouMean } from "../format/suggest.ts";
import type { ColumnSchema, Schema } from "../types.ts";

/** One line that tells a column's type: `tokens: ragged I32`, `image: U8[28, 28]`. */
export function columnText(column: ColumnSchema): string {
  const shape = column.shape.length > 0 ? `[${column.shape.join(", ")}]` : "";
  const logical = column.logical === "number" ? "" : ` (${column.logical})`;
  return `${column.ragged ? "ragged " : ""}${column.dtype}${shape}${logical}`;
}

/** {@link columnText} with the type of a dictionary's entries. */
function fullText(column: ColumnSchema): string {
  const entries = column.dictionary;
  return columnText(column) + (entries === undefined ? "" : ` with entries of ${columnText(entries)}`);
}

/** Throws `SCHEMA_MISMATCH` naming the shard and the field unless `schema` has the columns of `expected`
 * with the same types. Order and nullability may differ; columns that `expected` lacks are ignored when
 * `subset` is set. */
export function checkAgreement(
  expected: Schema,
  expectedName: string,
  schema: Schema,
  name: string,
  subset: boolean,
): void {
  const byName = new Map(schema.columns.map((column) => [column.name, column]));
  for (const column of expected.columns) {
    const other = byName.get(column.name);
    byName.delete(column.name);
    if (other === undefined) {
      throw new HeadraceError(
        "SCHEMA_MISMATCH",
        `${name}: has no column ${column.name}, which ${expectedName} has as ${columnText(column)}`,
      );
    }
    if (!sameType(other, column)) {
      throw new HeadraceError(
        "SCHEMA_MISMATCH",
        `${name}: column ${column.name} is ${fullText(other)}, but ${fullText(column)} in ${expectedName}`,
      );
    }
  }
  const extra = subset ? undefined : byName.values().next().value;
  if (extra !== undefined) {
    throw new HeadraceError(
      "SCHEMA_MISMATCH",
      `${name}: has column ${extra.name}, which ${expectedName} has not`,
    );
  }
}

/** Whether two columns hold the same, and their dictionaries too where they have one. */
function sameType(a: ColumnSchema, b: ColumnSchema): boolean {
  if (columnText(a) !== columnText(b)) return false;
  if (a.dictionary === undefined || b.dictionary === undefined) return a.dictionary === b.dictionary;
  return sameType(a.dictionary, b.dictionary);
}

/** The names among `available` that `wanted` asks for, in the order of `available`. A wanted name is exact,
 * or a pattern with `*`, `?` or `[…]`. Throws `UNKNOWN_COLUMN` with the nearest name. */
export function chooseNames(available: readonly string[], wanted: readonly string[]): string[] {
  const chosen = new Set<string>();
  const exact = new Set(available);
  for (const name of wanted) {
    if (exact.has(name)) {
      chosen.add(name);
      continue;
    }
    const pattern = /[*?[]/.test(name) ? new Bun.Glob(name) : undefined;
    const matches = pattern === undefined ? [] : available.filter((one) => pattern.match(one));
    if (matches.length === 0) throw unknownColumn(available, name);
    for (const match of matches) chosen.add(match);
  }
  return available.filter((name) => chosen.has(name));
}

function unknownColumn(available: readonly string[], name: string): HeadraceError {
  const list = available.slice(0, 12).join(", ") + (available.length > 12 ? ", …" : "");
  const hint = didYouMean(name, available);
  return new HeadraceError("UNKNOWN_COLUMN", `there is no column ${name}${hint} (there are: ${list})`);
}
