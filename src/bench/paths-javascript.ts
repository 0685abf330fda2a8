/** The ways that users take without this project: files read into JavaScript's own memory, and Arrow's own reader. */
import { closeSync, openSync, readSync } from "node:fs";
import type { Data, FixedSizeList, List, Table } from "apache-arrow";
import { HeadraceError } from "../index.ts";
import { tensorKey } from "./data/facts.ts";
import type { OpenWork } from "./paths-loader.ts";
import { Random } from "./random.ts";
import { batchSizeOf, type TrialSpec } from "./spec.ts";
import { HostSum } from "./sums.ts";

/** A sample's key, and where its bytes come from. */
interface Sample {
  readonly key: number;
  bytes(): Uint8Array;
}

/** Whole files by `Bun.file().arrayBuffer()`, one after the other; random samples by `fs.readSync` into a buffer of
 * their own each. Compressed files are read and decompressed whole. */
export function openJsRead(spec: TrialSpec): OpenWork<readonly Sample[]> {
  const random = spec.cell.order !== "sequential";
  return sumOf(random && spec.container === undefined ? singleReads(spec) : wholeFiles(spec));
}

/** `tableFromIPC` over whole files; rows as slices of its buffers. */
export function openApacheArrow(spec: TrialSpec): OpenWork<readonly Sample[]> {
  return sumOf(tables(spec));
}

/** Batches of samples, each of which is summed in memory of the host. */
function sumOf(batches: AsyncGenerator<readonly Sample[]>): OpenWork<readonly Sample[]> {
  const sum = new HostSum();
  return {
    sum: "xxh3",
    next: async () => (await batches.next()).value as readonly Sample[] | undefined,
    take(samples) {
      for (const sample of samples) sum.add(sample.key, sample.bytes());
    },
    finish: () => sum.hex,
    async close() {
      await batches.return(undefined);
    },
  };
}

/** A compressed file gives no sample without all of it: a shuffled order is one within each file then. */
async function* wholeFiles(spec: TrialSpec): AsyncGenerator<readonly Sample[]> {
  const random = new Random(spec.seed);
  let firstRow = 0;
  for (const path of spec.paths) {
    let file: Uint8Array = new Uint8Array(await Bun.file(path).arrayBuffer());
    if (spec.container === "zst") {
      const { buffer, byteOffset, length } = await Bun.zstdDecompress(file as Uint8Array<ArrayBuffer>);
      // No Buffer, whose slices are no copies.
      file = new Uint8Array(buffer, byteOffset, length);
    }
    const places = placesOf(spec, headerOf(file), firstRow, (at, length) => file.subarray(at, at + length));
    firstRow += places.length;
    const samples = places.map(({ key, at, length }) => ({
      key,
      bytes: () => file.subarray(at, at + length),
    }));
    yield spec.cell.order === "sequential" ? samples : random.shuffle(samples);
  }
}

async function* singleReads(spec: TrialSpec): AsyncGenerator<readonly Sample[]> {
  const fds: number[] = [];
  try {
    const samples: Sample[] = [];
    for (const path of spec.paths) {
      const fd = openSync(path, "r");
      fds.push(fd);
      const read = (at: number, length: number) => {
        const bytes = new Uint8Array(length);
        const got = readSync(fd, bytes, 0, length, at);
        if (got !== length)
          throw new HeadraceError("SHORT_READ", `${path}: ${got} of ${length} bytes at ${at}`);
        return bytes;
      };
      const length = Number(new DataView(read(0, 8).buffer).getBigUint64(0, true));
      const header = read(0, 8 + length);
      for (const { key, at, length } of placesOf(spec, headerOf(header), samples.length, read)) {
        samples.push({ key, bytes: () => read(at, length) });
      }
    }
    new Random(spec.seed).shuffle(samples);
    const size = batchSizeOf(spec);
    for (let at = 0; at < samples.length; at += size) yield samples.slice(at, at + size);
  } finally {
    for (const fd of fds) closeSync(fd);
  }
}

interface Header {
  readonly dataStart: number;
  readonly tensors: readonly (readonly [
    name: string,
    entry: {
      readonly dtype: string;
      readonly shape: readonly number[];
      readonly data_offsets: readonly [number, number];
    },
  ])[];
}

/** As a user reads it: eight bytes of length, then JSON. */
function headerOf(file: Uint8Array): Header {
  const length = Number(new DataView(file.buffer, file.byteOffset).getBigUint64(0, true));
  const { __metadata__: _, ...tensors } = JSON.parse(new TextDecoder().decode(file.subarray(8, 8 + length)));
  return { dataStart: 8 + length, tensors: Object.entries(tensors) as never };
}

interface SamplePlace {
  readonly key: number;
  readonly at: number;
  readonly length: number;
}

/** Where the samples of one file lie in it. */
function placesOf(
  spec: TrialSpec,
  { dataStart, tensors }: Header,
  firstRow: number,
  read: (at: number, length: number) => Uint8Array,
): SamplePlace[] {
  if (spec.tensors) {
    return tensors.map(
      ([
        name,
        {
          data_offsets: [start, end],
        },
      ]) => ({
        key: tensorKey(name),
        at: dataStart + start,
        length: end - start,
      }),
    );
  }
  const [, values] = tensors.find(([name]) => !name.endsWith(".offsets"))!;
  const companion = tensors.find(([name]) => name.endsWith(".offsets"))?.[1];
  const [start, end] = values.data_offsets;
  if (companion === undefined) {
    const numRows = values.shape[0]!;
    const length = (end - start) / numRows;
    return Array.from({ length: numRows }, (_, row) => ({
      key: firstRow + row,
      at: dataStart + start + row * length,
      length,
    }));
  }
  const [from, to] = companion.data_offsets;
  const { buffer } = read(dataStart + from, to - from).slice();
  // Writers differ in the width of offsets.
  const offsets =
    companion.dtype === "I64" ? Float64Array.from(new BigInt64Array(buffer), Number) : new Int32Array(buffer);
  const unit = (end - start) / Math.max(1, values.shape[0]!);
  return Array.from({ length: offsets.length - 1 }, (_, row) => ({
    key: firstRow + row,
    at: dataStart + start + offsets[row]! * unit,
    length: (offsets[row + 1]! - offsets[row]!) * unit,
  }));
}

async function* tables(spec: TrialSpec): AsyncGenerator<readonly Sample[]> {
  const arrow = await import("apache-arrow");
  arrow.compressionRegistry.set(arrow.CompressionType.ZSTD, {
    encode: (bytes) => Bun.zstdCompressSync(bytes as Uint8Array<ArrayBuffer>),
    decode: (bytes) => Bun.zstdDecompressSync(bytes as Uint8Array<ArrayBuffer>),
  });
  const load = async (path: string): Promise<Table> => {
    const file = new Uint8Array(await Bun.file(path).arrayBuffer());
    return arrow.tableFromIPC(spec.container === "zst" ? await Bun.zstdDecompress(file) : file);
  };
  const size = batchSizeOf(spec);
  if (spec.cell.order === "sequential") {
    let firstRow = 0;
    for (const path of spec.paths) {
      const table = await load(path);
      for (let at = 0; at < table.numRows; at += size) {
        yield samplesOf(table, firstRow, at, Math.min(size, table.numRows - at));
      }
      firstRow += table.numRows;
    }
    return;
  }
  const samples: Sample[] = [];
  for (const path of spec.paths) {
    const table = await load(path);
    for (const sample of samplesOf(table, samples.length, 0, table.numRows)) samples.push(sample);
  }
  new Random(spec.seed).shuffle(samples);
  for (let at = 0; at < samples.length; at += size) yield samples.slice(at, at + size);
}

function samplesOf(table: Table, firstRow: number, at: number, count: number): Sample[] {
  const bytesOf = rowReader(table);
  return Array.from({ length: count }, (_, i) => ({ key: firstRow + at + i, bytes: () => bytesOf(at + i) }));
}

/** The bytes of each row of the first column, a list: slices of what its record batches hold, which is the quickest way
 * that the reader has. */
function rowReader(table: Table): (row: number) => Uint8Array {
  let first = 0;
  const batches = table.getChildAt(0)!.data.map((list) => {
    const batch = { first, end: first + list.length, bytesOf: listReader(list as Data<List>) };
    first = batch.end;
    return batch;
  });
  let batch = batches[0]!;
  return (row) => {
    if (row < batch.first || row >= batch.end) batch = batches.find(({ end }) => row < end)!;
    return batch.bytesOf(row - batch.first);
  };
}

function listReader({ children, valueOffsets, type }: Data<List | FixedSizeList>) {
  let elements = children[0]!;
  let unit = 1;
  for (; elements.children.length > 0; elements = elements.children[0]!)
    unit *= (elements.type as FixedSizeList).listSize;
  const { buffer, byteOffset, byteLength, BYTES_PER_ELEMENT } = elements.values as Uint8Array;
  const bytes = new Uint8Array(buffer, byteOffset, byteLength);
  unit *= BYTES_PER_ELEMENT;
  const { listSize } = type as FixedSizeList;
  if (listSize !== undefined)
    return (row: number) => bytes.subarray(row * listSize * unit, (row + 1) * listSize * unit);
  return (row: number) =>
    bytes.subarray(Number(valueOffsets[row]) * unit, Number(valueOffsets[row + 1]) * unit);
}
