/** What the parts of one open Metal device share: the library, the device's handle, and scratch for calls. */
import { closedError } from "../common/errors.ts";
import { OpenSet } from "../common/open-set.ts";
import { Syscalls } from "../host/syscalls.ts";
import { Status } from "./abi.ts";
import { NativeError } from "./errors.ts";
import type { MetalLibrary } from "./library.ts";

type Symbols = MetalLibrary["symbols"];

export class MetalContext {
  readonly symbols: Symbols;
  /** Of the device. */
  readonly handle: number;
  /** For messages. */
  readonly deviceName: string;
  /** Of the last call; read at once. */
  readonly error = new NativeError();
  /** Where calls put a handle, and a 64-bit number as two halves. Explicit buffers, which do not move. */
  readonly handleOut = new Uint32Array(new ArrayBuffer(8));
  readonly numberOut = new Uint32Array(new ArrayBuffer(8));
  /** Buffers, mappings, files and queues that are open. */
  openResources = 0;
  closed = false;
  readonly #objects = new OpenSet<NativeObject>();
  #syscalls: Syscalls | undefined;

  constructor(symbols: Symbols, handle: number, deviceName: string) {
    this.symbols = symbols;
    this.handle = handle;
    this.deviceName = deviceName;
  }

  /** The system's own calls, for what the library does not do. */
  get syscalls(): Syscalls {
    this.#syscalls ??= new Syscalls();
    return this.#syscalls;
  }

  /** Throws `CLOSED` after the device was closed. */
  assertOpen(): void {
    if (this.closed) throw closedError(`the ${this.deviceName} device`);
  }

  /** The number that a call left in {@link MetalContext.numberOut}; exact below 2^53. */
  takeNumber(): number {
    return this.numberOut[1]! * 2 ** 32 + this.numberOut[0]!;
  }

  /** Runs a call that makes an object, and gives its handle. Throws what the call left in
   * {@link MetalContext.error}, with `what` in front. */
  make(what: string | undefined, call: () => number): number {
    this.error.clear();
    const status = call();
    if (status < Status.OK) throw this.error.toError(status, what);
    return this.handleOut[0]!;
  }

  /** Runs a call that may fail. */
  run(what: string | undefined, call: () => number): void {
    this.error.clear();
    const status = call();
    if (status < Status.OK) throw this.error.toError(status, what);
  }

  /** Returns the id to pass to {@link MetalContext.forget}. */
  remember(object: NativeObject): number {
    if (object.counted) this.openResources++;
    return this.#objects.add(object);
  }

  forget(id: number, counted: boolean): void {
    if (counted) this.openResources--;
    this.#objects.delete(id);
  }

  closeObjects(): void {
    this.#objects.closeAll();
  }
}

/** An object that was forgotten without `close`. */
interface Forgotten {
  readonly context: MetalContext;
  readonly handle: number;
  readonly id: number;
  readonly counted: boolean;
}

// A registry that is collected with its device would close nothing, so it belongs to the module.
const forgottenObjects = new FinalizationRegistry<Forgotten>(({ context, handle, id, counted }) => {
  context.forget(id, counted);
  context.symbols.hr_close(handle);
});

/** Whoever holds a handle of the library. Work in flight keeps what is behind it past `close`. */
export class NativeObject {
  readonly context: MetalContext;
  readonly handle: number;
  /** Whether it counts as one of `Device.openResources`. */
  readonly counted: boolean;
  closed = false;
  readonly #id: number;

  constructor(context: MetalContext, handle: number, counted: boolean) {
    this.context = context;
    this.handle = handle;
    this.counted = counted;
    this.#id = context.remember(this);
    forgottenObjects.register(this, { context, handle, id: this.#id, counted }, this);
  }

  close(): void {
    if (this.closed) return;
    this.closed = true;
    forgottenObjects.unregister(this);
    this.context.forget(this.#id, this.counted);
    this.free();
  }

  /** Gives the handle back, at the end of {@link NativeObject.close} or once its memory is in use no more. */
  protected free(): void {
    this.context.symbols.hr_close(this.handle);
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

/** Text as C wants it. */
export function cString(text: string): Uint8Array {
  return new TextEncoder().encode(`${text}\0`);
}
