/**
 * Files of outputs in the Arrow IPC file format.
 *
 * The encoder is our own, and not that of apache-arrow, for what it must give: where columns lie is known before their
 * bytes are, so that devices may write them in place; a record batch is never whole in memory; the same rows give
 * the same bytes. Of messages it has the flatbuffers alone from there.
 */

import {
  ALIGNMENT,
  type BodyRange,
  batchMessage,
  dictionaryMessage,
  footerOf,
  type MessagePlace,
  type NodeSize,
  schemaMessage,
} from "./arrow-encode-messages.ts";
import { hasArrowType } from "./arrow-encode-schema.ts";
import { MAGIC } from "./arrow-file.ts";
import { readArrowGroups } from "./arrow-groups.ts";
import {
  alignedTo,
  elementBytesOf,
  type FieldPlace,
  type FileLayout,
  type GroupPlace,
  type GroupSize,
  isVariable,
  noType,
  type OutputField,
  type OutputFormat,
  rowBytesOf,
} from "./output-layout.ts";

/** Offsets of lists and texts are of 32 bits, hence the bound on what a record batch holds of a column. */
export const ARROW_OUTPUT: OutputFormat = {
  extension: ".arrow",
  maxFieldBytes: 2 ** 31 - 1,
  hasNulls: true,
  check(field) {
    if (field.kind === "fixed" || field.kind === "list") {
      if (field.dtype === "BOOL" || !hasArrowType(field.dtype))
        throw noType(field, "Arrow", "store it as another type, or as safetensors");
    }
  },
  layout: layoutArrow,
  groups: readArrowGroups,
};

function layoutArrow(
  fields: readonly OutputField[],
  shared: string,
  groups: readonly GroupSize[],
): FileLayout {
  const pieces: { at: number; bytes: Uint8Array }[] = [];
  const put = (at: number, bytes: Uint8Array): number => {
    pieces.push({ at, bytes });
    return at + bytes.length;
  };
  const head = new Uint8Array(8);
  head.set(MAGIC);
  let at = put(put(0, head), schemaMessage(fields));
  const dictionaries: MessagePlace[] = [];
  fields.forEach((field, id) => {
    if (field.kind !== "name") return;
    const { metadata, body } = dictionaryMessage(id, shared);
    dictionaries.push({ offset: at, metadataLength: metadata.length, bodyLength: body.length });
    at = put(put(at, metadata), body);
  });
  const reserve = batchMetadataBytes(fields);
  const batches: MessagePlace[] = [];
  const places: GroupPlace[] = [];
  let rowStart = 0;
  for (const group of groups) {
    if (group.numRows > 0) {
      const bodyStart = alignedTo(at + reserve, ALIGNMENT);
      const body = layoutBody(fields, group, bodyStart);
      put(at, batchMessage(group.numRows, body, bodyStart - at));
      batches.push({ offset: at, metadataLength: bodyStart - at, bodyLength: body.length });
      places.push({ rowStart, numRows: group.numRows, fields: body.places });
      at = bodyStart + body.length;
    } else places.push({ rowStart, numRows: 0, fields: fields.map(() => ({ values: 0 })) });
    rowStart += group.numRows;
  }
  at = put(at, footerOf(fields, dictionaries, batches));
  return { byteLength: at, pieces, groups: places };
}

/** Nodes, buffers and places of a record batch whose body starts at `bodyStart` of the file. */
function layoutBody(
  fields: readonly OutputField[],
  { numRows, fields: sizes }: GroupSize,
  bodyStart: number,
) {
  const nodes: NodeSize[] = [];
  const buffers: BodyRange[] = [];
  const places: FieldPlace[] = [];
  let at = 0;
  const buffer = (length: number): number => {
    const offset = at;
    buffers.push({ offset, length });
    at = alignedTo(at + length, ALIGNMENT);
    return bodyStart + offset;
  };
  fields.forEach((field, i) => {
    const { elements, nullCount } = sizes[i]!;
    nodes.push({ length: numRows, nullCount });
    const bits = buffer(field.nullable ? Math.ceil(numRows / 8) : 0);
    const validity = field.nullable ? bits : undefined;
    if (isVariable(field)) {
      const offsets = { at: buffer(4 * (numRows + 1)), width: 4 } as const;
      if (field.kind === "list") {
        nodes.push({ length: elements, nullCount: 0 });
        buffer(0);
      }
      places.push({ validity, offsets, values: buffer(elements * elementBytesOf(field)) });
      return;
    }
    if (field.length !== undefined) {
      nodes.push({ length: numRows * field.length, nullCount: 0 });
      buffer(0);
    }
    places.push({ validity, values: buffer(numRows * rowBytesOf(field)) });
  });
  return { nodes, buffers, places, length: at };
}

/** Bytes that the metadata of any record batch of these fields fits in, prefix and all. */
function batchMetadataBytes(fields: readonly OutputField[]): number {
  const sizes = fields.map(() => ({ elements: 1, nullCount: 1 }));
  const body = layoutBody(fields, { numRows: 1, fields: sizes }, 0);
  return batchMessage(1, body).length;
}
