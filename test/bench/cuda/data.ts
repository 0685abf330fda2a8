/**
 * The data: weights as models have them, and rows of 3 KiB. Made once by Workers, from numbers that anyone can make
 * again; what every part must sum up to is computed from the files, after they were written, and kept beside them.
 */
import { closeSync, existsSync, fsyncSync, mkdirSync, openSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { encodeHeader, type TensorSpec } from "../../../src/format/safetensors-header.ts";
import { openDevice } from "../../../src/index.ts";
import { finishChecksum } from "../../../src/kernels/checksum.ts";
import { ROW_BYTES } from "../data.ts";
import { hasBytes } from "../harness.ts";
import type { DataTask } from "./data-worker.ts";
import { progress } from "./rounds.ts";
import { Team } from "./team.ts";

/** Changes when the bytes do, so that older data is not taken for this. */
const VERSION = 1;
const NUM_FILES = 4;
/** Of each file of weights; each has three small ones beside them. */
const LARGE_TENSORS = 16;
const TENSOR_COLUMNS = 4096;
/** Longest part of a tensor that one task fills or sums up. */
const PART_BYTES = 32 * 2 ** 20;
/** Some batches of the most common size. */
const LEAST_ROWS = 4096;
/** Batches whose checksums one task computes. */
const BATCHES_PART = 16;

/** Files whose parts have known checksums. */
export interface Data {
  readonly paths: readonly string[];
  readonly byteLength: number;
  /** Of each tensor by name. */
  readonly sums: Readonly<Record<string, string>>;
}

/** One file of rows. */
export interface RowData extends Data {
  readonly numRows: number;
  /** Where the first row begins in the file. */
  readonly dataOffset: number;
}

interface FileSpec {
  readonly path: string;
  readonly tensors: readonly TensorSpec[];
}

/** `sizeBytes` of large tensors in 4 files, and some small ones. */
export async function weights(folder: string, sizeBytes: number): Promise<Data> {
  const home = join(folder, `cuda-weights-${sizeBytes}`);
  const specs = Array.from({ length: NUM_FILES }, (_, file) => {
    const number = (index: number) => String(index).padStart(5, "0");
    const path = join(home, `model-${number(file + 1)}-of-${number(NUM_FILES)}.safetensors`);
    return { path, tensors: tensorsOf(file, sizeBytes / NUM_FILES / LARGE_TENSORS) };
  });
  const { sums, byteLength } = await make(home, specs);
  return { paths: specs.map(({ path }) => path), byteLength, sums };
}

function tensorsOf(file: number, largeBytes: number): TensorSpec[] {
  const bytesOf = { BF16: 2, F32: 4, U8: 1 } as const;
  const tensor = (name: string, dtype: keyof typeof bytesOf, shape: readonly number[]): TensorSpec => ({
    name: `block.${file}.${name}`,
    dtype,
    shape,
    byteLength: shape.reduce((a, b) => a * b, bytesOf[dtype]),
  });
  const rows = largeBytes / 2 / TENSOR_COLUMNS;
  return [
    ...Array.from({ length: LARGE_TENSORS }, (_, i) =>
      tensor(`layer.${String(i).padStart(2, "0")}.weight`, "BF16", [rows, TENSOR_COLUMNS]),
    ),
    tensor("norm.weight", "F32", [TENSOR_COLUMNS]),
    tensor("norm.bias", "BF16", [TENSOR_COLUMNS - 1]),
    tensor("vocabulary", "U8", [1001]),
  ];
}

/** One file of at least `byteLength` bytes: `x`, float32 rows of 3 KiB. */
export async function rows(folder: string, byteLength: number): Promise<RowData> {
  const numRows = Math.max(LEAST_ROWS, Math.ceil(byteLength / ROW_BYTES));
  const home = join(folder, `cuda-rows-${numRows}`);
  const path = join(home, "rows.safetensors");
  const tensors: TensorSpec[] = [
    { name: "x", dtype: "F32", shape: [numRows, ROW_BYTES / 4], byteLength: numRows * ROW_BYTES },
  ];
  const made = await make(home, [{ path, tensors }]);
  return { paths: [path], ...made, numRows, dataOffset: encodeHeader(tensors).header.length };
}

/** Part of the files' pages that are in memory, 0 to 1; NaN where the system does not tell. */
export function residentPart(paths: readonly string[]): number {
  const device = openDevice("host");
  let total = 0;
  for (const path of paths) {
    using file = device.openFile(path);
    total += file.residentPart?.() ?? Number.NaN;
  }
  void device.close();
  return total / paths.length;
}

/** Says how warm the files are, for notes. */
export function warmth(paths: readonly string[]): string {
  const part = residentPart(paths);
  return Number.isNaN(part) ? "residency unknown" : `${(part * 100).toFixed(0)}% in the page cache`;
}

/** Writes what is not there yet, and sums up all of it. */
async function make(home: string, files: readonly FileSpec[]): Promise<Pick<Data, "sums" | "byteLength">> {
  const listing = join(home, "checksums.json");
  const plans = files.map(({ path, tensors }) => ({ path, tensors, ...encodeHeader(tensors) }));
  const lengths = plans.map((plan) => plan.header.length + plan.dataByteLength);
  const byteLength = lengths.reduce((a, b) => a + b, 0);
  if (plans.every(({ path }, i) => hasBytes(path, lengths[i]!)) && existsSync(listing)) {
    const known = JSON.parse(readFileSync(listing, "utf8")) as { version: number; sums: Data["sums"] };
    if (known.version === VERSION) return { sums: known.sums, byteLength };
  }
  mkdirSync(home, { recursive: true });
  const started = Bun.nanoseconds();
  for (const { path, header } of plans) writeFileSync(path, header);
  const tasks = plans.flatMap(({ path, tensors, header, dataOffsets }) =>
    tensors.map((_, i) => {
      const { start, end } = dataOffsets[i]!;
      return { path, offset: header.length + start, byteLength: end - start };
    }),
  );
  using team = new Team();
  await team.run<null>(tasks.flatMap((task) => partsOf("fill", task)));
  for (const { path } of plans) flush(path);
  const values = await sumsOf(team, tasks);
  const names = plans.flatMap(({ tensors }) => tensors.map(({ name }) => name));
  const sums = Object.fromEntries(names.map((name, i) => [name, values[i]!]));
  writeFileSync(listing, JSON.stringify({ version: VERSION, sums }, null, 1));
  const seconds = (Bun.nanoseconds() - started) / 1e9;
  progress(`made ${(byteLength / 1e9).toFixed(2)} GB in ${home} in ${seconds.toFixed(1)} s`);
  return { sums, byteLength };
}

interface FileRange {
  readonly path: string;
  readonly offset: number;
  readonly byteLength: number;
}

/** A range of a file in parts that keep all Workers at it. */
function partsOf(op: "fill" | "sum", { path, offset, byteLength }: FileRange): DataTask[] {
  return Array.from({ length: Math.ceil(byteLength / PART_BYTES) }, (_, i) => {
    const position = i * PART_BYTES;
    const length = Math.min(PART_BYTES, byteLength - position);
    return { op, path, offset: offset + position, byteLength: length, position };
  });
}

/** The checksums of tensors, one after another, each from the sums of its parts. */
async function sumsOf(team: Team, tensors: readonly FileRange[]): Promise<string[]> {
  const parts = tensors.map((tensor) => partsOf("sum", tensor));
  const found = await team.run<Uint32Array>(parts.flat());
  let next = 0;
  return tensors.map(({ byteLength }, i) => {
    const total = new Uint32Array(2);
    for (const [a, b] of found.slice(next, next + parts[i]!.length)) {
      total[0]! += a!;
      total[1]! += b!;
    }
    next += parts[i]!.length;
    return finishChecksum(total, byteLength);
  });
}

/** Brings a file onto the disk, so that nothing of its writing is left to do when something is measured. */
function flush(path: string): void {
  const fd = openSync(path, "r+");
  fsyncSync(fd);
  closeSync(fd);
}

/** The checksums of batches of `batchSize` rows whose numbers are `ids` one after another, gathered from the file. */
export async function batchSums(
  team: Team,
  data: RowData,
  ids: Float64Array<SharedArrayBuffer>,
  batchSize: number,
): Promise<string[]> {
  const numBatches = Math.ceil(ids.length / batchSize);
  const path = data.paths[0]!;
  const tasks = Array.from(
    { length: Math.ceil(numBatches / BATCHES_PART) },
    (_, i): DataTask => ({
      ...{ op: "batches", path, offset: data.dataOffset, rowBytes: ROW_BYTES, ids, batchSize },
      first: i * BATCHES_PART,
      end: Math.min((i + 1) * BATCHES_PART, numBatches),
    }),
  );
  return (await team.run<string[]>(tasks)).flat();
}
