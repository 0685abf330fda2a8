/**
 * Copies by addresses: a table in memory says what goes where, and one dispatch does all of it. It is what makes many
 * small copies cheap, since a launch costs the same for one row as for a million.
 *
 * Addresses are 64-bit ones as kernels use them. Nothing checks them: a wrong one ends a device's life, or worse, so
 * this is for what builds the table from buffers that it holds. On Metal a buffer that only a table names must be made
 * resident too, which the device's address tables do; on CUDA every allocation and registration is.
 */
import { toArrayBuffer } from "bun:ffi";
import type { KernelSource, Pipeline } from "../device/device.ts";
import type { DispatchCall } from "../device/requests.ts";
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

/** Bytes of a move in the table of addresses, and in the table of lengths. */
export const MOVE_ADDRESS_BYTES = 16;
export const MOVE_LENGTH_BYTES = 8;
/** What the host form copies at once: an ArrayBuffer ends at 4 GiB. */
const HOST_PIECE = 2 ** 30;

/**
 * Buffers: addresses (a move's source and target, uint64 each), byteLengths (uint64 each). A source and a target may
 * have any alignment and length, and no target may overlap another move's source or target.
 */
export const moveKernel: KernelSource = {
  name: "move_bytes",
  host: ([addresses, byteLengths], constants) => {
    const count = new ConstantReader(constants).uint();
    const from = longsOf(addresses!);
    const lengths = longsOf(byteLengths!);
    for (let i = 0; i < count; i++) {
      copyMemory(from.at(2 * i), from.at(2 * i + 1), lengths.at(i));
    }
  },
  text: `${BYTES_TEXT}
struct MoveConstants { uint32_t count; uint32_t laneShift; };

HR_KERNEL(move_bytes, HR_IN(0, uint64_t, addresses), HR_IN(1, uint64_t, byteLengths),
          HR_CONSTANTS(2, MoveConstants, c)) {
  if (hr_thread >= hr_threads) return;
  uint32_t lanes = 1u << c.laneShift;
  for (uint64_t index = hr_thread >> c.laneShift; index < c.count; index += hr_threads >> c.laneShift) {
    const HR_DEVICE uint8_t *source = HR_POINTER(const uint8_t, addresses[2u * index]);
    HR_DEVICE uint8_t *target = HR_POINTER(uint8_t, addresses[2u * index + 1u]);
    copy_bytes(target, source, byteLengths[index], hr_thread & (lanes - 1u), lanes);
  }
}
`,
};

function longsOf(bytes: Uint8Array): { at(index: number): number } {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return { at: (index) => Number(view.getBigUint64(index * 8, true)) };
}

function copyMemory(source: number, target: number, byteLength: number): void {
  for (let at = 0; at < byteLength; at += HOST_PIECE) {
    const length = Math.min(HOST_PIECE, byteLength - at);
    const from = new Uint8Array(toArrayBuffer(source + at, 0, length));
    const to = new Uint8Array(toArrayBuffer(target + at, 0, length));
    to.set(from);
    // No view may outlive the memory.
    from.buffer.transfer(0);
    to.buffer.transfer(0);
  }
}

/** Where a table is written: views of the memory behind its two buffers, as many moves long as wanted. */
export interface MoveTable {
  /** 4 words a move: source and target, the low word first. */
  readonly addresses: Uint32Array;
  /** 2 words a move. */
  readonly byteLengths: Uint32Array;
}

/** Writes move `index` of a table. All numbers are non-negative integers, which is not checked. */
export function writeMove(
  table: MoveTable,
  index: number,
  source: number,
  target: number,
  byteLength: number,
): void {
  const { addresses, byteLengths } = table;
  const at = 4 * index;
  addresses[at] = source;
  addresses[at + 1] = source / 2 ** 32;
  addresses[at + 2] = target;
  addresses[at + 3] = target / 2 ** 32;
  byteLengths[2 * index] = byteLength;
  byteLengths[2 * index + 1] = byteLength / 2 ** 32;
}

export interface MoveOptions {
  /** The tables, at multiples of 8 bytes. */
  readonly addresses: Place;
  readonly byteLengths: Place;
  /** Moves of the table. */
  readonly count: number;
  /** Bytes of the longest move, or of most of them: it decides how many threads share one, and longer ones are right
   * too, but slower. */
  readonly maxByteLength: number;
}

/** A dispatch of {@link moveKernel}. Throws `BAD_OPTION`, and `OUT_OF_RANGE` where a table is too short. */
export function moveCall(pipeline: Pipeline, options: MoveOptions): DispatchCall {
  const { addresses, byteLengths, count, maxByteLength } = options;
  checkInteger("move: count", count, 0, MAX_THREADS);
  checkInteger("move: maxByteLength", maxByteLength);
  const laneShift = laneShiftFor(maxByteLength);
  return {
    pipeline,
    buffers: [
      bindPlace("move: addresses", addresses, count * MOVE_ADDRESS_BYTES, 8),
      bindPlace("move: byteLengths", byteLengths, count * MOVE_LENGTH_BYTES, 8),
    ],
    constants: packConstants([count, laneShift]),
    threads: teamThreads(count, laneShift),
  };
}
