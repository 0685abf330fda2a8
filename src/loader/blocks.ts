/** A bounded cache of file blocks, for the small columns that must be seen before a batch can be planned. */
import { chunkAt } from "../format/chunks.ts";
import type { ByteRange, ChunkTable } from "../types.ts";

/** A file, or what a compressed one decodes to. */
export interface BlockSource {
  readonly byteLength: number;
  /** Of a compressed file: no block reaches into a chunk that nobody asked for, which may be far longer than the block
   * and would be decoded on this thread. */
  readonly table?: ChunkTable | undefined;
  readSync(byteOffset: number, byteLength: number): Uint8Array;
}

interface Block extends ByteRange {
  readonly key: number;
  readonly bytes: Uint8Array;
  /** Since it was last spared. */
  used: boolean;
}

/** A page. Rows in random order want a few bytes here and there, and memory for more of it is soon more work for the
 * collector than what it saves. */
const BLOCK_BYTES = 4 * 1024;
/** Bytes of all blocks, each of which counts with what it takes beside its own. */
const MAX_BYTES = 32 * 2 ** 20;
const OVERHEAD_BYTES = 512;

/** Blocks that were not used for long go first; at most 32 MiB are kept. */
export class BlockCache {
  /** Of each file, by where they start. */
  readonly #files = new Map<number, Map<number, Block>>();
  /** In the order in which they came, or were spared last. */
  readonly #blocks = new Set<Block>();
  #bytes = 0;

  /** Bytes `[byteOffset, byteOffset + byteLength)` of `file`; `key` tells files apart. */
  read(file: BlockSource, key: number, byteOffset: number, byteLength: number): Uint8Array {
    if (byteLength <= 0) return new Uint8Array(0);
    const { start, end } = blockAround(file, byteOffset);
    if (byteOffset + byteLength > end) return file.readSync(byteOffset, byteLength);
    let block = this.#files.get(key)?.get(start);
    if (block === undefined) {
      block = { key, start, end, bytes: file.readSync(start, end - start), used: false };
      this.#keep(block);
    } else block.used = true;
    return block.bytes.subarray(byteOffset - start, byteOffset - start + byteLength);
  }

  /** Forgets the blocks of one file. */
  drop(key: number): void {
    for (const block of this.#files.get(key)?.values() ?? []) this.#forget(block);
  }

  /** Makes room first: where all others are spared, none but one of them may go. */
  #keep(block: Block): void {
    const most = MAX_BYTES - costOf(block);
    for (const oldest of this.#blocks) {
      if (this.#bytes <= most) break;
      if (oldest.used) this.#spare(oldest);
      else this.#forget(oldest);
    }
    this.#blocks.add(block);
    this.#bytes += costOf(block);
    let ofFile = this.#files.get(block.key);
    if (ofFile === undefined) {
      ofFile = new Map();
      this.#files.set(block.key, ofFile);
    }
    ofFile.set(block.start, block);
  }

  /** Its turn comes again behind all others. */
  #spare(block: Block): void {
    block.used = false;
    this.#blocks.delete(block);
    this.#blocks.add(block);
  }

  #forget(block: Block): void {
    const ofFile = this.#files.get(block.key);
    ofFile?.delete(block.start);
    if (ofFile?.size === 0) this.#files.delete(block.key);
    this.#blocks.delete(block);
    this.#bytes -= costOf(block);
  }
}

/** The block that byte `offset` is in: blocks of a file are counted from its start, those of a chunk from the chunk's. */
function blockAround({ byteLength, table }: BlockSource, offset: number): ByteRange {
  const chunk = table === undefined || offset >= byteLength ? -1 : chunkAt(table, offset);
  const from = chunk < 0 ? 0 : table!.starts[chunk]!;
  const to = chunk < 0 ? byteLength : table!.starts[chunk + 1]!;
  const start = from + Math.floor((offset - from) / BLOCK_BYTES) * BLOCK_BYTES;
  return { start, end: Math.min(to, start + BLOCK_BYTES) };
}

function costOf({ start, end }: Block): number {
  return end - start + OVERHEAD_BYTES;
}
