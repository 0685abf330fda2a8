/** Keeps a bounded number of shards open, the most recently used ones. */
import type { OpenShard } from "./shard.ts";

/** Opens shards when they are first asked for and closes the least recently used beyond `capacity`, but
 * never one that is pinned. */
export class ShardCache {
  readonly #open = new Map<number, OpenShard>();
  readonly #capacity: number;
  readonly #openShard: (index: number) => OpenShard;
  #last: OpenShard | undefined;

  constructor(capacity: number, openShard: (index: number) => OpenShard) {
    this.#capacity = capacity;
    this.#openShard = openShard;
  }

  /** The shard, open; borrowed until the next call unless pinned. Throws what opening it throws. */
  get(index: number): OpenShard {
    if (this.#last?.index === index) return this.#last;
    let shard = this.#open.get(index);
    if (shard !== undefined) this.#open.delete(index);
    else {
      shard = this.#openShard(index);
      if (this.#open.size >= this.#capacity) this.#evict();
    }
    this.#open.set(index, shard);
    this.#last = shard;
    return shard;
  }

  values(): IterableIterator<OpenShard> {
    return this.#open.values();
  }

  close(): void {
    for (const shard of this.#open.values()) shard.close();
    this.#open.clear();
    this.#last = undefined;
  }

  #evict(): void {
    for (const [index, shard] of this.#open) {
      if (shard.pins > 0 || shard === this.#last) continue;
      this.#open.delete(index);
      shard.close();
      if (this.#open.size < this.#capacity) return;
    }
  }
}
