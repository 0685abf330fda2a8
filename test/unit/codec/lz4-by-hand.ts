/** LZ4 frames put together block by block, in ways that our own writer has no use for. */
import { encodeLz4Block, lz4Bound } from "../../../src/codec/lz4-block.ts";
import { XxHash32 } from "../../../src/format/xxhash.ts";

export interface FrameOptions {
  /** 4 to 7: blocks of at most 64 KiB, 256 KiB, 1 MiB, 4 MiB. */
  readonly blockId?: number;
  /** Whether checksums of the blocks and of the content follow them. */
  readonly checksums?: boolean;
  /** What the header claims of the content, if anything. */
  readonly contentLength?: number;
}

const word = (value: number) => new Uint8Array(Uint32Array.of(value).buffer);

/** What `bytes` become as one block, without its length. */
export function lz4Block(bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  const block = new Uint8Array(lz4Bound(bytes.length));
  return block.subarray(0, encodeLz4Block(bytes, block));
}

/** A frame of independent blocks, one for each of `parts`, as a writer makes it that is told to flush after each. */
export function lz4Flushed(
  parts: readonly Uint8Array[],
  options: FrameOptions = {},
): Uint8Array<ArrayBuffer> {
  const { blockId = 4, checksums = false, contentLength } = options;
  const descriptor = [0x60 | (checksums ? 0x14 : 0) | (contentLength === undefined ? 0 : 8), blockId << 4];
  if (contentLength !== undefined)
    descriptor.push(...new Uint8Array(BigUint64Array.of(BigInt(contentLength)).buffer));
  const sum = new XxHash32().update(Uint8Array.from(descriptor)).digest();
  const pieces: Uint8Array[] = [
    word(0x184d2204),
    Uint8Array.from(descriptor),
    Uint8Array.of((sum >>> 8) & 0xff),
  ];
  for (const part of parts) {
    const block = lz4Block(part);
    const stored = block.length >= part.length;
    const bytes = stored ? part : block;
    pieces.push(word(bytes.length + (stored ? 0x80000000 : 0)), bytes);
    if (checksums) pieces.push(word(Bun.hash.xxHash32(bytes as Uint8Array<ArrayBuffer>, 0)));
  }
  pieces.push(word(0));
  if (checksums) pieces.push(word(Bun.hash.xxHash32(Buffer.concat(parts), 0)));
  return new Uint8Array(Buffer.concat(pieces));
}

/** A frame of the old form, as `lz4 -l` makes it. */
export function lz4Legacy(parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const blocks = parts.flatMap((part) => {
    const block = lz4Block(part);
    return [word(block.length), block];
  });
  return new Uint8Array(Buffer.concat([word(0x184c2102), ...blocks]));
}
