/**
 * Rows that failed, to be run again: what the others have is kept.
 *
 * A shard that is whole is not touched for it. Its good rows are copied to the attempt of a file with another name, the
 * next *generation* of the shard, and the failed ones are missing there as if they had never run. When all rows are in
 * it, it is put together and committed as any other, and the manifest names it in place of the old one, which counts
 * until then.
 */
import { dirname } from "node:path";
import {
  elementBytesOf,
  type FileLayout,
  type GroupPlace,
  type GroupSize,
  isVariable,
  type OutputField,
  rowBytesOf,
} from "../../format/output-layout.ts";
import {
  type AttemptRecord,
  HEADER_BYTES,
  NULL_CELL,
  PLACED_CELL,
  RecordSink,
  scanRecords,
} from "./attempt.ts";
import { OWN_FIELDS } from "./columns.ts";
import type { OpenedFile } from "./files.ts";
import { ATTEMPT_SUFFIX, headerOf } from "./journal.ts";
import type { ResolvedWriterOptions } from "./options.ts";
import type { OutputName } from "./output.ts";

/** Rows whose offsets are read at once. */
const STRETCH_ROWS = 4096;
/** Of files that are to replace an attempt. */
export const ASIDE_SUFFIX = ".attempt.tmp";
const COPY_BYTES = 2 ** 20;

/** `prose-1f3a5b7c.arrow` is generation 0, `prose-1f3a5b7c.2.arrow` is 2. */
export function generationOf(fileName: string, base: OutputName): number | undefined {
  if (fileName === base.fileName) return 0;
  const [stem, extension] = cut(base.fileName);
  if (!fileName.startsWith(`${stem}.`) || !fileName.endsWith(extension)) return undefined;
  const number = fileName.slice(stem.length + 1, fileName.length - extension.length);
  return /^[1-9]\d{0,8}$/.test(number) ? Number(number) : undefined;
}

/** The same shard's file of a generation. */
export function ofGeneration(base: OutputName, generation: number): OutputName {
  if (generation === 0) return base;
  const [stem, extension] = cut(base.fileName);
  return { ...base, generation, fileName: `${stem}.${generation}${extension}` };
}

/** Of the shard whose file is `name`, the file after it, and the one before. */
export function nextOf(name: OutputName): OutputName {
  return ofGeneration(baseOf(name), (name.generation ?? 0) + 1);
}

export function previousOf(name: OutputName): OutputName | undefined {
  return name.generation === undefined ? undefined : ofGeneration(baseOf(name), name.generation - 1);
}

function baseOf({ generation, ...name }: OutputName): OutputName {
  if (generation === undefined) return name;
  const [stem, extension] = cut(name.fileName);
  return { ...name, fileName: `${stem.slice(0, stem.lastIndexOf("."))}${extension}` };
}

function cut(fileName: string): readonly [string, string] {
  const at = fileName.lastIndexOf(".");
  return [fileName.slice(0, at), fileName.slice(at)];
}

/** Writes the attempt at `path` anew without the rows that failed; leaves it where there are none. Whole or not at all. */
export async function dropFailed(
  path: string,
  { ops, fields, errorField }: ResolvedWriterOptions,
): Promise<void> {
  const file = await ops.open(path, false);
  try {
    const kept: [number, number][] = [[0, HEADER_BYTES]];
    let dropped = false;
    const see = (record: AttemptRecord): boolean => {
      const { at, byteLength } = record;
      const last = kept.at(-1)!;
      if (record.lengthOf(errorField - OWN_FIELDS) < PLACED_CELL) dropped = true;
      else if (last[1] === at) last[1] = at + byteLength;
      else kept.push([at, at + byteLength]);
      return true;
    };
    await scanRecords(file, HEADER_BYTES, await file.byteLength(), fields.length - OWN_FIELDS, see);
    if (!dropped) return;
    await writeAside(ops, path, async (to) => {
      let position = 0;
      for (const [start, end] of kept) {
        for (let at = start; at < end; at += COPY_BYTES) {
          const bytes = new Uint8Array(new ArrayBuffer(Math.min(COPY_BYTES, end - at)));
          await file.read(bytes, at);
          await to.write(bytes, position);
          position += bytes.length;
        }
      }
    });
  } finally {
    await file.close();
  }
}

/** Makes the attempt of `next` at `path`: the rows of `file`, a whole shard, that did not fail. False where the file is
 * not as the writer has made it; then nothing is there. */
export async function reopenShard(
  file: OpenedFile,
  next: OutputName,
  path: string,
  options: ResolvedWriterOptions,
): Promise<boolean> {
  const shard = await layoutOf(file, next, options);
  if (shard === undefined) return false;
  const numRows = next.shard.end - next.shard.start;
  if (shard.groups.reduce((total, group) => total + group.numRows, 0) !== numRows) return false;
  await writeAside(options.ops, path, async (to) => {
    const header = headerOf(options.job.digest, next.fileName);
    await to.write(header, 0);
    let at = header.length;
    for (const [i, group] of shard.layout.groups.entries()) {
      const rows = new GroupRows(file, group, shard.groups[i]!, options);
      for await (const records of rows.records()) {
        await to.write(records, at);
        at += records.length;
      }
    }
  });
  return true;
}

/** Where all lies in the shard; undefined where its own bytes do not agree with that. */
async function layoutOf(
  file: OpenedFile,
  { shard }: OutputName,
  { format, fields }: ResolvedWriterOptions,
): Promise<{ layout: FileLayout; groups: readonly GroupSize[] } | undefined> {
  const byteLength = await file.byteLength();
  const read = (at: number, length: number) => readAll(file, at, length, byteLength);
  let groups: readonly GroupSize[];
  let layout: FileLayout;
  try {
    groups = await format.groups(read, byteLength, fields);
    layout = format.layout(fields, shard.name, groups);
  } catch (error) {
    // A disk that fails is no damage.
    if ((error as { code?: unknown }).code !== undefined) throw error;
    return undefined;
  }
  if (layout.byteLength !== byteLength) return undefined;
  for (const { at, bytes } of layout.pieces) {
    if (Buffer.compare(await read(at, bytes.length), bytes) !== 0) return undefined;
  }
  return { layout, groups };
}

/** Rows of one group, as records. */
class GroupRows {
  readonly #file: OpenedFile;
  readonly #group: GroupPlace;
  readonly #size: GroupSize;
  readonly #options: ResolvedWriterOptions;
  readonly #sink = new RecordSink();

  constructor(file: OpenedFile, group: GroupPlace, size: GroupSize, options: ResolvedWriterOptions) {
    this.#file = file;
    this.#group = group;
    this.#size = size;
    this.#options = options;
  }

  /** Of rows that did not fail, in lots. */
  async *records(): AsyncGenerator<Uint8Array> {
    const { fields, mergeBytes } = this.#options;
    const { numRows } = this.#group;
    for (let start = 0; start < numRows; ) {
      const most = Math.min(numRows, start + STRETCH_ROWS);
      const offsets = await Promise.all(fields.map((_, f) => this.#offsets(f, start, most)));
      const end = this.#stretchEnd(start, most, offsets, mergeBytes);
      const columns = await Promise.all(
        fields.map(async (_, f) => ({
          valid: await this.#validity(f, start, end),
          offsets: offsets[f],
          values: await this.#values(f, start, end, offsets[f]),
        })),
      );
      for (let i = 0; i < end - start; i++) this.#record(start + i, i, columns);
      yield this.#sink.take();
      start = end;
    }
  }

  #record(at: number, i: number, columns: readonly Column[]): void {
    const { fields, errorField } = this.#options;
    const error = columns[errorField]!;
    if (cellOf(fields[errorField]!, error, i) !== undefined) return;
    const rows = columns[0]!.values;
    const row = Number(new DataView(rows.buffer, rows.byteOffset).getBigInt64(8 * i, true));
    this.#sink.begin(row, this.#group.rowStart + at, 1, 1, fields.length - OWN_FIELDS);
    for (let f = OWN_FIELDS; f < fields.length; f++) {
      const cell = cellOf(fields[f]!, columns[f]!, i);
      if (cell === undefined) this.#sink.mark(NULL_CELL);
      else this.#sink.bytes(cell);
    }
    this.#sink.end();
  }

  #stretchEnd(
    start: number,
    most: number,
    offsets: readonly (Float64Array | undefined)[],
    memoryBytes: number,
  ): number {
    const { fields } = this.#options;
    let bytes = 0;
    for (let i = 0; i < most - start; i++) {
      fields.forEach((field, f) => {
        const cuts = offsets[f];
        bytes += cuts === undefined ? rowBytesOf(field) : (cuts[i + 1]! - cuts[i]!) * elementBytesOf(field);
      });
      if (bytes > memoryBytes && i > 0) return start + i;
    }
    return most;
  }

  async #offsets(f: number, start: number, end: number): Promise<Float64Array | undefined> {
    const place = this.#group.fields[f]!.offsets;
    if (place === undefined) return undefined;
    const bytes = await this.#read(place.at + start * place.width, (end - start + 1) * place.width);
    const view = new DataView(bytes.buffer);
    const most = this.#size.fields[f]!.elements;
    let before = 0;
    return Float64Array.from({ length: end - start + 1 }, (_, i) => {
      const offset = place.width === 4 ? view.getInt32(4 * i, true) : Number(view.getBigInt64(8 * i, true));
      // A stretch reads no more than the column has, whatever has happened to the bytes.
      before = Math.min(most, Math.max(before, offset));
      return before;
    });
  }

  async #validity(f: number, start: number, end: number): Promise<((i: number) => boolean) | undefined> {
    const at = this.#group.fields[f]!.validity;
    if (at === undefined) return undefined;
    const first = start >>> 3;
    const bits = await this.#read(at + first, Math.ceil(end / 8) - first);
    return (i) => ((bits[((start + i) >>> 3) - first]! >>> ((start + i) & 7)) & 1) === 1;
  }

  #values(f: number, start: number, end: number, offsets: Float64Array | undefined): Promise<Uint8Array> {
    const field = this.#options.fields[f]!;
    const { values } = this.#group.fields[f]!;
    if (offsets === undefined) {
      const rowBytes = rowBytesOf(field);
      return this.#read(values + start * rowBytes, (end - start) * rowBytes);
    }
    const itemBytes = elementBytesOf(field);
    return this.#read(values + offsets[0]! * itemBytes, (offsets[end - start]! - offsets[0]!) * itemBytes);
  }

  #read(at: number, length: number): Promise<Uint8Array> {
    return readAll(this.#file, at, length, Number.POSITIVE_INFINITY);
  }
}

/** Some rows of a field. */
interface Column {
  /** Absent where none is null, or the format does not tell. */
  readonly valid: ((i: number) => boolean) | undefined;
  /** Of the first row's on. */
  readonly offsets: Float64Array | undefined;
  readonly values: Uint8Array;
}

/** The bytes of a row's value; undefined for null. Where the format knows no nulls, an empty one may have been one: as it
 * is written again, that is the same. */
function cellOf(field: OutputField, { valid, offsets, values }: Column, i: number): Uint8Array | undefined {
  if (valid?.(i) === false) return undefined;
  if (offsets === undefined) {
    const rowBytes = rowBytesOf(field);
    return values.subarray(i * rowBytes, (i + 1) * rowBytes);
  }
  const itemBytes = elementBytesOf(field);
  const from = (offsets[i]! - offsets[0]!) * itemBytes;
  const cell = values.subarray(from, (offsets[i + 1]! - offsets[0]!) * itemBytes);
  if (cell.length === 0 && valid === undefined && field.nullable && isVariable(field)) return undefined;
  return cell;
}

async function readAll(
  file: OpenedFile,
  at: number,
  length: number,
  byteLength: number,
): Promise<Uint8Array> {
  const inside = Number.isSafeInteger(at) && Number.isSafeInteger(length) && at >= 0 && length >= 0;
  if (!inside || at + length > byteLength) throw new RangeError(`bytes [${at}, ${at + length})`);
  const bytes = new Uint8Array(new ArrayBuffer(length));
  const read = await file.read(bytes, at);
  if (read < length)
    throw Object.assign(new Error(`${file.path} ends at byte ${at + read}`), { code: "EIO" });
  return bytes;
}

/** Replaces the file at `path`, in one step, by what `write` puts into another. */
async function writeAside(
  ops: ResolvedWriterOptions["ops"],
  path: string,
  write: (to: OpenedFile) => Promise<void>,
): Promise<void> {
  const aside = `${path.slice(0, -ATTEMPT_SUFFIX.length)}${ASIDE_SUFFIX}`;
  const to = await ops.open(aside, true);
  try {
    await to.truncate(0);
    await write(to);
    await to.sync();
  } finally {
    await to.close();
  }
  await ops.rename(aside, path);
  await ops.syncFolder(dirname(path));
}
