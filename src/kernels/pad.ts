/** Ragged rows into an array of equal ones, with a mask of what is a value and what is padding. */
import type { KernelSource, Pipeline } from "../device/device.ts";
import type { DispatchCall } from "../device/requests.ts";
import { HeadraceError } from "../errors.ts";
import {
  bindPlace,
  ConstantReader,
  checkInteger,
  MAX_THREADS,
  type Place,
  packConstants,
  teamThreads,
} from "./constants.ts";

/** Lanes of the longest rows. */
const MAX_LANE_SHIFT = 8;

const TEXT = `
HR_FUNCTION_CONSTANT(0, uint32_t, ELEMENT_BYTES);
HR_FUNCTION_CONSTANT(1, uint32_t, OFFSET_BYTES);

struct PadConstants { uint64_t pad; uint64_t numValues; uint32_t rows; uint32_t length; uint32_t laneShift; };

HR_FN uint64_t offset_at(const HR_DEVICE uint8_t *offsets, uint64_t index) {
  if (OFFSET_BYTES == 8u) return hr_load<uint64_t>(offsets + index * 8u);
  return uint64_t(hr_load<uint32_t>(offsets + index * 4u));
}

HR_FN void put(HR_DEVICE uint8_t *padded, uint64_t to, const HR_DEVICE uint8_t *values, uint64_t from, bool isValue,
               uint64_t pad) {
  if (ELEMENT_BYTES == 1u) padded[to] = isValue ? values[from] : uint8_t(pad);
  if (ELEMENT_BYTES == 2u) {
    hr_store<uint16_t>(padded + to * 2u, isValue ? hr_load<uint16_t>(values + from * 2u) : uint16_t(pad));
  }
  if (ELEMENT_BYTES == 4u) {
    hr_store<uint32_t>(padded + to * 4u, isValue ? hr_load<uint32_t>(values + from * 4u) : uint32_t(pad));
  }
  if (ELEMENT_BYTES == 8u) {
    hr_store<uint64_t>(padded + to * 8u, isValue ? hr_load<uint64_t>(values + from * 8u) : pad);
  }
}

HR_KERNEL(pad_and_mask, HR_IN(0, uint8_t, values), HR_IN(1, uint8_t, offsets), HR_OUT(2, uint8_t, padded),
          HR_OUT(3, uint8_t, mask), HR_OUT(4, uint32_t, errors), HR_CONSTANTS(5, PadConstants, c)) {
  if (hr_thread >= hr_threads) return;
  uint32_t lanes = 1u << c.laneShift, lane = hr_thread & (lanes - 1u);
  for (uint64_t row = hr_thread >> c.laneShift; row < c.rows; row += hr_threads >> c.laneShift) {
    uint64_t start = offset_at(offsets, row), end = offset_at(offsets, row + 1u), count = 0u;
    if (start <= end && end <= c.numValues) count = end - start;
    else if (lane == 0u) HR_ATOMIC_ADD(errors, 1u);
    for (uint64_t column = lane; column < c.length; column += lanes) {
      uint64_t to = row * c.length + column;
      bool isValue = column < count;
      put(padded, to, values, start + column, isValue, c.pad);
      mask[to] = isValue ? uint8_t(1) : uint8_t(0);
    }
  }
}
`;

/** Bytes of an element. */
export type PadElementBytes = 1 | 2 | 4 | 8;

/**
 * The kernel for elements of one size. Buffers: values, offsets (`rows + 1` of them, `offsetBytes` each, counting
 * elements), padded (`[rows, length]` elements), mask (`[rows, length]` bytes, 1 for a value), errors (one uint32).
 * Row `i` is the values from `offsets[i]` up to `offsets[i + 1]`, of which the first `length` are kept. A row whose
 * offsets run backwards or past the values reads nothing: it becomes padding, and adds 1 to `errors`.
 */
export function padAndMaskKernel(elementBytes: PadElementBytes, offsetBytes: 4 | 8 = 4): KernelSource {
  if (![1, 2, 4, 8].includes(elementBytes) || ![4, 8].includes(offsetBytes)) {
    const given = `elements of ${elementBytes} bytes with offsets of ${offsetBytes}`;
    throw new HeadraceError(
      "BAD_OPTION",
      `pad_and_mask: ${given} are not 1, 2, 4 or 8 bytes with offsets of 4 or 8`,
    );
  }
  return {
    name: "pad_and_mask",
    host: (buffers, constants) => padOnHost(buffers, constants, elementBytes, offsetBytes),
    text: TEXT,
    functionConstants: [
      { index: 0, type: "uint", value: elementBytes },
      { index: 1, type: "uint", value: offsetBytes },
    ],
  };
}

function padOnHost(
  [values, offsets, padded, mask, errors]: readonly Uint8Array[],
  constants: Uint8Array,
  elementBytes: number,
  offsetBytes: number,
): void {
  const element = constants.slice(0, elementBytes);
  const read = new ConstantReader(constants);
  read.long();
  const numValues = read.long();
  const rows = read.uint();
  const length = read.uint();
  const padRow = new Uint8Array(length * elementBytes);
  for (let column = 0; column < length; column++) padRow.set(element, column * elementBytes);
  const view = new DataView(offsets!.buffer, offsets!.byteOffset, offsets!.byteLength);
  const offsetAt = (index: number) =>
    offsetBytes === 8 ? Number(view.getBigUint64(index * 8, true)) : view.getUint32(index * 4, true);
  const wrong = new Uint32Array(errors!.buffer, errors!.byteOffset, 1);
  for (let row = 0; row < rows; row++) {
    const start = offsetAt(row);
    const end = offsetAt(row + 1);
    const isRight = start <= end && end <= numValues;
    if (!isRight) wrong[0]!++;
    const count = isRight ? Math.min(end - start, length) : 0;
    padded!.set(padRow, row * length * elementBytes);
    padded!.set(
      values!.subarray(start * elementBytes, (start + count) * elementBytes),
      row * length * elementBytes,
    );
    mask!.fill(1, row * length, row * length + count);
    mask!.fill(0, row * length + count, (row + 1) * length);
  }
}

export interface PadAndMaskOptions {
  /** The sizes that the pipeline was made for. */
  readonly elementBytes: PadElementBytes;
  readonly offsetBytes?: 4 | 8;
  /** At a multiple of the element's size, as is `padded`. */
  readonly values: Place;
  /** Elements. */
  readonly numValues: number;
  /** `rows + 1` offsets at a multiple of their size. */
  readonly offsets: Place;
  readonly rows: number;
  /** Elements of a row of the result. */
  readonly length: number;
  readonly padded: Place;
  /** `rows * length` bytes. */
  readonly mask: Place;
  /** The bits of the padding element; 0 without. */
  readonly pad?: bigint;
  /** A uint32 at a multiple of 4, to which the number of rows with wrong offsets is added. */
  readonly errors: Place;
}

/** A dispatch of {@link padAndMaskKernel}. Throws `BAD_OPTION`, `OUT_OF_RANGE`. */
export function padAndMaskCall(pipeline: Pipeline, options: PadAndMaskOptions): DispatchCall {
  const { elementBytes, offsetBytes = 4, numValues, rows, length, pad = 0n } = options;
  checkInteger("pad_and_mask: numValues", numValues);
  checkInteger("pad_and_mask: rows", rows, 0, MAX_THREADS);
  checkInteger("pad_and_mask: length", length, 0, MAX_THREADS);
  checkInteger("pad_and_mask: elements", rows * length);
  if (BigInt.asUintN(8 * elementBytes, pad) !== pad) {
    const message = `pad_and_mask: pad ${pad} is no unsigned integer of ${elementBytes} bytes; give the element's bits`;
    throw new HeadraceError("BAD_OPTION", message);
  }
  const numElements = rows * length;
  const laneShift = Math.min(MAX_LANE_SHIFT, Math.ceil(Math.log2(Math.max(1, length))));
  return {
    pipeline,
    buffers: [
      bindPlace("pad_and_mask: values", options.values, numValues * elementBytes, elementBytes),
      bindPlace("pad_and_mask: offsets", options.offsets, (rows + 1) * offsetBytes, offsetBytes),
      bindPlace("pad_and_mask: padded", options.padded, numElements * elementBytes, elementBytes),
      bindPlace("pad_and_mask: mask", options.mask, numElements),
      bindPlace("pad_and_mask: errors", options.errors, 4, 4),
    ],
    constants: packConstants([{ long: pad }, { long: numValues }, rows, length, laneShift]),
    threads: teamThreads(rows, laneShift),
  };
}
