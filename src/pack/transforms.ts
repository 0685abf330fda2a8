/** What happens to rows between their source and the shards: columns chosen, renamed, cast. */
import { HeadraceError } from "../errors.ts";
import { didYouMean } from "../format/suggest.ts";
import { chooseNames } from "../loader/schema.ts";
import type { DType } from "../types.ts";
import { CAST_TYPES, Caster, type CastType, castBytes, isCastType } from "./cast.ts";
import type { PackOptions } from "./options.ts";
import type { PackBatch, PackColumn, PackField } from "./rows.ts";
import { badInput } from "./sources/source.ts";

/** Rows of some fields as rows of others. */
export interface Applied {
  /** What {@link Applied.apply} gives. */
  readonly fields: readonly PackField[];
  /** The rows of one batch, which is borrowed: what comes back is valid until the next call, as long as `batch` is. */
  apply(batch: PackBatch): PackBatch | Promise<PackBatch>;
  /** Ends what it holds; nothing is applied afterwards. */
  close?(): Promise<void>;
}

/** A step between a source and the shards. Throws `UNKNOWN_COLUMN` and `BAD_OPTION` where it does not fit the fields. */
export type Transform = (fields: readonly PackField[]) => Applied;

/** Columns whose names or patterns are in `patterns`, in the source's order. Throws `UNKNOWN_COLUMN`. */
export function selectColumns(patterns: readonly string[]): Transform {
  return (fields) => {
    const names = new Set(
      chooseNames(
        fields.map(({ name }) => name),
        patterns,
      ),
    );
    const kept = fields.flatMap(({ name }, i) => (names.has(name) ? [i] : []));
    return {
      fields: kept.map((i) => fields[i]!),
      apply: (batch) => ({ ...batch, columns: kept.map((i) => batch.columns[i]!) }),
    };
  };
}

/** Columns under other names: `{ old: new }`. Throws `UNKNOWN_COLUMN`, and `BAD_OPTION` where two would have one name. */
export function renameColumns(names: Readonly<Record<string, string>>): Transform {
  return (fields) => {
    for (const name of Object.keys(names)) fieldIndex(fields, name);
    const renamed = fields.map((field) =>
      Object.hasOwn(names, field.name) ? { ...field, name: names[field.name]! } : field,
    );
    checkNames(renamed);
    return { fields: renamed, apply: (batch) => batch };
  };
}

/**
 * Numbers as numbers of another type: `casts` has the type by column name or pattern; of several that match, the first.
 * Floats are rounded to the nearest, ties to even, and become infinite where they are too large.
 * What an integer type cannot hold throws `BAD_INPUT` with file, row and value, or becomes the nearest that it can with
 * `saturate`. `source` is what messages name where batches name no file. Lists are cast element by element. Throws `UNKNOWN_COLUMN`, and `BAD_OPTION` for columns of text
 * or bytes and for types that are not cast.
 */
export function castColumns(
  casts: Readonly<Record<string, DType>>,
  saturate = false,
  source = "the source",
): Transform {
  return (fields) => {
    const targets = targetsOf(fields, casts);
    const columns = fields.map((field, i) => {
      const to = targets[i];
      return to === undefined || to === field.dtype ? undefined : castColumn(field, to, saturate);
    });
    let row = 0;
    let path: string | undefined;
    return {
      fields: fields.map((field, i) => (targets[i] === undefined ? field : { ...field, dtype: targets[i] })),
      apply: (batch) => {
        if (batch.path !== path) row = 0;
        path = batch.path;
        const first = row;
        const place = (inBatch: number) => `${batch.path ?? source}: row ${first + inBatch}`;
        row += batch.numRows;
        return {
          ...batch,
          columns: batch.columns.map((one, i) => columns[i]?.(one, batch.numRows, place) ?? one),
        };
      },
    };
  };
}

/** The index of the column `name`. Throws `UNKNOWN_COLUMN` with the nearest name. */
export function fieldIndex(fields: readonly PackField[], name: string): number {
  const index = fields.findIndex((field) => field.name === name);
  if (index >= 0) return index;
  const names = fields.map((field) => field.name);
  throw new HeadraceError(
    "UNKNOWN_COLUMN",
    `there is no column ${JSON.stringify(name)} among the ${names.length} of the source${didYouMean(name, names)}`,
  );
}

/**
 * Throws `BAD_INPUT` where two columns of a source that `columns` chooses have one name, or one has none and `rename` gives it
 * none: no reader could tell them apart. `place` names the source.
 */
export function checkSourceNames(
  fields: readonly PackField[],
  { columns, rename = {} }: Pick<PackOptions, "columns" | "rename">,
  place: string,
): void {
  const names = fields.map(({ name }) => name);
  const chosen = new Set(columns === undefined ? names : chooseNames(names, columns));
  const others = "name the others by --columns";
  for (const name of chosen) {
    const count = names.filter((one) => one === name).length;
    const column = `column ${JSON.stringify(name)}`;
    if (count > 1)
      throw badInput(
        place,
        `${column} comes ${count} times; ${others}, or rename one in the source (--rename means both)`,
      );
    if (name === "" && !Object.hasOwn(rename, name))
      throw badInput(place, `${column} has no name; give it one by --rename =NAME, or ${others}`);
  }
}

/** Throws `BAD_OPTION` where two columns have one name, or one has none. */
export function checkNames(fields: readonly PackField[]): void {
  const seen = new Set<string>();
  for (const { name } of fields) {
    if (name === "")
      throw new HeadraceError("BAD_OPTION", "rename: the new name of a column is empty; give it one");
    if (seen.size === seen.add(name).size) {
      throw new HeadraceError(
        "BAD_OPTION",
        `two columns would be named ${JSON.stringify(name)}; rename or leave out one of them`,
      );
    }
  }
}

function targetsOf(
  fields: readonly PackField[],
  casts: Readonly<Record<string, DType>>,
): (CastType | undefined)[] {
  const names = fields.map(({ name }) => name);
  const targets: (CastType | undefined)[] = fields.map(() => undefined);
  for (const [pattern, to] of Object.entries(casts)) {
    const chosen = new Set(chooseNames(names, [pattern]));
    fields.forEach((field, i) => {
      if (!chosen.has(field.name)) return;
      checkCast(field, to);
      targets[i] ??= to;
    });
  }
  return targets;
}

function checkCast({ name, kind, dtype }: PackField, to: DType): asserts to is CastType {
  const isText = kind === "utf8" || kind === "binary";
  if (!isText && isCastType(dtype) && isCastType(to)) return;
  const what = isText ? (kind === "utf8" ? "text" : "bytes") : dtype;
  throw new HeadraceError(
    "BAD_OPTION",
    `column ${JSON.stringify(name)} holds ${what}, which cannot be cast to ${to}; casts are between ${CAST_TYPES.join(", ")}`,
  );
}

/** Casts one column's batches; `placeOf` is where a batch's row stands, for messages. */
function castColumn(
  field: PackField,
  to: CastType,
  saturate: boolean,
): (column: PackColumn, numRows: number, placeOf: (row: number) => string) => PackColumn {
  const from = field.dtype as CastType;
  const caster = new Caster(from, to, saturate);
  const width = field.shape.reduce((a, b) => a * b, 1);
  let memory = new Uint8Array(0);
  return (column, numRows, placeOf) => {
    // A batch that was cut short may have values behind its rows.
    const count = column.offsets === undefined ? numRows * width : column.offsets[numRows]!;
    const length = count * castBytes(to);
    if (memory.length < length) memory = new Uint8Array(2 * length);
    const values = memory.subarray(0, length);
    const misfit = caster.cast(column.values.subarray(0, count * castBytes(from)), values);
    if (misfit === undefined) return { ...column, values };
    const row =
      column.offsets === undefined ? Math.floor(misfit.index / width) : rowOf(column.offsets, misfit.index);
    throw badInput(
      placeOf(row),
      `column ${JSON.stringify(field.name)} has ${misfit.value}, which ${to} cannot hold; ` +
        "cast to a wider type, or take the nearest by --saturate",
    );
  };
}

/** The row whose elements `[offsets[row], offsets[row + 1])` hold element `index`. */
function rowOf(offsets: Int32Array, index: number): number {
  let row = 0;
  while (offsets[row + 1]! <= index) row++;
  return row;
}
