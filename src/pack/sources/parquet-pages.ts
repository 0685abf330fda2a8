/**
 * Looks through the pages of a column before they are decoded: the decoder takes the counts in them at their word, and one
 * wrong byte would have it fill memory with a run of a thousand million values.
 * Format: "Data Pages" and "Encodings" of the Apache Parquet format specification.
 */
import type { ColumnMetaData, Compressors, PageHeader, SchemaTree } from "hyparquet";
import { parquetHeader } from "hyparquet/src/column.js";
import { decompressPage } from "hyparquet/src/datapage.js";
import { getMaxDefinitionLevel, getMaxRepetitionLevel } from "hyparquet/src/schema.js";

/** Values of one column of one row group: more do not fit memory as the decoder holds them. */
const MAX_VALUES = 2 ** 27;
const MAX_PAGE_BYTES = 2 ** 30;
/** Values that writers may fill a last run up with. */
const MAX_PADDING = 512;

/** What is known of a column before its pages. */
export interface PagesOf {
  readonly meta: ColumnMetaData;
  /** From the root to the leaf. */
  readonly path: SchemaTree[];
  /** Of the row group. */
  readonly numRows: number;
  readonly compressors: Compressors;
}

/** Throws `RangeError` for pages that cannot be what they say. `bytes` are the column's, all of them. */
export function checkPages(
  bytes: Uint8Array<ArrayBuffer>,
  { meta, path, numRows, compressors }: PagesOf,
): void {
  const numValues = Number(meta.num_values);
  if (Number.isNaN(numValues)) throw new RangeError("its number of values is missing");
  const levels = [getMaxRepetitionLevel(path), getMaxDefinitionLevel(path)] as const;
  if (levels[0] === 0 && numValues !== numRows)
    throw new RangeError(`it has ${numValues} values in ${numRows} rows`);
  if (!(numValues >= 0 && numValues <= MAX_VALUES)) {
    throw new RangeError(`it has ${numValues} values of at most ${MAX_VALUES}; write smaller row groups`);
  }
  const reader = { view: new DataView(bytes.buffer, bytes.byteOffset, bytes.length), offset: 0 };
  let left = numValues;
  while (left > 0) {
    const at = reader.offset;
    if (at >= bytes.length) throw new RangeError(`its pages end ${left} values too early`);
    const header = parquetHeader(reader);
    const { compressed_page_size: length, uncompressed_page_size: fullLength } = header;
    const end = reader.offset + length;
    const count = countOf(header);
    if (count === undefined || ![count, length, fullLength].every(Number.isInteger))
      throw new RangeError(`the header of its page at byte ${at} is damaged`);
    if (!(length >= 0 && end <= bytes.length && fullLength >= 0 && fullLength <= MAX_PAGE_BYTES)) {
      throw new RangeError(`its page at byte ${at} claims ${length} bytes, ${fullLength} decompressed`);
    }
    if (!(count >= 0 && count <= left))
      throw new RangeError(`its page at byte ${at} claims ${count} values of ${left}`);
    const page = bytes.subarray(reader.offset, end);
    if (header.type === "DATA_PAGE") checkPage(page, header, levels, { meta, compressors });
    if (header.type === "DATA_PAGE_V2") checkPageV2(page, header, levels, { meta, compressors });
    left -= count;
    reader.offset = end;
  }
}

function countOf({
  type,
  data_page_header: first,
  data_page_header_v2: second,
}: PageHeader): number | undefined {
  if (type === "DATA_PAGE") return first?.num_values;
  return type === "DATA_PAGE_V2" ? second?.num_values : 0;
}

type Levels = readonly [repetition: number, definition: number];
type Decompress = Pick<PagesOf, "meta" | "compressors">;

function checkPage(
  page: Uint8Array,
  header: PageHeader,
  levels: Levels,
  { meta, compressors }: Decompress,
): void {
  const { num_values: count, encoding } = header.data_page_header!;
  const isRuns = encoding.endsWith("DICTIONARY") || encoding === "RLE";
  if (!isRuns && levels[0] + levels[1] === 0) return;
  const bytes = decompressPage(page, header.uncompressed_page_size, meta.codec, compressors);
  let at = 0;
  for (const level of levels) {
    if (level === 0) continue;
    at = checkRuns(bytes, at + 4, at + 4 + lengthAt(bytes, at), bitsOf(level), count);
  }
  checkValues(bytes.subarray(at), encoding, meta, count);
}

function checkPageV2(
  page: Uint8Array,
  header: PageHeader,
  levels: Levels,
  { meta, compressors }: Decompress,
): void {
  const second = header.data_page_header_v2!;
  const { num_values: count, encoding, num_nulls: nulls } = second;
  const lengths = [second.repetition_levels_byte_length, second.definition_levels_byte_length] as const;
  if (![nulls, ...lengths].every(Number.isInteger)) throw new RangeError("a page's header is damaged");
  if (!(nulls >= 0 && nulls <= count)) throw new RangeError(`a page has ${nulls} missing values of ${count}`);
  let at = 0;
  for (const i of [0, 1] as const) {
    if (!(lengths[i] >= 0)) throw new RangeError("a page has levels of a negative length");
    if (levels[i] > 0) checkRuns(page, at, at + lengths[i], bitsOf(levels[i]), count);
    at += lengths[i];
  }
  if (!encoding.endsWith("DICTIONARY") && encoding !== "RLE") return;
  const values = page.subarray(at);
  const full = header.uncompressed_page_size - at;
  const isPacked = second.is_compressed !== false;
  checkValues(
    isPacked ? decompressPage(values, full, meta.codec, compressors) : values,
    encoding,
    meta,
    count,
  );
}

/** Values that are stored as runs: codes of a dictionary, and booleans. */
function checkValues(bytes: Uint8Array, encoding: string, meta: ColumnMetaData, count: number): void {
  if (encoding.endsWith("DICTIONARY")) {
    if (bytes.length > 0) checkRuns(bytes, 1, bytes.length, bytes[0]!, count);
  } else if (encoding === "RLE" && meta.type === "BOOLEAN") {
    checkRuns(bytes, 4, 4 + lengthAt(bytes, 0), 1, count);
  }
}

function lengthAt(bytes: Uint8Array, at: number): number {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.length).getUint32(at, true);
}

function bitsOf(level: number): number {
  return 32 - Math.clz32(level);
}

/** Goes through runs of `bits` a value up to `count` values, and returns `end`. */
function checkRuns(bytes: Uint8Array, start: number, end: number, bits: number, count: number): number {
  if (end > bytes.length || bits > 32)
    throw new RangeError(`a run of ${bits} bits a value leads out of its page`);
  let at = start;
  for (let seen = 0; seen < count && at < end && bits > 0; ) {
    let header = 0;
    for (let shift = 0; ; shift += 7) {
      if (at >= end || shift > 28) throw new RangeError("a run's length is cut off");
      const byte = bytes[at++]!;
      header += (byte & 0x7f) * 2 ** shift;
      if (byte < 0x80) break;
    }
    const isPacked = header % 2 === 1;
    const length = isPacked ? ((header - 1) / 2) * 8 : header / 2;
    if (length > count - seen + (isPacked ? MAX_PADDING : 0)) {
      throw new RangeError(`a run of ${length} values, where ${count - seen} are left`);
    }
    at += isPacked ? (length / 8) * bits : (bits + 7) >>> 3;
    seen += length;
  }
  return end;
}
