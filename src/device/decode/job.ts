/** Turns a plan into what lanes are asked for: entries of the ring, and the records that they name. */
import { ptr } from "bun:ffi";
import { ENTRY, Field } from "../host/ring.ts";
import type { ChunkCache, Place } from "./cache.ts";
import type { OpenChunks } from "./file.ts";
import { type ChunkTask, type DecodePlan, isPlain } from "./plan.ts";
import { DecodeOp, PART, PART_BYTES, RECORD, Rec } from "./records.ts";

/** What is decoded together. Its memory is in use until all lanes are done with it. */
export interface DecodeJob {
  /** One entry a task. */
  readonly program: Float64Array;
  readonly tasks: readonly ChunkTask<OpenChunks>[];
  /** Used by the job, to be given back to the cache. */
  readonly places: readonly Place[];
  readonly lanesWanted: number;
  /** What lanes read by address. */
  readonly records: Float64Array;
  readonly parts: Float64Array;
}

/** Bytes of a file that the system is told of at once, ahead of their being read. */
const AHEAD_BYTES = 4 * 2 ** 20;

/** The files of `plan` are retained. Whole chunks go where they are wanted; others to places of `cache` as far as there
 * is room. Where it throws, no place stays in use. */
export function buildJob(plan: DecodePlan<OpenChunks>, cache: ChunkCache, numLanes: number): DecodeJob {
  const tasks = [...plan.tasks];
  const places = new JobPlaces();
  try {
    places.take(cache, tasks);
    const builder = new JobBuilder(plan, places, tasks.length);
    const ahead = aheadOf(tasks);
    for (const [i, task] of tasks.entries()) builder.add(i, task, ahead[i]!);
    const { program, records, parts } = builder;
    const lanesWanted = Math.min(tasks.length, numLanes);
    return { program, tasks, places: places.all, lanesWanted, records, parts };
  } catch (error) {
    for (const place of places.all) cache.release(place);
    throw error;
  }
}

/** Where the chunks of one job are kept, or are to be kept. */
class JobPlaces {
  /** In use from now on. */
  readonly all: Place[] = [];
  #of: (Place | undefined)[] = [];

  take(cache: ChunkCache, tasks: readonly ChunkTask<OpenChunks>[]): void {
    // First all that is there, so that none of it makes room for another chunk of the same job.
    this.#of = tasks.map(({ file, chunk }) => this.#use(cache.find(file, chunk)));
    for (const [i, { file, chunk, whole }] of tasks.entries()) {
      if (this.#of[i] !== undefined || whole !== 0 || isPlain(file.table, chunk)) continue;
      const { starts } = file.table;
      this.#of[i] = this.#use(cache.acquire(file, chunk, starts[chunk + 1]! - starts[chunk]!));
    }
  }

  /** Of the task of that index; undefined where its chunk is decoded elsewhere. */
  of(index: number): Place | undefined {
    return this.#of[index];
  }

  #use(place: Place | undefined): Place | undefined {
    if (place !== undefined) this.all.push(place);
    return place;
  }
}

class JobBuilder {
  readonly program: Float64Array;
  readonly records: Float64Array;
  readonly parts: Float64Array;
  readonly #plan: DecodePlan<OpenChunks>;
  readonly #places: JobPlaces;
  readonly #partsAddress: number;
  readonly #recordsAddress: number;
  #numParts = 0;

  constructor(plan: DecodePlan<OpenChunks>, places: JobPlaces, numTasks: number) {
    this.#plan = plan;
    this.#places = places;
    this.program = new Float64Array(numTasks * ENTRY);
    // Explicit buffers, which do not move. A chunk that is wanted whole and kept already adds a part.
    this.records = new Float64Array(new ArrayBuffer(Math.max(1, numTasks * RECORD) * 8));
    this.parts = new Float64Array(new ArrayBuffer(Math.max(1, plan.numParts + numTasks) * PART_BYTES));
    this.#recordsAddress = ptr(this.records);
    this.#partsAddress = ptr(this.parts);
  }

  add(index: number, task: ChunkTask<OpenChunks>, ahead: number): void {
    const { file, chunk } = task;
    const { table } = file;
    const plain = isPlain(table, chunk);
    const byteLength = table.starts[chunk + 1]! - table.starts[chunk]!;
    const fileOffset = table.fileOffset[chunk]!;
    const fileLength = table.fileLength[chunk]!;
    const place = this.#places.of(index);
    const firstPart = this.#numParts;
    this.#plan.eachPart(task, (offset, address, length) => this.#addPart(offset, address, length));
    if (place !== undefined && task.whole !== 0) this.#addPart(0, task.whole, byteLength);
    const mapped = file.mapped(fileLength);
    const { records } = this;
    const at = index * RECORD;
    const set = (field: number, value: number) => {
      records[at + field / 8] = value;
    };
    set(Rec.codec, table.codec[chunk]!);
    set(Rec.planes, table.planes?.[chunk] ?? 1);
    set(Rec.checksum, table.checksums?.[chunk] ?? -1);
    set(Rec.verify, file.checksums ? 1 : 0);
    set(Rec.fileLength, fileLength);
    set(Rec.byteLength, byteLength);
    set(Rec.mapped, mapped === 0 ? 0 : mapped + fileOffset);
    set(Rec.ahead, mapped === 0 ? ahead : 0);
    set(Rec.target, place?.address ?? task.whole);
    set(Rec.state, place?.index ?? -1);
    set(Rec.parts, this.#partsAddress + firstPart * PART_BYTES);
    set(Rec.numParts, this.#numParts - firstPart);
    const { program } = this;
    const entry = index * ENTRY;
    program[entry + Field.op] = plain ? DecodeOp.stored : DecodeOp.chunk;
    program[entry + Field.fd] = file.fd;
    program[entry + Field.fileOffset] = fileOffset;
    program[entry + Field.target] = place?.address ?? task.whole;
    program[entry + Field.source] = this.#recordsAddress + at * 8;
    program[entry + Field.byteLength] = byteLength;
  }

  #addPart(offset: number, address: number, byteLength: number): void {
    const at = this.#numParts++ * PART;
    this.parts[at] = offset;
    this.parts[at + 1] = address;
    this.parts[at + 2] = byteLength;
  }
}

/** Of each task, the bytes from its chunk on that the system is told of when a lane takes it up: at the start of a stretch
 * of the file the first ones, then always those behind what was told. */
function aheadOf(tasks: readonly ChunkTask<OpenChunks>[]): Float64Array {
  const ahead = new Float64Array(tasks.length);
  for (let first = 0; first < tasks.length; ) {
    const { table } = tasks[first]!.file;
    const start = table.fileOffset[tasks[first]!.chunk]!;
    let end = start;
    let next = first;
    while (next < tasks.length && tasks[next]!.file.table === table) {
      const chunk = tasks[next]!.chunk;
      if (table.fileOffset[chunk]! - end > AHEAD_BYTES / 64 || table.fileOffset[chunk]! < start) break;
      end = table.fileOffset[chunk]! + table.fileLength[chunk]!;
      next++;
    }
    let told = start;
    for (let i = first; i < next; i++) {
      const at = table.fileOffset[tasks[i]!.chunk]!;
      if (told - at > AHEAD_BYTES || told >= end) continue;
      const to = Math.min(end, at + 2 * AHEAD_BYTES);
      ahead[i] = to - at;
      told = to;
    }
    first = Math.max(next, first + 1);
  }
  return ahead;
}
