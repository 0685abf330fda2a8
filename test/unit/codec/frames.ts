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

/** The same frame with its header's length taken out, as a stream of unknown length has it. */
export function zstdWithoutLength(frame: Uint8Array): Uint8Array<ArrayBuffer> {
  const descriptor = frame[4]!;
  const single = (descriptor & 0x20) !== 0;
  const lengthBytes = [single ? 1 : 0, 2, 4, 8][descriptor >>> 6]!;
  const start = single ? 5 : 6;
  // 8 MiB of window.
  return Uint8Array.of(
    ...frame.subarray(0, 4),
    descriptor & 0x07,
    13 << 3,
    ...frame.subarray(start + lengthBytes),
  );
}
