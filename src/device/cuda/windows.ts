/** Which parts of one mapping are registered with the driver, by windows. */

/** `wanted` and `registering` windows become `registered` or `refused` without anybody's doing. */
export const WindowState = { none: 0, wanted: 1, registering: 2, registered: 3, refused: 4 } as const;

/** The windows of one mapping, the last of which may be shorter. */
export class Windows {
  /** Address of the mapping, a whole page. */
  readonly base: number;
  /** Whole pages. */
  readonly byteLength: number;
  readonly windowBytes: number;
  readonly states: Uint8Array;
  /** Copies and kernels under way that need a window. */
  readonly users: Uint32Array;
  /** When each was needed last, on a clock that only counts. */
  readonly lastUse: Float64Array;
  /** Runs that need the whole mapping in place. */
  wholeUsers = 0;
  #numRegistered = 0;
  readonly #waiting = new Map<number, (() => void)[]>();

  constructor(base: number, byteLength: number, windowBytes: number) {
    this.base = base;
    this.byteLength = byteLength;
    this.windowBytes = windowBytes;
    const count = Math.ceil(byteLength / windowBytes);
    this.states = new Uint8Array(count);
    this.users = new Uint32Array(count);
    this.lastUse = new Float64Array(count);
  }

  get count(): number {
    return this.states.length;
  }

  /** The window that holds `address`. */
  indexOf(address: number): number {
    return Math.floor((address - this.base) / this.windowBytes);
  }

  addressOf(index: number): number {
    return this.base + index * this.windowBytes;
  }

  lengthOf(index: number): number {
    return Math.min(this.windowBytes, this.byteLength - index * this.windowBytes);
  }

  /** Bytes from `address` to the end of its window. */
  restFrom(address: number): number {
    const index = this.indexOf(address);
    return this.addressOf(index) + this.lengthOf(index) - address;
  }

  /** Whether all of the mapping is registered. */
  get whole(): boolean {
    return this.#numRegistered === this.states.length;
  }

  /** Whether all that `[address, address + byteLength)` touches is registered. */
  covers(address: number, byteLength: number): boolean {
    const last = this.indexOf(address + byteLength - 1);
    for (let index = this.indexOf(address); index <= last; index++) {
      if (this.states[index] !== WindowState.registered) return false;
    }
    return true;
  }

  /** Calls `settled` once when the window is neither wanted nor registering any more. */
  whenSettled(index: number, settled: () => void): void {
    const waiting = this.#waiting.get(index);
    if (waiting === undefined) this.#waiting.set(index, [settled]);
    else waiting.push(settled);
  }

  /** Gives a window its state. */
  set(index: number, state: number): void {
    const before = this.states[index];
    if (before === WindowState.registered) this.#numRegistered--;
    if (state === WindowState.registered) this.#numRegistered++;
    this.states[index] = state;
  }

  /** Gives a window its state, and tells who waits where that is final. */
  settle(index: number, state: number): void {
    this.set(index, state);
    const waiting = this.#waiting.get(index);
    if (waiting === undefined) return;
    this.#waiting.delete(index);
    for (const settled of waiting) settled();
  }
}
