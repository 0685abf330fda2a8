/** Encapsulated Arrow messages: a length prefix, a flatbuffer, and a body that is never read here. */
import { Message } from "apache-arrow/fb/message";
import type { MessageHeader } from "apache-arrow/fb/message-header";
import { HeadraceError } from "../errors.ts";
import type { ByteRange, ByteReader } from "../types.ts";
import { MAX_METADATA_LENGTH, MetadataBuffer } from "./arrow-metadata.ts";

/** A message's metadata in memory, and where its body lies in the file. */
export interface ArrowMessage {
  readonly message: Message;
  readonly buffer: MetadataBuffer;
  readonly headerType: MessageHeader;
  readonly body: ByteRange;
}

/** The length prefix of a message. `prefixLength` is 8 bytes, or 4 as Arrow wrote before 0.15. */
export interface MessagePrefix {
  readonly prefixLength: 4 | 8;
  /** Bytes of flatbuffer and padding after the prefix; 0 at the end of a stream. */
  readonly metadataLength: number;
}

/** Four bytes that stand before the length since Arrow 0.15. */
const CONTINUATION = 0xffffffff;

/** Parses the first 4 or 8 bytes of a message. `bytes` has at least 4; undefined where 8 are needed. */
export function parsePrefix(bytes: Uint8Array): MessagePrefix | undefined {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (view.getUint32(0, true) !== CONTINUATION)
    return { prefixLength: 4, metadataLength: view.getInt32(0, true) };
  return bytes.byteLength < 8 ? undefined : { prefixLength: 8, metadataLength: view.getInt32(4, true) };
}

/**
 * Reads the message of which the prefix is at `offset`. `end` is where the file's messages end: the file's
 * length in a stream, the footer's start in a file. Throws `ARROW_MESSAGE`, or `ARROW_TRUNCATED` where
 * metadata or body pass `end`.
 */
export function readMessage(
  read: ByteReader,
  offset: number,
  prefix: MessagePrefix,
  end: number,
  what: string,
): ArrowMessage {
  const start = offset + prefix.prefixLength;
  const length = prefix.metadataLength;
  if (length <= 0 || length > MAX_METADATA_LENGTH)
    fail("ARROW_MESSAGE", what, `its metadata length is ${length}, not from 1 to ${MAX_METADATA_LENGTH}`);
  if (length > end - start)
    fail("ARROW_TRUNCATED", what, `its metadata are bytes [${start}, ${start + length}), past byte ${end}`);
  const message = parseMessage(read(start, length), start + length, what);
  const { body } = message;
  if (body.end > end)
    fail("ARROW_TRUNCATED", what, `its body is bytes [${body.start}, ${body.end}), past byte ${end}`);
  return message;
}

/** Parses metadata of which the body starts at `bodyStart`. The caller checks where the body ends. */
export function parseMessage(bytes: Uint8Array, bodyStart: number, what: string): ArrowMessage {
  const buffer = new MetadataBuffer(bytes, "ARROW_MESSAGE", what);
  const message = buffer.root(new Message());
  const bodyLength = buffer.size(message.bodyLength(), "its body length");
  const body = { start: bodyStart, end: bodyStart + bodyLength };
  return { message, buffer, headerType: message.headerType(), body };
}

function fail(code: "ARROW_MESSAGE" | "ARROW_TRUNCATED", what: string, text: string): never {
  throw new HeadraceError(code, `${what}: ${text}`);
}
