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

/** Splits runs of rows at the borders of row groups. Pins every shard it names. */
export function spansOf(runs: RunList, open: (shard: number) => OpenShard, pins: Pins, out: Span[]): void {
  out.length = 0;
  let outRow = 0;
  let shard: OpenShard | undefined;
  let group: RowGroup | undefined;
  for (let i = 0; i < runs.length; i++) {
    const shardIndex = runs.shard[i]!;
    if (shard === undefined || shard.index !== shardIndex) {
      shard = open(shardIndex);
      pins.add(shard);
      group = undefined;
    }
    let row = runs.row[i]!;
    let left = runs.count[i]!;
    while (left > 0) {
      if (group === undefined || !contains(group, row)) group = shard.group(shard.groupAt(row));
      const inGroup = row - group.rowStart;
      const count = Math.min(left, group.numRows - inGroup);
      out.push({ shard, group, row: inGroup, count, outRow });
      outRow += count;
      row += count;
      left -= count;
    }
  }
}

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
