/** One thread of the sweep of registration: takes the next window until there is none. */
import { type CudaDriver, openDriver } from "../../../src/device/cuda/driver.ts";
import { checkResult } from "../../../src/device/cuda/errors.ts";

/** After a first message with the context. */
export interface RegisterJob {
  readonly mappings: readonly { readonly address: number; readonly byteLength: number }[];
  readonly windowBytes: number;
  /** Unregisters what was registered. */
  readonly undo: boolean;
  /** Shared by all threads of a run: the next window's index. */
  readonly next: Int32Array;
}

declare const self: Worker;

const PORTABLE_MAPPED_READ_ONLY = 1 | 2 | 8;

const driver = openDriver();

self.onmessage = ({ data }: MessageEvent<RegisterJob | { readonly context: number }>) => {
  try {
    if ("context" in data) check("cuCtxSetCurrent", driver.symbols.cuCtxSetCurrent(data.context));
    else run(driver, data);
    self.postMessage("");
  } catch (error) {
    self.postMessage(String(error));
  }
};

function run({ symbols }: CudaDriver, { mappings, windowBytes, undo, next }: RegisterJob): void {
  const windows = mappings.flatMap(({ address, byteLength }) =>
    Array.from({ length: Math.ceil(byteLength / windowBytes) }, (_, i) => ({
      address: address + i * windowBytes,
      byteLength: Math.min(windowBytes, byteLength - i * windowBytes),
    })),
  );
  for (let i = Atomics.add(next, 0, 1); i < windows.length; i = Atomics.add(next, 0, 1)) {
    const { address, byteLength } = windows[i]!;
    if (undo) check("cuMemHostUnregister", symbols.cuMemHostUnregister(address));
    else {
      check(
        "cuMemHostRegister",
        symbols.cuMemHostRegister_v2(address, byteLength, PORTABLE_MAPPED_READ_ONLY),
      );
    }
  }
}

function check(what: string, status: number): void {
  checkResult(driver, what, status);
}
