/** Files of sources, read in pieces. */
import { type FileHandle, open } from "node:fs/promises";
import { HeadraceError } from "../../errors.ts";
import { badInput } from "./source.ts";

/** Bytes that are read at once where a source goes through a file in order. */
export const PIECE_BYTES = 2 ** 20;

/** An open file of known length. */
export class InputFile {
  readonly path: string;
  readonly byteLength: number;
  readonly #handle: FileHandle;

  private constructor(path: string, byteLength: number, handle: FileHandle) {
    this.path = path;
    this.byteLength = byteLength;
    this.#handle = handle;
  }

  /** Throws `SOURCE_NOT_FOUND`, `IO_ERROR`. */
  static async open(path: string): Promise<InputFile> {
    try {
      const handle = await open(path);
      return new InputFile(path, (await handle.stat()).size, handle);
    } catch (cause) {
      const { code } = cause as { code?: string };
      throw new HeadraceError(
        code === "ENOENT" ? "SOURCE_NOT_FOUND" : "IO_ERROR",
        `${path}: ${code === "ENOENT" ? "there is no such file" : `cannot be opened (${code})`}`,
        { cause },
      );
    }
  }

  /** Bytes `[start, end)`, in memory of their own. Throws `BAD_INPUT` where they leave the file, `SHORT_READ` where it has
   * become shorter, `IO_ERROR`. */
  async read(start: number, end: number): Promise<Uint8Array<ArrayBuffer>> {
    if (!(start >= 0 && start <= end && end <= this.byteLength)) {
      throw badInput(this.path, `bytes ${start} to ${end} lie outside the file's ${this.byteLength}`);
    }
    const bytes = new Uint8Array(end - start);
    await this.readInto(bytes, start);
    return bytes;
  }

  /** Fills `target` from `start` on. */
  async readInto(target: Uint8Array, start: number): Promise<void> {
    for (let at = 0; at < target.length; ) {
      const length = Math.min(target.length - at, 2 ** 30);
      const { bytesRead } = await this.#read(target, at, length, start + at);
      if (bytesRead === 0) {
        const text = `${this.path}: ends at byte ${start + at}, and had ${this.byteLength} when it was opened`;
        throw new HeadraceError("SHORT_READ", text);
      }
      at += bytesRead;
    }
  }

  close(): Promise<void> {
    return this.#handle.close();
  }

  async #read(target: Uint8Array, at: number, length: number, position: number) {
    try {
      return await this.#handle.read(target, at, length, position);
    } catch (cause) {
      const { code } = cause as { code?: string };
      throw new HeadraceError("IO_ERROR", `${this.path}: cannot be read (${code})`, { cause });
    }
  }
}

/** Runs `work` over an open file, which is closed afterwards. */
export async function withFile<T>(path: string, work: (file: InputFile) => Promise<T>): Promise<T> {
  const file = await InputFile.open(path);
  try {
    return await work(file);
  } finally {
    await file.close();
  }
}
