/**
 * Files of outputs in the safetensors format: one tensor a column, and beside lists and texts the I64 tensor
 * `NAME.offsets` that cuts them into rows. The format knows no nulls, and no names but as I32 codes.
 */
import type { DType } from "../types.ts";
import { dtypeBits } from "./dtype.ts";
import {
  alignedTo,
  type FieldPlace,
  type FileLayout,
  type GroupSize,
  isVariable,
  type OutputField,
  type OutputFormat,
  type OutputReader,
} from "./output-layout.ts";
import { MAX_HEADER_BYTES, PREFIX_BYTES } from "./safetensors.ts";
import { OFFSETS_SUFFIX } from "./safetensors-rows.ts";

/** The largest page of common machines, so that a mapped file's data can be handed to a GPU as it is. */
const DATA_ALIGNMENT = 16_384;
/** Digits of the largest number that a header may hold. */
const WIDEST = String(Number.MAX_SAFE_INTEGER).length;

interface Tensor {
  readonly name: string;
  readonly dtype: DType;
  readonly shape: readonly number[];
  /** Of the field that it is for. */
  readonly field: number;
  readonly part: "values" | "offsets" | "padding";
}

export const SAFETENSORS_OUTPUT: OutputFormat = {
  extension: ".safetensors",
  maxFieldBytes: 2 ** 53 - 1,
  hasNulls: false,
  check() {},
  layout: layoutSafetensors,
  groups: readGroups,
};

async function readGroups(
  read: OutputReader,
  _byteLength: number,
  fields: readonly OutputField[],
): Promise<GroupSize[]> {
  const prefix = await read(0, PREFIX_BYTES);
  const length = Number(new DataView(prefix.buffer, prefix.byteOffset).getBigUint64(0, true));
  if (length > MAX_HEADER_BYTES) throw new RangeError(`a header of ${length} bytes`);
  const text = new TextDecoder().decode(await read(PREFIX_BYTES, length));
  const header = JSON.parse(text) as Record<string, { readonly shape: readonly [number] }>;
  const sizes = fields.map((field) => ({
    elements: isVariable(field) ? header[field.name]!.shape[0] : 0,
    nullCount: 0,
  }));
  return [{ numRows: header[fields[0]!.name]!.shape[0], fields: sizes }];
}

function layoutSafetensors(
  fields: readonly OutputField[],
  shared: string,
  groups: readonly GroupSize[],
): FileLayout {
  const numRows = groups.reduce((total, group) => total + group.numRows, 0);
  const elements = fields.map((_, i) =>
    groups.reduce((total, group) => total + group.fields[i]!.elements, 0),
  );
  const tensors = tensorsOf(fields, numRows, elements);
  const dataStart = dataStartOf(tensors, shared);
  const values: number[] = [];
  const offsets: number[] = [];
  let at = 0;
  const entries = tensors.map(({ name, dtype, shape, field, part }) => {
    const start = at;
    at += (dtypeBits(dtype) / 8) * shape.reduce((a, b) => a * b, 1);
    if (part === "values") values[field] = dataStart + start;
    if (part === "offsets") offsets[field] = dataStart + start;
    return entryOf(name, dtype, shape, start, at);
  });
  const places = fields.map((field, i): FieldPlace => {
    const cuts = isVariable(field) ? ({ at: offsets[i]!, width: 8 } as const) : undefined;
    return { offsets: cuts, values: values[i]! };
  });
  return {
    byteLength: dataStart + at,
    pieces: [{ at: 0, bytes: headerOf(entries, shared, dataStart) }],
    groups: [{ rowStart: 0, numRows, fields: places }],
  };
}

/** The tensors in the order of their bytes: those of known size first, each part from the widest elements down, so
 * that all start on multiples of their elements. */
function tensorsOf(
  fields: readonly OutputField[],
  numRows: number,
  elements: readonly number[],
): readonly Tensor[] {
  const known: Tensor[] = [];
  const variable: Tensor[] = [];
  fields.forEach(({ name, dtype, kind, length }, field) => {
    if (kind === "list" || kind === "utf8") {
      variable.push({ name, dtype, shape: [elements[field]!], field, part: "values" });
      const cuts = { name: name + OFFSETS_SUFFIX, dtype: "I64" as DType, shape: [numRows + 1] };
      known.push({ ...cuts, field, part: "offsets" });
    } else {
      const shape = length === undefined ? [numRows] : [numRows, length];
      known.push({ name, dtype, shape, field, part: "values" });
    }
  });
  const widest = (a: Tensor, b: Tensor) => dtypeBits(b.dtype) - dtypeBits(a.dtype);
  known.sort(widest);
  variable.sort(widest);
  const bytes = known.reduce(
    (total, { dtype, shape }) => total + (dtypeBits(dtype) / 8) * shape.reduce((a, b) => a * b, 1),
    0,
  );
  const gap = alignedTo(bytes, 8) - bytes;
  if (gap > 0 && variable.length > 0) {
    known.push({ name: "__pad_0__", dtype: "U8", shape: [gap], field: -1, part: "padding" });
  }
  return [...known, ...variable];
}

/** Where the data starts: the same for all sizes of lists and texts. */
function dataStartOf(tensors: readonly Tensor[], shared: string): number {
  const wide = 10 ** (WIDEST - 1);
  const entries = tensors.map(({ name, dtype, shape }) =>
    entryOf(name, dtype, Array(shape.length).fill(wide), wide, wide),
  );
  return alignedTo(PREFIX_BYTES + jsonOf(entries, shared).length, DATA_ALIGNMENT);
}

function entryOf(name: string, dtype: DType, shape: readonly number[], start: number, end: number): string {
  return `${JSON.stringify(name)}:{"dtype":"${dtype}","shape":[${shape.join(",")}],"data_offsets":[${start},${end}]}`;
}

function jsonOf(entries: readonly string[], shared: string): Uint8Array {
  const metadata = `"__metadata__":{"shard":${JSON.stringify(shared)}}`;
  return new TextEncoder().encode(`{${[metadata, ...entries].join(",")}}`);
}

function headerOf(entries: readonly string[], shared: string, dataStart: number): Uint8Array {
  const header = new Uint8Array(dataStart).fill(0x20);
  new DataView(header.buffer).setBigUint64(0, BigInt(dataStart - PREFIX_BYTES), true);
  header.set(jsonOf(entries, shared), PREFIX_BYTES);
  return header;
}
