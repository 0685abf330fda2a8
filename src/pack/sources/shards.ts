/** Shards of the formats that are written here, to be packed in another way: as rows through the loader, or as tensors. */
import type { Device } from "../../device/device.ts";
import { openDevice } from "../../device/open.ts";
import { HeadraceError } from "../../errors.ts";
import { chunkAt } from "../../format/chunks.ts";
import { quoted } from "../../format/json.ts";
import type { Batch, Column } from "../../loader/batch.ts";
import { Dataset } from "../../loader/dataset.ts";
import { Loader } from "../../loader/loader.ts";
import { columnText } from "../../loader/schema.ts";
import type { OpenShard } from "../../loader/shard.ts";
import { findSource } from "../../loader/source.ts";
import type { ColumnSchema, TensorLayout } from "../../types.ts";
import type { PackBatch, PackColumn, PackField, RowSource, TensorSource } from "../rows.ts";
import { BATCH_BYTES, bytesColumn, MAX_COLUMN_BYTES, unitBytes } from "./columns.ts";
import { badInput, type SourceOptions } from "./source.ts";

/** Bytes of a tensor that are read at once. */
const TENSOR_PIECE_BYTES = 4 * 2 ** 20;
const MAX_OPEN_SHARDS = 128;

/** How shards are seen. */
export interface ShardOptions extends SourceOptions {
  /** As a {@link Dataset}'s; default `auto`. */
  readonly view?: "rows" | "tensors" | "auto" | undefined;
}

/**
 * Opens safetensors and Arrow shards, also compressed ones: a file, a folder, a glob, an index or a manifest, or several
 * files. Rows come in the dataset's order, dictionaries as what their codes stand for; tensors, where the dataset is seen
 * as such, by shard in the order of their bytes. Throws what opening a dataset throws, and `UNSUPPORTED_TYPE` for lists
 * of arrays.
 */
export async function openShards(
  source: string | readonly string[],
  options: ShardOptions = {},
): Promise<RowSource | TensorSource> {
  const device = openDevice("host");
  let dataset: Dataset | undefined;
  try {
    const found = findSource(source);
    const paths = found.shards.map(({ path }) => path);
    // Of more shards some are closed, and opened again by their path.
    options.watch?.add(paths, { held: paths.length <= MAX_OPEN_SHARDS });
    dataset = new Dataset(found, device, {
      view: options.view,
      columns: options.columns,
      maxOpenShards: MAX_OPEN_SHARDS,
    });
    return dataset.view === "rows" ? rowSource(dataset, device) : tensorSource(dataset, device);
  } catch (error) {
    dataset?.close();
    await device.close();
    throw error;
  }
}

function rowSource(dataset: Dataset, device: Device): RowSource {
  const fields = dataset.schema.columns.map(fieldOf);
  return {
    fields,
    numRows: dataset.numSamples,
    byteLength: dataset.byteLength,
    batches: (signal) => batchesOf(dataset, device, fields, signal),
    async close() {
      dataset.close();
      await device.close();
    },
  };
}

function fieldOf(column: ColumnSchema): PackField {
  const { name, nullable } = column;
  const entry = column.dictionary ?? column;
  if (entry.ragged && (entry.logical === "utf8" || entry.logical === "binary")) {
    return { name, kind: entry.logical, dtype: "U8", shape: [], nullable };
  }
  if (entry.ragged && entry.shape.length > 0) {
    const text = `column ${quoted(name)} is ${columnText(entry)}, lists of arrays, which cannot be packed; choose others by --columns`;
    throw new HeadraceError("UNSUPPORTED_TYPE", text);
  }
  return { name, kind: entry.ragged ? "list" : "fixed", dtype: entry.dtype, shape: entry.shape, nullable };
}

async function* batchesOf(
  dataset: Dataset,
  device: Device,
  fields: readonly PackField[],
  signal: AbortSignal | undefined,
): AsyncGenerator<PackBatch> {
  if (dataset.numSamples === 0) return;
  await using loader = new Loader(dataset, device, { batchBytes: BATCH_BYTES, signal });
  let numRows = 0;
  for await (using batch of loader) {
    numRows += batch.size;
    const columns = fields.map((field) => packColumn(field, batch.column(field.name), batch));
    const sourceBytes = Math.round((dataset.byteLength * numRows) / dataset.numSamples);
    yield { numRows: batch.size, columns, sourceBytes };
  }
}

function packColumn(field: PackField, column: Column, batch: Batch): PackColumn {
  const validity = bytesOf(column.validity);
  let nullCount = 0;
  if (validity !== undefined) for (const one of validity) nullCount += 1 - one;
  const present = nullCount === 0 ? undefined : validity;
  if (column.dictionary !== undefined) return entriesOf(field, column, present, batch);
  const values = bytesOf(column)!;
  const offsets = column.offsets === undefined ? undefined : offsetsOf(field, column);
  if (present === undefined) return { values, offsets, nullCount };
  return offsets === undefined
    ? { values: zeroed(values, unitBytes(field), present), validity: present, nullCount }
    : { ...compacted(values, unitBytes(field), offsets, present), validity: present, nullCount };
}

function bytesOf(part: Pick<Column, "view"> | undefined): Uint8Array | undefined {
  if (part === undefined) return undefined;
  const { buffer, byteOffset, byteLength } = part.view;
  return new Uint8Array(buffer, byteOffset, byteLength);
}

function offsetsOf(field: PackField, column: Column): Int32Array {
  const { view } = column.offsets!;
  if (view instanceof Int32Array) return view;
  const offsets = new Int32Array(view.length);
  const most = Math.floor(MAX_COLUMN_BYTES / unitBytes(field));
  if (Number(view.at(-1)) > most) {
    throw badInput(
      `column ${quoted(field.name)}`,
      `one row holds ${view.at(-1)} elements, and at most ${most} can be packed`,
    );
  }
  for (let i = 0; i < view.length; i++) offsets[i] = Number(view[i]);
  return offsets;
}

/** A copy whose missing rows are zeros: files may hold anything there. */
function zeroed(values: Uint8Array, unit: number, validity: Uint8Array): Uint8Array {
  const copy = values.slice();
  validity.forEach((one, row) => {
    if (one === 0) copy.fill(0, row * unit, (row + 1) * unit);
  });
  return copy;
}

/** A copy whose missing rows hold nothing. */
function compacted(values: Uint8Array, unit: number, offsets: Int32Array, validity: Uint8Array) {
  const copy = new Uint8Array(values.length);
  const cuts = new Int32Array(offsets.length);
  let at = 0;
  validity.forEach((one, row) => {
    if (one !== 0) {
      copy.set(values.subarray(offsets[row]! * unit, offsets[row + 1]! * unit), at * unit);
      at += offsets[row + 1]! - offsets[row]!;
    }
    cuts[row + 1] = at;
  });
  return { values: copy.subarray(0, at * unit), offsets: cuts };
}

/** What the codes of a column stand for. */
function entriesOf(
  field: PackField,
  column: Column,
  validity: Uint8Array | undefined,
  batch: Batch,
): PackColumn {
  const codes = column.view as Int32Array;
  const dictionary = column.dictionary!;
  const rows = Array.from(codes, (code, row) => (validity?.[row] === 0 ? null : dictionary.bytes(code)));
  const unit = unitBytes(field);
  if (field.kind !== "fixed") {
    const bytes = bytesColumn(rows, `column ${quoted(field.name)}`);
    return unit === 1 ? bytes : { ...bytes, offsets: bytes.offsets!.map((offset) => offset / unit) };
  }
  const values = new Uint8Array(batch.size * unit);
  let nullCount = 0;
  rows.forEach((bytes, row) => {
    if (bytes === null) nullCount++;
    else values.set(bytes, row * unit);
  });
  return { values, validity, nullCount };
}

function tensorSource(dataset: Dataset, device: Device): TensorSource {
  const tensors: TensorSource["tensors"][number][] = [];
  let metadata: Readonly<Record<string, string>> | undefined;
  for (let index = 0; index < dataset.numShards; index++) {
    const shard = dataset.shard(index);
    // What all shards say is said of the whole.
    metadata = index === 0 ? shard.description.metadata : common(metadata!, shard.description.metadata);
    for (const tensor of dataset.tensorsOf(shard)) {
      const { name, dtype, shape, range } = tensor;
      const byteLength = range.end - range.start;
      tensors.push({ name, dtype, shape, byteLength, read: () => tensorPieces(dataset, index, tensor) });
    }
  }
  return {
    tensors,
    byteLength: tensors.reduce((total, { byteLength }) => total + byteLength, 0),
    metadata,
    async close() {
      dataset.close();
      await device.close();
    },
  };
}

function common(a: Readonly<Record<string, string>>, b: Readonly<Record<string, string>>) {
  return Object.fromEntries(Object.entries(a).filter(([key, value]) => b[key] === value));
}

async function* tensorPieces(
  dataset: Dataset,
  index: number,
  { range }: TensorLayout,
): AsyncGenerator<Uint8Array> {
  for (let at = range.start; at < range.end; ) {
    // Asked for anew: between pieces the dataset may have closed it to open others.
    const shard = dataset.shard(index);
    const end = pieceEnd(shard, at, range.end);
    yield readBytes(shard, at, end - at);
    at = end;
  }
}

/** Of a compressed shard, the bytes that its own decode to. */
function readBytes({ chunkFile, file }: OpenShard, byteOffset: number, byteLength: number): Uint8Array {
  return (chunkFile ?? file).readSync(byteOffset, byteLength);
}

/** Pieces end where chunks do, so that none is decoded for two of them. */
function pieceEnd({ chunkFile }: OpenShard, at: number, end: number): number {
  const wanted = Math.min(end, at + TENSOR_PIECE_BYTES);
  if (chunkFile === undefined || wanted === end) return wanted;
  const { starts } = chunkFile.table;
  const chunk = chunkAt(chunkFile.table, wanted);
  return starts[chunk]! > at ? starts[chunk]! : Math.min(end, starts[chunk + 1]!);
}
