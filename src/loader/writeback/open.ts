/** Opens a folder for the outputs of a job: a new one, or one that the same job has begun. */
import { join } from "node:path";
import { HeadraceError } from "../../errors.ts";
import { fixedPlaces, rowBytesOf } from "../../format/output-layout.ts";
import { HEADER_BYTES, PLACED_CELL, scanRecords } from "./attempt.ts";
import { OWN_FIELDS } from "./columns.ts";
import { copyPath, partPath } from "./commit.ts";
import { DISK, type FileOps, type OpenedFile, writeError } from "./files.ts";
import { differences } from "./job.ts";
import { attemptPath, headerOf } from "./journal.ts";
import { lockFolder } from "./lock.ts";
import {
  type CommittedShard,
  JOB_FILE,
  type JobRecord,
  LETTERS_FILE,
  type ReadManifest,
  readJob,
  readManifest,
  WORK_FOLDER,
  writeJob,
} from "./manifest.ts";
import { type ResolvedWriterOptions, resolveWriterOptions, type WriterOptions } from "./options.ts";
import { OpenOutput } from "./output.ts";
import { Writer } from "./writer.ts";

/**
 * Opens `folder` for the outputs of a job. The folder is made where it is not there; files in it that are not the job's
 * are not touched. Where the same job has been at it before, it goes on: {@link Writer.remaining} says with which rows.
 *
 * Throws `BAD_OPTION`; `OTHER_JOB` where the folder holds the outputs of another job, saying what differs, or files by
 * the names that this one would give its own; `BUSY` while another writer has it; `BAD_MANIFEST`; `IO_ERROR` and
 * `DISK_FULL`.
 */
export function openWriter(folder: string, options: WriterOptions): Promise<Writer> {
  return openWriterOver(folder, options, DISK);
}

/** @internal The same, over file operations of the caller's. */
export async function openWriterOver(folder: string, options: WriterOptions, ops: FileOps): Promise<Writer> {
  const resolved = resolveWriterOptions(options, ops);
  try {
    return await open(folder, resolved);
  } catch (error) {
    throw writeError(folder, error);
  }
}

async function open(folder: string, options: ResolvedWriterOptions): Promise<Writer> {
  const { ops, job } = options;
  // Looked at first, so that a folder of somebody else's is left as it is.
  checkJob(folder, (await readManifest(ops, folder))?.job ?? (await readJob(ops, folder)), job);
  await ops.makeFolder(join(folder, WORK_FOLDER));
  await ops.syncFolder(folder);
  const lock = await lockFolder(ops, join(folder, WORK_FOLDER));
  try {
    const manifest = await readManifest(ops, folder);
    const known = manifest?.job ?? (await readJob(ops, folder));
    checkJob(folder, known, job);
    const present = new Set((await ops.list(folder)) ?? []);
    if (known === undefined) {
      checkNames(folder, present, options);
      await writeJob(ops, folder, job);
    }
    const committed = committedOf(manifest, present, options);
    const { begun, failedRows } = await recover(folder, present, committed, options);
    const failed = committed.reduce((total, shard) => total + shard.failedRows, failedRows);
    const leave = async (complete: boolean) => {
      if (complete) await ops.remove(join(folder, WORK_FOLDER, JOB_FILE));
      await lock.release();
      if (complete) await ops.removeFolder(join(folder, WORK_FOLDER));
    };
    const writer = new Writer(folder, options, { committed, begun, failedRows: failed, leave });
    await writer.begin();
    return writer;
  } catch (error) {
    await lock.release().catch(() => {});
    throw error;
  }
}

function checkJob(folder: string, there: JobRecord | undefined, here: JobRecord): void {
  if (there === undefined || there.digest === here.digest) return;
  throw new HeadraceError(
    "OTHER_JOB",
    `${folder}: holds the outputs of another job: ${differences(there.identity, here.identity)}; give another folder, or run that job`,
  );
}

function checkNames(folder: string, present: ReadonlySet<string>, { names }: ResolvedWriterOptions): void {
  const taken = [...names.map(({ fileName }) => fileName), LETTERS_FILE].find((name) => present.has(name));
  if (taken === undefined) return;
  throw new HeadraceError(
    "OTHER_JOB",
    `${join(folder, taken)}: is there already, and is of no job that is known; move it, or give another folder`,
  );
}

/** The job's shards that the manifest lists and that are there. */
function committedOf(
  manifest: ReadManifest | undefined,
  present: ReadonlySet<string>,
  { names }: ResolvedWriterOptions,
): CommittedShard[] {
  const listed = new Map(manifest?.shards.map((shard) => [shard.path, shard]));
  return names.flatMap((name) => {
    const shard = listed.get(name.fileName);
    if (shard === undefined || !present.has(name.fileName)) return [];
    return [{ name, byteLength: shard.bytes, failedRows: shard.failed }];
  });
}

/** Finds what attempts hold, and cuts off what a crash has torn. Removes those of shards that are whole. */
async function recover(
  folder: string,
  present: ReadonlySet<string>,
  committed: readonly CommittedShard[],
  options: ResolvedWriterOptions,
): Promise<{ begun: OpenOutput[]; failedRows: number }> {
  const { ops, names, inInputOrder } = options;
  const work = new Set(await ops.list(join(folder, WORK_FOLDER)));
  const whole = new Set(committed.map(({ name }) => name.index));
  const begun: OpenOutput[] = [];
  let failedRows = 0;
  for (const name of names) {
    const output = new OpenOutput(name, inInputOrder);
    const attempt = attemptPath(folder, output);
    const part = partPath(folder, name.fileName);
    const copy = copyPath(folder, name.fileName);
    const has = (path: string) => work.has(path.slice(join(folder, WORK_FOLDER).length + 1));
    if (has(copy)) await ops.remove(copy);
    if (whole.has(name.index)) {
      for (const path of [attempt, part]) if (has(path)) await ops.remove(path);
      continue;
    }
    if (!has(attempt)) {
      if (has(part)) await ops.remove(part);
      continue;
    }
    // Named, but not listed: what a device has placed in it is wanted again.
    if (!has(part) && present.has(name.fileName)) await ops.rename(join(folder, name.fileName), part);
    const partBytes = await lengthOf(ops, part);
    const file = await ops.open(attempt, false);
    try {
      failedRows += await recall(output, file, partBytes, options);
    } finally {
      await file.close();
    }
    if (output.numJournaled > 0) begun.push(output);
  }
  return { begun, failedRows };
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
  const owned = read === HEADER_BYTES && Buffer.compare(header, headerOf(job.digest, output)) === 0;
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
