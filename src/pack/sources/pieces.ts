/** Bytes that come in pieces, read in lengths of the reader's own choice. */
import { Readable } from "node:stream";
import { createGunzip, createInflateRaw, createZstdDecompress } from "node:zlib";
import { type InputFile, PIECE_BYTES } from "./files.ts";
import { badInput } from "./source.ts";

/** How bytes are compressed that {@link decompressed} takes apart. */
export type PieceCodec = "deflate" | "gzip" | "zstd";

const DECODERS = {
  deflate: createInflateRaw,
  gzip: createGunzip,
  zstd: createZstdDecompress,
} as const;

/** Bytes `[start, end)` of a file; each piece is valid until the next is asked for. */
export async function* filePieces(
  file: InputFile,
  start = 0,
  end = file.byteLength,
): AsyncGenerator<Uint8Array> {
  const memory = new Uint8Array(Math.min(PIECE_BYTES, end - start));
  for (let at = start; at < end; at += memory.length) {
    const piece = memory.subarray(0, Math.min(memory.length, end - at));
    await file.readInto(piece, at);
    yield piece;
  }
}

/** What `pieces` decompress to, in pieces. Throws `BAD_INPUT` with `place` in front where they are damaged or cut off. */
export async function* decompressed(
  pieces: AsyncIterable<Uint8Array>,
  codec: PieceCodec,
  place: string,
): AsyncGenerator<Uint8Array> {
  const decoder = DECODERS[codec]();
  const source = Readable.from(copies(pieces), { objectMode: true });
  let failure: unknown;
  source.on("error", (error) => {
    failure = error;
    decoder.destroy(error);
  });
  source.pipe(decoder);
  try {
    for await (const piece of decoder) yield piece as Uint8Array;
  } catch (cause) {
    if (failure !== undefined) throw failure;
    throw badInput(place, `cannot be decompressed (${codec}): ${(cause as Error).message}`, cause);
  } finally {
    source.destroy();
    decoder.destroy();
  }
}

/** A stream keeps pieces for longer than they are valid. */
async function* copies(pieces: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  for await (const piece of pieces) yield piece.slice();
}

/** Reads pieces in order. */
export class PieceReader {
  readonly #pieces: AsyncIterator<Uint8Array>;
  #piece = new Uint8Array(0);
  #at = 0;
  /** Bytes that were read. */
  position = 0;

  constructor(pieces: AsyncIterable<Uint8Array>) {
    this.#pieces = pieces[Symbol.asyncIterator]();
  }

  /** Fills `target` as far as there are bytes, and returns how many there were. */
  async fill(target: Uint8Array): Promise<number> {
    let filled = 0;
    while (filled < target.length && (await this.#more())) {
      const length = Math.min(target.length - filled, this.#piece.length - this.#at);
      target.set(this.#piece.subarray(this.#at, this.#at + length), filled);
      this.#at += length;
      filled += length;
    }
    this.position += filled;
    return filled;
  }

  /** Passes over up to `length` bytes, and returns how many there were. */
  async skip(length: number): Promise<number> {
    let skipped = 0;
    while (skipped < length && (await this.#more())) {
      const step = Math.min(length - skipped, this.#piece.length - this.#at);
      this.#at += step;
      skipped += step;
    }
    this.position += skipped;
    return skipped;
  }

  async close(): Promise<void> {
    await this.#pieces.return?.();
  }

  async #more(): Promise<boolean> {
    while (this.#at === this.#piece.length) {
      const next = await this.#pieces.next();
      if (next.done === true) return false;
      this.#piece = next.value as Uint8Array<ArrayBuffer>;
      this.#at = 0;
    }
    return true;
  }
}
