/** Events: counters of the JavaScript thread, on which promises and submissions wait. */
import type { HeadraceError } from "../../errors.ts";
import { assertEventValue } from "../common/checks.ts";
import { closedError } from "../common/errors.ts";
import type { DeviceEvent } from "../device.ts";
import type { HostContext } from "./context.ts";

/** Called once: without an error when the value is reached, with `CLOSED` when the event is closed first. */
export type Reached = (error: HeadraceError | undefined) => void;

interface Waiter {
  readonly value: number;
  readonly reached: Reached;
}

export class HostEvent implements DeviceEvent {
  readonly context: HostContext;
  #value = 0;
  #waiters: Waiter[] = [];
  #closed = false;

  constructor(context: HostContext) {
    this.context = context;
  }

  get value(): number {
    return this.#value;
  }

  get closed(): boolean {
    return this.#closed;
  }

  /** Throws `CLOSED`, and `BAD_OPTION` for what is no non-negative integer. */
  signal(value: number): void {
    if (this.#closed) throw closedError("the event");
    assertEventValue(value);
    if (value <= this.#value) return;
    this.#value = value;
    const reached = this.#waiters.filter((waiter) => waiter.value <= value);
    if (reached.length === 0) return;
    this.#waiters = this.#waiters.filter((waiter) => waiter.value > value);
    for (const waiter of reached) waiter.reached(undefined);
  }

  reached(value: number): Promise<void> {
    return new Promise((resolve, reject) => {
      assertEventValue(value);
      this.whenReached(value, (error) => (error === undefined ? resolve() : reject(error)));
    });
  }

  /** Calls `reached` now or later. Returns what takes it back. */
  whenReached(value: number, reached: Reached): () => void {
    if (this.#closed) reached(closedError("the event"));
    else if (this.#value >= value) reached(undefined);
    else {
      const waiter = { value, reached };
      this.#waiters.push(waiter);
      return () => {
        this.#waiters = this.#waiters.filter((other) => other !== waiter);
      };
    }
    return () => {};
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    const waiters = this.#waiters;
    this.#waiters = [];
    for (const waiter of waiters) waiter.reached(closedError("the event"));
  }

  [Symbol.dispose](): void {
    this.close();
  }
}
