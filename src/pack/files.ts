/** The files that packing writes: each under a name of its own until it is whole, and known by its sha256. */
import { createReadStream } from "node:fs";
import { basename, dirname, join } from "node:path";
import { HeadraceError } from "../errors.ts";
import { codeOf, type FileOps, type OpenedFile } from "../loader/writeback/files.ts";

/** What becomes one file. After `finish` or `abort` it takes nothing more. */
export interface Sink {
  /** Bytes that were written, before any compression. */
  readonly byteLength: number;
  /** Takes all of `bytes`, which may change once this has resolved. */
  write(bytes: Uint8Array): Promise<void>;
  /** Makes the file durable under its name. */
  finish(): Promise<SinkEnd>;
  /** Leaves no file. Harmless when repeated, or after `finish`. */
  abort(): Promise<void>;
}

export interface SinkEnd {
  /** Before any compression. */
  readonly byteLength: number;
  /** Of the file. */
  readonly fileBytes: number;
  /** Of the file, in hex. */
  readonly sha256: string;
}

/** Bytes that are gathered before they are written. */
const BUFFER_BYTES = 2 ** 20;

/** The name that a file has in its folder until it is whole. */
export function temporaryPath(path: string): string {
  return join(dirname(path), `.${basename(path)}.packing`);
}

/** A file as it is, hashed on its way. */
export class PlainSink implements Sink {
  byteLength = 0;
  readonly path: string;
  readonly #ops: FileOps;
  readonly #file: OpenedFile;
  readonly #hash = new Bun.CryptoHasher("sha256");
  readonly #buffer = new Uint8Array(BUFFER_BYTES);
  #buffered = 0;
  #flushed = 0;
  #closed = false;
  #ended = false;

  private constructor(path: string, ops: FileOps, file: OpenedFile) {
    this.path = path;
    this.#ops = ops;
    this.#file = file;
  }

  /** Throws `DISK_FULL`, `IO_ERROR`, as all its methods do. */
  static async open(path: string, ops: FileOps): Promise<PlainSink> {
    const temporary = temporaryPath(path);
    return new PlainSink(path, ops, await openTemporary(ops, temporary));
  }

  async write(bytes: Uint8Array): Promise<void> {
    this.byteLength += bytes.length;
    if (bytes.length > BUFFER_BYTES - this.#buffered) await this.#flush();
    if (bytes.length >= BUFFER_BYTES) {
      await this.#put(bytes);
      return;
    }
    this.#buffer.set(bytes, this.#buffered);
    this.#buffered += bytes.length;
  }

  async finish(): Promise<SinkEnd> {
    await this.#flush();
    const temporary = temporaryPath(this.path);
    await writing(temporary, async () => {
      await this.#file.sync();
      await this.#close();
      await this.#ops.rename(temporary, this.path);
      this.#ended = true;
      await this.#ops.syncFolder(dirname(this.path));
    });
    const { byteLength } = this;
    return { byteLength, fileBytes: byteLength, sha256: this.#hash.digest("hex") };
  }

  async abort(): Promise<void> {
    if (this.#ended) return;
    this.#ended = true;
    await this.#close().catch(() => {});
    await this.#ops.remove(temporaryPath(this.path)).catch(() => {});
  }

  async #close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.#file.close();
  }

  async #flush(): Promise<void> {
    const length = this.#buffered;
    this.#buffered = 0;
    if (length > 0) await this.#put(this.#buffer.subarray(0, length));
  }

  async #put(bytes: Uint8Array): Promise<void> {
    this.#hash.update(bytes);
    await writing(this.path, () => this.#file.write(bytes, this.#flushed));
    this.#flushed += bytes.length;
  }
}

/** A file that is empty; none is left where that fails. */
export async function openTemporary(ops: FileOps, path: string): Promise<OpenedFile> {
  return await writing(path, async () => {
    const file = await ops.open(path, true);
    try {
      await file.truncate(0);
      return file;
    } catch (error) {
      await file.close().catch(() => {});
      await ops.remove(path).catch(() => {});
      throw error;
    }
  });
}

const HINTS: Readonly<Record<string, string>> = {
  EROFS: "; the file system is read-only: name another folder",
  EACCES: "; it needs the right to write there: get it, or name another folder",
  EPERM: "; it needs the right to write there: get it, or name another folder",
  ENOTDIR: "; a part of its path is a file: name another folder",
  EEXIST: "; a file is where the folder should be: name another folder",
};

/** Runs `work`, and has failures of the system as `DISK_FULL` or `IO_ERROR` with `path` in front. */
export async function writing<T>(path: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (cause) {
    if (cause instanceof HeadraceError) throw cause;
    const code = codeOf(cause);
    const full = code === "ENOSPC" || code === "EDQUOT";
    const text = full
      ? `the disk is full (${code}); make space, or pack to another disk`
      : `cannot be read or written (${code === "unknown" ? String(cause) : code})${HINTS[code] ?? ""}`;
    throw new HeadraceError(full ? "DISK_FULL" : "IO_ERROR", `${path}: ${text}`, { cause });
  }
}

/** Of a whole file, in hex; `onBytes` hears of each part. Throws `IO_ERROR`, and what `signal` was aborted with. */
export async function sha256Of(
  path: string,
  onBytes?: (bytes: number) => void,
  signal?: AbortSignal,
): Promise<string> {
  const hash = new Bun.CryptoHasher("sha256");
  try {
    for await (const chunk of createReadStream(path, { highWaterMark: 4 * 2 ** 20 })) {
      signal?.throwIfAborted();
      hash.update(chunk);
      onBytes?.(chunk.length);
    }
  } catch (cause) {
    if (signal?.aborted === true) throw cause;
    throw new HeadraceError("IO_ERROR", `${path}: cannot be read (${codeOf(cause)})`, { cause });
  }
  return hash.digest("hex");
}
