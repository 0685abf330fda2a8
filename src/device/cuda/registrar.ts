/**
 * Registers windows of mappings with the driver, ahead of their use where that is known, and releases those that were
 * used longest ago when the budget is full. It is done by one Worker with a context of its own: registering holds a
 * lock of its context for milliseconds, in which copies of the same context could not be started; more Workers are no
 * faster. What is due first is not waited for but staged by lanes, so the Worker takes the window that is due last.
 */
import type { Extent, Region } from "../host/memory.ts";
import type { RegistrarAnswer, RegistrarJob, RegistrarStart } from "./registrar-worker.ts";
import { WindowState, Windows } from "./windows.ts";

/** Jobs given to the Worker at once: one that runs and one behind it. */
const DEPTH = 2;

export interface RegistrarParts {
  /** Of the driver's library, for the Worker. */
  readonly library: string;
  /** The CUdevice. */
  readonly device: number;
  readonly windowBytes: number;
  /** Bytes that may be registered at once. */
  readonly budget: number;
  /** Flags of cuMemHostRegister. */
  readonly flags: number;
}

interface Want {
  readonly region: Region;
  readonly windows: Windows;
  readonly index: number;
  /** On the registrar's clock, when it was wanted: what was registered or used later is not released for it. */
  readonly since: number;
}

export class Registrar {
  readonly #parts: RegistrarParts;
  readonly #mappings = new Map<number, Windows>();
  /** Wanted soon, the most urgent first. */
  readonly #due: Want[] = [];
  /** Wanted for the next time. */
  #later: Want[] = [];
  readonly #jobs = new Map<number, (result: number) => void>();
  readonly #whenIdle: (() => void)[] = [];
  #worker: Worker | undefined;
  #gone: Promise<void> = Promise.resolve();
  readonly #ready = Promise.withResolvers<void>();
  #nextJob = 1;
  #clock = 0;
  #registeredBytes = 0;
  /** Why the Worker cannot work. */
  #broken: string | undefined;
  #closed = false;

  constructor(parts: RegistrarParts) {
    this.#parts = parts;
  }

  /** Resolves when the Worker can work, or cannot, or was not started. */
  get ready(): Promise<void> {
    return this.#worker === undefined ? Promise.resolve() : this.#ready.promise;
  }

  get registeredBytes(): number {
    return this.#registeredBytes;
  }

  /** Why nothing is registered, if so. */
  get broken(): string | undefined {
    return this.#broken;
  }

  /** Takes a new mapping. */
  add(region: Region): void {
    const { base, mappedLength } = region.extent;
    this.#mappings.set(base, new Windows(base, mappedLength, this.#parts.windowBytes));
    this.start();
  }

  /** Releases what is registered of a mapping that nobody uses, then calls `unmap`, which hears whether all of it
   * is released. */
  remove(extent: Extent, unmap: (released: boolean) => void): void {
    const windows = this.#mappings.get(extent.base);
    this.#mappings.delete(extent.base);
    const addresses: number[] = [];
    if (windows !== undefined) {
      for (let index = 0; index < windows.count; index++) {
        if (windows.states[index] !== WindowState.registered) continue;
        addresses.push(windows.addressOf(index));
        this.#registeredBytes -= windows.lengthOf(index);
      }
    }
    const released = windows?.stuck !== true;
    // Windows may be on their way out already, to make room: the mapping stays until the Worker has come past that.
    if (this.#worker === undefined || (addresses.length === 0 && this.#jobs.size === 0)) unmap(released);
    else this.#post({ kind: "release", addresses }, (result) => unmap(released && result === 0));
  }

  /** The windows of a mapping; undefined for other memory. */
  windowsOf(region: Region): Windows | undefined {
    return region.extent.kind === "file" ? this.#mappings.get(region.extent.base) : undefined;
  }

  /** Asks for what `[address, address + byteLength)` touches: soon, or for the next time where `later` is set. */
  want(region: Region, address: number, byteLength: number, later = false): void {
    this.#note(region, address, byteLength, later);
    this.#pump();
  }

  /** Asks for several ranges, in the order in which they are due. */
  wantEach(
    ranges: Iterable<{ readonly region: Region; readonly source: number; readonly byteLength: number }>,
  ): void {
    // The Worker begins with the last one, so all have to be known before it does.
    for (const { region, source, byteLength } of ranges) this.#note(region, source, byteLength, false);
    this.#pump();
  }

  /** Takes a window off the list, since it is staged right now. Returns whether it was only wanted. */
  takeBack(windows: Windows, index: number): boolean {
    if (windows.states[index] !== WindowState.wanted) return false;
    for (const list of [this.#due, this.#later]) {
      const at = list.findIndex((want) => want.windows === windows && want.index === index);
      if (at >= 0) list.splice(at, 1);
    }
    windows.settle(index, WindowState.none);
    return true;
  }

  /** Keeps registered windows in place until {@link Registrar.unuse}. */
  use(windows: Windows, first: number, last: number): void {
    for (let index = first; index <= last; index++) {
      windows.users[index]!++;
      windows.lastUse[index] = ++this.#clock;
    }
  }

  unuse(windows: Windows, first: number, last: number): void {
    for (let index = first; index <= last; index++) windows.users[index]!--;
  }

  /** After all queues were closed: resolves when nothing is under way, and the Worker is gone. */
  async close(): Promise<void> {
    this.#closed = true;
    for (const want of [...this.#due.splice(0), ...this.#later.splice(0)]) {
      want.windows.settle(want.index, WindowState.none);
    }
    if (this.#worker === undefined) return;
    await this.#idle();
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#post({ kind: "end", addresses: [] }, () => resolve());
    await promise;
    this.#worker.terminate();
    this.#worker = undefined;
    await this.#gone;
  }

  #idle(): Promise<void> {
    if (this.#jobs.size === 0) return Promise.resolve();
    return new Promise((resolve) => this.#whenIdle.push(resolve));
  }

  /** Starts the Worker, which makes its context; done at the first mapping otherwise. */
  start(): void {
    if (this.#worker !== undefined || this.#broken !== undefined || this.#closed) return;
    const { library, device, flags } = this.#parts;
    const worker = new Worker(new URL("./registrar-worker.ts", import.meta.url)) as Worker & {
      unref(): void;
    };
    worker.unref();
    worker.onmessage = (event: MessageEvent<RegistrarAnswer>) => this.#answered(event.data);
    worker.onerror = (event) => {
      this.#worker = undefined;
      this.#break(`its Worker has died: ${event.message}`);
    };
    this.#gone = new Promise((resolve) => worker.addEventListener("close", () => resolve(), { once: true }));
    this.#worker = worker;
    worker.postMessage({ library, device, flags } satisfies RegistrarStart);
  }

  #post(job: Omit<RegistrarJob, "id">, done: (result: number) => void): void {
    const id = this.#nextJob++;
    this.#jobs.set(id, done);
    this.#worker!.postMessage({ ...job, id } satisfies RegistrarJob);
  }

  #answered({ id, result, message }: RegistrarAnswer): void {
    if (id === 0) {
      if (message !== undefined) this.#break(message);
      this.#ready.resolve();
      return;
    }
    const done = this.#jobs.get(id);
    if (done === undefined) return;
    this.#jobs.delete(id);
    done(result);
    this.#pump();
    if (this.#jobs.size === 0) for (const resolve of this.#whenIdle.splice(0)) resolve();
  }

  /** Nothing can be registered any more: all goes by lanes. */
  #break(reason: string): void {
    this.#broken ??= reason;
    this.#ready.resolve();
    for (const want of [...this.#due.splice(0), ...this.#later.splice(0)]) {
      want.windows.settle(want.index, WindowState.refused);
    }
    for (const [id, done] of [...this.#jobs]) {
      this.#jobs.delete(id);
      done(BROKEN);
    }
    for (const resolve of this.#whenIdle.splice(0)) resolve();
  }

  #note(region: Region, address: number, byteLength: number, later: boolean): void {
    const windows = this.windowsOf(region);
    if (windows === undefined || byteLength <= 0 || this.#broken !== undefined || this.#closed) return;
    const last = windows.indexOf(address + byteLength - 1);
    for (let index = windows.indexOf(address); index <= last; index++) {
      if (windows.states[index] !== WindowState.none) continue;
      windows.set(index, WindowState.wanted);
      (later ? this.#later : this.#due).push({ region, windows, index, since: this.#clock });
    }
  }

  #pump(): void {
    while (this.#worker !== undefined && this.#jobs.size < DEPTH) {
      const soon = this.#due.pop();
      const want = soon ?? this.#later.shift();
      if (want === undefined) return;
      const bytes = want.windows.lengthOf(want.index);
      // What was closed under way is still needed by whoever is under way.
      const unwanted = want.region.closed && want.windows.users[want.index] === 0;
      if (unwanted || !this.#makeRoom(bytes, soon?.since)) {
        want.windows.settle(want.index, WindowState.none);
        // What is for later gets no room that what is there now would lose.
        if (soon === undefined && !unwanted) this.#dropLater();
        continue;
      }
      this.#register(want, bytes);
    }
  }

  #dropLater(): void {
    for (const want of this.#later) want.windows.settle(want.index, WindowState.none);
    this.#later = [];
  }

  #register({ region, windows, index }: Want, bytes: number): void {
    windows.set(index, WindowState.registering);
    windows.lastUse[index] = ++this.#clock;
    this.#registeredBytes += bytes;
    region.retain();
    const job = { kind: "register", addresses: [windows.addressOf(index)], byteLength: bytes } as const;
    this.#post(job, (result) => {
      if (result !== 0) this.#registeredBytes -= bytes;
      // Whoever waits may use the window at once, and so before the mapping can go.
      windows.settle(index, result === 0 ? WindowState.registered : WindowState.refused);
      region.release();
    });
  }

  /** Whether `bytes` more may be registered; releases what was used longest ago, if that is no later than `since`. */
  #makeRoom(bytes: number, since: number | undefined): boolean {
    const { budget } = this.#parts;
    while (this.#registeredBytes + bytes > budget) {
      const oldest = since === undefined ? undefined : this.#oldest(since);
      if (oldest === undefined) return false;
      const { windows, index } = oldest;
      windows.set(index, WindowState.none);
      this.#registeredBytes -= windows.lengthOf(index);
      this.#post({ kind: "release", addresses: [windows.addressOf(index)] }, (result) => {
        if (result !== 0) windows.stuck = true;
      });
    }
    return true;
  }

  #oldest(since: number): { windows: Windows; index: number } | undefined {
    let found: { windows: Windows; index: number } | undefined;
    let use = since + 1;
    for (const windows of this.#mappings.values()) {
      if (windows.wholeUsers > 0) continue;
      for (let index = 0; index < windows.count; index++) {
        if (windows.states[index] !== WindowState.registered || windows.users[index] !== 0) continue;
        if (windows.lastUse[index]! >= use) continue;
        use = windows.lastUse[index]!;
        found = { windows, index };
      }
    }
    return found;
  }
}

/** A result that the driver never gives. */
const BROKEN = -1;
