/** What compresses and decompresses: one interface over the libraries of the system and what stands in for them. */
import type { HeadraceError } from "../errors.ts";

/** By which name people ask for a codec. */
export type CodecName = "zstd" | "lz4";

/** What a chunk's table says of it besides its place. */
export interface ChunkExtras {
  /** Bytes of an element whose bytes were split into planes (2 or 4); 1 or absent: none were. */
  readonly planes?: number | undefined;
  /** Of what the chunk decompresses to (before its planes are joined), as `ChunkTable.checksums` has it. */
  readonly checksum?: number | undefined;
}

/** How one thread decodes. Memory is named by address and stays its owner's, who keeps it from being collected until the
 * call has ended (a JavaScript array that only its address is used of may be); nothing is kept after a call. */
export interface Decoder {
  /** For people: `libzstd 1.5.4, liblz4 1.9.4`. */
  readonly library: string;
  /** For people: which library decodes each codec, and why where it is not the system's. */
  readonly facts: Readonly<Record<CodecName, string>>;
  /**
   * Decodes one chunk of kind `codec` (of `ChunkCodec`): `sourceLength` bytes at `source` give exactly `targetLength`
   * bytes at `target`, planes joined. Never writes outside `[target, target + targetLength)`, nor reads outside the
   * source; the two do not overlap. Returns undefined, or why it failed (`BAD_CHUNK`: corrupt, truncated, or of another
   * length than was declared; `UNSUPPORTED_COMPRESSION`: made with a dictionary; `OUT_OF_MEMORY`). Checksums inside frames,
   * and that of `extras`, are verified unless the decoder was opened without.
   */
  decode(
    codec: number,
    source: number,
    sourceLength: number,
    target: number,
    targetLength: number,
    extras?: ChunkExtras,
  ): HeadraceError | undefined;
  close(): void;
}

export interface DecoderOptions {
  /** Whether checksums are verified; default true. */
  readonly checksums?: boolean | undefined;
  /** For a thread that does more than decode: views of memory are made for each chunk, which is slower, and not kept, so
   * that the collector does not take them for garbage to come; default false. */
  readonly exactViews?: boolean | undefined;
}

/** How one thread compresses. */
export interface Compressor {
  /** For people: `libzstd 1.5.4`. */
  readonly library: string;
  /** `bytes` as one frame that holds its content's length, in fresh memory of the caller's. The same bytes give the same
   * frame. Throws `OUT_OF_MEMORY`, `OUT_OF_RANGE` past 1 GiB. */
  frame(bytes: Uint8Array): Uint8Array<ArrayBuffer>;
  close(): void;
}

export interface CompressorOptions {
  /** zstd: 1 to 19, default 3. LZ4: 1 and 2 are fast, 3 to 12 search longer; default 1. */
  readonly level?: number | undefined;
  /** Whether a frame ends with a checksum of its content; default true. */
  readonly checksum?: boolean | undefined;
}
