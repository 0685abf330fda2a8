/** Registered windows that one run of the GPU needs in place until it has ended. */
import type { Registrar } from "./registrar.ts";
import type { Windows } from "./windows.ts";

export class WindowPins {
  readonly #registrar: Registrar;
  readonly #pinned = new Map<Windows, Uint8Array>();
  readonly #whole = new Set<Windows>();

  constructor(registrar: Registrar) {
    this.#registrar = registrar;
  }

  /** Pins what `[address, address + byteLength)` touches. */
  add(windows: Windows, address: number, byteLength: number): void {
    let pinned = this.#pinned.get(windows);
    if (pinned === undefined) {
      pinned = new Uint8Array(windows.count);
      this.#pinned.set(windows, pinned);
    }
    const last = windows.indexOf(address + byteLength - 1);
    for (let index = windows.indexOf(address); index <= last; index++) {
      if (pinned[index] === 1) continue;
      pinned[index] = 1;
      this.#registrar.use(windows, index, index);
    }
  }

  /** Pins all of a mapping, which costs the same for any number of copies. */
  addWhole(windows: Windows): void {
    if (this.#whole.has(windows)) return;
    this.#whole.add(windows);
    windows.wholeUsers++;
  }

  release(): void {
    for (const windows of this.#whole) windows.wholeUsers--;
    this.#whole.clear();
    for (const [windows, pinned] of this.#pinned) {
      for (let index = 0; index < pinned.length; index++) {
        if (pinned[index] === 1) this.#registrar.unuse(windows, index, index);
      }
    }
    this.#pinned.clear();
  }
}
