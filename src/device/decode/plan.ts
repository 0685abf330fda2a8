/** Sorts what is wanted of compressed files by chunk, so that each is decoded once. */
import { ChunkCodec, chunkAt } from "../../format/chunks.ts";
import type { ChunkTable } from "../../types.ts";

/** Whatever stands for an open file; the same object for the same file. */
export interface PlannedFile {
  readonly table: ChunkTable;
}

/** What is wanted of one chunk. */
export interface ChunkTask<F extends PlannedFile> {
  readonly file: F;
  readonly chunk: number;
  /** Address that wants all of the chunk; 0 where none does. */
  whole: number;
  /** Index of the first of its parts, -1 for none, and their number and bytes. */
  first: number;
  last: number;
  numParts: number;
  partBytes: number;
}

/** Numbers a part: offset in the chunk, address of the target, bytes, index of the next part of the same chunk. */
const FIELDS = 4;

/** Bytes that one lane copies of a chunk that is stored as it is, before another takes over. */
const STORED_BYTES = 4 * 2 ** 20;

/** Reused from call to call. Time and memory are O(requests + chunks). */
export class DecodePlan<F extends PlannedFile> {
  readonly tasks: ChunkTask<F>[] = [];
  numParts = 0;
  #parts = new Float64Array(256 * FIELDS);
  readonly #tasksOf = new Map<F, Map<number, ChunkTask<F>>>();
  #last: ChunkTask<F> | undefined;
  #ofLastFile: Map<number, ChunkTask<F>> | undefined;

  clear(): void {
    this.tasks.length = 0;
    this.numParts = 0;
    this.#tasksOf.clear();
    this.#last = undefined;
    this.#ofLastFile = undefined;
  }

  /** Wants logical bytes `[byteOffset, byteOffset + byteLength)`, which are inside the file, at `address`. */
  add(file: F, byteOffset: number, byteLength: number, address: number): void {
    const { starts } = file.table;
    const end = byteOffset + byteLength;
    let at = byteOffset;
    for (let chunk = this.#chunkOf(file, at); at < end; chunk++) {
      const start = starts[chunk]!;
      const next = starts[chunk + 1]!;
      const to = Math.min(end, next);
      this.#want(file, chunk, at - start, address + at - byteOffset, to - at, next - start);
      at = to;
    }
  }

  /** Calls `take` for each part of a task: offset in the chunk, address, bytes. */
  eachPart(task: ChunkTask<F>, take: (offset: number, address: number, byteLength: number) => void): void {
    const parts = this.#parts;
    for (let i = task.first; i >= 0; i = parts[i * FIELDS + 3]!) {
      take(parts[i * FIELDS]!, parts[i * FIELDS + 1]!, parts[i * FIELDS + 2]!);
    }
  }

  /** What was wanted last is most often in the same chunk or just before. */
  #chunkOf(file: F, offset: number): number {
    const { table } = file;
    const last = this.#last;
    if (last !== undefined && last.file === file && offset >= table.starts[last.chunk]!) {
      if (offset < table.starts[last.chunk + 1]!) return last.chunk;
      if (last.chunk + 2 < table.starts.length && offset < table.starts[last.chunk + 2]!)
        return last.chunk + 1;
    }
    return chunkAt(table, offset);
  }

  #want(
    file: F,
    chunk: number,
    offset: number,
    address: number,
    byteLength: number,
    chunkLength: number,
  ): void {
    if (isPlain(file.table, chunk)) {
      for (let done = 0; done < byteLength; done += STORED_BYTES) {
        const bytes = Math.min(STORED_BYTES, byteLength - done);
        let task = this.#taskOf(file, chunk);
        if (task.partBytes > 0 && task.partBytes + bytes > STORED_BYTES) task = this.#open(file, chunk);
        this.#addPart(task, offset + done, address + done, bytes);
      }
      return;
    }
    const task = this.#taskOf(file, chunk);
    if (byteLength === chunkLength && task.whole === 0) task.whole = address;
    else this.#addPart(task, offset, address, byteLength);
  }

  #taskOf(file: F, chunk: number): ChunkTask<F> {
    const last = this.#last;
    if (last?.file === file && last.chunk === chunk) return last;
    if (last?.file !== file || this.#ofLastFile === undefined) {
      let ofFile = this.#tasksOf.get(file);
      if (ofFile === undefined) {
        ofFile = new Map();
        this.#tasksOf.set(file, ofFile);
      }
      this.#ofLastFile = ofFile;
    }
    const known = this.#ofLastFile.get(chunk);
    this.#last = known;
    return known ?? this.#open(file, chunk);
  }

  /** Opens a task, which takes what is wanted of the chunk from now on. */
  #open(file: F, chunk: number): ChunkTask<F> {
    const task = { file, chunk, whole: 0, first: -1, last: -1, numParts: 0, partBytes: 0 };
    this.tasks.push(task);
    this.#ofLastFile!.set(chunk, task);
    this.#last = task;
    return task;
  }

  #addPart(task: ChunkTask<F>, offset: number, address: number, byteLength: number): void {
    task.partBytes += byteLength;
    let parts = this.#parts;
    if (task.last >= 0) {
      const at = task.last * FIELDS;
      const length = parts[at + 2]!;
      if (parts[at]! + length === offset && parts[at + 1]! + length === address) {
        parts[at + 2] = length + byteLength;
        return;
      }
    }
    const index = this.numParts++;
    if (index * FIELDS === parts.length) {
      this.#parts = new Float64Array(parts.length * 2);
      this.#parts.set(parts);
      parts = this.#parts;
    }
    const at = index * FIELDS;
    parts[at] = offset;
    parts[at + 1] = address;
    parts[at + 2] = byteLength;
    parts[at + 3] = -1;
    if (task.last >= 0) parts[task.last * FIELDS + 3] = index;
    else task.first = index;
    task.last = index;
    task.numParts++;
  }
}

/** Whether the bytes of a chunk are in the file as they are, so that any part of them can be read alone. */
export function isPlain(table: ChunkTable, chunk: number): boolean {
  return (
    table.codec[chunk] === ChunkCodec.stored &&
    (table.planes?.[chunk] ?? 1) <= 1 &&
    table.checksums === undefined
  );
}
