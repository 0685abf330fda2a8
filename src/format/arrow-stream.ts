/** The Arrow IPC stream format: a schema message, then dictionary and record batches one after another. */
import { MessageHeader } from "apache-arrow/fb/message-header";
import { Schema } from "apache-arrow/fb/schema";
import { HeadraceError } from "../errors.ts";
import type { ByteReader, ShardDescription } from "../types.ts";
import { type ArrowMessage, type MessagePrefix, parsePrefix, readMessage } from "./arrow-message.ts";
import { type ArrowSource, RowsBuilder, tableOf } from "./arrow-rows.ts";
import { type ArrowSchema, parseSchema } from "./arrow-schema.ts";
import { ChunkList } from "./chunk-list.ts";

/** Describes a file that holds one stream. See `describeArrow`. */
export function describeArrowStream(source: ArrowSource): ShardDescription {
  const { read, fileLength } = source;
  const first = readPrefix(read, 0, fileLength, "the schema message");
  if (first.prefixLength === 4 && !(first.metadataLength > 0 && first.metadataLength <= fileLength - 4))
    throw new HeadraceError(
      "ARROW_MAGIC",
      "the file begins neither with ARROW1 nor with an Arrow stream's schema message",
    );
  const schemaMessage = readMessage(read, 0, first, fileLength, "the schema message");
  const schema = parseSchemaMessage(schemaMessage);
  const rows = new RowsBuilder(source, schema, true);
  let offset = schemaMessage.body.end;
  // A stream ends with a mark, or with the file where that is exactly the end of a message.
  while (offset < fileLength && !rows.needsChunks) {
    const prefix = readPrefix(read, offset, fileLength, `the message at byte ${offset}`);
    if (prefix.metadataLength === 0) {
      checkEnd(offset + prefix.prefixLength, fileLength);
      break;
    }
    offset = addMessage(rows, readMessage(read, offset, prefix, fileLength, `the message at byte ${offset}`));
  }
  if (rows.needsChunks) return describeArrowStream({ ...source, chunks: new ChunkList() });
  return {
    format: "arrow-stream",
    chunks: tableOf(source),
    byteLength: fileLength,
    metadata: schema.metadata,
    rows: rows.finish(),
  };
}

/** Returns where the next message starts. */
function addMessage(rows: RowsBuilder, message: ArrowMessage): number {
  const { headerType, buffer, body } = message;
  if (headerType === MessageHeader.RecordBatch) rows.addRecordBatch(message);
  else if (headerType === MessageHeader.DictionaryBatch) rows.addDictionaryBatch(message);
  else
    buffer.fail(
      `it is a ${MessageHeader[headerType] ?? `message of type ${headerType}`}, not a batch of rows or of a dictionary`,
    );
  return body.end;
}

function parseSchemaMessage({ message, buffer, headerType }: ArrowMessage): ArrowSchema {
  const table: Schema | null = headerType === MessageHeader.Schema ? message.header(new Schema()) : null;
  if (table === null) return buffer.fail("the first message of the stream is not a schema");
  return parseSchema(buffer, table, message.version());
}

function readPrefix(read: ByteReader, offset: number, fileLength: number, what: string): MessagePrefix {
  const room = fileLength - offset;
  const prefix = room < 4 ? undefined : parsePrefix(read(offset, Math.min(8, room)));
  if (prefix !== undefined) return prefix;
  throw new HeadraceError("ARROW_TRUNCATED", `${what}: its prefix is cut off after ${room} bytes`);
}

/** Another stream behind the first would be rows that are silently missing. */
function checkEnd(end: number, fileLength: number): void {
  if (end < fileLength)
    throw new HeadraceError(
      "ARROW_MESSAGE",
      `${fileLength - end} bytes follow the end of the stream at byte ${end}; a shard is one stream`,
    );
}
