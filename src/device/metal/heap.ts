/** Heaps, and tables of addresses: memory that kernels reach by other ways than a binding. */
import { HeadraceError } from "../../errors.ts";
import { closedError } from "../common/errors.ts";
import type { DeviceBuffer, DeviceHeap, Storage } from "../device.ts";
import { checkRange } from "../requests.ts";
import { type MetalContext, NativeObject } from "./context.ts";
import { bufferOver, createMetalBuffer, MetalBuffer, MetalRegion, storageMode } from "./memory.ts";

/** Bytes of an address. */
const ADDRESS = 8;

export class MetalHeap extends NativeObject implements DeviceHeap {
  readonly byteLength: number;
  readonly storage: Storage;

  constructor(context: MetalContext, handle: number, byteLength: number, storage: Storage) {
    super(context, handle, true);
    this.byteLength = byteLength;
    this.storage = storage;
  }

  createBuffer(byteLength: number): DeviceBuffer {
    if (this.closed) throw closedError("the heap");
    return createMetalBuffer(this.context, byteLength, this.storage, this.byteLength, this.handle);
  }
}

/** Throws `OUT_OF_RANGE` past `maxBufferLength`, `OUT_OF_MEMORY`. */
export function createMetalHeap(
  context: MetalContext,
  byteLength: number,
  storage: Storage,
  maxBufferLength: number,
): MetalHeap {
  checkRange("heap", 0, byteLength, maxBufferLength);
  const mode = storageMode(storage);
  const { symbols, handleOut, error } = context;
  const handle = context.make(`a heap of ${byteLength} bytes`, () =>
    symbols.hr_heap_create(context.handle, byteLength, mode, handleOut, error.bytes),
  );
  return new MetalHeap(context, handle, byteLength, storage);
}

/** Throws `BAD_OPTION` for what is no buffer of this device, `CLOSED`, `OUT_OF_RANGE`. */
export function createAddressTable(
  context: MetalContext,
  entries: readonly { readonly buffer: DeviceBuffer; readonly offset: number }[],
): MetalBuffer {
  const handles = new Uint32Array(new ArrayBuffer(Math.max(1, entries.length) * 4));
  const offsets = new Float64Array(new ArrayBuffer(Math.max(1, entries.length) * 8));
  for (const [i, { buffer, offset }] of entries.entries()) {
    if (!(buffer instanceof MetalBuffer) || buffer.region.context !== context) {
      const message = `entry ${i} of the address table is no buffer of this ${context.deviceName} device`;
      throw new HeadraceError("BAD_OPTION", message);
    }
    if (buffer.closed) throw closedError(`the buffer of entry ${i} of the address table`);
    checkRange(`entry ${i} of the address table`, offset, 0, buffer.byteLength);
    handles[i] = buffer.region.handle;
    offsets[i] = offset;
  }
  const { symbols, handleOut, error } = context;
  const handle = context.make(`a table of ${entries.length} addresses`, () =>
    symbols.hr_address_table_create(context.handle, handles, offsets, entries.length, handleOut, error.bytes),
  );
  return bufferOver(new MetalRegion(context, handle, true), entries.length * ADDRESS, "shared");
}
