/** How many bytes the blocks of an LZ4 frame decompress to, which they do not say. */
import { HeadraceError } from "../errors.ts";
import type { FrameCursor } from "./frame-cursor.ts";
import { type Lz4Block, type Lz4FrameHeader, measureLz4Block } from "./lz4-frames.ts";

/** Bytes of a file's blocks that are looked at to find out how long they are. */
export const MAX_MEASURED_BYTES = 64 * 2 ** 20;
/** Those of them that are kept for the last blocks of frames, as other blocks may be taken to be full. */
const KEPT_FOR_LAST_BYTES = MAX_MEASURED_BYTES / 2;

/** What is left of that; each file has its own. */
export interface MeasureBudget {
  bytes: number;
}

/**
 * The length of each of the `blocks` of a frame that was found whole; undefined where they cannot be known without
 * decoding the frame, or not without reading more than `budget` has left. Writers fill all blocks but the last, except
 * where they were told to flush. The last is measured. What the frame says of its content proves that the others are
 * full; where it says nothing they are measured as far as `budget` goes, the shortest first, as those that were flushed
 * are likely to be; where all of these are full, so are the others, it is assumed, and decoding one that is not fails.
 * Throws `BAD_CHUNK` for a block that is malformed.
 */
export function lz4Lengths(
  cursor: FrameCursor,
  header: Lz4FrameHeader,
  blocks: readonly Lz4Block[],
  budget: MeasureBudget,
): Uint32Array | undefined {
  const { maxBlockBytes, contentLength } = header;
  const last = blocks.length - 1;
  const lengths = new Uint32Array(blocks.length).fill(maxBlockBytes);
  if (last < 0) return lengths;
  if (!take(budget, weight(blocks[last]!), 0)) return undefined;
  lengths[last] = lengthOf(cursor, blocks[last]!, maxBlockBytes);
  // No block gives more than that: all of them give it where the sum is right.
  if (contentLength === maxBlockBytes * last + lengths[last]!) return lengths;
  const order = blocks.map((_, i) => i).slice(0, -1);
  order.sort((a, b) => weight(blocks[a]!) - weight(blocks[b]!) || a - b);
  let isRegular = true;
  let isComplete = true;
  for (const i of order) {
    const block = blocks[i]!;
    if (!take(budget, weight(block), KEPT_FOR_LAST_BYTES)) {
      isComplete = false;
      break;
    }
    lengths[i] = lengthOf(cursor, block, maxBlockBytes);
    if (lengths[i] !== maxBlockBytes) isRegular = false;
  }
  return isComplete || (isRegular && contentLength === undefined) ? lengths : undefined;
}

/** Takes `bytes` from the budget; false, with nothing taken, where less than `kept` would be left. */
function take(budget: MeasureBudget, bytes: number, kept: number): boolean {
  if (bytes > 0 && budget.bytes - bytes < kept) return false;
  budget.bytes -= bytes;
  return true;
}

/** Bytes that have to be read to know the block's length. */
function weight({ stored, byteLength }: Lz4Block): number {
  return stored ? 0 : byteLength;
}

function lengthOf(
  cursor: FrameCursor,
  { offset, byteLength, stored }: Lz4Block,
  maxBlockBytes: number,
): number {
  if (stored) return byteLength;
  const length = measureLz4Block(cursor.bytes(offset, byteLength), maxBlockBytes);
  if (length !== undefined) return length;
  throw new HeadraceError("BAD_CHUNK", `the LZ4 block at ${offset} is malformed`);
}
