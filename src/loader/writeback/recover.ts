/** What a folder of the same job holds already: shards that are whole, and rows of those that are not. */
import { join } from "node:path";
import { HeadraceError } from "../../errors.ts";
import { fixedPlaces, rowBytesOf } from "../../format/output-layout.ts";
import { HEADER_BYTES, PLACED_CELL, scanRecords } from "./attempt.ts";
import { OWN_FIELDS } from "./columns.ts";
import { copyPath, partPath } from "./commit.ts";
import type { FileOps, OpenedFile } from "./files.ts";
import { attemptPath, headerOf } from "./journal.ts";
import { type CommittedShard, type ReadManifest, WORK_FOLDER } from "./manifest.ts";
import type { ResolvedWriterOptions } from "./options.ts";
import { OpenOutput, type OutputName } from "./output.ts";
import {
  ASIDE_SUFFIX,
  dropFailed,
  generationOf,
  nextOf,
  ofGeneration,
  previousOf,
  reopenShard,
} from "./retry.ts";

/** Shards whose files are looked at together. */
const LOOK_TOGETHER = 32;

/** What the manifest lists, as the files bear it out. */
export interface Listed {
  /** Of all shards, by the generation that is listed. */
  readonly names: readonly OutputName[];
  /** Those that are there, as long as they were. */
  readonly committed: readonly CommittedShard[];
  /** Listed ones that are not. */
  readonly remadeShards: number;
}

/** Looks at the job's shards that the manifest lists. */
export async function committedOf(
  folder: string,
  manifest: ReadManifest | undefined,
  present: ReadonlySet<string>,
  options: ResolvedWriterOptions,
): Promise<Listed> {
  const { ops } = options;
  const listed = new Map(manifest?.shards.map((shard) => [`${shard.start}:${shard.source}`, shard]));
  const names: OutputName[] = [];
  const committed: CommittedShard[] = [];
  let remadeShards = 0;
  const look = async (base: OutputName) => {
    const shard = listed.get(`${base.shard.start}:${base.shard.name}`);
    const generation = shard && generationOf(shard.path, base);
    if (shard === undefined || generation === undefined) return { name: base };
    const name = ofGeneration(base, generation);
    const isThere = present.has(shard.path);
    const byteLength = isThere ? await lengthOf(ops, join(folder, shard.path)) : -1;
    if (byteLength !== shard.bytes) return { name, isRemade: true };
    return { name, committed: { name, byteLength, failedRows: shard.failed } };
  };
  for (let at = 0; at < options.names.length; at += LOOK_TOGETHER) {
    const looks = await Promise.all(options.names.slice(at, at + LOOK_TOGETHER).map(look));
    for (const found of looks) {
      names.push(found.name);
      if (found.committed !== undefined) committed.push(found.committed);
      if (found.isRemade) remadeShards++;
    }
  }
  return { names, committed, remadeShards };
}

/** Rows that need not run again. */
export interface Recovered {
  readonly begun: readonly OpenOutput[];
  /** Of these and of whole shards that stay. */
  readonly failedRows: number;
}

/** Finds what attempts hold, and cuts off what a crash has torn. Removes what is left of shards that are whole; reopens
 * those whose failed rows are to run again, or have begun to. */
export async function recover(
  folder: string,
  present: ReadonlySet<string>,
  committed: readonly CommittedShard[],
  options: ResolvedWriterOptions,
): Promise<Recovered> {
  const { ops, names } = options;
  const work = new Set(await ops.list(join(folder, WORK_FOLDER)));
  const has = (path: string) => work.has(path.slice(join(folder, WORK_FOLDER).length + 1));
  const whole = new Map(committed.map((shard) => [shard.name.index, shard]));
  const parts = { folder, present, has, options };
  for (const file of work) if (file.endsWith(ASIDE_SUFFIX)) await ops.remove(join(folder, WORK_FOLDER, file));
  const begun: OpenOutput[] = [];
  let failedRows = 0;
  for (const name of names) {
    const shard = whole.get(name.index);
    // The next generation has all that is wanted of a shard, even where its own file is damaged.
    const found = (await findRetry(parts, name, shard)) ?? (shard ? undefined : await findBegun(parts, name));
    failedRows += found?.failedRows ?? (shard === undefined ? 0 : shard.failedRows);
    if (found !== undefined) begun.push(found.output);
    if (shard !== undefined) await removeLeft(parts, name);
  }
  return { begun, failedRows };
}

interface Parts {
  readonly folder: string;
  readonly present: ReadonlySet<string>;
  /** Whether the file was at work. */
  readonly has: (path: string) => boolean;
  readonly options: ResolvedWriterOptions;
}

interface Found {
  readonly output: OpenOutput;
  readonly failedRows: number;
}

/** The shard's next generation, where it has begun or begins now. */
async function findRetry(
  parts: Parts,
  name: OutputName,
  shard: CommittedShard | undefined,
): Promise<Found | undefined> {
  const { folder, has, options, present } = parts;
  const { ops, retryFailed } = options;
  const next = nextOf(name);
  const path = attemptPath(folder, next.fileName);
  if (has(path)) {
    const found = await findBegun(parts, next);
    if (found !== undefined) return found;
  } else if (present.has(next.fileName) && shard !== undefined) {
    await ops.remove(join(folder, next.fileName));
  }
  if (!retryFailed || shard === undefined || shard.failedRows === 0) return undefined;
  const file = await ops.open(join(folder, name.fileName), false);
  let made: boolean;
  try {
    made = await reopenShard(file, next, path, options);
  } finally {
    await file.close();
  }
  if (made) return findBegun({ ...parts, has: (one) => one === path || has(one) }, next);
  throw new HeadraceError(
    "FILE_CHANGED",
    `${join(folder, name.fileName)}: is not as it was written, so that its good rows cannot be kept; remove it, and its rows run again`,
  );
}

/** What an attempt holds of the shard; undefined where there is none, or nothing to go on with. */
async function findBegun(
  { folder, present, has, options }: Parts,
  name: OutputName,
): Promise<Found | undefined> {
  const { ops, inInputOrder, retryFailed } = options;
  const output = new OpenOutput(name, inInputOrder);
  const attempt = attemptPath(folder, name.fileName);
  const part = partPath(folder, name.fileName);
  const copy = copyPath(folder, name.fileName);
  if (has(copy)) await ops.remove(copy);
  if (!has(attempt)) {
    if (has(part)) await ops.remove(part);
    return undefined;
  }
  // Named, but not listed: what a device has placed in it is wanted again.
  if (!has(part) && present.has(name.fileName)) await ops.rename(join(folder, name.fileName), part);
  if (retryFailed) await dropFailed(attempt, options);
  const partBytes = await lengthOf(ops, part);
  const file = await ops.open(attempt, false);
  try {
    const failedRows = await recall(output, file, partBytes, options);
    // Of a later generation, one without rows tells that all of them are to run again.
    const isBegun = output.numJournaled > 0 || (name.generation !== undefined && output.attemptBytes > 0);
    return isBegun ? { output, failedRows } : undefined;
  } finally {
    await file.close();
  }
}

/** Removes what the making of a whole shard may have left: work, and the file that it has taken the place of. */
async function removeLeft(
  { folder, present, has, options: { ops } }: Parts,
  name: OutputName,
): Promise<void> {
  for (const path of [attemptPath, partPath, copyPath].map((pathOf) => pathOf(folder, name.fileName))) {
    if (has(path)) await ops.remove(path);
  }
  const old = previousOf(name)?.fileName;
  if (old !== undefined && present.has(old)) await ops.remove(join(folder, old));
}

/** Marks the rows that an attempt holds, and cuts the file behind them. Returns how many of them failed. */
async function recall(
  output: OpenOutput,
  file: OpenedFile,
  partBytes: number,
  { fields, format, errorField, job }: ResolvedWriterOptions,
): Promise<number> {
  const header = new Uint8Array(new ArrayBuffer(HEADER_BYTES));
  const read = await file.read(header, 0);
  const owned =
    read === HEADER_BYTES && Buffer.compare(header, headerOf(job.digest, output.name.fileName)) === 0;
  if (!owned) return 0;
  const places = fixedPlaces(format, fields, output.name.shard.name, output.numRows).fields;
  let failedRows = 0;
  const byteLength = await file.byteLength();
  const end = await scanRecords(file, HEADER_BYTES, byteLength, fields.length - OWN_FIELDS, (record) => {
    const { row, position, count } = record;
    let placed = false;
    for (let f = OWN_FIELDS; f < fields.length; f++) {
      if (record.lengthOf(f - OWN_FIELDS) !== PLACED_CELL) continue;
      placed = true;
      if (places[f]!.values + (position + count) * rowBytesOf(fields[f]!) > partBytes) return false;
    }
    if (!output.recall(row, position, count)) return false;
    if (placed) output.hasPlaced = true;
    if (errorField >= 0 && record.lengthOf(errorField - OWN_FIELDS) < PLACED_CELL) failedRows += count;
    return true;
  });
  if (end < byteLength) await file.truncate(end);
  output.attemptBytes = end;
  return failedRows;
}

/** Bytes of a file; 0 where there is none. */
async function lengthOf(ops: FileOps, path: string): Promise<number> {
  if (!(await ops.exists(path))) return 0;
  const file = await ops.open(path, false);
  try {
    return await file.byteLength();
  } finally {
    await file.close();
  }
}
