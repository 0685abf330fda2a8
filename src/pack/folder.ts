/** The folder that is packed to: whether it may be, and what goes when packing fails. */
import { existsSync, realpathSync } from "node:fs";
import { basename, dirname, join, resolve, sep } from "node:path";
import { HeadraceError } from "../errors.ts";
import { MANIFEST_FILE, parseManifest } from "../format/manifest.ts";
import { codeOf, type FileOps, readWhole } from "../loader/writeback/files.ts";
import { type FolderLock, isLock, lockFolder } from "../loader/writeback/lock.ts";
import { openTemporary, writing } from "./files.ts";

/** What follows the name of a run in those of its shards. */
const SHARD_ENDING = /(-\d{5,}(-of-\d{5,})?)?\.(arrow|safetensors)\b.*$/;

/** Holds all that a run writes until it is whole, and the lock; what is hidden is no part of a dataset. */
const WORK_NAME = ".packing";
const REPLACED = ".replaced";
/** A folder that another run just gave up may go between making it and locking it. */
const LOCK_TRIES = 3;

/** What the shards of one run are called. */
export interface ShardNames {
  readonly folder: string;
  readonly name: string;
}

/**
 * A folder that takes shards. A run writes to the hidden folder {@link OutFolder.work} in it, holds a lock there, and has its
 * files moved out when all of them are whole; what was packed there before goes after that.
 */
export class OutFolder {
  /** Where the run's files are written, under the names that they will have. */
  readonly work: string;
  readonly #ops: FileOps;
  readonly #folder: string;
  readonly #name: string;
  readonly #made: boolean;
  readonly #lock: FolderLock;
  /** Names in the folder when the run began, without the hidden folder. */
  #before: readonly string[] = [];
  #oldManifest: Uint8Array | undefined;
  readonly #placed: string[] = [];
  readonly #replaced: string[] = [];
  #published = false;

  private constructor(ops: FileOps, { folder, name }: ShardNames, made: boolean, lock: FolderLock) {
    this.work = join(folder, WORK_NAME);
    this.#ops = ops;
    this.#folder = folder;
    this.#name = name;
    this.#made = made;
    this.#lock = lock;
  }

  /**
   * Makes the folder, or sees that it is empty but for what a run that was killed left behind, which goes. Nothing else
   * of it changes. Throws `OTHER_JOB` for a folder that holds anything without `overwrite`, `BUSY` while another run
   * packs there, `DISK_FULL`, `IO_ERROR`.
   */
  static async open(ops: FileOps, target: ShardNames, overwrite: boolean): Promise<OutFolder> {
    const { folder } = target;
    return await writing(folder, async () => {
      const names = await ops.list(folder);
      if (!overwrite) checkEmpty(folder, names ?? []);
      const made = names === undefined;
      if (made) await ops.makeFolder(folder);
      const opened = new OutFolder(ops, target, made, await lockWork(ops, folder, made));
      try {
        // Another run may have ended between the first look and the lock.
        opened.#before = ((await ops.list(folder)) ?? []).filter((name) => name !== WORK_NAME);
        if (!overwrite) checkEmpty(folder, opened.#before);
        await opened.#clearWork();
        opened.#oldManifest = await readWhole(ops, join(folder, MANIFEST_FILE));
        return opened;
      } catch (error) {
        await opened.remove();
        throw error;
      }
    });
  }

  /** Gives the files `names`, which are whole in {@link OutFolder.work}, their places in the folder. Files of the same names are kept aside. */
  async place(names: readonly string[]): Promise<void> {
    await writing(this.#folder, async () => {
      for (const name of names) {
        if (!this.#before.includes(name)) continue;
        await this.#ops.rename(join(this.#folder, name), join(this.work, name + REPLACED));
        this.#replaced.push(name);
      }
      for (const name of names) {
        await this.#ops.rename(join(this.work, name), join(this.#folder, name));
        this.#placed.push(name);
      }
      await this.#ops.syncFolder(this.#folder);
    });
  }

  /**
   * Puts the manifest, which is whole in {@link OutFolder.work}, beside the files that were placed, and then removes what
   * an earlier run had packed: the shards that its manifest lists, and files named like those of this run. Ends the lock.
   * Returns the names of old files that could not be removed.
   */
  async publish(): Promise<readonly string[]> {
    await writing(this.#folder, async () => {
      await this.#ops.rename(join(this.work, MANIFEST_FILE), join(this.#folder, MANIFEST_FILE));
      this.#published = true;
      await this.#ops.syncFolder(this.#folder);
    });
    const kept: string[] = [];
    const stale = [
      ...listedFiles(this.#oldManifest),
      ...this.#before.filter((old) => isOurs(old, this.#name)),
    ];
    for (const old of new Set(stale)) {
      if (this.#placed.includes(old)) continue;
      await this.#ops.remove(join(this.#folder, old)).catch(() => kept.push(old));
    }
    await this.#leave();
    return kept;
  }

  /** Removes what this run wrote, puts back what it had moved aside, ends the lock, and removes the folder where it was made
   * for the run and holds nothing else. Never throws. */
  async remove(): Promise<void> {
    const path = join(this.#folder, MANIFEST_FILE);
    if (this.#published) {
      if (this.#oldManifest === undefined) await this.#ops.remove(path).catch(() => {});
      else await this.#restoreManifest(path, this.#oldManifest).catch(() => {});
    }
    for (const name of this.#placed) await this.#ops.remove(join(this.#folder, name)).catch(() => {});
    for (const name of this.#replaced)
      await this.#ops.rename(join(this.work, name + REPLACED), join(this.#folder, name)).catch(() => {});
    await this.#leave();
    if (this.#made) await this.#ops.removeFolder(this.#folder).catch(() => {});
  }

  async #restoreManifest(path: string, bytes: Uint8Array): Promise<void> {
    const temporary = join(this.work, MANIFEST_FILE);
    const file = await openTemporary(this.#ops, temporary);
    try {
      await file.write(bytes, 0);
      await file.sync();
    } finally {
      await file.close();
    }
    await this.#ops.rename(temporary, path);
  }

  async #leave(): Promise<void> {
    await this.#clearWork().catch(() => {});
    await this.#lock.release().catch(() => {});
    await this.#ops.removeFolder(this.work).catch(() => {});
  }

  async #clearWork(): Promise<void> {
    for (const name of (await this.#ops.list(this.work)) ?? [])
      if (!isLock(name)) await this.#ops.remove(join(this.work, name));
  }
}

async function lockWork(ops: FileOps, folder: string, made: boolean): Promise<FolderLock> {
  const work = join(folder, WORK_NAME);
  for (let tries = 1; ; tries++) {
    try {
      await ops.makeFolder(work);
      return await lockFolder(ops, work);
    } catch (error) {
      if (codeOf(error) === "ENOENT" && tries < LOCK_TRIES) continue;
      await ops.removeFolder(work).catch(() => {});
      if (made) await ops.removeFolder(folder).catch(() => {});
      throw error;
    }
  }
}

function checkEmpty(folder: string, names: readonly string[]): void {
  const others = names.filter((name) => name !== WORK_NAME);
  if (others.length === 0) return;
  const few = others.toSorted().slice(0, 3).join(", ");
  const text = `${folder}: is not empty (${few}${others.length > 3 ? ", …" : ""}); name another folder by out, or set overwrite`;
  throw new HeadraceError("OTHER_JOB", text);
}

/** The shards that a manifest lists, and the index that stands beside those of tensors; none where it cannot be read. */
function listedFiles(manifest: Uint8Array | undefined): readonly string[] {
  if (manifest === undefined) return [];
  try {
    const { shards, view } = parseManifest(new TextDecoder().decode(manifest));
    const paths = shards.map(({ path }) => path);
    if (view === "rows") return paths;
    return [...paths, ...paths.map((path) => path.replace(SHARD_ENDING, ".safetensors.index.json"))];
  } catch {
    return [];
  }
}

/** A warning for the old files that could not be removed from `out`, where there are any. */
export function leftText(out: string, names: readonly string[]): readonly string[] {
  if (names.length === 0) return [];
  const few = names.slice(0, 3).join(", ");
  return [
    `${out}: old files could not be removed (${few}${names.length > 3 ? ", …" : ""}); the new pack is whole`,
  ];
}

/** Throws `BAD_OPTION` where a source lies in the folder that is packed to: it might be replaced before it is read. */
export function checkApart(sources: readonly string[], out: string): void {
  const folder = realPath(out);
  for (const source of sources) {
    const path = realPath(source);
    if (path !== folder && !path.startsWith(folder + sep)) continue;
    throw new HeadraceError(
      "BAD_OPTION",
      `out is ${out}, where the source ${source} lies; name another folder`,
    );
  }
}

/** Without links, as far as there is anything. */
function realPath(path: string): string {
  const whole = resolve(path);
  if (existsSync(whole)) return realpathSync(whole);
  const parent = dirname(whole);
  return parent === whole ? whole : join(realPath(parent), basename(whole));
}

/** Whether `file` is named like a shard of a run, or its index. */
function isOurs(file: string, name: string): boolean {
  return file.startsWith(name) && SHARD_ENDING.exec(file.slice(name.length))?.index === 0;
}
