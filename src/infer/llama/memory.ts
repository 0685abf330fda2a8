/** What a step works in: inputs that the host writes, activations, the cache, and results that the host reads. */
import type { Device, DeviceBuffer, Storage } from "../../device/device.ts";
import type { RequestList } from "../../device/requests.ts";
import type { LlamaConfig } from "./config.ts";
import { type Geometry, kvRowBytes } from "./options.ts";
import { fillRopeTable, inverseFrequencies } from "./rope.ts";

/** Sections of an input block start on multiples of this, which suits every device's bindings. */
const SECTION_BYTES = 256;
/** Words of `info`. */
export const INFO_WORDS = 8;

/** Creates buffers and closes them all together. */
export class BufferSet {
  readonly device: Device;
  readonly #buffers: DeviceBuffer[] = [];

  constructor(device: Device) {
    this.device = device;
  }

  /** Bytes of all buffers. */
  get byteLength(): number {
    return this.#buffers.reduce((total, buffer) => total + buffer.byteLength, 0);
  }

  create(byteLength: number, storage: Storage = "private"): DeviceBuffer {
    const buffer = this.device.createBuffer(Math.max(byteLength, 4), storage);
    this.#buffers.push(buffer);
    return buffer;
  }

  close(): void {
    for (const buffer of this.#buffers) buffer.close();
    this.#buffers.length = 0;
  }
}

/** Memory that the host sees beside memory that kernels use; one and the same where the device's memory is unified. */
export class SharedBlock {
  readonly host: DeviceBuffer;
  readonly device: DeviceBuffer;
  /** All of `host`; ends with it. */
  readonly memory: ArrayBuffer;

  constructor(buffers: BufferSet, byteLength: number) {
    this.host = buffers.create(byteLength, "shared");
    this.device = buffers.device.capabilities.unifiedMemory ? this.host : buffers.create(byteLength);
    this.memory = this.host.view(0, this.host.byteLength);
  }

  /** Asks for what the host wrote to `[start, end)` to be brought to the device. */
  upload(list: RequestList, start = 0, end = this.host.byteLength): void {
    if (this.device !== this.host) list.copy(this.host, start, this.device, start, end - start);
  }

  /** Asks for what kernels wrote to `[start, end)` to be brought to the host. */
  download(list: RequestList, start: number, end: number): void {
    if (this.device !== this.host) list.copy(this.device, start, this.host, start, end - start);
  }
}

/** A {@link SharedBlock} in sections, each of which has its offset. */
export class SectionedBlock<Name extends string> extends SharedBlock {
  readonly offsets: Readonly<Record<Name, number>>;

  /** `sections` in bytes, in order. */
  constructor(buffers: BufferSet, sections: Readonly<Record<Name, number>>) {
    const offsets = {} as Record<Name, number>;
    let end = 0;
    for (const name of Object.keys(sections) as Name[]) {
      offsets[name] = end;
      end += Math.ceil(sections[name] / SECTION_BYTES) * SECTION_BYTES;
    }
    super(buffers, end);
    this.offsets = offsets;
  }

  /** Where kernels find a section. */
  place(name: Name): { buffer: DeviceBuffer; byteOffset: number } {
    return { buffer: this.device, byteOffset: this.offsets[name] };
  }
}

/** One layer's keys and values: `[numBlocks, numKvHeads, blockTokens, headSize]` each. */
export interface LayerCache {
  readonly k: DeviceBuffer;
  readonly v: DeviceBuffer;
}

/** What vendors' products need beside that. */
export interface FastMemory {
  /** Inputs of a product in its weights' type, `[rows, inner]`. */
  readonly narrow: DeviceBuffer;
  /** Gates, and what they open: `[rows, 2 * intermediate]`, F32. */
  readonly gates: DeviceBuffer;
}

/** Activations of a pass of up to `tokensPerStep` rows, and what outlives passes. */
export interface BodyMemory {
  /** The residual stream, `[rows, hidden]`. */
  readonly x: DeviceBuffer;
  readonly normed: DeviceBuffer;
  readonly qkv: DeviceBuffer;
  readonly attended: DeviceBuffer;
  readonly gated: DeviceBuffer;
  /** Where {@link Geometry.fast} is set. */
  readonly fast: FastMemory | undefined;
  readonly cosSin: SharedBlock;
  readonly caches: readonly LayerCache[];
  /** `[slots, maxBlocksPerSlot]` */
  readonly blockTable: SharedBlock;
}

/** Creates it in `buffers`, for `numSlots` rows of the table. Throws `OUT_OF_MEMORY`, `OUT_OF_RANGE`. */
export function createBodyMemory(
  buffers: BufferSet,
  config: LlamaConfig,
  geometry: Geometry,
  numSlots: number,
): BodyMemory {
  const { hiddenSize, intermediateSize, numHeads, numKvHeads, headSize } = config;
  const rows = geometry.tokensPerStep;
  const floats = (count: number) => buffers.create(count * 4);
  const cacheBytes = geometry.numBlocks * geometry.blockTokens * kvRowBytes(config, geometry.kvType);
  const cosSin = new SharedBlock(buffers, geometry.contextLength * headSize * 4);
  const table = new Float32Array(cosSin.memory, 0, geometry.contextLength * headSize);
  fillRopeTable(table, inverseFrequencies(config.rope, headSize));
  return {
    x: floats(rows * hiddenSize),
    normed: floats(rows * hiddenSize),
    qkv: floats(rows * (numHeads + 2 * numKvHeads) * headSize),
    attended: floats(rows * numHeads * headSize),
    gated: floats(rows * intermediateSize),
    fast: geometry.fast
      ? {
          narrow: buffers.create(rows * Math.max(hiddenSize, numHeads * headSize, intermediateSize) * 2),
          gates: floats(rows * 2 * intermediateSize),
        }
      : undefined,
    cosSin,
    caches: Array.from({ length: config.numLayers }, () => ({
      k: buffers.create(cacheBytes),
      v: buffers.create(cacheBytes),
    })),
    blockTable: new SharedBlock(buffers, numSlots * geometry.maxBlocksPerSlot * 4),
  };
}
