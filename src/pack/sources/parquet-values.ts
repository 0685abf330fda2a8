/** The values of one column of one row group of a Parquet file, as a column of rows. */

import { gunzipSync, zstdDecompressSync } from "node:zlib";
import {
  type AsyncBuffer,
  type DecodedArray,
  type FileMetaData,
  parquetRead,
  parquetSchema,
  type RowGroup,
} from "hyparquet";
import { getTreePath } from "hyparquet/src/schema.js";
import { compressors } from "hyparquet-compressors";
import { HeadraceError } from "../../errors.ts";
import { typedView } from "../../format/dtype.ts";
import { quoted } from "../../format/json.ts";
import type { TypedArray } from "../../types.ts";
import type { PackColumn } from "../rows.ts";
import { bytesColumn, checkUtf8, MAX_COLUMN_BYTES, Presence, unitBytes } from "./columns.ts";
import type { InputFile } from "./files.ts";
import { checkPages } from "./parquet-pages.ts";
import type { ParquetColumn } from "./parquet-types.ts";
import { badInput } from "./source.ts";

/** Rows of one column. */
export interface ColumnPlace {
  readonly file: InputFile;
  /** Without the meanings of values. */
  readonly metadata: FileMetaData;
  readonly group: RowGroup;
  /** Rows `[start, end)` of the file, which are a row group. */
  readonly start: number;
  readonly end: number;
  /** For messages: file and row group. */
  readonly name: string;
}

const MAX_CAUSE_LENGTH = 200;

/** The system's own code where there is one; no page may grow beyond what its header says. */
const COMPRESSORS = {
  ...compressors,
  GZIP: (input: Uint8Array, length: number) => gunzipSync(input, { maxOutputLength: Math.max(1, length) }),
  ZSTD: (input: Uint8Array, length: number) =>
    zstdDecompressSync(input, { maxOutputLength: Math.max(1, length) }),
};

/** Reads and decodes the column. Throws `BAD_INPUT` naming file, row group, column, and the row where it is known. */
export async function readParquetColumn(column: ParquetColumn, place: ColumnPlace): Promise<PackColumn> {
  const { name } = column.field;
  try {
    const chunks = await decodedChunks(place, name);
    const numRows = place.end - place.start;
    const found = chunks.reduce((total, chunk) => total + chunk.length, 0);
    if (found !== numRows) throw new RangeError(`it has ${found} rows of ${numRows}`);
    const made = columnOf(column, chunks, place, numRows);
    if (made.nullCount === 0 || column.field.nullable) return made;
    throw new RangeError(`${made.nullCount} of its rows are missing, and its schema says that none is`);
  } catch (cause) {
    if (cause instanceof HeadraceError) throw cause;
    throw badInput(place.name, `column ${quoted(name)} cannot be decoded: ${damageOf(cause)}`, cause);
  }
}

/** What the decoder says, on one line. What it only stumbles over says nothing to people. */
export function damageOf(cause: unknown): string {
  if (!(cause instanceof Error) || cause instanceof TypeError) return "it is damaged";
  if (/\b(undefined|NaN)\b/.test(cause.message)) return "it is damaged";
  return cause.message.split("\n", 1)[0]!.slice(0, MAX_CAUSE_LENGTH);
}

/** The file as the decoder reads it, of which `held` is in memory already. Reads are begun ahead, and some are dropped
 * where another has failed: their own failures must not count as unhandled. */
export function asyncBuffer(file: InputFile, held?: Held): AsyncBuffer {
  return {
    byteLength: file.byteLength,
    slice(start, end = file.byteLength) {
      if (held !== undefined && start === held.start && end === held.start + held.bytes.length) {
        return held.bytes.buffer;
      }
      const bytes = file.read(start, end).then(({ buffer }) => buffer);
      bytes.catch(() => {});
      return bytes;
    },
  };
}

/** Bytes of a file, the whole of their buffer. */
interface Held {
  readonly start: number;
  readonly bytes: Uint8Array<ArrayBuffer>;
}

/** Reads and checks the pages of the column. */
async function columnBytes({ file, metadata, group, start, end }: ColumnPlace, name: string): Promise<Held> {
  const chunk = group.columns.find(({ meta_data: meta }) => meta?.path_in_schema[0] === name);
  const meta = chunk?.meta_data;
  if (meta === undefined) throw new RangeError("its row group has no such column");
  const first = Number(meta.dictionary_page_offset ?? meta.data_page_offset);
  const length = Number(meta.total_compressed_size);
  if (Number.isNaN(first + length)) throw new RangeError("its row group does not say where its bytes lie");
  const bytes = await file.read(first, first + length);
  const path = getTreePath(parquetSchema(metadata), meta.path_in_schema);
  checkPages(bytes, { meta, path, numRows: end - start, compressors: COMPRESSORS });
  return { start: first, bytes };
}

async function decodedChunks(place: ColumnPlace, name: string): Promise<DecodedArray[]> {
  const { file, metadata, start, end } = place;
  const held = await columnBytes(place, name);
  const chunks: { readonly rowStart: number; readonly data: DecodedArray }[] = [];
  await parquetRead({
    file: asyncBuffer(file, held),
    metadata,
    columns: [name],
    rowStart: start,
    rowEnd: end,
    utf8: false,
    geoparquet: false,
    compressors: COMPRESSORS,
    parsers: { timestampFromNanoseconds: (nanos) => nanos },
    onChunk: ({ columnData, rowStart }) => chunks.push({ rowStart, data: columnData }),
  });
  return chunks.sort((a, b) => a.rowStart - b.rowStart).map(({ data }) => data);
}

function columnOf(
  column: ParquetColumn,
  chunks: readonly DecodedArray[],
  place: ColumnPlace,
  numRows: number,
): PackColumn {
  if (column.field.kind === "fixed") return fixedColumn(column, chunks, place, numRows);
  if (column.field.kind === "list") return listColumn(column, chunks, place, numRows);
  const rows: (Uint8Array | null)[] = [];
  for (const chunk of chunks)
    for (const value of chunk) rows.push(checked(value as Uint8Array | null, rows.length));
  const bytes = bytesColumn(rows, `${place.name}, column ${quoted(column.field.name)}`);
  if (column.field.kind === "utf8") checkUtf8(bytes, column.field.name, place.name, place.start);
  return bytes;
}

function fixedColumn(
  column: ParquetColumn,
  chunks: readonly DecodedArray[],
  place: ColumnPlace,
  numRows: number,
): PackColumn {
  const { field, put, direct } = column;
  if (column.isVector === true) return vectorColumn(column, chunks, place, numRows);
  const values = new Uint8Array(numRows * unitBytes(field));
  const target = typedView(field.dtype, values.buffer, 0, values.length);
  const presence = new Presence(numRows);
  let row = 0;
  for (const chunk of chunks) {
    if (direct && ArrayBuffer.isView(chunk)) {
      const bytes = new Uint8Array(chunk.buffer as ArrayBuffer, chunk.byteOffset, chunk.byteLength);
      values.set(bytes, row * unitBytes(field));
      row += chunk.length;
      continue;
    }
    for (const value of chunk) {
      if (checked(value, row) === null) presence.miss(row);
      else put!(target, row, value);
      row++;
    }
  }
  const { validity, nullCount } = presence;
  return { values, validity, nullCount };
}

function listColumn(
  column: ParquetColumn,
  chunks: readonly DecodedArray[],
  place: ColumnPlace,
  numRows: number,
): PackColumn {
  const { field } = column;
  const offsets = new Int32Array(numRows + 1);
  const presence = new Presence(numRows);
  let length = 0;
  let row = 0;
  for (const chunk of chunks) {
    for (const value of chunk as Iterable<ArrayLike<unknown> | null | undefined>) {
      if (isMissing(value)) presence.miss(row);
      length += value?.length ?? 0;
      offsets[++row] = length;
    }
  }
  if (length * unitBytes(field) > MAX_COLUMN_BYTES) {
    throw new RangeError(`its lists hold ${length} elements, over 2 GiB; write smaller row groups`);
  }
  const values = new Uint8Array(length * unitBytes(field));
  const target = typedView(field.dtype, values.buffer, 0, values.length);
  row = 0;
  for (const chunk of chunks) {
    for (const list of chunk as Iterable<ArrayLike<unknown> | null | undefined>) {
      if (!isMissing(list)) putList(column, list, target, offsets[row]!, place, place.start + row);
      row++;
    }
  }
  const { validity, nullCount } = presence;
  return { values, offsets, validity, nullCount };
}

/** Lists that are all of one length. */
function vectorColumn(
  column: ParquetColumn,
  chunks: readonly DecodedArray[],
  place: ColumnPlace,
  numRows: number,
): PackColumn {
  const { field } = column;
  const length = field.shape[0]!;
  const values = new Uint8Array(numRows * unitBytes(field));
  const target = typedView(field.dtype, values.buffer, 0, values.length);
  const presence = new Presence(numRows);
  let row = 0;
  for (const chunk of chunks) {
    for (const list of chunk as Iterable<ArrayLike<unknown> | null | undefined>) {
      if (isMissing(list)) presence.miss(row);
      else if (list.length === length) {
        putList(column, list, target, row * length, place, place.start + row);
      } else {
        const text = `row ${place.start + row}: a list of ${list.length} elements among those of ${length}`;
        throw badInput(place.name, `column ${quoted(field.name)}, ${text}`);
      }
      row++;
    }
  }
  const { validity, nullCount } = presence;
  return { values, validity, nullCount };
}

/** Puts the elements of one list to `at` and behind; `row` is the file's. */
function putList(
  { field, put }: ParquetColumn,
  list: ArrayLike<unknown>,
  target: TypedArray,
  at: number,
  place: ColumnPlace,
  row: number,
): void {
  for (let i = 0; i < list.length; i++) {
    const value = list[i];
    if (value === null || value === undefined) {
      const text = `column ${quoted(field.name)}, row ${row}: element ${i} of its list is missing, which cannot be packed`;
      throw badInput(place.name, text);
    }
    put!(target, at + i, value);
  }
}

/** A missing list comes as either. */
function isMissing(list: ArrayLike<unknown> | null | undefined): list is null | undefined {
  return list === null || list === undefined;
}

/** What a code outside its dictionary gives is no value, and no missing one either. */
function checked<T>(value: T | undefined, row: number): T {
  if (value === undefined) throw new RangeError(`row ${row} of its group points outside the dictionary`);
  return value;
}
