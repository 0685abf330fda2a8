/** Sums up batches by the checksum kernel, where they are. */
import {
  type Batch,
  type Device,
  type DeviceBuffer,
  type DeviceQueue,
  type Pipeline,
  RequestList,
} from "../../../src/index.ts";
import {
  CHECKSUM_BYTES,
  checksumCall,
  checksumKernel,
  finishChecksum,
} from "../../../src/kernels/checksum.ts";

/** The checksum of one column of one batch. */
export interface Sum {
  readonly column: string;
  readonly sum: string;
}

/** Sums that one buffer of them holds. */
const CHUNK_SUMS = 4096;

/** A queue and a kernel of its own on a device, which it borrows. Close it. */
export class DeviceSums {
  readonly #device: Device;
  readonly #queue: DeviceQueue;
  readonly #pipeline: Pipeline;
  readonly #list = new RequestList();
  /** Memory of the device's own, since kernels add to it; zeros at first, as new buffers are. */
  #chunks: DeviceBuffer[] = [];
  #asked: { readonly column: string; readonly byteLength: number }[] = [];

  constructor(device: Device) {
    this.#device = device;
    this.#queue = device.createQueue();
    this.#pipeline = device.createPipeline(checksumKernel);
    this.#grow();
  }

  /** Sums up all columns of `batches`, which must stay until this resolves. Rejects with what the device says. */
  async add(batches: readonly Batch[]): Promise<void> {
    this.#list.clear();
    for (const batch of batches) {
      for (const { name, buffer, byteOffset, byteLength } of batch.columns.values()) {
        this.#list.dispatch(
          checksumCall(this.#pipeline, { bytes: { buffer, byteOffset }, byteLength, sums: this.#place() }),
        );
        this.#asked.push({ column: name, byteLength });
      }
    }
    await this.#run();
  }

  /** The checksums of all that was added since the last call, in that order; everything must have ended. */
  async finish(): Promise<Sum[]> {
    const asked = this.#asked;
    const seen = await Promise.all(this.#chunks.map((chunk) => this.#read(chunk)));
    for (const chunk of this.#chunks) chunk.close();
    this.#chunks = [];
    this.#asked = [];
    this.#grow();
    return asked.map(({ column, byteLength }, i) => {
      const words = seen[Math.floor(i / CHUNK_SUMS)]!;
      const at = (i % CHUNK_SUMS) * 2;
      return { column, sum: finishChecksum(words.subarray(at, at + 2), byteLength) };
    });
  }

  async close(): Promise<void> {
    await this.#queue.close();
    for (const chunk of this.#chunks) chunk.close();
    this.#pipeline.close();
  }

  #grow(): void {
    this.#chunks.push(this.#device.createBuffer(CHUNK_SUMS * CHECKSUM_BYTES, "private"));
  }

  /** Of the next sum. */
  #place(): { buffer: DeviceBuffer; byteOffset: number } {
    const index = this.#asked.length;
    if (index === this.#chunks.length * CHUNK_SUMS) this.#grow();
    return { buffer: this.#chunks.at(-1)!, byteOffset: (index % CHUNK_SUMS) * CHECKSUM_BYTES };
  }

  async #read(chunk: DeviceBuffer): Promise<Uint32Array> {
    using seen = this.#device.createBuffer(chunk.byteLength);
    const list = new RequestList().copy(chunk, 0, seen, 0, chunk.byteLength);
    const { error } = await this.#queue.completion(this.#queue.submit(list));
    if (error !== undefined) throw error;
    return new Uint32Array(seen.view(0, chunk.byteLength)).slice();
  }

  async #run(): Promise<void> {
    const { error } = await this.#queue.completion(this.#queue.submit(this.#list));
    if (error !== undefined) throw error;
  }
}
