/** Pinned memory for the tables of small copies, reused. */
import { viewOf } from "../common/views.ts";
import type { DeviceBuffer } from "../device.ts";
import { MOVE_ADDRESS_BYTES, MOVE_LENGTH_BYTES, type MoveTable } from "../../kernels/move.ts";

/** Copies that one table holds. */
export const TABLE_MOVES = 16_384;

/** A table, and where its two halves lie. */
export interface Table extends MoveTable {
  /** As kernels use them. */
  readonly addressesAt: number;
  readonly byteLengthsAt: number;
}

export class Tables {
  readonly #create: (byteLength: number) => DeviceBuffer;
  readonly #buffers: DeviceBuffer[] = [];
  readonly #free: Table[] = [];

  /** `create` makes pinned memory, which this object closes. */
  constructor(create: (byteLength: number) => DeviceBuffer) {
    this.#create = create;
  }

  take(): Table {
    return this.#free.pop() ?? this.#make();
  }

  give(table: Table): void {
    this.#free.push(table);
  }

  close(): void {
    for (const buffer of this.#buffers) buffer.close();
  }

  #make(): Table {
    const addressBytes = TABLE_MOVES * MOVE_ADDRESS_BYTES;
    const lengthBytes = TABLE_MOVES * MOVE_LENGTH_BYTES;
    const buffer = this.#create(addressBytes + lengthBytes);
    this.#buffers.push(buffer);
    const at = buffer.hostAddress;
    // Not by the buffer's own views, which would be tracked and which `close` empties under the table.
    return {
      addresses: new Uint32Array(viewOf(at, addressBytes)),
      byteLengths: new Uint32Array(viewOf(at + addressBytes, lengthBytes)),
      addressesAt: at,
      byteLengthsAt: at + addressBytes,
    };
  }
}
