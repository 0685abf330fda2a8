/** Making a table of chunks: one after another in the file, none lying about its length beyond what its codec can do. */
import { HeadraceError } from "../errors.ts";
import type { ChunkTable } from "../types.ts";
import { ChunkCodec } from "./chunks.ts";

/** Bytes of one chunk, at most: what zstd's seekable format allows a frame. */
export const MAX_CHUNK_BYTES = 2 ** 30;

/** Bytes that one byte of a chunk can become, at most. LZ4: a byte of a length counts 255. zstd: a block of four bytes
 * repeats one of them 128 Ki times. */
export const MAX_EXPANSION: Readonly<Record<number, number>> = {
  [ChunkCodec.stored]: 1,
  [ChunkCodec.zstd]: 2 ** 15,
  [ChunkCodec.lz4Frame]: 255,
  [ChunkCodec.lz4Block]: 255,
};

/** Bytes of the file that a chunk may take: more than any codec needs for bytes that it cannot shorten, so that readers can
 * tell how much memory they need. */
const mostFileBytes = (length: number) => 2 * length + 2 ** 16;

/** One chunk of a table in the making. */
export interface ListedChunk {
  readonly fileOffset: number;
  readonly fileLength: number;
  /** Bytes of what it decompresses to; at least 1. */
  readonly length: number;
  readonly codec: number;
  readonly checksum?: number | undefined;
}

/** Chunks in the order of their logical bytes. */
export class ChunkList {
  readonly #starts: number[] = [0];
  readonly #fileOffset: number[] = [];
  readonly #fileLength: number[] = [];
  readonly #codec: number[] = [];
  readonly #checksums: number[] = [];
  #maxLength = 0;
  #maxFileLength = 0;
  #unverifiedFrames = 0;

  get numChunks(): number {
    return this.#codec.length;
  }

  get byteLength(): number {
    return this.#starts[this.numChunks]!;
  }

  /** Throws `BAD_CHUNK` where the chunk is too long, or its length and that in the file cannot belong together. */
  add({ fileOffset, fileLength, length, codec, checksum }: ListedChunk): void {
    const number = this.numChunks;
    if (length > MAX_CHUNK_BYTES) {
      throw bad(`chunk ${number} claims ${length} bytes of at most ${MAX_CHUNK_BYTES}`);
    }
    if (
      length > fileLength * MAX_EXPANSION[codec]! ||
      (codec === ChunkCodec.stored && length !== fileLength)
    ) {
      throw bad(
        `chunk ${number} claims ${length} bytes, which its ${fileLength} bytes at ${fileOffset} cannot become`,
      );
    }
    if (fileLength > mostFileBytes(length)) {
      throw bad(`chunk ${number} takes ${fileLength} bytes at ${fileOffset} for only ${length}`);
    }
    const end = this.byteLength + length;
    if (!Number.isSafeInteger(end)) throw bad(`chunk ${number} would end past 2^53 bytes`);
    this.#starts.push(end);
    this.#fileOffset.push(fileOffset);
    this.#fileLength.push(fileLength);
    this.#codec.push(codec);
    if (checksum !== undefined) this.#checksums.push(checksum);
    this.#maxLength = Math.max(this.#maxLength, length);
    this.#maxFileLength = Math.max(this.#maxFileLength, fileLength);
  }

  /** A frame whose blocks were added as chunks, without its checksums. */
  addUnverifiedFrame(): void {
    this.#unverifiedFrames++;
  }

  /** `planes`: of each chunk, where a table of them came with the file. */
  finish(planes?: Uint8Array): ChunkTable {
    const { numChunks } = this;
    return {
      byteLength: this.byteLength,
      numChunks,
      starts: Float64Array.from(this.#starts),
      fileOffset: Float64Array.from(this.#fileOffset),
      fileLength: Float64Array.from(this.#fileLength),
      codec: Uint8Array.from(this.#codec),
      ...(planes === undefined ? {} : { planes }),
      ...(numChunks > 0 && this.#checksums.length === numChunks
        ? { checksums: Uint32Array.from(this.#checksums) }
        : {}),
      ...(this.#unverifiedFrames === 0 ? {} : { unverifiedFrames: this.#unverifiedFrames }),
      maxLength: this.#maxLength,
      maxFileLength: this.#maxFileLength,
    };
  }
}

function bad(message: string): HeadraceError {
  return new HeadraceError("BAD_CHUNK", message);
}
