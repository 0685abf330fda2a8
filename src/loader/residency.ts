/** Bounds how many mapped pages stay resident. */
import type { OpenShard } from "./shard.ts";

/** Of the limit, what is kept for pages that are brought in ahead and for batches not yet released. */
const HEADROOM_BYTES = 64 * 1024 * 1024;

/**
 * Counts what batches touch, which is an upper bound of what has become resident, and asks the system only
 * when that reaches the limit. Past the limit all mappings let go of their pages; they stay in the page cache
 * and come again when they are touched.
 */
export class Residency {
  readonly #limit: number;
  /** Resident bytes of the process before anything was loaded. */
  readonly #idle = process.memoryUsage.rss();
  #touched = 0;

  /** `limit` in bytes. */
  constructor(limit: number) {
    this.#limit = Math.max(limit / 2, limit - HEADROOM_BYTES);
  }

  /** `ownBytes`: the arena's, which are resident too and not meant. */
  touch(bytes: number, ownBytes: () => number, shards: () => Iterable<OpenShard>): void {
    this.#touched += bytes;
    if (this.#touched < this.#limit) return;
    const resident = process.memoryUsage.rss() - this.#idle - ownBytes();
    this.#touched = Math.min(Math.max(resident, 0), this.#limit - this.#limit / 16);
    if (resident < this.#limit) return;
    this.#touched = 0;
    for (const shard of shards()) shard.dropResidency();
  }
}
