/**
 * The public vocabulary: what columns, shards and batches are made of. Types alone, so that every layer may
 * import it. All offsets and lengths are bytes unless the name says otherwise, all are non-negative safe
 * integers, and all ranges are half open: `[start, end)`.
 */

/** Element types, by their safetensors names. Arrow types arrive as the one with the same bits. */
export type DType =
  | "BOOL"
  | "F4"
  | "F6_E2M3"
  | "F6_E3M2"
  | "U8"
  | "I8"
  | "F8_E5M2"
  | "F8_E4M3"
  | "F8_E8M0"
  | "F8_E4M3FNUZ"
  | "F8_E5M2FNUZ"
  | "I16"
  | "U16"
  | "F16"
  | "BF16"
  | "I32"
  | "U32"
  | "F32"
  | "C64"
  | "F64"
  | "I64"
  | "U64";

/** Dimensions, outermost first; `[]` is a scalar. */
export type Shape = readonly number[];

/** Any view that a batch hands out. Types that JavaScript lacks come as raw bits (BF16 as Uint16Array). */
export type TypedArray =
  | Uint8Array
  | Int8Array
  | Uint16Array
  | Int16Array
  | Float16Array
  | Uint32Array
  | Int32Array
  | Float32Array
  | Float64Array
  | BigInt64Array
  | BigUint64Array;

/** Bytes `[start, end)` of a file. */
export interface ByteRange {
  readonly start: number;
  readonly end: number;
}

/** Integer range `[start, end)`. */
export interface IndexRange {
  readonly start: number;
  readonly end: number;
}

/** Reads `byteLength` bytes at `byteOffset` of one file; throws `SHORT_READ` where the file ends earlier. */
export type ByteReader = (byteOffset: number, byteLength: number) => Uint8Array;

/** What one column holds, the same in every shard of a dataset. */
export interface ColumnSchema {
  readonly name: string;
  /** Of each element as delivered. Dictionary columns deliver I32 codes. */
  readonly dtype: DType;
  /** Fixed column: dimensions of one sample. Ragged column: dimensions of one element of the list. */
  readonly shape: Shape;
  /** Whether samples differ in length: then a batch carries values and `offsets`. */
  readonly ragged: boolean;
  /** What the values mean where the dtype alone does not say: `utf8`, `binary`, `date32[day]`,
   * `timestamp[us, UTC]`, `dictionary<utf8>`; `number` otherwise. */
  readonly logical: string;
  /** Whether a sample may be missing: then a batch may carry `validity`. */
  readonly nullable: boolean;
  /** The column that the codes of a dictionary column point into (one row an entry). */
  readonly dictionary?: ColumnSchema;
}

export interface Schema {
  readonly columns: readonly ColumnSchema[];
}

/** Where one column of one row group lies in its file. Every range was checked against the file's length. */
export interface ColumnLayout {
  /** The type in the file: the schema's dtype, or the integer type of a dictionary's codes. */
  readonly dtype: DType;
  /** The values of all rows, back to back. */
  readonly values: ByteRange;
  /** BOOL stored as one bit an element, least significant first. */
  readonly bitPacked: boolean;
  /** Ragged columns: `numRows + 1` integers counting elements of `values`, each 4 or 8 bytes, little-endian.
   * Their contents are not checked here but when rows are read. */
  readonly offsets?: { readonly range: ByteRange; readonly width: 4 | 8 };
  /** One bit a row, least significant first, 1 = present. Absent where no row is null. */
  readonly validity?: { readonly range: ByteRange; readonly nullCount: number };
  /** For dictionary columns, the batches to concatenate, in order. */
  readonly dictionary?: readonly DictionaryLayout[];
}

/** One dictionary batch: `numRows` entries laid out as a column. */
export interface DictionaryLayout {
  readonly numRows: number;
  readonly column: ColumnLayout;
}

/** Rows that lie together in a file: an Arrow record batch, or all rows of a safetensors file. */
export interface RowGroup {
  /** Of the group's first row, in the shard. */
  readonly rowStart: number;
  readonly numRows: number;
  /** In the order of the schema's columns. */
  readonly columns: readonly ColumnLayout[];
}

/** The rows view of a shard. */
export interface RowsLayout {
  readonly schema: Schema;
  readonly numRows: number;
  /** In row order, without gaps. */
  readonly groups: readonly RowGroup[];
}

/** One tensor of a safetensors shard. */
export interface TensorLayout {
  readonly name: string;
  readonly dtype: DType;
  readonly shape: Shape;
  /** In the file (not in its data section). */
  readonly range: ByteRange;
}

export type ShardFormat = "safetensors" | "arrow-file" | "arrow-stream";

/**
 * The logical bytes `[0, byteLength)` of a shard, cut into chunks without gaps. Descriptions of compressed shards
 * count in logical bytes; only readers of chunks know of offsets in the file.
 *
 * Chunk `i` holds logical bytes `[starts[i], starts[i + 1])`, stored as `fileLength[i]` bytes at `fileOffset[i]` of the
 * file. Chunks do not overlap in the file, and all lie inside it: whoever makes a table has checked that.
 */
export interface ChunkTable {
  /** Logical bytes. */
  readonly byteLength: number;
  readonly numChunks: number;
  /** `numChunks + 1` entries, ascending; no chunk is empty. */
  readonly starts: Float64Array;
  readonly fileOffset: Float64Array;
  readonly fileLength: Float64Array;
  /** Of `ChunkCodec`. */
  readonly codec: Uint8Array;
  /** Bytes of an element whose bytes were split into planes before the chunk was compressed; 1 where they were not.
   * Absent where no chunk has any. */
  readonly planes?: Uint8Array | undefined;
  /** Of each chunk's decoded bytes (before planes are joined), where the file has them besides those inside its frames:
   * the low 32 bits of the XXH64 (seed 0) for zstd, the CRC-32 for LZ4. */
  readonly checksums?: Uint32Array | undefined;
  /** Frames of LZ4 with checksums that lie outside of their chunks, which decoding these does not verify. Absent where
   * there are none. */
  readonly unverifiedFrames?: number | undefined;
  /** Logical bytes of the longest chunk, and file bytes of the longest one. */
  readonly maxLength: number;
  readonly maxFileLength: number;
}

/** All that is known of a shard without touching its data. */
export interface ShardDescription {
  readonly format: ShardFormat;
  /** Present where the shard, or some of it, is compressed: then all ranges here count in the table's logical bytes. */
  readonly chunks?: ChunkTable | undefined;
  /** Of the file when it was described; a file that shrinks later gives `FILE_CHANGED`. */
  readonly byteLength: number;
  /** File-level key and value pairs (`__metadata__`, or the Arrow schema's). */
  readonly metadata: Readonly<Record<string, string>>;
  /** safetensors alone: the tensors in the order of their bytes. */
  readonly tensors?: readonly TensorLayout[];
  /** Absent where the shard cannot be seen as rows; {@link ShardDescription.notRows} says why. */
  readonly rows?: RowsLayout;
  readonly notRows?: string;
}

/** How samples are seen: one row each, or one tensor each. */
export type View = "rows" | "tensors";

/** How bytes reach a batch: `map` without a copy where the layout allows it, `read` by `pread` on lanes, `stream`
 * through the device's own file queue, which may decompress. */
export type Strategy = "map" | "read" | "stream";
