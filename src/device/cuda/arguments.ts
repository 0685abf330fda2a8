/** The arguments of one kernel launch, as cuLaunchKernel takes them. */
import { ptr } from "bun:ffi";
import { HeadraceError } from "../../errors.ts";

/** Bytes of constants at most; the device interface's own bound. */
const MAX_CONSTANTS = 4096;
const FIRST_BUFFERS = 32;
/** Of what a struct can hold. */
const ALIGNMENT = 16;

/**
 * Memory for the arguments of launches, one after the other: the driver has copied what it needs when
 * cuLaunchKernel returns. A kernel of the portable text takes its buffers' addresses, its constants where it has any,
 * and the number of threads. Nothing is allocated a launch, but where one has more buffers than any before it.
 *
 * Layout: an array of pointers, one an argument; the number of threads; the constants; the addresses.
 */
export class LaunchArguments {
  #capacity = 0;
  #words = new Uint32Array(0);
  #bytes = new Uint8Array(0);
  #address = 0;
  #countAt = 0;
  #constantsAt = 0;
  #buffersAt = 0;
  /** What the last launch left there. */
  #constantsUsed = 0;

  constructor() {
    this.#grow(FIRST_BUFFERS);
  }

  /** Begins a launch; {@link LaunchArguments.setBuffer} then gives each buffer. Returns the address of the array of
   * pointers, for `kernelParams`: valid until the next `start`, as long as this object lives. Throws `OUT_OF_RANGE` for
   * more threads than 32 bits hold, or constants over 4 KiB. */
  start(numBuffers: number, constants: Uint8Array, threads: number): number {
    if (threads !== threads >>> 0) {
      throw new HeadraceError(
        "OUT_OF_RANGE",
        `threads ${threads} is not an integer from 0 to ${2 ** 32 - 1}`,
      );
    }
    if (constants.byteLength > MAX_CONSTANTS) {
      const text = `${constants.byteLength} bytes of constants are over ${MAX_CONSTANTS}`;
      throw new HeadraceError("OUT_OF_RANGE", text);
    }
    if (numBuffers > this.#capacity) this.#grow(numBuffers);
    let parameter = numBuffers;
    for (let i = 0; i < numBuffers; i++) this.#point(i, this.#buffersAt + i * 8);
    if (constants.byteLength > 0) {
      this.#bytes.set(constants, this.#constantsAt);
      // A kernel whose struct is longer than what is given sees zeros, and nothing of other launches.
      const end = this.#constantsAt + constants.byteLength;
      this.#bytes.fill(0, end, Math.max(end, this.#constantsAt + this.#constantsUsed));
      this.#constantsUsed = constants.byteLength;
      this.#point(parameter++, this.#constantsAt);
    }
    this.#words[this.#countAt / 4] = threads;
    this.#point(parameter, this.#countAt);
    return this.#address;
  }

  /** Gives the address of buffer `index` of the launch, which may be 0 for an empty one. */
  setBuffer(index: number, address: number): void {
    const at = this.#buffersAt / 4 + index * 2;
    this.#words[at] = address;
    this.#words[at + 1] = address / 2 ** 32;
  }

  /** Has pointer `parameter` lead to byte `offset` of this memory. */
  #point(parameter: number, offset: number): void {
    const address = this.#address + offset;
    this.#words[parameter * 2] = address;
    this.#words[parameter * 2 + 1] = address / 2 ** 32;
  }

  #grow(buffers: number): void {
    this.#capacity = Math.max(buffers, this.#capacity * 2);
    // The buffers, the constants and the count have a pointer each.
    this.#countAt = roundUp((this.#capacity + 2) * 8);
    this.#constantsAt = this.#countAt + ALIGNMENT;
    this.#buffersAt = this.#constantsAt + MAX_CONSTANTS;
    const memory = new ArrayBuffer(this.#buffersAt + this.#capacity * 8);
    this.#words = new Uint32Array(memory);
    this.#bytes = new Uint8Array(memory);
    this.#address = ptr(this.#bytes);
    this.#constantsUsed = 0;
  }
}

function roundUp(byteLength: number): number {
  return Math.ceil(byteLength / ALIGNMENT) * ALIGNMENT;
}
