/** Rows of a batch as pieces of row groups: what every column of the batch shares. */

import type { RunList } from "../plan/shard.ts";
import type { IndexRange, RowGroup } from "../types.ts";
import type { OpenShard } from "./shard.ts";

/** Consecutive rows of one row group, and where they stand in the batch. */
export interface Span {
  readonly shard: OpenShard;
  readonly group: RowGroup;
  /** In the group. */
  readonly row: number;
  readonly count: number;
  /** In the batch. */
  readonly outRow: number;
}

/** Keeps shards open while a batch needs them. */
export class Pins {
  readonly #shards = new Set<OpenShard>();

  add(shard: OpenShard): void {
    if (this.#shards.has(shard)) return;
    this.#shards.add(shard);
    shard.pins++;
  }

  /** The pinned shards, in the order in which they were pinned. */
  get shards(): Iterable<OpenShard> {
    return this.#shards;
  }

  /** Throws `FILE_CHANGED` where one of the pinned shards has shrunk. */
  checkLengths(): void {
    for (const shard of this.#shards) shard.file.checkLength();
  }

  release(): void {
    for (const shard of this.#shards) shard.pins--;
    this.#shards.clear();
  }
}

/** Splits runs of rows at the borders of row groups, for one batch after another. */
export class SpanSplitter {
  readonly #spans: Span[] = [];
  /** Objects of former batches, to be used again: a shuffled batch has a span for each of its rows. */
  readonly #used: Mutable<Span>[] = [];
  /** The shards of the batch, by index: asked for once in each. */
  readonly #shards: (OpenShard | undefined)[] = [];
  #known: number[] = [];

  /** The spans, borrowed until the next call. Pins every shard they name. Throws what `open` throws. */
  split(runs: RunList, open: (shard: number) => OpenShard, pins: Pins): readonly Span[] {
    for (const index of this.#known) this.#shards[index] = undefined;
    this.#known.length = 0;
    this.#spans.length = 0;
    let outRow = 0;
    let shard: OpenShard | undefined;
    let group: RowGroup | undefined;
    for (let i = 0; i < runs.length; i++) {
      const shardIndex = runs.shard[i]!;
      if (shard === undefined || shard.index !== shardIndex) {
        shard = this.#shards[shardIndex] ?? this.#pinned(shardIndex, open, pins);
        group = undefined;
      }
      let row = runs.row[i]!;
      let left = runs.count[i]!;
      while (left > 0) {
        if (group === undefined || !contains(group, row)) group = shard.groupOf(row);
        const inGroup = row - group.rowStart;
        const count = Math.min(left, group.numRows - inGroup);
        this.#push(shard, group, inGroup, count, outRow);
        outRow += count;
        row += count;
        left -= count;
      }
    }
    return this.#spans;
  }

  #pinned(index: number, open: (shard: number) => OpenShard, pins: Pins): OpenShard {
    const shard = open(index);
    pins.add(shard);
    this.#shards[index] = shard;
    this.#known.push(index);
    return shard;
  }

  #push(shard: OpenShard, group: RowGroup, row: number, count: number, outRow: number): void {
    const at = this.#spans.length;
    const span = this.#used[at];
    if (span === undefined) {
      const fresh = { shard, group, row, count, outRow };
      this.#used.push(fresh);
      this.#spans.push(fresh);
      return;
    }
    span.shard = shard;
    span.group = group;
    span.row = row;
    span.count = count;
    span.outRow = outRow;
    this.#spans.push(span);
  }
}

type Mutable<T> = { -readonly [K in keyof T]: T[K] };

function contains(group: RowGroup, row: number): boolean {
  return row >= group.rowStart && row < group.rowStart + group.numRows;
}

/** Rows of the batch, real ones and all. */
export interface BatchRows {
  readonly spans: readonly Span[];
  /** The shards of all spans, each once. */
  readonly shards: Iterable<OpenShard>;
  readonly real: IndexRange;
  /** Rows with padding. */
  readonly size: number;
}
