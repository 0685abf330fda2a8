/** The Arrow IPC file format: magic, messages, footer, its length, magic. The footer lists every block. */
import type { Block } from "apache-arrow/fb/block";
import { Footer } from "apache-arrow/fb/footer";
import { MessageHeader } from "apache-arrow/fb/message-header";
import { HeadraceError } from "../errors.ts";
import type { ByteReader, ShardDescription } from "../types.ts";
import { type ArrowMessage, parseMessage, parsePrefix } from "./arrow-message.ts";
import { MAX_METADATA_LENGTH, MetadataBuffer } from "./arrow-metadata.ts";
import { type ArrowSource, RowsBuilder, tableOf } from "./arrow-rows.ts";
import { parseSchema } from "./arrow-schema.ts";
import { ChunkList } from "./chunk-list.ts";

/** `ARROW1`, at both ends; padded with two zeros at the start. */
export const MAGIC: Uint8Array = new TextEncoder().encode("ARROW1");
const HEAD_LENGTH = 8;
/** The footer's length and the magic. */
const TAIL_LENGTH = 4 + 6;

/** A message's place in the file, in bytes; `metadataLength` includes the prefix and padding. */
interface FileBlock {
  readonly offset: number;
  readonly metadataLength: number;
  readonly bodyLength: number;
  readonly what: string;
}

/** Describes a file that begins with {@link MAGIC}. See `describeArrow`. */
export function describeArrowFile(source: ArrowSource): ShardDescription {
  const { read, fileLength } = source;
  const { bytes, start } = readFooter(read, fileLength);
  const buffer = new MetadataBuffer(bytes, "ARROW_FOOTER", "the footer");
  const footer = buffer.root(new Footer());
  const table = footer.schema();
  if (table === null) return buffer.fail("it has no schema");
  // The footer's schema, and not the message at the start of the file: not every writer puts one there.
  const schema = parseSchema(buffer, table, footer.version());
  const rows = new RowsBuilder(source, schema, false);
  const dictionaryBlocks = parseBlocks(buffer, start, "dictionary batch", footer.dictionariesLength(), (i) =>
    footer.dictionaries(i),
  );
  const batchBlocks = parseBlocks(buffer, start, "record batch", footer.recordBatchesLength(), (i) =>
    footer.recordBatches(i),
  );
  checkApart(buffer, [...dictionaryBlocks, ...batchBlocks]);
  for (const block of dictionaryBlocks)
    rows.addDictionaryBatch(readBlock(read, block, MessageHeader.DictionaryBatch));
  for (const block of batchBlocks) {
    if (rows.needsChunks) break;
    rows.addRecordBatch(readBlock(read, block, MessageHeader.RecordBatch));
  }
  if (rows.needsChunks) return describeArrowFile({ ...source, chunks: new ChunkList() });
  return {
    format: "arrow-file",
    chunks: tableOf(source),
    byteLength: fileLength,
    metadata: schema.metadata,
    rows: rows.finish(),
  };
}

function readFooter(read: ByteReader, fileLength: number): { bytes: Uint8Array; start: number } {
  if (fileLength < HEAD_LENGTH + TAIL_LENGTH)
    throw new HeadraceError("ARROW_TRUNCATED", `the file has ${fileLength} bytes, too few for an Arrow file`);
  const tail = read(fileLength - TAIL_LENGTH, TAIL_LENGTH);
  if (MAGIC.some((byte, i) => tail[4 + i] !== byte))
    throw new HeadraceError(
      "ARROW_TRUNCATED",
      `the file of ${fileLength} bytes begins with ARROW1 but does not end with it: its writing was cut off`,
    );
  const length = new DataView(tail.buffer, tail.byteOffset).getInt32(0, true);
  const room = fileLength - TAIL_LENGTH - HEAD_LENGTH;
  if (length <= 0 || length > room || length > MAX_METADATA_LENGTH)
    throw new HeadraceError(
      "ARROW_FOOTER",
      `the footer's length is ${length}, not from 1 to ${Math.min(room, MAX_METADATA_LENGTH)}`,
    );
  const start = fileLength - TAIL_LENGTH - length;
  return { bytes: read(start, length), start };
}

/** Blocks with every number checked: each lies between the leading magic and the footer. */
function parseBlocks(
  buffer: MetadataBuffer,
  footerStart: number,
  kind: string,
  count: number,
  blockAt: (index: number) => Block | null,
): FileBlock[] {
  const blocks: FileBlock[] = [];
  for (let i = 0; i < count; i++) {
    const what = `${kind} ${i}`;
    const block = blockAt(i);
    if (block === null) return buffer.fail(`${what} is missing`);
    const offset = buffer.size(block.offset(), `the offset of ${what}`);
    const metadataLength = buffer.size(block.metaDataLength(), `the metadata length of ${what}`);
    const bodyLength = buffer.size(block.bodyLength(), `the body length of ${what}`);
    const room = footerStart - offset - metadataLength;
    if (offset < HEAD_LENGTH || metadataLength < 8 || bodyLength > room)
      buffer.fail(
        `${what} has ${metadataLength} bytes of metadata and ${bodyLength} of body at byte ${offset}, ` +
          `not between bytes ${HEAD_LENGTH} and ${footerStart}`,
      );
    blocks.push({ offset, metadataLength, bodyLength, what });
  }
  return blocks;
}

/** Blocks that share bytes are a forgery, and could ask for any amount of work in a small file. */
function checkApart(buffer: MetadataBuffer, blocks: FileBlock[]): void {
  blocks.sort((a, b) => a.offset - b.offset);
  let previous: FileBlock | undefined;
  for (const block of blocks) {
    const end = previous === undefined ? 0 : previous.offset + previous.metadataLength + previous.bodyLength;
    if (block.offset < end)
      buffer.fail(`${block.what} at byte ${block.offset} overlaps ${previous?.what}, which ends at ${end}`);
    previous = block;
  }
}

function readBlock(read: ByteReader, block: FileBlock, wanted: MessageHeader): ArrowMessage {
  const { offset, metadataLength, bodyLength, what } = block;
  const fail = (text: string): never => {
    throw new HeadraceError("ARROW_MESSAGE", `${what}: ${text}`);
  };
  if (metadataLength > MAX_METADATA_LENGTH)
    fail(`its ${metadataLength} bytes of metadata are more than ${MAX_METADATA_LENGTH}`);
  const bytes = read(offset, metadataLength);
  const prefix = parsePrefix(bytes);
  if (prefix === undefined) return fail("its prefix is cut off");
  const length = prefix.metadataLength;
  if (length <= 0 || length > metadataLength - prefix.prefixLength)
    fail(`its metadata length is ${length}, the footer gives ${metadataLength} with the prefix`);
  const metadata = bytes.subarray(prefix.prefixLength, prefix.prefixLength + length);
  const message = parseMessage(metadata, offset + metadataLength, what);
  const messageBody = message.body.end - message.body.start;
  if (messageBody !== bodyLength)
    fail(`its body is ${messageBody} bytes by its own metadata and ${bodyLength} by the footer`);
  if (message.headerType !== wanted)
    fail(
      `it is a ${MessageHeader[message.headerType] ?? message.headerType}, not a ${MessageHeader[wanted]}`,
    );
  return message;
}
