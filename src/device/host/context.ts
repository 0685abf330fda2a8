/** What the parts of one open device share. */
import { closedError } from "../common/errors.ts";
import type { Syscalls } from "./syscalls.ts";

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

  /** Throws `CLOSED` after the device was closed. */
  assertOpen(): void {
    if (this.closed) throw closedError(`the ${this.deviceName} device`);
  }
}
