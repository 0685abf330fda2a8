/** Decodes chunks without the codec layer: Bun's zstd, and a plain reader of LZ4 frames. */
import type { DecodeChunk } from "../../../src/format/arrow-body.ts";
import { ChunkCodec } from "../../../src/format/chunks.ts";
import type { ShardDescription } from "../../../src/types.ts";

/** The logical bytes that a description counts in: the file's own where nothing is compressed. */
export function logicalBytes(file: Uint8Array, { chunks }: ShardDescription): Uint8Array {
  if (chunks === undefined) return file;
  const logical = new Uint8Array(chunks.byteLength);
  const decode = decoderOf(file);
  for (let i = 0; i < chunks.numChunks; i++) {
    const [start, end] = [chunks.starts[i]!, chunks.starts[i + 1]!];
    logical.set(decode(chunks.codec[i]!, chunks.fileOffset[i]!, chunks.fileLength[i]!, end - start), start);
  }
  return logical;
}

/** Decodes chunks of a file in memory; throws any error unless exactly `byteLength` bytes come out. */
export function decoderOf(file: Uint8Array): DecodeChunk {
  return (codec, fileOffset, fileLength, byteLength) => {
    const stored = file.subarray(fileOffset, fileOffset + fileLength);
    if (stored.length !== fileLength) throw new Error(`a chunk outside the file's ${file.length} bytes`);
    const bytes =
      codec === ChunkCodec.stored
        ? stored
        : codec === ChunkCodec.zstd
          ? new Uint8Array(Bun.zstdDecompressSync(stored as Uint8Array<ArrayBuffer>))
          : lz4Frame(stored, byteLength);
    if (bytes.length !== byteLength) throw new Error(`${bytes.length} bytes, declared as ${byteLength}`);
    return bytes;
  };
}

/** By the LZ4 frame and block formats; checksums are passed over. */
function lz4Frame(frame: Uint8Array, byteLength: number): Uint8Array {
  const view = new DataView(frame.buffer, frame.byteOffset, frame.byteLength);
  if (view.getUint32(0, true) !== 0x184d2204) throw new Error("no LZ4 frame");
  const flags = frame[4]!;
  let at = 7 + (flags & 8 ? 8 : 0) + (flags & 1 ? 4 : 0);
  const out = new Uint8Array(byteLength);
  let length = 0;
  for (;;) {
    const word = view.getUint32(at, true);
    at += 4;
    if (word === 0) break;
    const block = frame.subarray(at, at + (word & 0x7fffffff));
    at += block.length + (flags & 16 ? 4 : 0);
    if (word >>> 31) {
      out.set(block, length);
      length += block.length;
    } else length = lz4Block(block, out, length);
  }
  if (length !== byteLength || at + (flags & 4 ? 4 : 0) !== frame.length)
    throw new Error(`an LZ4 frame of ${length} bytes that ends at ${at} of ${frame.length}`);
  return out;
}

function lz4Block(block: Uint8Array, out: Uint8Array, start: number): number {
  let [at, to] = [0, start];
  const more = (nibble: number) => {
    let length = nibble;
    if (nibble === 15) for (let byte = 255; byte === 255; length += byte) byte = block[at++]!;
    return length;
  };
  while (at < block.length) {
    const token = block[at++]!;
    const literals = more(token >> 4);
    out.set(block.subarray(at, at + literals), to);
    at += literals;
    to += literals;
    if (at >= block.length) break;
    const back = block[at]! | (block[at + 1]! << 8);
    at += 2;
    for (let i = more(token & 15) + 4; i > 0; i--, to++) out[to] = out[to - back]!;
  }
  return to;
}
