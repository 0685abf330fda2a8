/**
 * The null device: real files and memory, requests checked and ordered as on the host, and not a byte moved.
 * What it was asked for can be read as data, so that tests of the layers above need no disk contents.
 */
import type { DeviceQueue, KernelSource, Pipeline } from "../device.ts";
import { HostDevice, hostCapabilities } from "../host/device.ts";
import { Syscalls } from "../host/syscalls.ts";
import { NullLanes } from "./lanes.ts";
import { NullQueue, type RecordedSubmission } from "./queue.ts";

export interface NullOptions {
  /** Whether files can be mapped; default true. */
  readonly canMap?: boolean;
}

export class NullDevice extends HostDevice {
  /** All submissions that were accepted, in order. The caller may empty it. */
  readonly recorded: RecordedSubmission[] = [];

  constructor(options: NullOptions = {}) {
    const syscalls = new Syscalls();
    super({
      capabilities: { ...hostCapabilities("null", syscalls.pageSize, 1), canMap: options.canMap ?? true },
      syscalls,
      lanes: new NullLanes(),
      pieceBytes: Number.MAX_SAFE_INTEGER,
      inlineCopyBytes: -1,
    });
  }

  /** Kernels never run, so that any will do. */
  override createPipeline(source: KernelSource): Pipeline {
    return super.createPipeline({ name: source.name, host: () => {} });
  }

  /** Nothing is decoded. */
  override get decoders(): undefined {
    return undefined;
  }

  protected override newQueue(onClose: () => void): DeviceQueue {
    return new NullQueue(this.shared, this.createExecutor(), onClose, (submission) =>
      this.recorded.push(submission),
    );
  }
}

/** Opens the null device. */
export function openNull(options: NullOptions = {}): NullDevice {
  return new NullDevice(options);
}
