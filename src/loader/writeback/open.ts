/** Opens a folder for the outputs of a job: a new one, or one that the same job has begun. */

import { join } from "node:path";
import { HeadraceError } from "../../errors.ts";
import { MANIFEST_FILE } from "../../format/manifest.ts";
import { HEADER_BYTES, scanRecords } from "./attempt.ts";
import { DISK, type FileOps, writeError } from "./files.ts";
import { differences } from "./job.ts";
import { ATTEMPT_SUFFIX } from "./journal.ts";
import { lockFolder } from "./lock.ts";
import {
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
import { committedOf, recover } from "./recover.ts";
import { Writer } from "./writer.ts";

/**
 * Opens `folder` for the outputs of a job. The folder is made where it is not there; files in it that are not the job's
 * are not touched. Where the same job has been at it before, it goes on: {@link Writer.remaining} says with which rows.
 * What a job has left that ended before its first row was there is nobody's, and is cleared away.
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
  await ownerOf(folder, options);
  await ops.makeFolder(join(folder, WORK_FOLDER));
  await ops.syncFolder(folder);
  const lock = await lockFolder(ops, join(folder, WORK_FOLDER));
  try {
    const owner = await ownerOf(folder, options);
    if (owner.abandoned) await clear(folder, owner.manifest, ops);
    const manifest = owner.abandoned ? undefined : owner.manifest;
    const present = new Set((await ops.list(folder)) ?? []);
    if (owner.abandoned || !owner.known) {
      checkNames(folder, present, options);
      await writeJob(ops, folder, job);
    }
    const found = await committedOf(folder, manifest, present, options);
    const now = { ...options, names: found.names };
    const { begun, failedRows } = await recover(folder, present, found.committed, now);
    const leave = async (complete: boolean) => {
      if (complete) await ops.remove(join(folder, WORK_FOLDER, JOB_FILE));
      await lock.release();
      if (complete) await ops.removeFolder(join(folder, WORK_FOLDER));
    };
    const { committed, remadeShards } = found;
    const writer = new Writer(folder, now, { committed, begun, failedRows, remadeShards, leave });
    await writer.begin();
    return writer;
  } catch (error) {
    await lock.release().catch(() => {});
    throw error;
  }
}

/** Whose a folder is that this job may take. */
interface Owner {
  readonly manifest: ReadManifest | undefined;
  /** This job has begun it. */
  readonly known: boolean;
  /** Another job has, and has ended before any row was there. */
  readonly abandoned: boolean;
}

/** Throws `OTHER_JOB`, `BAD_MANIFEST`. */
async function ownerOf(folder: string, { ops, job: here }: ResolvedWriterOptions): Promise<Owner> {
  const manifest = await readManifest(ops, folder);
  const begun = await readJob(ops, folder);
  const there: JobRecord | undefined = manifest?.job ?? begun;
  if (there === undefined || there.digest === here.digest) {
    return { manifest, known: there !== undefined, abandoned: false };
  }
  // A job without rows that is complete has left its manifest, and nothing of the work.
  const hasRows = (manifest?.rows ?? 0) > 0 || begun === undefined || (await hasFinishedRows(folder, ops));
  if (!hasRows) return { manifest, known: false, abandoned: true };
  throw new HeadraceError(
    "OTHER_JOB",
    `${folder}: holds the outputs of another job: ${differences(there.identity, here.identity)}; give another folder, or run that job`,
  );
}

/** Whether an attempt in the folder holds a whole record, of whatever columns. */
async function hasFinishedRows(folder: string, ops: FileOps): Promise<boolean> {
  const work = join(folder, WORK_FOLDER);
  for (const name of (await ops.list(work)) ?? []) {
    if (!name.endsWith(ATTEMPT_SUFFIX)) continue;
    const file = await ops.open(join(work, name), false);
    try {
      let found = false;
      await scanRecords(file, HEADER_BYTES, await file.byteLength(), 0, () => {
        found = true;
        return false;
      });
      if (found) return true;
    } finally {
      await file.close();
    }
  }
  return false;
}

/** Removes what a job without rows has left: its shards, which are empty, and its work. The manifest goes before the
 * record of the job, so that what a crash leaves in between is still nobody's. */
async function clear(folder: string, manifest: ReadManifest | undefined, ops: FileOps): Promise<void> {
  for (const { path } of manifest?.shards ?? []) await ops.remove(join(folder, path));
  await ops.remove(join(folder, MANIFEST_FILE));
  const work = join(folder, WORK_FOLDER);
  for (const name of (await ops.list(work)) ?? []) {
    if (/\.(attempt|part|copy|tmp)$/.test(name)) await ops.remove(join(work, name));
  }
}

function checkNames(folder: string, present: ReadonlySet<string>, { names }: ResolvedWriterOptions): void {
  const taken = [...names.map(({ fileName }) => fileName), LETTERS_FILE].find((name) => present.has(name));
  if (taken === undefined) return;
  throw new HeadraceError(
    "OTHER_JOB",
    `${join(folder, taken)}: is there already, and is of no job that is known; move it, or give another folder`,
  );
}
