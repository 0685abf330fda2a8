/** Brings bytes of batches to the host, also from memory that the device alone sees. */
import type { Completion, Device, DeviceBuffer, DeviceQueue } from "../device/device.ts";
import { RequestList } from "../device/requests.ts";
import { HeadraceError } from "../errors.ts";
import { typedView } from "../format/dtype.ts";
import type { TypedArray } from "../types.ts";
import { MAX_VIEW_BYTES, type Part } from "./batch.ts";

/** Bytes of one copy: long enough for the link's full speed. */
const CHUNK_BYTES = 8 * 1024 * 1024;

export interface HostReaderOptions {
  /** Bytes of one piece, 1 to 1 GiB; default 8 MiB. Each part that is read at a time takes two of them in shared
   * memory, which is kept until the reader is closed. */
  readonly chunkBytes?: number | undefined;
}

/** Shared memory that bytes are copied to. */
interface Slot {
  readonly buffer: DeviceBuffer;
  readonly bytes: Uint8Array;
}

/** A copy under way. Its ends are asked for at its start: a queue that is closed answers no more. */
interface Copy {
  readonly done: Promise<Completion>;
  /** When nothing writes to the slot any more. */
  readonly quiet: Promise<void>;
  readonly slot: Slot;
  readonly byteLength: number;
}

/**
 * Reads parts of batches, wherever they are: what the host can see is shown as it is, other memory is copied through
 * a queue of the reader's own, one piece ahead of the one in use. Borrows its device; close it before that. Takes no
 * memory before it has something to copy.
 *
 * @example
 * await using reader = new HostReader(loader.device);
 * for await (using batch of loader) {
 *   const tokens = await reader.read(batch.column("tokens"));
 * }
 */
export class HostReader implements AsyncDisposable {
  readonly #device: Device;
  readonly #chunkBytes: number;
  readonly #requests = new RequestList();
  readonly #free: Slot[] = [];
  #queue: DeviceQueue | undefined;
  #closed = false;

  /** Throws `BAD_OPTION`. */
  constructor(device: Device, options: HostReaderOptions = {}) {
    const { chunkBytes = CHUNK_BYTES } = options;
    if (!(Number.isInteger(chunkBytes) && chunkBytes >= 1 && chunkBytes <= 2 ** 30)) {
      throw new HeadraceError("BAD_OPTION", `chunkBytes is ${chunkBytes}; it must be 1 to ${2 ** 30}`);
    }
    this.#device = device;
    this.#chunkBytes = chunkBytes;
  }

  /**
   * All bytes of `part` in order. A piece is borrowed until the next is asked for, and the batch must not be released
   * before the last. Throws `CLOSED` where it was, or the reader is closed, `BAD_OPTION` for a batch of another device, and what the device's copies fail with;
   * for memory that the host sees, what {@link Part.chunks} throws.
   */
  async *chunks(part: Part): AsyncGenerator<Uint8Array, void, undefined> {
    this.#checkOpen();
    part.checkLive();
    part.checkDevice("this reader", this.#device);
    if (part.hostVisible) yield* part.chunks();
    else yield* this.#copies(part);
  }

  /** The elements of `part` as {@link Part.view} has them, in memory of the caller's own. Throws as
   * {@link HostReader.chunks} does, and `UNSUPPORTED` where they are over 4 GiB. */
  async read(part: Part): Promise<TypedArray> {
    const { byteLength } = part;
    if (byteLength > MAX_VIEW_BYTES) {
      throw new HeadraceError(
        "UNSUPPORTED",
        `${byteLength} bytes are more than one array holds; use HostReader.chunks()`,
      );
    }
    const bytes = new Uint8Array(byteLength);
    let at = 0;
    for await (const chunk of this.chunks(part)) {
      bytes.set(chunk, at);
      at += chunk.length;
    }
    return typedView(part.dtype, bytes.buffer, 0, byteLength);
  }

  /** Ends what is being read with `CLOSED` or `CANCELLED`. Harmless when repeated. */
  async close(): Promise<void> {
    this.#closed = true;
    await this.#queue?.close();
    for (const { buffer } of this.#free.splice(0)) buffer.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async *#copies(part: Part): AsyncGenerator<Uint8Array, void, undefined> {
    this.#queue ??= this.#device.createQueue();
    const queue = this.#queue;
    const slots: Slot[] = [];
    let current: Copy | undefined;
    let ahead: Copy | undefined;
    try {
      for (let at = 0; at < part.byteLength; ) {
        current = ahead ?? this.#start(queue, part, at, slots);
        at += current.byteLength;
        ahead = at < part.byteLength ? this.#start(queue, part, at, slots, current.slot) : undefined;
        const { error } = await current.done;
        this.#checkOpen();
        // What came after the release may be another batch's.
        part.checkLive();
        if (error !== undefined) throw error;
        yield current.slot.bytes.subarray(0, current.byteLength);
        this.#checkOpen();
      }
    } finally {
      await current?.quiet;
      await ahead?.quiet;
      for (const slot of slots) this.#giveBack(slot);
    }
  }

  /** Copies the piece that begins at `at` to a slot that is not `busy`; takes one more into `slots` where there is none. */
  #start(queue: DeviceQueue, part: Part, at: number, slots: Slot[], busy?: Slot): Copy {
    part.checkLive();
    let slot = slots.find((one) => one !== busy);
    if (slot === undefined) {
      slot = this.#free.pop() ?? this.#createSlot();
      slots.push(slot);
    }
    const byteLength = Math.min(this.#chunkBytes, part.byteLength - at);
    const requests = this.#requests;
    requests.clear();
    requests.copy(part.buffer, part.byteOffset + at, slot.buffer, 0, byteLength);
    const ticket = queue.submit(requests);
    return { done: queue.completion(ticket), quiet: queue.quiesced(ticket), slot, byteLength };
  }

  #createSlot(): Slot {
    const buffer = this.#device.createBuffer(this.#chunkBytes, "shared");
    return { buffer, bytes: new Uint8Array(buffer.view(0, this.#chunkBytes)) };
  }

  #giveBack(slot: Slot): void {
    if (this.#closed) slot.buffer.close();
    else this.#free.push(slot);
  }

  #checkOpen(): void {
    if (this.#closed) throw new HeadraceError("CLOSED", "the reader is closed");
  }
}
