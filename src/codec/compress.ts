/** One frame of one buffer. */
import type { CodecName } from "./codec.ts";
import { openCompressor } from "./open.ts";

/**
 * `bytes` as one frame that holds its content's length and checksum, as the buffers of Arrow bodies are stored. Runs on
 * the calling thread; who makes many frames opens a compressor once. Throws `BAD_OPTION` for a level out of its range,
 * `OUT_OF_RANGE` past 1 GiB, `OUT_OF_MEMORY`.
 */
export function compressFrame(
  codec: CodecName,
  level: number | undefined,
  bytes: Uint8Array,
): Uint8Array<ArrayBuffer> {
  const compressor = openCompressor(codec, { level });
  try {
    return compressor.frame(bytes);
  } finally {
    compressor.close();
  }
}
