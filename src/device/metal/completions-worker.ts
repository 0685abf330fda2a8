/** A Worker that waits in the library for completions, and posts them as they come. */
import { dlopen } from "bun:ffi";
import { ROW, Status } from "./abi.ts";
import { checked, SYMBOLS } from "./symbols.ts";

/** The first and only message to the Worker. */
export interface CompletionsStart {
  /** Of the library, which is loaded already. */
  readonly path: string;
  /** The device's handle. */
  readonly device: number;
}

const ROWS = 256;
/** Bound of one wait, in ms: a process that ends waits for its Workers as long. */
const WAIT_MS = 100;

declare const self: Worker;

const { hr_device_wait } = SYMBOLS;

self.onmessage = ({ data: { path, device } }: MessageEvent<CompletionsStart>) => {
  const table = { hr_device_wait };
  const symbols = checked(table, dlopen(path, table).symbols);
  const rows = new Float64Array(new ArrayBuffer(ROWS * ROW * 8));
  for (;;) {
    const count = symbols.hr_device_wait(device, rows, ROWS, WAIT_MS);
    if (count > 0) self.postMessage(rows.slice(0, count * ROW));
    if (count < Status.OK) break;
  }
  self.postMessage(null);
};
