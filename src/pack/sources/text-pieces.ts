/** Files of text in pieces that end with a line, however they are compressed. */
import { type FileHandle, open, stat } from "node:fs/promises";
import { Readable, type Transform } from "node:stream";
import { createGunzip, createZstdDecompress } from "node:zlib";
import { HeadraceError } from "../../errors.ts";
import { codeOf } from "../../loader/writeback/files.ts";
import { badInput } from "./source.ts";
import { checkZstdWhole } from "./zstd-whole.ts";

/** Bytes of a piece but for lines that are longer. Where batches are cut depends on it, and so do the bytes that are packed. */
export const PIECE_BYTES = 2 * 2 ** 20;
/** Bytes of the longest line. */
const MAX_LINE_BYTES = 2 ** 29;
const LINE_END = 0x0a;

/** Some lines. */
export interface Piece {
  /** Owned by whoever gets the piece; {@link PieceReader.giveBack} takes it for the next. */
  readonly buffer: ArrayBuffer;
  /** Bytes `[start, end)` of the buffer are the lines; the last ends with a line end also where the file does not. */
  readonly start: number;
  readonly end: number;
  /** Bytes of the file, as it is stored, that were read so far. */
  readonly sourceBytes: number;
}

/** Finds the end of the last whole row in `bytes[0, length)`: its index past the line end, or 0 where there is none. */
export type Cutter = (bytes: Buffer, length: number) => number;

/** Lines are rows. */
export const cutLines: Cutter = (bytes, length) =>
  length === 0 ? 0 : bytes.lastIndexOf(LINE_END, length - 1) + 1;

/** Whether the file's name says that it is compressed, and in a way that is read here. */
function compressionOf(path: string): "gzip" | "zstd" | undefined {
  if (/\.t?gz$/.test(path)) return "gzip";
  return path.endsWith(".zst") ? "zstd" : undefined;
}

/** Fills memory from a file. */
interface ByteSource {
  /** Bytes of the file, as it is stored, that were read so far. */
  readonly stored: number;
  /** Fills `into` from its front on, but for the end of the file; returns how many bytes there were. */
  fill(into: Buffer): Promise<number>;
  close(): Promise<void>;
}

class PlainSource implements ByteSource {
  stored = 0;
  readonly #handle: FileHandle;

  constructor(handle: FileHandle) {
    this.#handle = handle;
  }

  async fill(into: Buffer): Promise<number> {
    let at = 0;
    while (at < into.length) {
      const { bytesRead } = await this.#handle.read(into, at, into.length - at, this.stored);
      if (bytesRead === 0) break;
      at += bytesRead;
      this.stored += bytesRead;
    }
    return at;
  }

  close(): Promise<void> {
    return this.#handle.close();
  }
}

class DecompressedSource implements ByteSource {
  stored = 0;
  readonly #handle: FileHandle;
  readonly #file: Readable;
  readonly #chunks: AsyncIterator<Buffer>;
  readonly #decoder: Transform;
  #rest: Buffer = Buffer.alloc(0);

  constructor(handle: FileHandle, kind: "gzip" | "zstd") {
    this.#handle = handle;
    this.#file = Readable.from(this.#chunksOf(handle), { objectMode: true, highWaterMark: 1 });
    const options = { chunkSize: 2 ** 18 };
    this.#decoder = kind === "gzip" ? createGunzip(options) : createZstdDecompress(options);
    this.#file.on("error", (error) => this.#decoder.destroy(error));
    this.#chunks = this.#file.pipe(this.#decoder)[Symbol.asyncIterator]();
  }

  async fill(into: Buffer): Promise<number> {
    let at = 0;
    while (at < into.length) {
      if (this.#rest.length === 0) {
        const { done, value } = await this.#chunks.next();
        if (done === true) break;
        this.#rest = value;
      }
      const taken = this.#rest.copy(into, at);
      this.#rest = this.#rest.subarray(taken);
      at += taken;
    }
    return at;
  }

  async close(): Promise<void> {
    this.#file.destroy();
    this.#decoder.destroy();
    await this.#handle.close();
  }

  /** Each in memory of its own, as a stream keeps them. */
  async *#chunksOf(handle: FileHandle): AsyncGenerator<Buffer> {
    for (;;) {
      const chunk = Buffer.allocUnsafeSlow(2 ** 18);
      const { bytesRead } = await handle.read(chunk, 0, chunk.length, this.stored);
      if (bytesRead === 0) return;
      this.stored += bytesRead;
      yield chunk.subarray(0, bytesRead);
    }
  }
}

/** Reads a file's pieces, each of which ends with a row. */
export class PieceReader {
  readonly path: string;
  /** Of the file as it is stored. */
  readonly byteLength: number;
  readonly #source: ByteSource;
  readonly #compressed: boolean;
  readonly #cut: Cutter;
  readonly #free: ArrayBuffer[] = [];
  /** What stands behind the last piece. */
  #carry: Buffer = Buffer.alloc(0);
  #first = true;
  #ended = false;

  private constructor(
    path: string,
    byteLength: number,
    source: ByteSource,
    compressed: boolean,
    cut: Cutter,
  ) {
    this.path = path;
    this.byteLength = byteLength;
    this.#source = source;
    this.#compressed = compressed;
    this.#cut = cut;
  }

  /** Throws `SOURCE_NOT_FOUND`, `SOURCE_UNREADABLE`. */
  static async open(path: string, cut: Cutter): Promise<PieceReader> {
    try {
      const stats = await stat(path);
      if (!stats.isFile()) throw new HeadraceError("SOURCE_UNREADABLE", `${path}: is not a regular file`);
      const kind = compressionOf(path);
      if (kind === "zstd") checkZstdWhole(path, stats.size);
      const handle = await open(path);
      const source = kind === undefined ? new PlainSource(handle) : new DecompressedSource(handle, kind);
      return new PieceReader(path, stats.size, source, kind !== undefined, cut);
    } catch (cause) {
      if (cause instanceof HeadraceError) throw cause;
      const code = codeOf(cause);
      throw new HeadraceError(
        code === "ENOENT" ? "SOURCE_NOT_FOUND" : "SOURCE_UNREADABLE",
        `${path}: cannot be read (${code})`,
        { cause },
      );
    }
  }

  /** The next piece; undefined at the end. Throws `BAD_INPUT` for compressed bytes that are damaged and for lines of more
   * than 512 MiB, `IO_ERROR`. */
  async next(): Promise<Piece | undefined> {
    if (this.#ended && this.#carry.length === 0) return undefined;
    // One byte more for the end of the last line.
    let bytes = this.#take(Math.max(PIECE_BYTES, this.#carry.length + PIECE_BYTES / 2));
    let length = this.#carry.copy(bytes);
    this.#carry = Buffer.alloc(0);
    for (;;) {
      if (!this.#ended) length += await this.#fill(bytes.subarray(length, bytes.length - 1));
      this.#ended = length < bytes.length - 1;
      const start = this.#first ? this.#skipMark(bytes, length) : 0;
      let end = this.#ended ? length : this.#cut(bytes, length);
      if (end > start || this.#ended) {
        this.#first = false;
        this.#carry = Buffer.from(bytes.subarray(end, length));
        if (end > start && bytes[end - 1] !== LINE_END) bytes[end++] = LINE_END;
        if (end <= start) return undefined;
        return { buffer: bytes.buffer as ArrayBuffer, start, end, sourceBytes: this.#source.stored };
      }
      if (length > MAX_LINE_BYTES)
        throw badInput(
          this.path,
          `has a line of more than ${MAX_LINE_BYTES} bytes, or a quote that is never closed`,
        );
      const longer = Buffer.from(new ArrayBuffer(2 * bytes.length));
      bytes.copy(longer, 0, 0, length);
      bytes = longer;
    }
  }

  /** Takes memory for pieces to come. */
  giveBack(buffer: ArrayBuffer): void {
    if (buffer.byteLength === PIECE_BYTES + 1 && this.#free.length < 16) this.#free.push(buffer);
  }

  close(): Promise<void> {
    return this.#source.close();
  }

  #take(byteLength: number): Buffer {
    const free = byteLength === PIECE_BYTES ? this.#free.pop() : undefined;
    return Buffer.from(free ?? new ArrayBuffer(byteLength + 1));
  }

  async #fill(into: Buffer): Promise<number> {
    try {
      return await this.#source.fill(into);
    } catch (cause) {
      const code = codeOf(cause);
      if (this.#compressed && !/^E[A-Z]+$/.test(code))
        throw badInput(
          this.path,
          `its compressed bytes are damaged or cut off (${(cause as Error).message})`,
          cause,
        );
      throw new HeadraceError("IO_ERROR", `${this.path}: cannot be read (${code})`, { cause });
    }
  }

  /** Bytes of the mark that says that the text is UTF-8. Throws `BAD_INPUT` for that of UTF-16. */
  #skipMark(bytes: Buffer, length: number): number {
    if (length >= 2 && ((bytes[0] === 0xff && bytes[1] === 0xfe) || (bytes[0] === 0xfe && bytes[1] === 0xff)))
      throw badInput(this.path, "is UTF-16; convert it to UTF-8");
    return length >= 3 && bytes[0] === 0xef && bytes[1] === 0xbb && bytes[2] === 0xbf ? 3 : 0;
  }
}
