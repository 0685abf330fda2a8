/** What rows take in a shard before it is compressed, so that shards can be cut before they are too long. */
import { HeadraceError } from "../errors.ts";
import { encodeBatch, encodeFooter, encodeSchema } from "../format/arrow-write.ts";
import { alignedTo } from "../format/output-layout.ts";
import { DEFAULT_ALIGNMENT, encodeHeader } from "../format/safetensors-header.ts";
import { rowBytesOf, valueBytes } from "./columns.ts";
import type { PackFormat } from "./options.ts";
import type { PackBatch, PackField } from "./rows.ts";
import { tensorsOf } from "./shard-files.ts";

/** Bytes in a shard of some fields: never less than what is written. */
export interface ShardSizes {
  /** Of a shard without rows. */
  readonly empty: number;
  /** Of a record batch, besides its rows. */
  readonly batch: number;
  /** Of rows `[from, to)` of a batch. */
  rows(batch: PackBatch, from: number, to: number): number;
}

/** Where a batch lies, in an Arrow file's footer. */
const BLOCK_BYTES = 24;
/** What Arrow pads buffers and messages to. */
const ALIGNMENT = 64;
/** More digits of a length, and of both its offsets, than one row has, in a header of safetensors. */
const DIGITS = 48;

/** Throws `BAD_OPTION` where what stands beside the rows takes more than half of `shardBytes`. */
export function sizesOf(fields: readonly PackField[], format: PackFormat, shardBytes: number): ShardSizes {
  const sizes = format === "arrow" ? arrowSizes(fields) : safetensorsSizes(fields);
  const besides = sizes.empty + sizes.batch;
  if (besides <= shardBytes / 2) return sizes;
  const text = `shardBytes is ${shardBytes}, and what describes ${fields.length} columns takes ${besides} of it; give at least ${2 * besides}`;
  throw new HeadraceError("BAD_OPTION", text);
}

function arrowSizes(fields: readonly PackField[]): ShardSizes {
  const row = fields.map((field) => ({
    values: new Uint8Array(field.kind === "fixed" ? rowBytesOf(field) : 0),
    offsets: field.kind === "fixed" ? undefined : new Int32Array(2),
    validity: new Uint8Array(1),
    nullCount: 1,
  }));
  const { metadataLength, bodyLength } = encodeBatch(fields, 1, row);
  // A row's buffers are padded as those of many are; each may end one step later.
  const padded = bodyLength + fields.length * 3 * ALIGNMENT;
  const nullable = fields.filter((field) => field.nullable).length;
  return {
    empty: encodeSchema(fields).length + encodeFooter(fields, []).length + ALIGNMENT,
    batch: metadataLength + ALIGNMENT + padded + BLOCK_BYTES,
    rows: (batch, from, to) =>
      fields.reduce(
        (total, field, i) => {
          const values =
            valueBytes(field, batch.columns[i]!, to) - valueBytes(field, batch.columns[i]!, from);
          const offsets = field.kind === "fixed" ? 0 : 4 * (to - from);
          return total + (field.dtype === "BOOL" ? values / 8 : values) + offsets;
        },
        nullable * Math.ceil((to - from) / 8),
      ),
  };
}

function safetensorsSizes(fields: readonly PackField[]): ShardSizes {
  const tensors = tensorsOf(
    fields,
    1,
    fields.map(() => 1),
  );
  const { header } = encodeHeader(tensors, {}, { alignment: 8 });
  const ragged = fields.filter(({ kind }) => kind !== "fixed").length;
  return {
    empty: alignedTo(header.length + tensors.length * DIGITS, DEFAULT_ALIGNMENT) + 8 * ragged,
    batch: 0,
    rows: (batch, from, to) =>
      fields.reduce(
        (total, field, i) =>
          total + valueBytes(field, batch.columns[i]!, to) - valueBytes(field, batch.columns[i]!, from),
        8 * ragged * (to - from),
      ),
  };
}
