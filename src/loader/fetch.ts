/** What a batch asked for: reads and copies of the device's queue, chunks to be decoded, or both. */
import type { ChunkDecoders, DecodeEnd, DecodeOptions, Decoding } from "../device/decode.ts";
import type { Completion, DeviceQueue, Ticket } from "../device/device.ts";
import type { HeadraceError } from "../errors.ts";
import type { Assembled } from "./assemble.ts";
import type { Arrival } from "./gather.ts";

/** The end of both. */
export interface FetchEnd {
  /** The first failure. */
  readonly error?: HeadraceError | undefined;
  /** Absent where nothing was asked of the queue. */
  readonly completion?: Completion | undefined;
  /** Absent where nothing was to be decoded. */
  readonly decoded?: (DecodeEnd & { readonly startedMs: number; readonly endedMs: number }) | undefined;
}

export interface FetchParts {
  readonly queue: DeviceQueue;
  readonly decoders: () => ChunkDecoders;
  /** Of decodings; what is asked of the queue has the same `timeoutMs`. */
  readonly decodeOptions: DecodeOptions;
}

/** On its way from the start. Requests that wait for what is decoded are told by the batch's event. */
export class Fetch {
  /** Requests and decodings. */
  readonly numRequests: number;
  /** Resolves when both have ended; never rejects. */
  readonly ended: Promise<FetchEnd>;
  readonly #queue: DeviceQueue;
  #ticket: Ticket | undefined;
  #decoding: Decoding | undefined;
  #failure: HeadraceError | undefined;

  /** Undefined where the batch asks for nothing. Throws what the device throws; then nothing is under way. */
  static start(assembled: Assembled, parts: FetchParts): Fetch | undefined {
    const { requests, decodes } = assembled;
    return requests.length + decodes.length === 0 ? undefined : new Fetch(assembled, parts);
  }

  private constructor(
    { requests, decodes, arrival }: Assembled,
    { queue, decoders, decodeOptions }: FetchParts,
  ) {
    const { timeoutMs } = decodeOptions;
    this.#queue = queue;
    this.numRequests = requests.length + decodes.length;
    const startedMs = performance.now();
    if (decodes.length > 0) this.#decoding = decoders().start(decodes, decodeOptions);
    let queued: Promise<Completion> | undefined;
    if (requests.length > 0) {
      try {
        this.#ticket = queue.submit(requests, timeoutMs === undefined ? {} : { timeoutMs });
        queued = queue.completion(this.#ticket);
      } catch (error) {
        // What decodes has begun: its memory is in use until it is quiet.
        if (this.#decoding === undefined) throw error;
        this.#fail(error as HeadraceError);
      }
    }
    const decoded = this.#decoding?.ended.then((end) => {
      if (end.error !== undefined) this.#fail(end.error);
      else this.#tell(arrival);
      return { ...end, startedMs, endedMs: performance.now() };
    });
    const completed = queued?.then((completion) => {
      if (completion.error !== undefined) this.#fail(completion.error);
      return completion;
    });
    this.ended = Promise.all([completed, decoded]).then(([completion, end]) => ({
      error: this.#failure,
      completion,
      decoded: end,
    }));
  }

  /** Asks for an early end, with `CANCELLED`. */
  cancel(): void {
    this.#decoding?.cancel();
    if (this.#ticket !== undefined) this.#queue.cancel(this.#ticket);
  }

  /** Resolves once no memory of the batch is in use any more. */
  async quiet(): Promise<void> {
    await Promise.all([
      this.#ticket === undefined ? undefined : this.#queue.quiesced(this.#ticket),
      this.#decoding?.quiet,
    ]);
  }

  #tell(arrival: Arrival | undefined): void {
    try {
      arrival?.event.signal(arrival.value);
    } catch (error) {
      // The device was closed meanwhile.
      this.#fail(error as HeadraceError);
    }
  }

  /** The first failure ends the rest. */
  #fail(error: HeadraceError): void {
    if (this.#failure !== undefined) return;
    this.#failure = error;
    this.cancel();
  }
}
