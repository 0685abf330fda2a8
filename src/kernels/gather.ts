/** Rows by index: `target[i] = source[indices[i]]`, for rows of any length and alignment. */
import type { KernelSource, Pipeline } from "../device/device.ts";
import type { DispatchCall } from "../device/requests.ts";
import { HeadraceError } from "../errors.ts";
import { BYTES_TEXT } from "./bytes.ts";
import {
  bindPlace,
  ConstantReader,
  checkInteger,
  laneShiftFor,
  MAX_THREADS,
  type Place,
  packConstants,
  teamThreads,
} from "./constants.ts";

/** Bytes of an index. */
const INDEX_BYTES = 4;

/**
 * Buffers: source, indices (uint32), target, errors (one uint32). An index past the last row reads nothing: its row
 * becomes zeros, and adds 1 to `errors`, so that whoever looks there knows.
 */
export const gatherKernel: KernelSource = {
  name: "gather_rows",
  host: ([source, indices, target, errors], constants) => {
    const read = new ConstantReader(constants);
    const sourceStride = read.long();
    const targetStride = read.long();
    const rowBytes = read.long();
    const numRows = read.uint();
    const count = read.uint();
    const index = new Uint32Array(indices!.buffer, indices!.byteOffset, count);
    const wrong = new Uint32Array(errors!.buffer, errors!.byteOffset, 1);
    for (let i = 0; i < count; i++) {
      const to = i * targetStride;
      const from = index[i]! * sourceStride;
      if (index[i]! < numRows) target!.set(source!.subarray(from, from + rowBytes), to);
      else {
        target!.fill(0, to, to + rowBytes);
        wrong[0]!++;
      }
    }
  },
  text: `${BYTES_TEXT}
struct GatherConstants {
  uint64_t sourceStride; uint64_t targetStride; uint64_t rowBytes;
  uint32_t numRows; uint32_t count; uint32_t laneShift;
};

HR_KERNEL(gather_rows, HR_IN(0, uint8_t, source), HR_IN(1, uint32_t, indices), HR_OUT(2, uint8_t, target),
          HR_OUT(3, uint32_t, errors), HR_CONSTANTS(4, GatherConstants, c)) {
  if (hr_thread >= hr_threads) return;
  uint32_t lanes = 1u << c.laneShift, lane = hr_thread & (lanes - 1u);
  for (uint64_t row = hr_thread >> c.laneShift; row < c.count; row += hr_threads >> c.laneShift) {
    HR_DEVICE uint8_t *to = target + row * c.targetStride;
    uint32_t index = indices[row];
    if (index < c.numRows) {
      copy_bytes(to, source + uint64_t(index) * c.sourceStride, c.rowBytes, lane, lanes);
    } else {
      for (uint64_t at = lane; at < c.rowBytes; at += lanes) to[at] = uint8_t(0);
      if (lane == 0u) HR_ATOMIC_ADD(errors, 1u);
    }
  }
}
`,
};

export interface GatherOptions {
  /** Row 0, at any alignment. */
  readonly source: Place;
  /** Rows that the source has; an index must be below it. */
  readonly numRows: number;
  readonly rowBytes: number;
  /** Bytes from one row of the source to the next; `rowBytes` without. */
  readonly sourceStride?: number;
  /** Row numbers, uint32 at a multiple of 4. */
  readonly indices: Place;
  /** How many rows to gather. */
  readonly count: number;
  /** Where row 0 of the result goes, at any alignment. It must not overlap the source. */
  readonly target: Place;
  /** Bytes from one row of the result to the next, at least `rowBytes`; `rowBytes` without. What lies between rows is
   * not written. */
  readonly targetStride?: number;
  /** A uint32 at a multiple of 4, to which the number of indices that are out of range is added. */
  readonly errors: Place;
}

/** A dispatch of {@link gatherKernel}. Throws `BAD_OPTION`, and `OUT_OF_RANGE` where rows do not lie in a buffer. */
export function gatherCall(pipeline: Pipeline, options: GatherOptions): DispatchCall {
  const { source, numRows, rowBytes, indices, count, target, errors } = options;
  const { sourceStride = rowBytes, targetStride = rowBytes } = options;
  checkInteger("gather: numRows", numRows, 0, MAX_THREADS);
  checkInteger("gather: count", count, 0, MAX_THREADS);
  checkInteger("gather: rowBytes", rowBytes);
  checkInteger("gather: sourceStride", sourceStride);
  checkInteger("gather: targetStride", targetStride);
  if (targetStride < rowBytes) {
    const message = `gather: rows of ${rowBytes} bytes overlap at a targetStride of ${targetStride}`;
    throw new HeadraceError("BAD_OPTION", message);
  }
  const span = (rows: number, stride: number) => (rows === 0 ? 0 : (rows - 1) * stride + rowBytes);
  const laneShift = laneShiftFor(rowBytes);
  const longs = [sourceStride, targetStride, rowBytes].map((long) => ({ long }));
  return {
    pipeline,
    buffers: [
      bindPlace("gather: source", source, span(numRows, sourceStride)),
      bindPlace("gather: indices", indices, count * INDEX_BYTES, 4),
      bindPlace("gather: target", target, span(count, targetStride)),
      bindPlace("gather: errors", errors, 4, 4),
    ],
    constants: packConstants([...longs, numRows, count, laneShift]),
    threads: teamThreads(count, laneShift),
  };
}
