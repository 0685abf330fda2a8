/** Describes Arrow IPC shards, files and streams, without reading their data. */
import { HeadraceError } from "../errors.ts";
import type { ByteReader, ShardDescription } from "../types.ts";
import type { DecodeChunk } from "./arrow-body.ts";
import { describeArrowFile, MAGIC } from "./arrow-file.ts";
import { describeArrowStream } from "./arrow-stream.ts";

/**
 * Finds the byte range of every buffer of an Arrow IPC file or stream.
 *
 * A file that begins with `ARROW1` is of the file format, anything else is taken for a stream; metadata
 * versions V4 and V5 are read, also with the shorter message prefix from before Arrow 0.15. Each record batch
 * with rows becomes one row group. Ranges are absolute, lie inside the file and are exactly as long as the
 * rows need, but for the bytes of strings, which may be followed by padding. The contents of offsets and
 * codes are not looked at. `read` is called for metadata alone, with one exception: where a fixed-size list
 * has null rows and null elements, both bitmaps are compared.
 *
 * Where bodies of wanted columns are compressed (LZ4_FRAME, ZSTD), the description has `chunks`: a chunk for each of
 * their buffers, and ranges that count in its logical bytes. Then `read` is also called for the eight bytes in front of
 * each such buffer, those of small buffers together.
 *
 * Columns: integers, floats, bool (bit-packed), fixed-size binary (U8 of `[width]`), dates, times, timestamps
 * and durations (I32 or I64), fixed-size lists of these at any depth (further dimensions), lists of these but
 * bool, utf8 and binary (ragged U8), and dictionaries of any of them (I32 codes; the layout has the type that
 * is in the file). A column whose every row is null may have an empty `dictionary`.
 *
 * @param fileLength bytes; what `read` can reach
 * @param columns the names to describe, in any order; names that the schema lacks are ignored. Only these
 * need be of a type that is supported and only these appear, in the schema's order. Absent: all.
 * @param decode for the two bitmaps above where they are compressed; a shard that has such is refused without
 * @throws HeadraceError `ARROW_MAGIC` for a file of another kind, `ARROW_TRUNCATED` where it ends too early,
 * `ARROW_FOOTER` and `ARROW_MESSAGE` for metadata that lie or contradict the schema (two columns of one name,
 * a dictionary that was not sent, nulls in a column that is not nullable), `ARROW_BUFFER` for a buffer outside
 * its body, too small, or of a length that its compressed bytes cannot have, `UNSUPPORTED_TYPE` for other types,
 * big-endian data and null elements inside lists, `UNSUPPORTED_COMPRESSION` for other codecs and for a buffer of more
 * than 1 GiB, and whatever `read` and `decode` throw.
 *
 * Format: "Serialization and Interprocess Communication" of the Arrow columnar format specification.
 */
export function describeArrow(
  read: ByteReader,
  fileLength: number,
  columns?: readonly string[],
  decode?: DecodeChunk,
): ShardDescription {
  if (fileLength < 8)
    throw new HeadraceError("ARROW_TRUNCATED", `the file has ${fileLength} bytes, too few for Arrow`);
  const head = read(0, MAGIC.length);
  const isFile = MAGIC.every((byte, i) => head[i] === byte);
  const source = { read, fileLength, columns, decode };
  return isFile ? describeArrowFile(source) : describeArrowStream(source);
}
