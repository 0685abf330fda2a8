/** What flows from sources to shards: rows as columns, a batch at a time. */
import type { DType, Shape } from "../types.ts";

/** One column that a source gives, and that shards get. */
export interface PackField {
  readonly name: string;
  /** `fixed`: every row has `shape` elements. `list`: any number of elements. `utf8`, `binary`: bytes. */
  readonly kind: "fixed" | "list" | "utf8" | "binary";
  /** Of the elements; U8 for `utf8` and `binary`. BOOL is one byte an element here, 0 or 1. */
  readonly dtype: DType;
  /** Dimensions of one row of `fixed`; `[]` for one element. Empty for the other kinds. */
  readonly shape: Shape;
  readonly nullable: boolean;
}

/** One column of some rows. Arrays are valid until the next batch is asked for. */
export interface PackColumn {
  /** The elements of all rows, back to back, little-endian. Of null rows: zeros where `fixed`, nothing elsewhere. */
  readonly values: Uint8Array;
  /** `numRows + 1` counts of elements, the first 0: absent where `fixed`. */
  readonly offsets?: Int32Array | undefined;
  /** One byte a row, 1 = present; absent where no row is null. */
  readonly validity?: Uint8Array | undefined;
  readonly nullCount: number;
}

export interface PackBatch {
  readonly numRows: number;
  /** In the order of the fields. */
  readonly columns: readonly PackColumn[];
  /** Bytes of the source that this batch and all before it came from, for progress. */
  readonly sourceBytes: number;
  /** The file that the rows are of, for messages; absent where it is not known. */
  readonly path?: string | undefined;
}

/** Rows of a source that is open. */
export interface RowSource {
  readonly fields: readonly PackField[];
  /** Rows, where that is known beforehand. */
  readonly numRows?: number | undefined;
  /** Bytes that will be read. */
  readonly byteLength: number;
  /** Rows so far that could not be read and were left out, as was asked for. */
  readonly skippedRows?: number | undefined;
  /** What its files hold that no row has, a sentence each; complete when all rows were read. */
  warnings?(): readonly string[];
  /** All rows in the source's order, in batches of some size of the source's own; called once. Throws `BAD_INPUT`
   * naming file and line or row. */
  batches(signal?: AbortSignal): AsyncIterable<PackBatch>;
  close(): Promise<void>;
}

/** One tensor of a source that is no rows: a checkpoint's. */
export interface TensorSource {
  readonly tensors: readonly {
    readonly name: string;
    readonly dtype: DType;
    readonly shape: Shape;
    readonly byteLength: number;
    /** The tensor's bytes in pieces of a few MiB; each is valid until the next is asked for. */
    read(): AsyncIterable<Uint8Array>;
  }[];
  readonly byteLength: number;
  /** File-level key and value pairs, which every shard gets. */
  readonly metadata?: Readonly<Record<string, string>> | undefined;
  /** Paths of files that go beside the shards as they are: a model's configuration and tokenizer. */
  readonly files?: readonly string[] | undefined;
  close(): Promise<void>;
}
