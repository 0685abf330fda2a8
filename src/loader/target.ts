/** Where one batch's bytes go: what every column of it shares while it is assembled. */
import type { Device, DeviceBuffer } from "../device/device.ts";
import { HeadraceError } from "../errors.ts";
import type { SegmentLayout } from "../plan/collate.ts";
import type { Segment } from "./arena.ts";
import { MAX_VIEW_BYTES, type ViewScope } from "./batch.ts";
import type { Gather } from "./gather.ts";

/** Made for each batch. Its memory and offsets hold once the layout is complete and the segment holds it. */
export class Target {
  readonly scope: ViewScope;
  readonly gather: Gather;
  /** Whether a mapping may be handed out as it is. */
  readonly mayMap: boolean;
  /** Multiple that a mapped part's offset in its buffer must be of. */
  readonly offsetAlignment: number;
  readonly #segment: Segment;
  readonly #layout: SegmentLayout;

  constructor(scope: ViewScope, gather: Gather, device: Device, segment: Segment, layout: SegmentLayout) {
    this.scope = scope;
    this.gather = gather;
    this.mayMap = device.capabilities.unifiedMemory;
    this.offsetAlignment = device.capabilities.offsetAlignment;
    this.#segment = segment;
    this.#layout = layout;
  }

  /** Whether the host sees nothing of {@link Target.device}, so that what it computes has to be uploaded. */
  get apart(): boolean {
    return this.#layout.apart;
  }

  /** What the batch's columns name. */
  get device(): DeviceBuffer {
    return this.#segment.device!;
  }

  /** Offset in {@link Target.device} of a section; computed sections are where they say. */
  placeOf(section: number): number {
    return this.#layout.movedStart + section;
  }

  /** Offset in {@link Target.host} of a piece of scratch memory. */
  scratchOf(scratch: number): number {
    return this.#layout.scratchStart + scratch;
  }

  /** The host's view of its part of the segment: all of it where the memory is one. Throws `BATCH_TOO_LARGE` where
   * no view reaches that far. */
  host(): ArrayBuffer {
    const bytes = this.#layout.hostBytes;
    if (bytes > MAX_VIEW_BYTES) {
      const text = `a batch whose parts must be computed has ${bytes} bytes, of at most ${MAX_VIEW_BYTES}`;
      throw new HeadraceError("BATCH_TOO_LARGE", `${text}; use smaller batches`);
    }
    return bytes === 0 ? new ArrayBuffer(0) : this.#segment.view;
  }
}
