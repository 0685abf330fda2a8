/** Parquet files as rows, one row group at a time. */
import { type FileMetaData, parquetMetadataAsync, parquetSchema, type SchemaTree } from "hyparquet";
import { HeadraceError, withContext } from "../../errors.ts";
import { describeArrow } from "../../format/arrow.ts";
import { shapeText } from "../../format/dtype.ts";
import { quoted } from "../../format/json.ts";
import { chooseNames } from "../../loader/schema.ts";
import type { ColumnSchema } from "../../types.ts";
import type { PackBatch, PackField, RowSource } from "../rows.ts";
import { rowsPerBatch, sliceColumn } from "./columns.ts";
import { InputFile, withFile } from "./files.ts";
import { bareElement, type ParquetColumn, parquetColumn } from "./parquet-types.ts";
import { asyncBuffer, damageOf, readParquetColumn } from "./parquet-values.ts";
import { badInput, type SourceOptions } from "./source.ts";

interface Survey {
  readonly columns: readonly ParquetColumn[];
  readonly numRows: number;
  /** Of the columns, as stored. */
  readonly byteLength: number;
}

/**
 * Opens Parquet files, which agree on their columns, as the rows of one after those of the other. A row group's columns
 * are decoded one after another and held as arrays until its rows were taken: memory is about that of one row group.
 * Throws `BAD_INPUT`, `UNSUPPORTED_TYPE` and `SCHEMA_MISMATCH` naming file and column, `UNKNOWN_COLUMN`,
 * `SOURCE_NOT_FOUND`, `IO_ERROR`.
 */
export async function openParquet(paths: readonly string[], options: SourceOptions = {}): Promise<RowSource> {
  const surveys: Survey[] = [];
  for (const path of paths) surveys.push(await withFile(path, (file) => surveyOf(file, options)));
  const columns = agreed(paths, surveys);
  return {
    fields: columns.map(({ field }) => field),
    numRows: surveys.reduce((total, { numRows }) => total + numRows, 0),
    byteLength: surveys.reduce((total, { byteLength }) => total + byteLength, 0),
    batches: (signal) => batchesOf(paths, columns, surveys, signal),
    close: async () => {},
  };
}

async function* batchesOf(
  paths: readonly string[],
  columns: readonly ParquetColumn[],
  surveys: readonly Survey[],
  signal: AbortSignal | undefined,
): AsyncGenerator<PackBatch> {
  const names = new Set(columns.map(({ field }) => field.name));
  let sourceBytes = 0;
  for (const [i, path] of paths.entries()) {
    // Files that agree may store a value in ways of their own: times in other units.
    const own = columns.map(({ field }) => surveys[i]!.columns.find((one) => one.field.name === field.name)!);
    const { file, metadata } = await openWithMetadata(path);
    try {
      const bare = { ...metadata, schema: metadata.schema.map(bareElement) };
      let start = 0;
      for (const [index, group] of metadata.row_groups.entries()) {
        const end = start + Number(group.num_rows);
        sourceBytes += groupBytes(group, names);
        const place = { file, metadata: bare, group, start, end, name: `${path}: row group ${index}` };
        if (end > start) yield* groupBatches(own, place, sourceBytes, signal);
        start = end;
      }
    } finally {
      await file.close();
    }
  }
}

async function* groupBatches(
  columns: readonly ParquetColumn[],
  place: Parameters<typeof readParquetColumn>[1],
  sourceBytes: number,
  signal: AbortSignal | undefined,
): AsyncGenerator<PackBatch> {
  const decoded = [];
  for (const column of columns) {
    signal?.throwIfAborted();
    decoded.push(await readParquetColumn(column, place));
  }
  const numRows = place.end - place.start;
  const bytes = decoded.reduce((total, { values }) => total + values.length, 0);
  const step = rowsPerBatch(bytes, numRows);
  for (let start = 0; start < numRows; start += step) {
    signal?.throwIfAborted();
    const end = Math.min(numRows, start + step);
    const cut = decoded.map((column, i) => sliceColumn(columns[i]!.field, column, start, end));
    yield { numRows: end - start, columns: cut, sourceBytes, path: place.file.path };
  }
}

async function openWithMetadata(path: string): Promise<{ file: InputFile; metadata: FileMetaData }> {
  const file = await InputFile.open(path);
  try {
    return { file, metadata: await metadataOf(file) };
  } catch (error) {
    await file.close();
    throw error;
  }
}

/** The footer, whose schema makes a tree. */
async function metadataOf(file: InputFile): Promise<FileMetaData> {
  try {
    const metadata = await parquetMetadataAsync(asyncBuffer(file), { geoparquet: false });
    if (parquetSchema(metadata).children.every(isNamed)) return metadata;
    throw new RangeError("its schema has columns without a name");
  } catch (cause) {
    if (cause instanceof HeadraceError && cause.code !== "BAD_INPUT") throw cause;
    throw badInput(file.path, `is no Parquet file that can be read: ${damageOf(cause)}`, cause);
  }
}

function isNamed({ element, children }: SchemaTree): boolean {
  return typeof element.name === "string" && children.every(isNamed);
}

async function surveyOf(file: InputFile, options: SourceOptions): Promise<Survey> {
  const metadata = await metadataOf(file);
  return withContext(file.path, () => {
    const { children } = parquetSchema(metadata);
    const names = children.map(({ element }) => element.name);
    const chosen = new Set(options.columns === undefined ? names : chooseNames(names, options.columns));
    const plain = children.filter(({ element }) => chosen.has(element.name)).map(parquetColumn);
    const lists = plain.filter(({ field }) => field.kind === "list").map(({ field }) => field.name);
    const fixed = fixedLists(metadata, lists);
    const columns = plain.map((column) => asVector(column, fixed.get(column.field.name)));
    if (new Set(names).size < names.length) throw badInput("its schema", "two columns have one name");
    if (columns.length === 0) throw badInput("its schema", "there is no column");
    const groups = metadata.row_groups;
    const numRows = groups.reduce((total, { num_rows }) => total + Number(num_rows), 0);
    if (Number.isNaN(numRows) || metadata.num_rows === undefined)
      throw badInput("its footer", "a number of rows is missing");
    if (numRows !== Number(metadata.num_rows)) {
      throw badInput(
        "its footer",
        `row groups have ${numRows} rows together, and the file ${metadata.num_rows}`,
      );
    }
    return {
      columns,
      numRows,
      byteLength: groups.reduce((total, group) => total + groupBytes(group, chosen), 0),
    };
  });
}

/** The Arrow schema that Arrow's writers leave in a file knows which lists are of one length; Parquet has no type for it. */
function fixedLists(
  { key_value_metadata: pairs }: FileMetaData,
  names: readonly string[],
): ReadonlyMap<string, ColumnSchema> {
  const text = pairs?.find(({ key }) => key === "ARROW:schema")?.value;
  if (text === undefined) return new Map();
  try {
    const bytes = Buffer.from(text, "base64");
    const { rows } = describeArrow((at, length) => bytes.subarray(at, at + length), bytes.length, names);
    const fixed = rows!.schema.columns.filter(({ ragged, shape }) => !ragged && shape.length === 1);
    return new Map(fixed.map((column) => [column.name, column]));
  } catch {
    // A hint and no more: without it the lists are lists.
    return new Map();
  }
}

function asVector(column: ParquetColumn, hint: ColumnSchema | undefined): ParquetColumn {
  const { field } = column;
  if (field.kind !== "list" || hint?.dtype !== field.dtype) return column;
  return { ...column, isVector: true, field: { ...field, kind: "fixed", shape: hint.shape } };
}

function groupBytes({ columns }: FileMetaData["row_groups"][number], names: ReadonlySet<string>): number {
  return columns.reduce((total, { meta_data: meta }) => {
    const name = meta?.path_in_schema[0];
    return name !== undefined && names.has(name) ? total + Number(meta!.total_compressed_size) : total;
  }, 0);
}

/** The columns of all files: the first one's, nullable where any is. */
function agreed(paths: readonly string[], surveys: readonly Survey[]): readonly ParquetColumn[] {
  const [first] = surveys;
  if (first === undefined) throw new HeadraceError("SOURCE_EMPTY", "the source names no Parquet file");
  const nullable = new Set<string>();
  surveys.forEach(({ columns }, i) => {
    const byName = new Map(columns.map(({ field }) => [field.name, field]));
    for (const { field } of first.columns) {
      const other = byName.get(field.name);
      if (
        other === undefined ||
        fieldText(other) !== fieldText(field) ||
        byName.size !== first.columns.length
      ) {
        const has = other === undefined ? "none" : fieldText(other);
        throw new HeadraceError(
          "SCHEMA_MISMATCH",
          `${paths[i]}: column ${quoted(field.name)} is ${has} of ${byName.size} columns, and ${fieldText(field)} of ` +
            `${first.columns.length} in ${paths[0]}; choose those that agree by --columns`,
        );
      }
      if (other.nullable) nullable.add(field.name);
    }
  });
  return first.columns.map((column) => ({
    ...column,
    field: { ...column.field, nullable: nullable.has(column.field.name) },
  }));
}

function fieldText({ kind, dtype, shape }: PackField): string {
  return kind === "fixed" ? `${dtype}${shape.length === 0 ? "" : shapeText(shape)}` : `${kind} of ${dtype}`;
}
