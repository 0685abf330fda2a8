/** The Worker that compresses chunks of a container. */
import type { CodecName, Compressor } from "./codec.ts";
import { openCompressor } from "./open.ts";
import { Planes } from "./planes.ts";

declare const self: Worker;

/** The first message. */
export interface CompressStart {
  readonly codec: CodecName;
  readonly level: number;
  readonly checksum: boolean;
  /** One word, which is not 0 once nobody wants answers any more. */
  readonly stop: Int32Array<SharedArrayBuffer>;
}

/** Those that follow; the buffer is transferred, and comes back. */
export interface CompressWork {
  readonly buffer: ArrayBuffer;
  readonly byteLength: number;
  /** Bytes of an element whose planes are split; 1 for none. */
  readonly planes: number;
}

/** The last message: the thread frees what its library took, and ends. */
export const COMPRESS_END = "end";

/** The answers, in the order of the work. */
export interface CompressDone {
  readonly buffer: ArrayBuffer;
  readonly frame: Uint8Array<ArrayBuffer>;
  /** For the table, where it has them: CRC-32 of what the frame decompresses to. */
  readonly checksum: number | undefined;
}

let compressor: Compressor | undefined;
let codec: CodecName = "zstd";
let stop: Int32Array<SharedArrayBuffer> | undefined;
let splitter: Planes | undefined;

self.onmessage = ({ data }: MessageEvent<CompressStart | CompressWork | typeof COMPRESS_END>) => {
  if (data === COMPRESS_END) {
    // Terminating a Worker frees none of the library's memory.
    compressor?.close();
    process.exit();
  }
  if ("codec" in data) {
    ({ codec, stop } = data);
    compressor = openCompressor(data.codec, data);
    return;
  }
  if (Atomics.load(stop!, 0) !== 0) return;
  const { buffer, byteLength, planes } = data;
  const bytes = new Uint8Array(buffer, 0, byteLength);
  if (planes !== 1) splitter ??= new Planes();
  const plain = planes === 1 ? bytes : splitter!.split(bytes, planes);
  const frame = compressor!.frame(plain);
  // zstd's own checksum costs nothing beside its decoding; LZ4's frame has one that decodes slower than the data.
  const checksum = codec === "lz4" ? Bun.hash.crc32(plain) : undefined;
  self.postMessage({ buffer, frame, checksum } satisfies CompressDone, [buffer, frame.buffer]);
};
