/** Keeps a bounded number of shards open, the most recently used ones. */
import type { OpenShard } from "./shard.ts";

interface Entry {
  readonly shard: OpenShard;
  /** Turn in which the shard was last asked for. */
  usedAt: number;
}

/** Opens shards when they are first asked for and closes the least recently used beyond `capacity`, but
 * never one that is pinned. Memory: 8 bytes for each shard up to the highest asked for. */
export class ShardCache {
  readonly #entries: (Entry | undefined)[] = [];
  readonly #capacity: number;
  readonly #openShard: (index: number) => OpenShard;
  #numOpen = 0;
  #turn = 0;

  constructor(capacity: number, openShard: (index: number) => OpenShard) {
    this.#capacity = capacity;
    this.#openShard = openShard;
  }

  /** The shard, open; borrowed until the next call unless pinned. Throws what opening it throws. */
  get(index: number): OpenShard {
    let entry = this.#entries[index];
    if (entry === undefined) {
      if (this.#numOpen >= this.#capacity) this.#evict();
      entry = { shard: this.#openShard(index), usedAt: 0 };
      this.#entries[index] = entry;
      this.#numOpen++;
    }
    entry.usedAt = ++this.#turn;
    return entry.shard;
  }

  /** The shards that are open, in the order of the dataset. */
  *values(): Generator<OpenShard> {
    for (const index in this.#entries) {
      const entry = this.#entries[index];
      if (entry !== undefined) yield entry.shard;
    }
  }

  close(): void {
    for (const shard of this.values()) shard.close();
    this.#entries.length = 0;
    this.#numOpen = 0;
  }

  /** Closes the older half of what is not pinned: seldom, so that it need not be quick. */
  #evict(): void {
    const idle = this.#entries.filter((entry) => entry !== undefined && entry.shard.pins === 0) as Entry[];
    idle.sort((a, b) => a.usedAt - b.usedAt);
    for (const { shard } of idle.slice(0, Math.ceil(idle.length / 2))) {
      this.#entries[shard.index] = undefined;
      this.#numOpen--;
      shard.close();
    }
  }
}
