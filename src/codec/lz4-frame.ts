/** LZ4 frames in memory: decoded straight to their target block by block, and made. */
import { HeadraceError } from "../errors.ts";
import { encodeLz4Header, LZ4_MAGIC, LZ4_STORED, lz4HeaderIn, u32At } from "../format/lz4-frames.ts";
import type { Lz4Blocks } from "./lz4.ts";
import type { Windows } from "./memory.ts";
import type { Reason } from "./zstd.ts";

/** What frames are decoded with. */
export interface Lz4FrameTools {
  readonly blocks: Lz4Blocks;
  readonly windows: Windows;
}

/** Which checksums are verified: those of blocks, and that of the content. */
export interface Lz4Checks {
  readonly blocks: boolean;
  readonly content: boolean;
}

/**
 * Decodes one frame, which fills the source, to exactly `targetLength` bytes. Blocks may be linked. Never writes outside
 * the target.
 */
export function decodeLz4Frame(
  tools: Lz4FrameTools,
  source: number,
  sourceLength: number,
  target: number,
  targetLength: number,
  checks: Lz4Checks,
): Reason {
  const { blocks, windows } = tools;
  const { base, bytes } = windows.around(source, sourceLength);
  const from = source - base;
  if (sourceLength < 4 || u32At(bytes, from) !== LZ4_MAGIC) return "it does not begin as an LZ4 frame does";
  const header = lz4HeaderIn(bytes, from, sourceLength, 0);
  if (header.hasDictionary) return "it was compressed with a dictionary";
  if (header.contentLength !== undefined && header.contentLength !== targetLength) {
    return `its header claims ${header.contentLength} bytes`;
  }
  const sumBytes = header.blockChecksums ? 4 : 0;
  let at = header.byteLength;
  let given = 0;
  for (;;) {
    if (at + 4 > sourceLength) return CUT_OFF;
    const word = u32At(bytes, from + at);
    at += 4;
    if (word === 0) break;
    const stored = word >= LZ4_STORED;
    const length = stored ? word - LZ4_STORED : word;
    if (length > sourceLength - at || length > header.maxBlockBytes)
      return `its block at ${at} claims ${length} bytes`;
    const room = Math.min(header.maxBlockBytes, targetLength - given);
    if (stored) {
      if (length > room) return `it gives more than that`;
      windows.view(target + given, length).set(windows.view(source + at, length));
      given += length;
    } else {
      const history = header.independent ? 0 : given;
      const gave = blocks.decode(source + at, length, target + given, room, history);
      if (gave < 0) return `its block at ${at} is corrupt, or gives more than ${room} bytes`;
      given += gave;
    }
    if (sumBytes > sourceLength - at - length) return CUT_OFF;
    if (sumBytes > 0 && checks.blocks) {
      const hash = Bun.hash.xxHash32(windows.view(source + at, length), 0);
      if (hash !== u32At(bytes, from + at + length)) return `the checksum of its block at ${at} is wrong`;
    }
    at += length + sumBytes;
  }
  if (given !== targetLength) return `it gives ${given} bytes`;
  const end = at + (header.contentChecksum ? 4 : 0);
  if (end !== sourceLength) return `it ends at ${end} of its ${sourceLength} bytes`;
  if (!header.contentChecksum || !checks.content) return undefined;
  const hash = Bun.hash.xxHash32(windows.view(target, targetLength), 0);
  return hash === u32At(bytes, from + at) ? undefined : "its checksum is wrong";
}

const CUT_OFF = "it is cut off";
const MAX_CONTENT = 2 ** 30;

/** Bytes of a frame of `byteLength` bytes, at most. */
export function lz4FrameBound(byteLength: number): number {
  return byteLength + 15 + 4 * (Math.ceil(byteLength / 2 ** 22) + 2);
}

/** Makes a frame of independent blocks of `bytes` at the front of `into`, of {@link lz4FrameBound} bytes or more;
 * returns its length. Blocks that do not get shorter are stored as they are. */
export function encodeLz4Frame(
  blocks: Lz4Blocks,
  bytes: Uint8Array,
  into: Uint8Array,
  level: number,
  checksum: boolean,
): number {
  if (bytes.length > MAX_CONTENT) {
    throw new HeadraceError("OUT_OF_RANGE", `a frame of ${bytes.length} bytes, of at most ${MAX_CONTENT}`);
  }
  const { header, blockBytes } = encodeLz4Header(bytes.length, checksum);
  const view = new DataView(into.buffer, into.byteOffset, into.byteLength);
  into.set(header);
  let out = header.length;
  for (let at = 0; at < bytes.length; at += blockBytes) {
    const block = bytes.subarray(at, at + blockBytes);
    // One byte less than the block has: what is as long is stored.
    const room = into.subarray(out + 4, out + 4 + block.length - 1);
    const length = room.length === 0 ? 0 : blocks.encode(block, room, level);
    view.setUint32(out, length > 0 ? length : LZ4_STORED + block.length, true);
    out += 4;
    if (length <= 0) into.set(block, out);
    out += length > 0 ? length : block.length;
  }
  view.setUint32(out, 0, true);
  out += 4;
  if (!checksum) return out;
  view.setUint32(out, Bun.hash.xxHash32(bytes, 0), true);
  return out + 4;
}
