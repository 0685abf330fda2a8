/**
 * What files of outputs consist of: their columns, and where each lies. Pure: a layout is computed from numbers of rows
 * and elements alone, and whoever writes puts bytes where it says.
 */
import { HeadraceError } from "../errors.ts";
import type { DType } from "../types.ts";
import { dtypeBits } from "./dtype.ts";

/** One column of a file. */
export interface OutputField {
  readonly name: string;
  /** `fixed`: `length` elements a row, or one where that is absent. `list`: any number of them. `utf8`: text. `name`:
   * text that all rows of a file share. */
  readonly kind: "fixed" | "list" | "utf8" | "name";
  /** Of the elements: U8 for `utf8`, I32 for `name`. */
  readonly dtype: DType;
  readonly length?: number | undefined;
  readonly nullable: boolean;
}

/** How much of a field some consecutive rows hold. */
export interface FieldSize {
  /** Elements of all rows together: of `list` and `utf8` alone. */
  readonly elements: number;
  readonly nullCount: number;
}

/** Consecutive rows that lie together, and what they hold of each field, in the order of the fields. */
export interface GroupSize {
  readonly numRows: number;
  readonly fields: readonly FieldSize[];
}

/** Where a field's parts of one group lie, in bytes of the file. */
export interface FieldPlace {
  /** One bit a row, least significant first; absent where the format or the field knows no nulls. */
  readonly validity?: number | undefined;
  /** `numRows + 1` integers of `width` bytes that count elements: of `list` and `utf8`. */
  readonly offsets?: { readonly at: number; readonly width: 4 | 8 } | undefined;
  readonly values: number;
}

export interface GroupPlace {
  readonly rowStart: number;
  readonly numRows: number;
  readonly fields: readonly FieldPlace[];
}

/** A whole file. Bytes that neither a piece nor a place covers are zeros. */
export interface FileLayout {
  readonly byteLength: number;
  /** Headers, footers and all else that is not a column's. */
  readonly pieces: readonly { readonly at: number; readonly bytes: Uint8Array }[];
  readonly groups: readonly GroupPlace[];
}

/** Gives `length` bytes of a file from `at` on; throws where there are fewer. */
export type OutputReader = (at: number, length: number) => Promise<Uint8Array>;

/** A format of files of outputs. Fields of fixed size come before all others. */
export interface OutputFormat {
  /** With its dot. */
  readonly extension: string;
  /** Bytes that one group may hold of one field; a row that holds more has no place in the format. */
  readonly maxFieldBytes: number;
  /** Where the format can say that a value is missing; elsewhere it is empty, or zeros. */
  readonly hasNulls: boolean;
  /** Throws `UNSUPPORTED_TYPE` for a field that the format has no type for. */
  check(field: OutputField): void;
  /** `shared` is the text of fields of kind `name`. */
  layout(fields: readonly OutputField[], shared: string, groups: readonly GroupSize[]): FileLayout;
  /** The groups that a file of {@link OutputFormat.layout} was laid out for, as it says itself. Throws any error for a file
   * that is damaged, and may take damage for groups that make no sense. */
  groups(read: OutputReader, byteLength: number, fields: readonly OutputField[]): Promise<GroupSize[]>;
}

/** Bytes of one row of a field of fixed size. */
export function rowBytesOf({ dtype, length }: OutputField): number {
  return (dtypeBits(dtype) / 8) * (length ?? 1);
}

/** Bytes of one element. */
export function elementBytesOf({ dtype }: OutputField): number {
  return dtypeBits(dtype) / 8;
}

export function isVariable({ kind }: OutputField): boolean {
  return kind === "list" || kind === "utf8";
}

/** Where the first group's fields of fixed size lie, which depends on nothing but the number of its rows: they may be
 * written before anything else is known. `end` is past all of them. */
export function fixedPlaces(
  format: OutputFormat,
  fields: readonly OutputField[],
  shared: string,
  numRows: number,
): { readonly fields: readonly FieldPlace[]; readonly end: number } {
  const sizes = fields.map(() => ({ elements: 0, nullCount: 0 }));
  const { groups } = format.layout(fields, shared, [{ numRows, fields: sizes }]);
  const places = groups[0]!.fields;
  let end = 0;
  fields.forEach((field, i) => {
    if (!isVariable(field)) end = Math.max(end, places[i]!.values + numRows * rowBytesOf(field));
  });
  return { fields: places, end };
}

/** `at`, or the next multiple of `alignment` behind it. */
export function alignedTo(at: number, alignment: number): number {
  return Math.ceil(at / alignment) * alignment;
}

/** For fields that a format cannot store. */
export function noType(field: OutputField, format: string, remedy: string): HeadraceError {
  const what = `column ${JSON.stringify(field.name)} is of ${field.dtype}`;
  return new HeadraceError("UNSUPPORTED_TYPE", `${what}, which ${format} has no type for; ${remedy}`);
}
