/** Workers that wait for streams: each sleeps in the driver until the next event of one stream, and says so. */
import { WAIT_CONTROL } from "./wait-control.ts";
import type { WaiterAnswer, WaiterStart } from "./waiter-worker.ts";

/** Events that a Worker knows of at once; later ones are told when there is room. */
const RING = 1024;

/** Who hears from a waiter. */
export interface WaiterUser {
  /** Called for each event, in their order, with the driver's result. */
  reached(result: number): void;
  /** The Worker is gone, and with it all that it was to wait for. */
  died(message: string): void;
}

/** One such Worker, seen from the JavaScript thread. */
export class Waiter {
  user: WaiterUser | undefined;
  readonly #control = new Int32Array(new SharedArrayBuffer(WAIT_CONTROL.words * 4));
  readonly #ring = new Float64Array(new SharedArrayBuffer(RING * 8));
  readonly #worker: Worker & { unref(): void };
  readonly #gone: Promise<void>;
  /** Events that have no room in the ring yet. */
  readonly #later: number[] = [];
  #head = 0;
  #inRing = 0;
  #dead = false;

  constructor(start: Pick<WaiterStart, "library" | "context">) {
    this.#worker = new Worker(new URL("./waiter-worker.ts", import.meta.url)) as Worker & { unref(): void };
    this.#worker.unref();
    this.#worker.onmessage = (event: MessageEvent<WaiterAnswer>) => {
      this.#inRing--;
      this.#feed();
      this.user?.reached(event.data);
    };
    this.#worker.onerror = (event) => {
      this.#dead = true;
      this.user?.died(event.message);
    };
    this.#gone = new Promise((resolve) =>
      this.#worker.addEventListener("close", () => resolve(), { once: true }),
    );
    this.#worker.postMessage({ ...start, control: this.#control, ring: this.#ring } satisfies WaiterStart);
  }

  /** Whether it waits for nothing, and can wait for something else. */
  get idle(): boolean {
    return !this.#dead && this.#inRing === 0 && this.#later.length === 0;
  }

  get dead(): boolean {
    return this.#dead;
  }

  add(event: number): void {
    this.#later.push(event);
    this.#feed();
  }

  async close(): Promise<void> {
    Atomics.store(this.#control, WAIT_CONTROL.stop, 1);
    Atomics.add(this.#control, WAIT_CONTROL.head, 1);
    Atomics.notify(this.#control, WAIT_CONTROL.head);
    this.#worker.terminate();
    await this.#gone;
  }

  #feed(): void {
    let added = false;
    while (this.#inRing < RING && this.#later.length > 0) {
      this.#ring[this.#head % RING] = this.#later.shift()!;
      this.#head++;
      this.#inRing++;
      added = true;
    }
    if (!added) return;
    Atomics.store(this.#control, WAIT_CONTROL.head, this.#head | 0);
    Atomics.notify(this.#control, WAIT_CONTROL.head);
  }
}

/** The waiters of one device. A stream takes one for its life, and gives it back for the next: a Worker takes tens of
 * milliseconds to start. */
export class Waiters {
  readonly #start: Pick<WaiterStart, "library" | "context">;
  readonly #free: Waiter[] = [];
  readonly #all = new Set<Waiter>();

  /** `start` names the driver's library and the CUcontext. */
  constructor(start: Pick<WaiterStart, "library" | "context">) {
    this.#start = start;
  }

  /** Starts `count` Workers, so that they are there when streams are. */
  spawn(count: number): void {
    for (let i = 0; i < count; i++) this.#free.push(this.#make());
  }

  take(user: WaiterUser): Waiter {
    let waiter = this.#free.shift();
    while (waiter?.dead === true) waiter = this.#free.shift();
    waiter ??= this.#make();
    waiter.user = user;
    return waiter;
  }

  /** Of a stream that nobody waits for any more. */
  give(waiter: Waiter): void {
    waiter.user = undefined;
    if (waiter.idle) this.#free.push(waiter);
  }

  /** After all streams were closed. */
  async close(): Promise<void> {
    this.#free.length = 0;
    await Promise.all([...this.#all].map((waiter) => waiter.close()));
    this.#all.clear();
  }

  #make(): Waiter {
    const waiter = new Waiter(this.#start);
    this.#all.add(waiter);
    return waiter;
  }
}
