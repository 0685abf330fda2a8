/** A file that appears under its name when it is whole: written under another, made durable, renamed. */
import { type FileHandle, open, rename, rm } from "node:fs/promises";
import { dirname } from "node:path";
import { HeadraceError } from "../errors.ts";

/** What stands behind the name of a file that is not finished. */
export const PARTIAL_ENDING = ".partial";

/** Writes from the start on; one call at a time. */
export class OutputFile {
  readonly path: string;
  readonly #partial: string;
  readonly #handle: FileHandle;
  #byteLength = 0;
  #open = true;

  private constructor(path: string, partial: string, handle: FileHandle) {
    this.path = path;
    this.#partial = partial;
    this.#handle = handle;
  }

  /** Replaces what an earlier try left unfinished. Throws `IO_ERROR`, `DISK_FULL`. */
  static async create(path: string): Promise<OutputFile> {
    const partial = path + PARTIAL_ENDING;
    try {
      return new OutputFile(path, partial, await open(partial, "w"));
    } catch (error) {
      throw writeFailure(path, error);
    }
  }

  /** Bytes written. */
  get byteLength(): number {
    return this.#byteLength;
  }

  async write(bytes: Uint8Array): Promise<void> {
    try {
      for (let at = 0; at < bytes.length; ) {
        const { bytesWritten } = await this.#handle.write(bytes, at, bytes.length - at, this.#byteLength);
        if (bytesWritten === 0) throw Object.assign(new Error("the system took 0 bytes"), { code: "EIO" });
        at += bytesWritten;
        this.#byteLength += bytesWritten;
      }
    } catch (error) {
      throw writeFailure(this.path, error);
    }
  }

  /** Makes the file durable under its name. */
  async finish(): Promise<void> {
    try {
      await this.#handle.datasync();
      await this.#close();
      await rename(this.#partial, this.path);
      const folder = await open(dirname(this.path), "r");
      try {
        await folder.sync();
      } finally {
        await folder.close();
      }
    } catch (error) {
      throw writeFailure(this.path, error);
    }
  }

  /** Removes what was written; never throws. */
  async abort(): Promise<void> {
    await this.#close().catch(() => {});
    await rm(this.#partial, { force: true }).catch(() => {});
  }

  async #close(): Promise<void> {
    if (!this.#open) return;
    this.#open = false;
    await this.#handle.close();
  }
}

/** What a failed write becomes: `DISK_FULL` or `IO_ERROR`, with the path. */
export function writeFailure(path: string, error: unknown): HeadraceError {
  if (error instanceof HeadraceError) return error;
  const code = (error as { code?: unknown } | undefined)?.code;
  if (code === "ENOSPC" || code === "EDQUOT") {
    return new HeadraceError("DISK_FULL", `${path}: the disk is full (${code}); free some space`, {
      cause: error,
    });
  }
  const reason = typeof code === "string" ? code : String(error).split("\n")[0];
  return new HeadraceError("IO_ERROR", `${path}: cannot be written (${reason})`, { cause: error });
}
