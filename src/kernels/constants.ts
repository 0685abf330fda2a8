/** What the builders of dispatches share: structs of constants, and checks. */
import type { DeviceBuffer } from "../device/device.ts";
import { type BufferBinding, checkRange } from "../device/requests.ts";
import { HeadraceError } from "../errors.ts";

/** Threads that one dispatch can ask for. */
export const MAX_THREADS = 2 ** 32 - 1;

/** Fields of a C struct in their order: numbers are uint32_t, those of the form `{ long }` uint64_t at multiples of
 * 8, `{ float }` floats. */
export type ConstantField = number | { readonly long: number | bigint } | { readonly float: number };

/** The struct's bytes. Its longs must come first, so that no compiler leaves a gap. */
export function packConstants(fields: readonly ConstantField[]): Uint8Array {
  const longs = fields.filter((field) => typeof field === "object" && "long" in field).length;
  // The size of a struct is a multiple of its alignment.
  const unit = longs > 0 ? 8 : 4;
  const bytes = Math.ceil((fields.length * 4 + longs * 4) / unit) * unit;
  const view = new DataView(new ArrayBuffer(bytes));
  let at = 0;
  for (const field of fields) {
    if (typeof field === "number") view.setUint32(at, field, true);
    else if ("float" in field) view.setFloat32(at, field.float, true);
    else view.setBigUint64(at, BigInt(field.long), true);
    at += typeof field === "object" && "long" in field ? 8 : 4;
  }
  return new Uint8Array(view.buffer);
}

/** Reads what {@link packConstants} wrote. */
export class ConstantReader {
  readonly #view: DataView;
  #at = 0;

  constructor(constants: Uint8Array) {
    this.#view = new DataView(constants.buffer, constants.byteOffset, constants.byteLength);
  }

  uint(): number {
    this.#at += 4;
    return this.#view.getUint32(this.#at - 4, true);
  }

  long(): number {
    this.#at += 8;
    return Number(this.#view.getBigUint64(this.#at - 8, true));
  }

  float(): number {
    this.#at += 4;
    return this.#view.getFloat32(this.#at - 4, true);
  }
}

/** A place in a buffer. */
export interface Place {
  readonly buffer: DeviceBuffer;
  /** In bytes; 0 without. */
  readonly byteOffset?: number;
}

/** Binds `place` so that `byteLength` bytes from it on can be used, at a multiple of `alignment`. Throws
 * `OUT_OF_RANGE`, and `BAD_OPTION` where it lies at no such multiple. */
export function bindPlace(what: string, place: Place, byteLength: number, alignment = 1): BufferBinding {
  const { buffer, byteOffset = 0 } = place;
  checkRange(what, byteOffset, byteLength, buffer.byteLength);
  const address = buffer.gpuAddress + byteOffset;
  if (address % alignment !== 0) {
    const message = `${what}: byte ${byteOffset} lies ${address % alignment} past a multiple of ${alignment}`;
    throw new HeadraceError("BAD_OPTION", `${message}; place it on one`);
  }
  return { buffer, offset: byteOffset };
}

/** Throws `BAD_OPTION` unless `value` is an integer in `[least, most]`. */
export function checkInteger(
  what: string,
  value: number,
  least = 0,
  most: number = Number.MAX_SAFE_INTEGER,
): void {
  if (Number.isSafeInteger(value) && value >= least && value <= most) return;
  throw new HeadraceError("BAD_OPTION", `${what} ${value} is no integer from ${least} to ${most}`);
}

/** The power of two of lanes, as an exponent, that share a range of `byteLength` bytes which they load in windows of
 * 16 bytes: as many as windows up to a simdgroup, then one for every four, up to a threadgroup. */
export function laneShiftFor(byteLength: number): number {
  const windows = Math.ceil(byteLength / 16);
  const lanes = windows <= 32 ? windows : Math.min(256, Math.max(32, windows / 4));
  return Math.ceil(Math.log2(Math.max(1, lanes)));
}

/** Threads of `count` teams of `2^laneShift`, or as many whole teams as one dispatch can have: each takes one range
 * after another. */
export function teamThreads(count: number, laneShift: number): number {
  const lanes = 2 ** laneShift;
  return Math.min(count, Math.floor(MAX_THREADS / lanes)) * lanes;
}
