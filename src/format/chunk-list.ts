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

const FIRST_ROOM = 64;

/** Chunks in the order of their logical bytes. Takes 25 bytes for each, 29 with checksums, and as much again while it
 * grows, as a file may have a hundred million. */
export class ChunkList {
  /** One more than the others. */
  #starts = new Float64Array(FIRST_ROOM + 1);
  #fileOffset = new Float64Array(FIRST_ROOM);
  #fileLength = new Float64Array(FIRST_ROOM);
  #codec = new Uint8Array(FIRST_ROOM);
  #checksums = new Uint32Array(0);
  #numChunks = 0;
  #numChecksums = 0;
  #maxLength = 0;
  #maxFileLength = 0;
  #unverifiedFrames = 0;

  get numChunks(): number {
    return this.#numChunks;
  }

  get byteLength(): number {
    return this.#starts[this.#numChunks]!;
  }

  /** Where each chunk starts, and the last one ends; until the next is added. */
  get starts(): Float64Array {
    return this.#starts.subarray(0, this.#numChunks + 1);
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
    if (number === this.#codec.length) this.#grow();
    this.#fileOffset[number] = fileOffset;
    this.#fileLength[number] = fileLength;
    this.#codec[number] = codec;
    if (checksum !== undefined) this.#addChecksum(checksum);
    this.#numChunks++;
    this.#starts[this.#numChunks] = end;
    this.#maxLength = Math.max(this.#maxLength, length);
    this.#maxFileLength = Math.max(this.#maxFileLength, fileLength);
  }

  #grow(): void {
    const room = 2 * this.#codec.length;
    this.#starts = grown(this.#starts, new Float64Array(room + 1));
    this.#fileOffset = grown(this.#fileOffset, new Float64Array(room));
    this.#fileLength = grown(this.#fileLength, new Float64Array(room));
    this.#codec = grown(this.#codec, new Uint8Array(room));
  }

  #addChecksum(checksum: number): void {
    if (this.#numChecksums === this.#checksums.length)
      this.#checksums = grown(this.#checksums, new Uint32Array(this.#codec.length));
    this.#checksums[this.#numChecksums++] = checksum;
  }

  /** A frame whose blocks were added as chunks, without its checksums. */
  addUnverifiedFrame(): void {
    this.#unverifiedFrames++;
  }

  /** `planes`: of each chunk, where a table of them came with the file. */
  finish(planes?: Uint8Array): ChunkTable {
    const numChunks = this.#numChunks;
    return {
      byteLength: this.byteLength,
      numChunks,
      starts: this.starts.slice(),
      fileOffset: this.#fileOffset.slice(0, numChunks),
      fileLength: this.#fileLength.slice(0, numChunks),
      codec: this.#codec.slice(0, numChunks),
      ...(planes === undefined ? {} : { planes }),
      ...(numChunks > 0 && this.#numChecksums === numChunks
        ? { checksums: this.#checksums.slice(0, numChunks) }
        : {}),
      ...(this.#unverifiedFrames === 0 ? {} : { unverifiedFrames: this.#unverifiedFrames }),
      maxLength: this.#maxLength,
      maxFileLength: this.#maxFileLength,
    };
  }
}

/** `room` with what `from` holds in front. */
function grown<T extends Float64Array | Uint32Array | Uint8Array>(from: T, room: T): T {
  room.set(from);
  return room;
}

function bad(message: string): HeadraceError {
  return new HeadraceError("BAD_CHUNK", message);
}
