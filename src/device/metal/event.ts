/** Events: MTLSharedEvents, on which promises wait through a queue of the device's own. */
import { assertEventValue } from "../common/checks.ts";
import { closedError } from "../common/errors.ts";
import type { DeviceEvent } from "../device.ts";
import { type MetalContext, NativeObject } from "./context.ts";

/** Ends when `event` has reached `value`; rejects with `CLOSED` when event or device are closed first. */
export type WaitFor = (event: MetalEvent, value: number) => Promise<void>;

export class MetalEvent extends NativeObject implements DeviceEvent {
  readonly #waitFor: WaitFor;
  #lastValue = 0;

  constructor(context: MetalContext, handle: number, waitFor: WaitFor) {
    super(context, handle, false);
    this.#waitFor = waitFor;
  }

  get value(): number {
    if (!this.closed) this.#lastValue = this.#readValue();
    return this.#lastValue;
  }

  signal(value: number): void {
    if (this.closed) throw closedError("the event");
    assertEventValue(value);
    const { context, handle } = this;
    context.run("the event", () => context.symbols.hr_event_signal(handle, value, context.error.bytes));
  }

  async reached(value: number): Promise<void> {
    assertEventValue(value);
    if (this.closed) throw closedError("the event");
    await this.#waitFor(this, value);
  }

  override close(): void {
    if (this.closed) return;
    this.#lastValue = this.#readValue();
    super.close();
  }

  #readValue(): number {
    const { context, handle } = this;
    const { symbols, numberOut, error } = context;
    context.run("the event", () => symbols.hr_event_value(handle, numberOut, error.bytes));
    return context.takeNumber();
  }
}

/** Throws `OUT_OF_MEMORY` where Metal gives none. */
export function createMetalEvent(context: MetalContext, waitFor: WaitFor): MetalEvent {
  const { symbols, handleOut, error } = context;
  const handle = context.make("an event", () =>
    symbols.hr_event_create(context.handle, handleOut, error.bytes),
  );
  return new MetalEvent(context, handle, waitFor);
}
