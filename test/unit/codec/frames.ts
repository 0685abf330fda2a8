/** One frame of one buffer, for tests that need a few. */
import type { CodecName } from "../../../src/codec/codec.ts";
import { openCompressor } from "../../../src/codec/open.ts";

/** `bytes` as one frame that holds its content's length and checksum. */
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
