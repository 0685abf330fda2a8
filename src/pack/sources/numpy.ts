/** NumPy's `.npy` and `.npz` files as rows along the first axis, or as tensors. */
import { basename } from "node:path";
import { HeadraceError } from "../../errors.ts";
import { byteLengthOf, shapeText } from "../../format/dtype.ts";
import { quoted } from "../../format/json.ts";
import { chooseNames } from "../../loader/schema.ts";
import type { PackBatch, PackColumn, PackField, RowSource, TensorSource } from "../rows.ts";
import { rowsPerBatch } from "./columns.ts";
import { InputFile, PIECE_BYTES, withFile } from "./files.ts";
import { isNpy, NPY_PREFIX_BYTES, type NpyHeader, npyHeaderRange, parseNpyHeader, swapBytes } from "./npy.ts";
import { filePieces, PieceReader } from "./pieces.ts";
import { badInput, type SourceOptions } from "./source.ts";
import { type ZipEntry, zipEntries, zipPieces } from "./zip.ts";

/** One array of one file. */
interface NumpyArray {
  readonly name: string;
  /** For messages. */
  readonly place: string;
  readonly path: string;
  /** In an archive. */
  readonly entry: ZipEntry | undefined;
  readonly header: NpyHeader;
}

/** What the column of several `.npy` files is called. */
const COLUMN_OF_SEVERAL = "data";

/**
 * Opens `.npy` and `.npz` files. One `.npy` is a column of its file's name; several are one column `data`, the rows of one
 * after those of the other. The arrays of an `.npz` are columns where all have the same first axis; the arrays of a
 * single one that do not are tensors. Files are read in pieces. Throws `BAD_INPUT`, `UNSUPPORTED_TYPE` (objects, texts,
 * structures, Fortran order), `SCHEMA_MISMATCH`, `UNKNOWN_COLUMN`, `SOURCE_NOT_FOUND`, `IO_ERROR`.
 */
export async function openNumpy(
  paths: readonly string[],
  options: SourceOptions = {},
): Promise<RowSource | TensorSource> {
  const files: (readonly NumpyArray[])[] = [];
  for (const path of paths) files.push(await withFile(path, (file) => arraysOf(file, paths.length, options)));
  const [first] = files;
  if (first === undefined) throw new HeadraceError("SOURCE_EMPTY", "the source names no NumPy file");
  if (files.every((arrays) => numRowsOf(arrays) !== undefined)) return rowSource(files);
  if (files.length === 1) return tensorSource(first);
  const odd = paths[files.findIndex((arrays) => numRowsOf(arrays) === undefined)];
  throw badInput(
    odd!,
    "its arrays differ in their first axis, so that it has no rows; pack it by itself, as tensors",
  );
}

/** The rows of all arrays, where they have the same number. */
function numRowsOf(arrays: readonly NumpyArray[]): number | undefined {
  const numRows = arrays[0]?.header.shape[0];
  return arrays.every(({ header }) => header.shape[0] === numRows) ? numRows : undefined;
}

async function arraysOf(
  file: InputFile,
  numFiles: number,
  { columns }: SourceOptions,
): Promise<readonly NumpyArray[]> {
  const { path } = file;
  const head = await file.read(0, Math.min(file.byteLength, NPY_PREFIX_BYTES));
  if (isNpy(head)) {
    const name = numFiles === 1 ? basename(path).replace(/\.npy$/i, "") : COLUMN_OF_SEVERAL;
    if (columns !== undefined) chooseNames([name], columns);
    const header = await headerOf(filePieces(file), path);
    const array = { name, place: path, path, entry: undefined, header: header.header };
    checkLength(header.header, file.byteLength - header.position, path);
    return [array];
  }
  const isArchive = head[0] === 0x50 && head[1] === 0x4b;
  if (/\.npy$/i.test(path) && !isArchive)
    throw badInput(
      path,
      file.byteLength === 0 ? "is empty" : "is no NumPy array: it does not begin with \\x93NUMPY",
    );
  if (file.byteLength === 0) throw badInput(path, "is empty; an .npz is a ZIP archive of arrays");
  const entries = await zipEntries(file);
  const names = entries.map(({ name }) => name.replace(/\.npy$/, ""));
  const chosen = new Set(columns === undefined ? names : chooseNames(names, columns));
  const arrays: NumpyArray[] = [];
  for (const [i, entry] of entries.entries()) {
    const name = names[i]!;
    if (!chosen.has(name)) continue;
    if (arrays.some((array) => array.name === name))
      throw badInput(path, `holds the array ${quoted(name)} twice`);
    const place = `${path}: array ${quoted(name)}`;
    const { header, position } = await headerOf(zipPieces(file, entry), place);
    checkLength(header, entry.byteLength - position, place);
    arrays.push({ name, place, path, entry, header });
  }
  if (arrays.length === 0) throw badInput(path, "holds no array");
  return arrays;
}

function checkLength(header: NpyHeader, found: number, place: string): void {
  if (found === header.byteLength) return;
  throw badInput(place, `holds ${found} bytes of values, and ${describe(header)} takes ${header.byteLength}`);
}

function describe({ dtype, shape }: NpyHeader): string {
  return `${dtype} ${shapeText(shape)}`;
}

/** Reads up to the first value, and ends `pieces`. */
async function headerOf(pieces: AsyncIterable<Uint8Array>, place: string) {
  const reader = new PieceReader(pieces);
  try {
    return { header: await readHeader(reader, place), position: reader.position };
  } finally {
    await reader.close();
  }
}

async function readHeader(reader: PieceReader, place: string): Promise<NpyHeader> {
  // The prefix of version 1 is 10 bytes long, and no header is so short that 12 were too many.
  const head = new Uint8Array(NPY_PREFIX_BYTES);
  const { start, end } = npyHeaderRange(head.subarray(0, await reader.fill(head)), place);
  const text = new Uint8Array(Math.max(0, end - start));
  const taken = NPY_PREFIX_BYTES - start;
  text.set(head.subarray(start, start + Math.min(taken, text.length)));
  const filled = await reader.fill(text.subarray(taken));
  if (filled < text.length - taken) throw badInput(place, "ends within its header");
  return parseNpyHeader(new TextDecoder("latin1").decode(text), place);
}

/** An array's values, in order, for as long as its file is open. */
class ArrayReader {
  readonly array: NumpyArray;
  readonly #file: InputFile;
  readonly #reader: PieceReader;
  #left: number;

  private constructor(array: NumpyArray, file: InputFile, reader: PieceReader) {
    this.array = array;
    this.#file = file;
    this.#reader = reader;
    this.#left = array.header.byteLength;
  }

  static async open(array: NumpyArray): Promise<ArrayReader> {
    const file = await InputFile.open(array.path);
    const pieces = array.entry === undefined ? filePieces(file) : zipPieces(file, array.entry);
    const reader = new ArrayReader(array, file, new PieceReader(pieces));
    try {
      const { byteLength, dtype } = await readHeader(reader.#reader, array.place);
      if (byteLength === array.header.byteLength && dtype === array.header.dtype) return reader;
      throw new HeadraceError(
        "FILE_CHANGED",
        `${array.place}: is not the array that it was when it was opened`,
      );
    } catch (error) {
      await reader.close();
      throw error;
    }
  }

  /** Fills `target` with whole elements, little-endian. With the last of them the rest of the entry is checked. */
  async fill(target: Uint8Array): Promise<void> {
    const { place, header } = this.array;
    const filled = await this.#reader.fill(target);
    if (filled < target.length) {
      throw badInput(place, `ends ${this.#left - filled} bytes before the last value of ${describe(header)}`);
    }
    this.#left -= filled;
    if (this.#left === 0 && (await this.#reader.skip(1)) > 0) {
      throw badInput(place, `has bytes behind the last value of ${describe(header)}`);
    }
    swapBytes(target, header.swap);
    if (header.dtype === "BOOL") for (let i = 0; i < target.length; i++) if (target[i]! > 1) target[i] = 1;
  }

  async close(): Promise<void> {
    await this.#reader.close();
    await this.#file.close();
  }
}

function rowSource(files: readonly (readonly NumpyArray[])[]): RowSource {
  const fields = files[0]!.map(fieldOf);
  for (const arrays of files) checkAgreement(files[0]!, arrays);
  const all = files.flat();
  if (fields.every(({ dtype, shape }) => byteLengthOf(dtype, shape) === 0)) {
    throw badInput(all[0]!.place, `its rows of ${describe(all[0]!.header)} hold no bytes`);
  }
  return {
    fields,
    numRows: files.reduce((total, arrays) => total + arrays[0]!.header.shape[0]!, 0),
    byteLength: all.reduce((total, { header }) => total + header.byteLength, 0),
    batches: (signal) => batchesOf(files, fields, signal),
    close: async () => {},
  };
}

function fieldOf({ name, header, place }: NumpyArray): PackField {
  if (name === "") throw badInput(place, "has no name");
  const { dtype, shape } = header;
  return { name, kind: "fixed", dtype, shape: shape.slice(1), nullable: false };
}

function checkAgreement(first: readonly NumpyArray[], arrays: readonly NumpyArray[]): void {
  const text = ({ name, header: { dtype, shape } }: NumpyArray) =>
    `${quoted(name)} of ${dtype} ${shapeText(shape.slice(1))} a row`;
  const wanted = first.map(text).sort();
  const found = arrays.map(text).sort();
  if (wanted.join() === found.join()) return;
  throw new HeadraceError(
    "SCHEMA_MISMATCH",
    `${arrays[0]!.path}: holds ${found.join(", ")}, but ${first[0]!.path} ${wanted.join(", ")}`,
  );
}

async function* batchesOf(
  files: readonly (readonly NumpyArray[])[],
  fields: readonly PackField[],
  signal: AbortSignal | undefined,
): AsyncGenerator<PackBatch> {
  const rowBytes = fields.map(({ dtype, shape }) => byteLengthOf(dtype, shape));
  const total = rowBytes.reduce((a, b) => a + b, 0);
  let sourceBytes = 0;
  for (const arrays of files) {
    const byName = new Map(arrays.map((array) => [array.name, array]));
    const readers: ArrayReader[] = [];
    try {
      for (const { name } of fields) readers.push(await ArrayReader.open(byName.get(name)!));
      const numRows = arrays[0]!.header.shape[0]!;
      const step = rowsPerBatch(total * numRows, numRows);
      for (let row = 0; row < numRows; row += step) {
        signal?.throwIfAborted();
        const count = Math.min(step, numRows - row);
        const columns: PackColumn[] = [];
        for (const [i, reader] of readers.entries()) {
          const values = new Uint8Array(count * rowBytes[i]!);
          await reader.fill(values);
          columns.push({ values, nullCount: 0 });
        }
        sourceBytes += total * count;
        yield { numRows: count, columns, sourceBytes, path: arrays[0]!.path };
      }
    } finally {
      for (const reader of readers) await reader.close();
    }
  }
}

function tensorSource(arrays: readonly NumpyArray[]): TensorSource {
  return {
    tensors: arrays.map((array) => {
      const { dtype, shape, byteLength } = array.header;
      return { name: array.name, dtype, shape, byteLength, read: () => tensorPieces(array) };
    }),
    byteLength: arrays.reduce((total, { header }) => total + header.byteLength, 0),
    close: async () => {},
  };
}

async function* tensorPieces(array: NumpyArray): AsyncGenerator<Uint8Array> {
  const reader = await ArrayReader.open(array);
  try {
    const { byteLength } = array.header;
    for (let at = 0; at < byteLength; at += PIECE_BYTES) {
      const piece = new Uint8Array(Math.min(PIECE_BYTES, byteLength - at));
      await reader.fill(piece);
      yield piece;
    }
  } finally {
    await reader.close();
  }
}
