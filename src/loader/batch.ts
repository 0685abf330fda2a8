/** What a loader hands out: columns in device memory, and the duty to release them. */
import type { Device, DeviceBuffer } from "../device/device.ts";
import { HeadraceError } from "../errors.ts";
import { typedView } from "../format/dtype.ts";
import type { DType, Shape, TypedArray } from "../types.ts";
import { assertSameDevice } from "./devices.ts";
import type { DatasetDictionary } from "./dictionary.ts";

/** Longest ArrayBuffer of the engine. */
export const MAX_VIEW_BYTES = 2 ** 32;
/** Bytes of one piece of {@link Part.chunks}. */
const CHUNK_BYTES = 2 ** 28;

/** Makes the views of one batch and takes them away again. */
export class ViewScope {
  readonly #buffers: ArrayBuffer[] = [];
  #closed = false;
  readonly #device: Device;
  readonly #describe: () => string;

  /** Of a batch in memory of `device`; `describe` names it in errors. */
  constructor(device: Device, describe: () => string) {
    this.#device = device;
    this.#describe = describe;
  }

  get closed(): boolean {
    return this.#closed;
  }

  /** Throws `CLOSED` after {@link ViewScope.close}. */
  checkOpen(): void {
    if (!this.#closed) return;
    throw new HeadraceError(
      "CLOSED",
      `${this.#describe()} was released; copy what you need before release()`,
    );
  }

  /** Throws `BAD_OPTION` where `user` works with another device than the batch's. */
  checkDevice(user: string, device: Device): void {
    assertSameDevice(this.#describe(), this.#device, user, device);
  }

  /** An ArrayBuffer that ends with this scope. */
  view(buffer: DeviceBuffer, byteOffset: number, byteLength: number): ArrayBuffer {
    this.checkOpen();
    // Nothing can be seen on every device.
    if (byteLength === 0) return new ArrayBuffer(0);
    const view = buffer.view(byteOffset, byteLength);
    this.#buffers.push(view);
    return view;
  }

  /** Detaches all views: arrays over them become empty. */
  close(): void {
    this.#closed = true;
    // Closing the memory itself has detached its views already.
    for (const buffer of this.#buffers) if (!buffer.detached) buffer.transfer(0);
    this.#buffers.length = 0;
  }
}

/** An array in device memory: `shape` elements of `dtype`, C order, at `byteOffset` of `buffer`. Owned by
 * its batch, and gone when that is released. */
export class Part {
  readonly dtype: DType;
  readonly shape: Shape;
  readonly buffer: DeviceBuffer;
  readonly byteOffset: number;
  readonly byteLength: number;
  readonly #scope: ViewScope;
  #view: TypedArray | undefined;

  constructor(
    scope: ViewScope,
    dtype: DType,
    shape: Shape,
    buffer: DeviceBuffer,
    byteOffset: number,
    byteLength: number,
  ) {
    this.dtype = dtype;
    this.shape = shape;
    this.buffer = buffer;
    this.byteOffset = byteOffset;
    this.byteLength = byteLength;
    this.#scope = scope;
  }

  /** Whether the host can see the bytes; else `HostReader` brings them. */
  get hostVisible(): boolean {
    return this.buffer.hostAddress !== 0 || this.byteLength === 0;
  }

  /**
   * The elements, without a copy: raw bits for types that JavaScript lacks (BF16 as Uint16Array, 8-bit and
   * smaller floats and BOOL as Uint8Array, C64 as pairs in a Float32Array). Empty once the batch is
   * released. Throws `UNSUPPORTED` where the host cannot see the memory (see `HostReader`) or it is over 4 GiB
   * (see {@link Part.chunks}), `CLOSED` after release, `FILE_CHANGED` where a mapped file has shrunk.
   */
  get view(): TypedArray {
    if (this.#view === undefined || this.#scope.closed) {
      this.#checkVisible();
      if (this.byteLength > MAX_VIEW_BYTES) {
        throw new HeadraceError(
          "UNSUPPORTED",
          `${this.byteLength} bytes are more than one array holds; use chunks()`,
        );
      }
      const memory = this.#scope.view(this.buffer, this.byteOffset, this.byteLength);
      this.#view = typedView(this.dtype, memory, 0, this.byteLength);
    }
    return this.#view;
  }

  /** All bytes in order, in pieces of at most 256 MiB. Same errors as {@link Part.view}. */
  *chunks(): Generator<Uint8Array> {
    this.#checkVisible();
    for (let at = 0; at < this.byteLength; at += CHUNK_BYTES) {
      const length = Math.min(CHUNK_BYTES, this.byteLength - at);
      yield new Uint8Array(this.#scope.view(this.buffer, this.byteOffset + at, length));
    }
  }

  /** Throws `CLOSED` where the batch was released. */
  checkLive(): void {
    this.#scope.checkOpen();
  }

  /** Throws `BAD_OPTION` where the batch is not of `device`, which `user` works with. */
  checkDevice(user: string, device: Device): void {
    this.#scope.checkDevice(user, device);
  }

  #checkVisible(): void {
    this.checkLive();
    if (this.hostVisible) return;
    throw new HeadraceError(
      "UNSUPPORTED",
      `the host cannot see these ${this.byteLength} bytes of private memory; use HostReader, or give buffer and byteOffset to a kernel`,
    );
  }
}

/** What a column has beside its values. */
export interface ColumnParts {
  /** Ragged columns that are not padded: I32 or I64 `[rows + 1]`, from 0: row i is values
   * `[offsets[i], offsets[i + 1])`. */
  readonly offsets?: Part | undefined;
  /** Padded ragged columns: U8 `[rows, length]`, 1 where a value is real. */
  readonly mask?: Part | undefined;
  /** U8 `[rows]`, 1 where the row is present. Absent where none of the row groups touched has a null. */
  readonly validity?: Part | undefined;
  /** What the codes of a dictionary column mean. */
  readonly dictionary?: DatasetDictionary | undefined;
}

/** One column of a batch. Its own array are the values; `shape[0]` is the number of rows, or of elements
 * where `offsets` is there. */
export class Column extends Part implements ColumnParts {
  readonly name: string;
  /** As in the schema: `number`, `utf8`, … */
  readonly logical: string;
  /** Whether the values are the file's own pages. */
  readonly mapped: boolean;
  readonly offsets?: Part | undefined;
  readonly mask?: Part | undefined;
  readonly validity?: Part | undefined;
  readonly dictionary?: DatasetDictionary | undefined;

  constructor(
    name: string,
    logical: string,
    mapped: boolean,
    parts: ColumnParts,
    ...place: ConstructorParameters<typeof Part>
  ) {
    super(...place);
    this.name = name;
    this.logical = logical;
    this.mapped = mapped;
    this.offsets = parts.offsets;
    this.mask = parts.mask;
    this.validity = parts.validity;
    this.dictionary = parts.dictionary;
  }

  /** Row `row` of a ragged column, or of a fixed one, as an array over the batch's memory. Throws
   * `OUT_OF_RANGE` where there is no such row, `UNSUPPORTED` where it does not start on a whole byte. */
  row(row: number): TypedArray {
    const view = this.view;
    const numRows = this.#checkRow(row);
    if (this.offsets !== undefined) {
      const offsets = this.offsets.view;
      const item = this.shape[0] === 0 ? 0 : view.length / this.shape[0]!;
      return view.subarray(Number(offsets[row]) * item, Number(offsets[row + 1]) * item) as TypedArray;
    }
    const rowLength = view.length / numRows;
    if (!Number.isInteger(rowLength)) {
      throw new HeadraceError("UNSUPPORTED", `column ${this.name}: its rows are not whole bytes; use view`);
    }
    return view.subarray(row * rowLength, (row + 1) * rowLength) as TypedArray;
  }

  /** Row `row` of a utf8 column or of a dictionary of utf8. Throws as {@link Column.row} does. */
  text(row: number): string {
    this.#checkRow(row);
    if (this.dictionary !== undefined) return this.dictionary.text(Number(this.view[row]));
    let bytes = this.row(row);
    if (this.mask !== undefined) {
      const width = this.shape[1]!;
      const mask = this.mask.view.subarray(row * width, (row + 1) * width);
      const end = mask.indexOf(0 as never);
      if (end >= 0) bytes = bytes.subarray(0, end) as TypedArray;
    }
    return new TextDecoder().decode(bytes as Uint8Array);
  }

  /** The number of rows, of which `row` is one. */
  #checkRow(row: number): number {
    const numRows = this.offsets === undefined ? (this.shape[0] ?? 0) : this.offsets.shape[0]! - 1;
    if (Number.isInteger(row) && row >= 0 && row < numRows) return numRows;
    throw new HeadraceError("OUT_OF_RANGE", `column ${this.name}: there is no row ${row} among ${numRows}`);
  }
}

/** Everything a batch is made of. */
export interface BatchContents {
  readonly epoch: number;
  readonly step: number;
  readonly size: number;
  readonly numSamples: number;
  readonly sampleIds: () => Float64Array;
  readonly columns: ReadonlyMap<string, Column>;
  readonly rowMask: Part | undefined;
  readonly scope: ViewScope;
  readonly onRelease: () => void;
}

/**
 * Samples collated on the device. The caller owns it until `release()` (or the end of a `using` block);
 * then its memory is used again, and every array that came from it is empty.
 */
export class Batch implements Disposable {
  readonly epoch: number;
  /** Counts the batches of this rank in this run of the loader, from 0. */
  readonly step: number;
  /** Rows of every column, padding rows included. */
  readonly size: number;
  /** Real samples. */
  readonly numSamples: number;
  /** By name, in the order of the schema. Tensors view: one column a tensor, without a row dimension. */
  readonly columns: ReadonlyMap<string, Column>;
  /** U8 `[size]`, 1 for real rows; there only when rows were padded. */
  readonly rowMask?: Part | undefined;
  readonly #makeSampleIds: () => Float64Array;
  #sampleIds: Float64Array | undefined;
  readonly #scope: ViewScope;
  readonly #onRelease: () => void;

  constructor(contents: BatchContents) {
    this.epoch = contents.epoch;
    this.step = contents.step;
    this.size = contents.size;
    this.numSamples = contents.numSamples;
    this.#makeSampleIds = contents.sampleIds;
    this.columns = contents.columns;
    this.rowMask = contents.rowMask;
    this.#scope = contents.scope;
    this.#onRelease = contents.onRelease;
  }

  /** Index in the dataset of each real row, in the order of the rows. Owned by the caller. */
  get sampleIds(): Float64Array {
    this.#sampleIds ??= this.#makeSampleIds();
    return this.#sampleIds;
  }

  /** Bytes of all values, offsets and masks. */
  get byteLength(): number {
    let total = this.rowMask?.byteLength ?? 0;
    for (const column of this.columns.values()) {
      total += column.byteLength + (column.offsets?.byteLength ?? 0);
      total += (column.mask?.byteLength ?? 0) + (column.validity?.byteLength ?? 0);
    }
    return total;
  }

  get released(): boolean {
    return this.#scope.closed;
  }

  /** The column named `name`. Throws `UNKNOWN_COLUMN`. */
  column(name: string): Column {
    const column = this.columns.get(name);
    if (column !== undefined) return column;
    throw new HeadraceError(
      "UNKNOWN_COLUMN",
      `the batch has no column ${name} (it has: ${[...this.columns.keys()].slice(0, 12).join(", ")})`,
    );
  }

  /** Gives the memory back. Doing it twice is harmless. */
  release(): void {
    if (this.#scope.closed) return;
    this.#scope.close();
    this.#onRelease();
  }

  [Symbol.dispose](): void {
    this.release();
  }
}
