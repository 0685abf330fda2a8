/**
 * The file operations of the writer: few, asynchronous, and behind one interface, so that tests can make each of them
 * fail or be the last one before a crash.
 */
import { type FileHandle, mkdir, open, readdir, rename, rm, rmdir, stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { HeadraceError } from "../../errors.ts";

/** An open file. Reads and writes take positions, in bytes; none moves another's. */
export interface OpenedFile {
  readonly path: string;
  /** Bytes of the file now. */
  byteLength(): Promise<number>;
  /** Fills the front of `into` from `position` on; returns how many bytes there were. */
  read(into: Uint8Array, position: number): Promise<number>;
  /** Writes all of `bytes`, which stays the caller's and must not change meanwhile. */
  write(bytes: Uint8Array, position: number): Promise<void>;
  /** Cuts the file, or lengthens it by zeros. */
  truncate(byteLength: number): Promise<void>;
  /** Makes data and length durable. */
  sync(): Promise<void>;
  close(): Promise<void>;
}

/** Failures are errors with a `code` as `node:fs` has them (`ENOSPC`, …). */
export interface FileOps {
  /** Opens to read and write; `create` makes the file where it is not there. */
  open(path: string, create: boolean): Promise<OpenedFile>;
  /** Replaces `to` where it is there. */
  rename(from: string, to: string): Promise<void>;
  /** Does nothing where there is none. */
  remove(path: string): Promise<void>;
  makeFolder(path: string): Promise<void>;
  /** Removes an empty folder; does nothing where it is not there or not empty. */
  removeFolder(path: string): Promise<void>;
  /** Names in a folder; undefined where there is none. */
  list(folder: string): Promise<readonly string[] | undefined>;
  exists(path: string): Promise<boolean>;
  /** Makes the names in a folder durable. */
  syncFolder(folder: string): Promise<void>;
}

/** A call that is this long is cut in two: some systems refuse 2 GiB. */
const MAX_TRANSFER = 2 ** 30;

class DiskFile implements OpenedFile {
  readonly path: string;
  readonly #handle: FileHandle;

  constructor(path: string, handle: FileHandle) {
    this.path = path;
    this.#handle = handle;
  }

  async byteLength(): Promise<number> {
    return (await this.#handle.stat()).size;
  }

  async read(into: Uint8Array, position: number): Promise<number> {
    let at = 0;
    while (at < into.length) {
      const length = Math.min(into.length - at, MAX_TRANSFER);
      const { bytesRead } = await this.#handle.read(into, at, length, position + at);
      if (bytesRead === 0) break;
      at += bytesRead;
    }
    return at;
  }

  async write(bytes: Uint8Array, position: number): Promise<void> {
    for (let at = 0; at < bytes.length; ) {
      const length = Math.min(bytes.length - at, MAX_TRANSFER);
      const { bytesWritten } = await this.#handle.write(bytes, at, length, position + at);
      if (bytesWritten === 0) throw Object.assign(new Error("the system took 0 bytes"), { code: "EIO" });
      at += bytesWritten;
    }
  }

  truncate(byteLength: number): Promise<void> {
    return this.#handle.truncate(byteLength);
  }

  sync(): Promise<void> {
    return this.#handle.datasync();
  }

  close(): Promise<void> {
    return this.#handle.close();
  }
}

/** The operations of this system. */
export const DISK: FileOps = {
  async open(path, create) {
    try {
      return new DiskFile(path, await open(path, "r+"));
    } catch (error) {
      if (!create || codeOf(error) !== "ENOENT") throw error;
      return new DiskFile(path, await open(path, "wx+"));
    }
  },
  rename,
  remove: (path) => rm(path, { force: true }),
  async makeFolder(path) {
    await mkdir(path, { recursive: true });
  },
  async removeFolder(path) {
    await rmdir(path).catch(() => {});
  },
  async list(folder) {
    try {
      return await readdir(folder);
    } catch (error) {
      if (codeOf(error) === "ENOENT") return undefined;
      throw error;
    }
  },
  async exists(path) {
    try {
      await stat(path);
      return true;
    } catch (error) {
      if (codeOf(error) === "ENOENT") return false;
      throw error;
    }
  },
  async syncFolder(folder) {
    const handle = await open(folder, "r");
    try {
      await handle.sync();
    } finally {
      await handle.close();
    }
  },
};

export function codeOf(error: unknown): string {
  const code = (error as { code?: unknown } | undefined)?.code;
  return typeof code === "string" ? code : "unknown";
}

/** What a failed operation becomes for callers: `DISK_FULL` or `IO_ERROR`, with `path` in its message; errors of our own
 * stay as they are. */
export function writeError(path: string, error: unknown): HeadraceError {
  if (error instanceof HeadraceError) return error;
  const code = codeOf(error);
  if (code === "ENOSPC" || code === "EDQUOT") {
    const text = `${path}: the disk is full (${code}); free some space and run the job again, which goes on where it is`;
    return new HeadraceError("DISK_FULL", text, { cause: error });
  }
  const reason = code === "unknown" ? String(error) : code;
  const hint = HINTS[code] ?? "run the job again once it can be written, which goes on where it is";
  return new HeadraceError("IO_ERROR", `${path}: cannot be written (${reason}); ${hint}`, { cause: error });
}

const HINTS: Readonly<Record<string, string>> = {
  ENOENT: "its folder is gone",
  ENOTDIR: "a part of its path is a file and not a folder",
  EEXIST: "a file is where a folder should be",
  EISDIR: "a folder is where a file should be",
  EROFS: "the file system is read-only",
  EACCES: "it needs the right to write there",
  EPERM: "it needs the right to write there",
};

/** Writes `bytes` to `folder/name`, whole or not at all: to a file in `folder/workFolder`, made durable, renamed, the
 * folder made durable. */
export async function replaceFile(
  ops: FileOps,
  { folder, name, workFolder }: { folder: string; name: string; workFolder: string },
  bytes: Uint8Array,
): Promise<void> {
  const path = join(folder, name);
  const temporary = join(folder, workFolder, `${basename(name)}.tmp`);
  const file = await ops.open(temporary, true);
  try {
    await file.truncate(0);
    await file.write(bytes, 0);
    await file.sync();
  } finally {
    await file.close();
  }
  await ops.rename(temporary, path);
  await ops.syncFolder(dirname(path));
}

/** All bytes of a file; undefined where there is none. */
export async function readWhole(ops: FileOps, path: string): Promise<Uint8Array | undefined> {
  if (!(await ops.exists(path))) return undefined;
  const file = await ops.open(path, false);
  try {
    const bytes = new Uint8Array(new ArrayBuffer(await file.byteLength()));
    return bytes.subarray(0, await file.read(bytes, 0));
  } finally {
    await file.close();
  }
}
