/** Writes shards of made data in the forms that nothing compresses. */
import { closeSync, fsyncSync, openSync, renameSync, rmSync, writeSync } from "node:fs";
import { saveSafetensors, type TensorData } from "../../index.ts";
import type { ShardData } from "./kinds.ts";

/** Bytes of an Arrow record batch, about. */
const BATCH_BYTES = 4 * 2 ** 20;

/** Writes `shard` to `path` as safetensors: tensors as they are, rows as one tensor (ragged ones beside their
 * offsets). */
export function writeSafetensors(path: string, shard: ShardData): void {
  saveSafetensors(path, tensorsOf(shard), { metadata: { format: "pt" } });
}

function tensorsOf(shard: ShardData): TensorData[] {
  const { tensors, offsets, values, elementBytes, dtype, numRows, column } = shard;
  if (tensors !== undefined) {
    return tensors.map(({ name, shape }, i) => {
      const [start, end] = [offsets![i]! * elementBytes, offsets![i + 1]! * elementBytes];
      return { name, dtype, shape, data: values.subarray(start, end) };
    });
  }
  if (offsets === undefined) {
    return [{ name: column, dtype, shape: [numRows, ...shard.shape!], data: values }];
  }
  return [
    { name: column, dtype, shape: [values.length / elementBytes], data: values },
    { name: `${column}.offsets`, dtype: "I32", shape: [offsets.length], data: offsets },
  ];
}

/** Writes `shard` to `path` as an Arrow file of record batches of a few MiB, by Arrow's own library: fixed rows as
 * lists of fixed size, ragged ones as lists. Tensors are rows: their values without names and shapes. */
export async function writeArrow(path: string, shard: ShardData): Promise<void> {
  const arrow = await import("apache-arrow");
  const element = {
    BF16: new arrow.Uint16(),
    I32: new arrow.Int32(),
    U8: new arrow.Uint8(),
    F32: new arrow.Float32(),
  }[shard.dtype];
  const item = new arrow.Field("item", element, false);
  const width = shard.shape?.reduce((product, length) => product * length, 1) ?? 0;
  const type = shard.offsets === undefined ? new arrow.FixedSizeList(width, item) : new arrow.List(item);
  const schema = new arrow.Schema([new arrow.Field(shard.column, type, false)]);
  const elements = typedElements(shard);
  const writer = new arrow.RecordBatchFileWriter();
  for (const { first, end } of batchesOf(shard, width)) {
    const from = shard.offsets === undefined ? first * width : shard.offsets[first]!;
    const to = shard.offsets === undefined ? end * width : shard.offsets[end]!;
    const data = elements.subarray(from, to);
    const child = arrow.makeData({ type: element, length: to - from, nullCount: 0, data } as never);
    const length = end - first;
    const valueOffsets = shard.offsets?.slice(first, end + 1).map((offset) => offset - from);
    const column = arrow.makeData({ type, length, nullCount: 0, child, valueOffsets } as never);
    const rows = { type: new arrow.Struct(schema.fields), length, nullCount: 0, children: [column] };
    writer.write(new arrow.RecordBatch(schema, arrow.makeData(rows as never) as never));
  }
  writer.finish();
  await save(path, writer);
}

/** Whole or not at all; on disk when it returns, so that it can be dropped from memory. */
async function save(path: string, pieces: AsyncIterable<Uint8Array>): Promise<void> {
  const temporary = `${path}.part`;
  const fd = openSync(temporary, "w");
  try {
    for await (const bytes of pieces) {
      for (let at = 0; at < bytes.length; ) at += writeSync(fd, bytes, at);
    }
    fsyncSync(fd);
    renameSync(temporary, path);
  } catch (error) {
    rmSync(temporary, { force: true });
    throw error;
  } finally {
    closeSync(fd);
  }
}

function typedElements({ dtype, values }: ShardData) {
  const { buffer, byteOffset, length } = values;
  switch (dtype) {
    case "BF16":
      return new Uint16Array(buffer, byteOffset, length / 2);
    case "I32":
      return new Int32Array(buffer, byteOffset, length / 4);
    case "F32":
      return new Float32Array(buffer, byteOffset, length / 4);
    case "U8":
      return values;
  }
}

/** Rows `[first, end)` of each batch. */
function* batchesOf(shard: ShardData, width: number): Generator<{ first: number; end: number }> {
  const most = BATCH_BYTES / shard.elementBytes;
  const at = (row: number) => shard.offsets?.[row] ?? row * width;
  for (let first = 0; first < shard.numRows; ) {
    let end = first + 1;
    while (end < shard.numRows && at(end + 1) - at(first) <= most) end++;
    yield { first, end };
    first = end;
  }
}
