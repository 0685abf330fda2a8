/** ArrayBuffers over native memory: handed out, kept track of, and detached before the memory goes. */
import { type Pointer, toArrayBuffer } from "bun:ffi";
import { HeadraceError } from "../../errors.ts";
import type { Storage } from "../device.ts";

/** Bytes: the runtime's bound for one ArrayBuffer. */
export const MAX_VIEW = 2 ** 32;
/** Views tracked before the dead ones are first dropped. */
const FIRST_PRUNE = 64;

/** A view that can be reached keeps the object that owns its memory, even where the buffer was forgotten. */
const ownerOf = new WeakMap<ArrayBuffer, object>();

/** An ArrayBuffer over native memory, which it does not own. `byteLength` is in `[1, MAX_VIEW]`. */
export function viewOf(address: number, byteLength: number): ArrayBuffer {
  const sound = Number.isSafeInteger(address) && Number.isSafeInteger(byteLength);
  if (sound && address > 0 && byteLength > 0) return toArrayBuffer(address as Pointer, 0, byteLength);
  throw new HeadraceError("DEVICE_FAILED", `a view of ${byteLength} bytes at ${address} cannot be made`);
}

/** As {@link viewOf}, and `owner` is not collected while the view can be reached. */
export function ownedView(owner: object, address: number, byteLength: number): ArrayBuffer {
  const view = viewOf(address, byteLength);
  ownerOf.set(view, owner);
  return view;
}

/** Throws `UNSUPPORTED` where one view cannot have so many bytes. */
export function checkViewLength(byteLength: number): void {
  if (byteLength <= MAX_VIEW) return;
  throw new HeadraceError(
    "UNSUPPORTED",
    `a view of ${byteLength} bytes is over the ${MAX_VIEW} that an ArrayBuffer can have; take several`,
  );
}

/** Throws `UNSUPPORTED` for memory that only the device sees. */
export function checkVisible(storage: Storage): void {
  if (storage === "shared") return;
  throw new HeadraceError(
    "UNSUPPORTED",
    "a private buffer cannot be seen by the host; copy it to a shared one",
  );
}

/** The views of one piece of memory that may still be in use. */
export class Views {
  #refs: WeakRef<ArrayBuffer>[] = [];
  #pruneAt = FIRST_PRUNE;

  /** The range was checked; `owner` is what the garbage collector must keep while the view is reachable. */
  add(owner: object, address: number, byteLength: number): ArrayBuffer {
    const view = ownedView(owner, address, byteLength);
    if (this.#refs.length >= this.#pruneAt) this.#prune();
    this.#refs.push(new WeakRef(view));
    return view;
  }

  /** Leaves every view empty. */
  detachAll(): void {
    for (const ref of this.#refs) {
      const view = ref.deref();
      if (view !== undefined && !view.detached) view.transfer(0);
    }
    this.#refs = [];
  }

  /** Drops views that are gone. The bound doubles with the live ones, so that each view costs O(1). */
  #prune(): void {
    this.#refs = this.#refs.filter((ref) => ref.deref()?.detached === false);
    this.#pruneAt = Math.max(FIRST_PRUNE, this.#refs.length * 2);
  }
}
