/** Pinned memory for the tables of small copies, reused. */

import { MOVE_ADDRESS_BYTES, MOVE_LENGTH_BYTES, type MoveTable } from "../../kernels/move.ts";
import { viewOf } from "../common/views.ts";
import type { Extent } from "../host/memory.ts";

/** Copies that one table holds. */
export const TABLE_MOVES = 16_384;

/** A table, and where its two halves lie. */
export interface Table extends MoveTable {
  /** As kernels use them. */
  readonly addressesAt: number;
  readonly byteLengthsAt: number;
}

/** Where tables lie. */
export interface PinnedMemory {
  /** Zeroed memory that host and device see at one address. */
  pin(byteLength: number): Extent;
  unmap(extent: Extent): void;
}

export class Tables {
  readonly #memory: PinnedMemory;
  readonly #extents: Extent[] = [];
  readonly #free: Table[] = [];

  constructor(memory: PinnedMemory) {
    this.#memory = memory;
  }

  take(): Table {
    return this.#free.pop() ?? this.#make();
  }

  give(table: Table): void {
    this.#free.push(table);
  }

  /** When no copy uses a table any more. */
  close(): void {
    for (const extent of this.#extents.splice(0)) this.#memory.unmap(extent);
  }

  #make(): Table {
    const addressBytes = TABLE_MOVES * MOVE_ADDRESS_BYTES;
    const lengthBytes = TABLE_MOVES * MOVE_LENGTH_BYTES;
    const extent = this.#memory.pin(addressBytes + lengthBytes);
    this.#extents.push(extent);
    const at = extent.base;
    return {
      addresses: new Uint32Array(viewOf(at, addressBytes)),
      byteLengths: new Uint32Array(viewOf(at + addressBytes, lengthBytes)),
      addressesAt: at,
      byteLengthsAt: at + addressBytes,
    };
  }
}
