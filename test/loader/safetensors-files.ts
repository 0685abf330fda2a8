/** Makes safetensors shards, and what they hold as plain arrays. */
import { writeFileSync } from "node:fs";
import { type DType, saveSafetensors, type TensorData } from "../../src/index.ts";
import { bytesOf, type ExpectedColumn, type Oracle, randomBytes } from "./helpers.ts";

/** A tensor whose bytes go into the file as they are. */
export interface RawTensor {
  readonly name: string;
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly bytes: Uint8Array;
}

/** Writes tensors in the given order without any alignment: what other writers may do. */
export function writeRaw(path: string, tensors: readonly RawTensor[]): void {
  let at = 0;
  const header: Record<string, unknown> = {};
  for (const { name, dtype, shape, bytes } of tensors) {
    header[name] = { dtype, shape, data_offsets: [at, at + bytes.length] };
    at += bytes.length;
  }
  const json = Buffer.from(JSON.stringify(header));
  const prefix = Buffer.alloc(8);
  prefix.writeBigUInt64LE(BigInt(json.length));
  writeFileSync(path, Buffer.concat([prefix, json, ...tensors.map((tensor) => tensor.bytes)]));
}

/** A column of every kind that a safetensors shard can have. */
interface Spec {
  readonly name: string;
  readonly dtype: DType;
  /** Bytes of one row, or of one element where ragged. */
  readonly bytes: number;
  readonly shape: readonly number[];
  readonly ragged?: "I32" | "I64" | "U32" | "U64";
}

/** In the order of the names, which is the order of the columns. */
export const ALL_SPECS: readonly Spec[] = [
  { name: "bf16", dtype: "BF16", bytes: 2, shape: [] },
  { name: "bool", dtype: "BOOL", bytes: 3, shape: [3] },
  { name: "c64", dtype: "C64", bytes: 16, shape: [2] },
  { name: "f16", dtype: "F16", bytes: 8, shape: [2, 2] },
  { name: "f32", dtype: "F32", bytes: 24, shape: [2, 3] },
  { name: "f4", dtype: "F4", bytes: 3, shape: [6] },
  { name: "f64", dtype: "F64", bytes: 8, shape: [] },
  { name: "f8", dtype: "F8_E4M3", bytes: 5, shape: [5] },
  { name: "i16", dtype: "I16", bytes: 2, shape: [] },
  { name: "i64", dtype: "I64", bytes: 8, shape: [] },
  { name: "i8", dtype: "I8", bytes: 1, shape: [] },
  { name: "nothing", dtype: "F32", bytes: 0, shape: [4, 0] },
  { name: "ragged_bf16", dtype: "BF16", bytes: 4, shape: [2], ragged: "U64" },
  { name: "ragged_c64", dtype: "C64", bytes: 16, shape: [2], ragged: "I32" },
  { name: "ragged_i32", dtype: "I32", bytes: 4, shape: [], ragged: "I32" },
  { name: "ragged_u64", dtype: "U64", bytes: 8, shape: [], ragged: "I64" },
  { name: "ragged_u8", dtype: "U8", bytes: 1, shape: [], ragged: "U32" },
  { name: "u16", dtype: "U16", bytes: 2, shape: [] },
  { name: "u32", dtype: "U32", bytes: 4, shape: [] },
  { name: "u64", dtype: "U64", bytes: 8, shape: [] },
];

/** Floats whose bits are any bits could be NaNs, which engines may rewrite; BOOL must be 0 or 1. */
function rowBytes(spec: Spec, length: number, seed: number): Uint8Array {
  const bytes = randomBytes(length, seed);
  if (spec.dtype === "BOOL") return bytes.map((byte) => byte & 1);
  if (["F16", "F32", "F64", "C64"].includes(spec.dtype)) return bytes.map((byte) => byte & 0x3f);
  return bytes;
}

/** Lengths with empty rows, long ones and short ones among them. */
function lengthOf(sample: number, column: number): number {
  return [0, 3, 1, 17, 5, 0, 2][(sample * 3 + column * 5) % 7]!;
}

/** Writes shard `path` with samples `[first, first + count)` and adds them to `oracle`. */
export function writeShard(
  path: string,
  specs: readonly Spec[],
  first: number,
  count: number,
  oracle: ExpectedColumn[] = [],
): void {
  const tensors: TensorData[] = [];
  specs.forEach((spec, c) => {
    const rows: Uint8Array[] = [];
    for (let i = 0; i < count; i++) {
      const sample = first + i;
      const length = spec.ragged === undefined ? spec.bytes : lengthOf(sample, c) * spec.bytes;
      rows.push(rowBytes(spec, length, sample * 101 + c));
    }
    const known = oracle[c];
    if (known === undefined) {
      oracle.push({
        name: spec.name,
        ...(spec.ragged === undefined ? {} : { elementBytes: spec.bytes }),
        rows,
      });
    } else (known.rows as (Uint8Array | null)[]).push(...rows);
    const data = new Uint8Array(Buffer.concat(rows));
    const total = spec.ragged === undefined ? count : data.length / spec.bytes;
    tensors.push({ name: spec.name, dtype: spec.dtype, shape: [total, ...spec.shape], data });
    if (spec.ragged !== undefined) tensors.push(offsetsTensor(spec, rows));
  });
  saveSafetensors(path, tensors);
}

function offsetsTensor(spec: Spec, rows: readonly Uint8Array[]): TensorData {
  const offsets = [0];
  for (const row of rows) offsets.push(offsets.at(-1)! + row.length / spec.bytes);
  const wide = spec.ragged === "I64" || spec.ragged === "U64";
  const data = wide ? BigInt64Array.from(offsets, BigInt) : Int32Array.from(offsets);
  return { name: `${spec.name}.offsets`, dtype: spec.ragged!, shape: [offsets.length], data };
}

/** A dataset of shards with the given numbers of samples; returns its oracle. */
export function writeDataset(
  folder: (...parts: string[]) => string,
  counts: readonly number[],
  specs: readonly Spec[] = ALL_SPECS,
): Oracle {
  const oracle: ExpectedColumn[] = [];
  let first = 0;
  counts.forEach((count, s) => {
    writeShard(folder(`part-${String(s).padStart(3, "0")}.safetensors`), specs, first, count, oracle);
    first += count;
  });
  return oracle;
}

/** One I32 column `id` with each sample's own number, and a ragged one: small enough to restore at will. */
export const SMALL_SPECS: readonly Spec[] = ALL_SPECS.filter((spec) =>
  ["i16", "ragged_i32", "f32"].includes(spec.name),
);

/** One shard with a U8 column `x` of `rowBytes` bytes a row. */
export function writePlain(path: string, numRows: number, rowLength = 16, seed = 1): Uint8Array {
  const data = randomBytes(numRows * rowLength, seed);
  saveSafetensors(path, [{ name: "x", dtype: "U8", shape: [numRows, rowLength], data }]);
  return data;
}

/** One ragged U8 column `t` whose offsets are exactly those given, true or not. */
export function writeRagged(path: string, offsets: readonly number[], numElements: number): void {
  const data = bytesOf(Int32Array.from(offsets));
  writeRaw(path, [
    { name: "t.offsets", dtype: "I32", shape: [offsets.length], bytes: data },
    { name: "t", dtype: "U8", shape: [numElements], bytes: randomBytes(numElements, 7) },
  ]);
}
