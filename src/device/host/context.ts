/** What the parts of one open device share. */
import { closedError } from "../common/errors.ts";
import type { Syscalls } from "./syscalls.ts";

/** One more way to a file's bytes than its descriptor. */
export interface FileWay {
  /** What lanes get in the field `source` of an entry that reads from the file; never 0. */
  readonly number: number;
  close(): void;
}

export class HostContext {
  readonly syscalls: Syscalls;
  /** For messages: `host`, `null`. */
  readonly deviceName: string;
  /** Bytes of a buffer from its offset on that a kernel can see: for host kernels one ArrayBuffer. */
  readonly maxKernelBytes: number = 2 ** 32;
  /** Buffers, mappings, files and queues that are open. */
  openResources = 0;
  closed = false;

  constructor(deviceName: string, syscalls: Syscalls) {
    this.deviceName = deviceName;
    this.syscalls = syscalls;
  }

  /** Opens a further way to a file that is read, if there is one. */
  openWay(_path: string): FileWay | undefined {
    return undefined;
  }

  /** Throws `CLOSED` after the device was closed. */
  assertOpen(): void {
    if (this.closed) throw closedError(`the ${this.deviceName} device`);
  }
}
