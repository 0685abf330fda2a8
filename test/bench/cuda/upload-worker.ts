/** One thread of the sweep of reads and uploads at once: takes the next piece, reads it into pinned memory, has it
 * copied to the device, and reads the next meanwhile. */
import { OutCell } from "../../../src/device/cuda/cells.ts";
import { openDriver } from "../../../src/device/cuda/driver.ts";
import { checkResult } from "../../../src/device/cuda/errors.ts";
import { EVENT_BLOCKING } from "../../../src/device/cuda/flags.ts";
import { type BareFile, readPieces } from "../pieces.ts";

/** After a first message with the context. */
export interface UploadJob {
  readonly files: readonly BareFile[];
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

const driver = openDriver();
const { symbols } = driver;
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
  let taken = 0;
  let slice = 0;
  const place = () => {
    slice = taken++ % SLICES;
    if (taken > SLICES) check("cuEventSynchronize", symbols.cuEventSynchronize(events[slice]!));
    return address + slice * pieceBytes;
  };
  readPieces(files, pieceBytes, next, place, (length) => {
    const at = slice * pieceBytes;
    const copied = symbols.cuMemcpyHtoDAsync_v2(target + at, address + at, length, stream);
    check("cuMemcpyHtoDAsync", copied);
    check("cuEventRecord", symbols.cuEventRecord(events[slice]!, stream));
  });
}

function check(what: string, status: number): void {
  checkResult(driver, what, status);
}
