/** One thread of the sweep of reads and uploads at once: takes the next piece, reads it into pinned memory, has it
 * copied to the device, and reads the next meanwhile. */
import { dlopen } from "bun:ffi";
import { OutCell } from "../../../src/device/cuda/cells.ts";
import { openDriver } from "../../../src/device/cuda/driver.ts";
import { checkResult } from "../../../src/device/cuda/errors.ts";

/** After a first message with the context. */
export interface UploadJob {
  readonly files: readonly { readonly fd: number; readonly byteLength: number }[];
  readonly pieceBytes: number;
  /** Pinned, of this thread alone: room for two pieces. */
  readonly address: number;
  /** As much device memory. */
  readonly target: number;
  readonly stream: number;
  /** Shared by all threads of a run: the next piece's index. */
  readonly next: Int32Array;
}

declare const self: Worker;

const SLICES = 2;
const EVENT_BLOCKING = 1 | 2;

const driver = openDriver();
const { symbols } = driver;
const { pread } = dlopen("libc.so.6", {
  // ssize_t pread(int, void *, size_t, off_t);
  pread: { args: ["i32", "ptr", "usize", "i64"], returns: "i64" },
}).symbols;
const events: number[] = [];

self.onmessage = ({ data }: MessageEvent<UploadJob | { readonly context: number }>) => {
  try {
    if ("context" in data) start(data.context);
    else run(data);
    self.postMessage("");
  } catch (error) {
    self.postMessage(String(error));
  }
};

function start(context: number): void {
  check("cuCtxSetCurrent", symbols.cuCtxSetCurrent(context));
  const out = new OutCell();
  for (let i = 0; i < SLICES; i++) {
    check("cuEventCreate", symbols.cuEventCreate(out.clear(), EVENT_BLOCKING));
    events.push(out.u64);
  }
}

function run({ files, pieceBytes, address, target, stream, next }: UploadJob): void {
  const pieces = files.flatMap(({ fd, byteLength }) =>
    Array.from({ length: Math.ceil(byteLength / pieceBytes) }, (_, i) => {
      const offset = i * pieceBytes;
      return { fd, offset, length: Math.min(pieceBytes, byteLength - offset) };
    }),
  );
  let taken = 0;
  for (let i = Atomics.add(next, 0, 1); i < pieces.length; i = Atomics.add(next, 0, 1)) {
    const { fd, offset, length } = pieces[i]!;
    const slice = taken++ % SLICES;
    const place = slice * pieceBytes;
    if (taken > SLICES) check("cuEventSynchronize", symbols.cuEventSynchronize(events[slice]!));
    for (let done = 0; done < length; ) {
      const count = Number(pread(fd, (address + place + done) as never, length - done, offset + done));
      if (count <= 0) throw new Error(`pread gave ${count}`);
      done += count;
    }
    const copied = symbols.cuMemcpyHtoDAsync_v2(target + place, address + place, length, stream);
    check("cuMemcpyHtoDAsync", copied);
    check("cuEventRecord", symbols.cuEventRecord(events[slice]!, stream));
  }
}

function check(what: string, status: number): void {
  checkResult(driver, what, status);
}
