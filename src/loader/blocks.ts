/** A bounded cache of file blocks, for the small columns that must be seen before a batch can be planned. */

/** A file, or what a compressed one decodes to. */
export interface BlockSource {
  readonly byteLength: number;
  readSync(byteOffset: number, byteLength: number): Uint8Array;
}

const BLOCK_BYTES = 64 * 1024;
const MAX_BLOCKS = 128;

/** Least recently used blocks go first; at most 8 MiB are kept. */
export class BlockCache {
  readonly #blocks = new Map<number, Uint8Array>();

  /** Bytes `[byteOffset, byteOffset + byteLength)` of `file`; `key` tells files apart (below 2^21). */
  read(file: BlockSource, key: number, byteOffset: number, byteLength: number): Uint8Array {
    const first = Math.floor(byteOffset / BLOCK_BYTES);
    const last = Math.floor((byteOffset + byteLength - 1) / BLOCK_BYTES);
    if (first === last) {
      const at = byteOffset - first * BLOCK_BYTES;
      return this.#block(file, key, first).subarray(at, at + byteLength);
    }
    if (byteLength <= 0) return new Uint8Array(0);
    return file.readSync(byteOffset, byteLength);
  }

  /** Forgets the blocks of one file. */
  drop(key: number): void {
    for (const id of this.#blocks.keys()) {
      if (Math.floor(id / 2 ** 32) === key) this.#blocks.delete(id);
    }
  }

  #block(file: BlockSource, key: number, index: number): Uint8Array {
    const id = key * 2 ** 32 + index;
    let block = this.#blocks.get(id);
    if (block !== undefined) this.#blocks.delete(id);
    else {
      const start = index * BLOCK_BYTES;
      block = file.readSync(start, Math.min(BLOCK_BYTES, file.byteLength - start));
      if (this.#blocks.size >= MAX_BLOCKS) this.#blocks.delete(this.#blocks.keys().next().value!);
    }
    this.#blocks.set(id, block);
    return block;
  }
}
