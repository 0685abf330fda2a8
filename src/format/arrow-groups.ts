/** How the rows of a file that our own encoder has made are cut into record batches, read from its footer. */
import { Footer } from "apache-arrow/fb/footer";
import { Message } from "apache-arrow/fb/message";
import { RecordBatch } from "apache-arrow/fb/record-batch";
import { ByteBuffer } from "flatbuffers";
import { MAGIC } from "./arrow-file.ts";
import {
  elementBytesOf,
  type FieldSize,
  type GroupSize,
  isVariable,
  type OutputField,
  type OutputReader,
} from "./output-layout.ts";

/** Continuation and length, before each flatbuffer. */
const PREFIX_BYTES = 8;

/** What the file says of its batches. Its bytes are trusted no further than that: who wants to know whether they are
 * whole lays the same groups out, and compares. Throws any error for a file that is none. */
export async function readArrowGroups(
  read: OutputReader,
  byteLength: number,
  fields: readonly OutputField[],
): Promise<GroupSize[]> {
  const tail = 4 + MAGIC.length;
  const end = await read(byteLength - tail, tail);
  const footerBytes = new DataView(end.buffer, end.byteOffset).getInt32(0, true);
  const footer = Footer.getRootAsFooter(
    new ByteBuffer(await read(byteLength - tail - footerBytes, footerBytes)),
  );
  const groups: GroupSize[] = [];
  for (let i = 0; i < footer.recordBatchesLength(); i++) {
    const block = footer.recordBatches(i)!;
    const metadata = await read(Number(block.offset()), block.metaDataLength());
    const message = Message.getRootAsMessage(new ByteBuffer(metadata.subarray(PREFIX_BYTES)));
    groups.push(groupOf(message.header(new RecordBatch()) as RecordBatch, fields));
  }
  return groups;
}

function groupOf(batch: RecordBatch, fields: readonly OutputField[]): GroupSize {
  let node = 0;
  let buffer = 0;
  const sizes = fields.map((field): FieldSize => {
    const nullCount = Number(batch.nodes(node)!.nullCount());
    // Items of lists have a node of their own, and a buffer of validity that is empty.
    const hasItems = field.kind === "list" || field.length !== undefined;
    node += hasItems ? 2 : 1;
    buffer += (isVariable(field) ? 2 : 1) + (hasItems ? 1 : 0);
    const bytes = Number(batch.buffers(buffer++)!.length());
    return { elements: isVariable(field) ? bytes / elementBytesOf(field) : 0, nullCount };
  });
  return { numRows: Number(batch.length()), fields: sizes };
}
