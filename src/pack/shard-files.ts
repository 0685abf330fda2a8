/** Rows as files: Arrow batch by batch, safetensors column by column. */

import { HeadraceError } from "../errors.ts";
import {
  type BatchPlace,
  type BodyCodec,
  checkWriteField,
  encodeBatch,
  encodeFooter,
  encodeSchema,
} from "../format/arrow-write.ts";
import { byteLengthOf } from "../format/dtype.ts";
import { encodeHeader } from "../format/safetensors-header.ts";
import { OFFSETS_SUFFIX } from "../format/safetensors-rows.ts";
import type { FileOps, OpenedFile } from "../loader/writeback/files.ts";
import type { DType } from "../types.ts";
import { valueBytes } from "./columns.ts";
import { openTemporary, type Sink, type SinkEnd, temporaryPath, writing } from "./files.ts";
import type { PackFormat } from "./options.ts";
import type { PackBatch, PackField } from "./rows.ts";

/** A file that is being written. */
export interface RowsFile {
  /** Takes the rows; `batch` may change once this has resolved. */
  add(batch: PackBatch): Promise<void>;
  finish(): Promise<SinkEnd>;
  /** Leaves no file. Harmless when repeated. */
  abort(): Promise<void>;
}

/** Throws `UNSUPPORTED_TYPE` and `BAD_OPTION` for fields that files of `format` cannot hold. */
export function checkFields(fields: readonly PackField[], format: PackFormat): void {
  if (fields.length === 0)
    throw new HeadraceError("BAD_OPTION", "no column is left to pack; name others by columns");
  if (format === "arrow") for (const field of fields) checkWriteField(field);
  else
    encodeHeader(
      tensorsOf(
        fields,
        1,
        fields.map(() => 0),
      ),
    );
}

/** The next batch follows the last in the file. */
export class ArrowRows implements RowsFile {
  readonly #fields: readonly PackField[];
  readonly #compression: BodyCodec | undefined;
  readonly #sink: Sink;
  readonly #places: BatchPlace[] = [];

  private constructor(fields: readonly PackField[], sink: Sink, compression: BodyCodec | undefined) {
    this.#fields = fields;
    this.#sink = sink;
    this.#compression = compression;
  }

  static async open(
    fields: readonly PackField[],
    openSink: () => Promise<Sink>,
    compression: BodyCodec | undefined,
  ): Promise<ArrowRows> {
    const sink = await openSink();
    try {
      await sink.write(encodeSchema(fields));
    } catch (error) {
      await sink.abort();
      throw error;
    }
    return new ArrowRows(fields, sink, compression);
  }

  async add({ numRows, columns }: PackBatch): Promise<void> {
    const { pieces, metadataLength, bodyLength } = encodeBatch(
      this.#fields,
      numRows,
      columns,
      this.#compression,
    );
    this.#places.push({ offset: this.#sink.byteLength, metadataLength, bodyLength });
    for (const piece of pieces) await this.#sink.write(piece);
  }

  async finish(): Promise<SinkEnd> {
    await this.#sink.write(encodeFooter(this.#fields, this.#places));
    return await this.#sink.finish();
  }

  async abort(): Promise<void> {
    await this.#sink.abort();
  }
}

/** One file for what some rows have of a tensor, gone when the shard is whole. */
interface Spill {
  readonly file: OpenedFile;
  readonly path: string;
  byteLength: number;
}

/** Bytes that are copied at a time. */
const COPY_BYTES = 4 * 2 ** 20;

/**
 * Tensors lie one after another, so columns are kept in files of their own beside the shard until all rows are known,
 * and then put together.
 */
export class SafetensorsRows implements RowsFile {
  readonly #fields: readonly PackField[];
  readonly #ops: FileOps;
  readonly #openSink: () => Promise<Sink>;
  readonly #values: readonly Spill[];
  readonly #offsets: readonly (Spill | undefined)[];
  /** Elements of each list so far. */
  readonly #elements: number[];
  #numRows = 0;
  #sink: Sink | undefined;

  private constructor(
    fields: readonly PackField[],
    ops: FileOps,
    openSink: () => Promise<Sink>,
    values: readonly Spill[],
    offsets: readonly (Spill | undefined)[],
  ) {
    this.#fields = fields;
    this.#ops = ops;
    this.#openSink = openSink;
    this.#values = values;
    this.#offsets = offsets;
    this.#elements = fields.map(() => 0);
  }

  /** Columns are kept beside `path`. */
  static async open(
    fields: readonly PackField[],
    path: string,
    ops: FileOps,
    openSink: () => Promise<Sink>,
  ): Promise<SafetensorsRows> {
    const opened: Spill[] = [];
    const open = async (index: number, part: string): Promise<Spill> => {
      const spillPath = temporaryPath(`${path}.${index}.${part}`);
      const spill = { file: await openTemporary(ops, spillPath), path: spillPath, byteLength: 0 };
      opened.push(spill);
      return spill;
    };
    try {
      const values: Spill[] = [];
      const offsets: (Spill | undefined)[] = [];
      for (const [i, { kind }] of fields.entries()) {
        values.push(await open(i, "values"));
        const cuts = kind === "fixed" ? undefined : await open(i, "offsets");
        offsets.push(cuts);
        if (cuts !== undefined) await append(cuts, new Uint8Array(8));
      }
      return new SafetensorsRows(fields, ops, openSink, values, offsets);
    } catch (error) {
      for (const spill of opened) await drop(ops, spill);
      throw error;
    }
  }

  async add(batch: PackBatch): Promise<void> {
    for (const [i, field] of this.#fields.entries()) {
      const column = batch.columns[i]!;
      if (column.nullCount > 0) throw noNulls(field, batch, i, this.#numRows);
      await append(this.#values[i]!, column.values.subarray(0, valueBytes(field, column, batch.numRows)));
      const cuts = this.#offsets[i];
      if (cuts === undefined) continue;
      const shifted = new BigInt64Array(batch.numRows);
      const shift = this.#elements[i]!;
      for (let row = 0; row < batch.numRows; row++) shifted[row] = BigInt(column.offsets![row + 1]! + shift);
      await append(cuts, new Uint8Array(shifted.buffer));
      this.#elements[i] = shift + column.offsets![batch.numRows]!;
    }
    this.#numRows += batch.numRows;
  }

  async finish(): Promise<SinkEnd> {
    const tensors = tensorsOf(this.#fields, this.#numRows, this.#elements);
    const { header, order } = encodeHeader(tensors);
    const sink = await this.#openSink();
    this.#sink = sink;
    await sink.write(header);
    const buffer = new Uint8Array(COPY_BYTES);
    for (const index of order) {
      const { field, part } = tensors[index]!;
      const spill = part === "values" ? this.#values[field]! : this.#offsets[field]!;
      await copy(spill, sink, buffer);
      await writing(spill.path, async () => {
        await spill.file.close();
        await this.#ops.remove(spill.path);
      });
    }
    return await sink.finish();
  }

  async abort(): Promise<void> {
    for (const spill of [...this.#values, ...this.#offsets])
      if (spill !== undefined) await drop(this.#ops, spill);
    await this.#sink?.abort();
  }
}

async function append(spill: Spill, bytes: Uint8Array): Promise<void> {
  await writing(spill.path, () => spill.file.write(bytes, spill.byteLength));
  spill.byteLength += bytes.length;
}

async function copy(spill: Spill, sink: Sink, buffer: Uint8Array): Promise<void> {
  for (let at = 0; at < spill.byteLength; ) {
    const wanted = buffer.subarray(0, Math.min(buffer.length, spill.byteLength - at));
    const bytes = await writing(spill.path, () => spill.file.read(wanted, at));
    if (bytes < wanted.length)
      throw new HeadraceError(
        "SHORT_READ",
        `${spill.path}: ends at ${at + bytes} of ${spill.byteLength} bytes`,
      );
    await sink.write(wanted);
    at += bytes;
  }
}

async function drop(ops: FileOps, spill: Spill): Promise<void> {
  await spill.file.close().catch(() => {});
  await ops.remove(spill.path).catch(() => {});
}

/** The tensors of a file of these rows; `elements` counts those of each list. */
export function tensorsOf(fields: readonly PackField[], numRows: number, elements: readonly number[]) {
  return fields.flatMap(({ name, kind, dtype, shape }, field) => {
    const tensor = (part: "values" | "offsets", name: string, dtype: DType, shape: readonly number[]) => ({
      name,
      dtype,
      shape,
      byteLength: byteLengthOf(dtype, shape),
      field,
      part,
    });
    if (kind === "fixed") return [tensor("values", name, dtype, [numRows, ...shape])];
    return [
      tensor("values", name, dtype, [elements[field]!]),
      tensor("offsets", name + OFFSETS_SUFFIX, "I64", [numRows + 1]),
    ];
  });
}

function noNulls({ name }: PackField, batch: PackBatch, index: number, rowsBefore: number): HeadraceError {
  const row = rowsBefore + batch.columns[index]!.validity!.indexOf(0);
  const text = `row ${row} of the shard has no value in column ${JSON.stringify(name)}, and safetensors knows no nulls`;
  return new HeadraceError("BAD_INPUT", `${text}; pack to arrow, or leave the column out`);
}
