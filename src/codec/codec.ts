/** What compresses and decompresses: one interface over the libraries of the system and what stands in for them. */
import type { HeadraceError } from "../errors.ts";

/** By which name people ask for a codec. */
export type CodecName = "zstd" | "lz4";

/** How one thread decodes. Memory is named by address and stays its owner's; nothing is kept after a call. */
export interface Decoder {
  /** For people: `libzstd 1.5.4`. */
  readonly library: string;
  /**
   * Decodes one chunk of kind `codec` (of `ChunkCodec`): `sourceLength` bytes at `source` give exactly `targetLength`
   * bytes at `target`. Never writes outside `[target, target + targetLength)`, nor reads outside the source. Returns
   * undefined, or why it failed (`BAD_CHUNK`: corrupt, truncated, or of another length than was declared).
   */
  decode(
    codec: number,
    source: number,
    sourceLength: number,
    target: number,
    targetLength: number,
  ): HeadraceError | undefined;
  close(): void;
}

export interface DecoderOptions {
  /** Whether checksums inside frames are verified; default true. */
  readonly checksums?: boolean | undefined;
}
