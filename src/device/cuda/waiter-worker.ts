/** The Worker that waits for one stream: it sleeps in the driver until each event, in their order. */
import { openDriver } from "./driver.ts";
import { WAIT_CONTROL } from "./wait-control.ts";

/** The first and only message to it. */
export interface WaiterStart {
  readonly library: string;
  /** The CUcontext. */
  readonly context: number;
  readonly control: Int32Array<SharedArrayBuffer>;
  /** CUevents. */
  readonly ring: Float64Array<SharedArrayBuffer>;
}

/** The driver's result for the next event. */
export type WaiterAnswer = number;

declare const self: Worker;

self.onmessage = ({ data: { library, context, control, ring } }: MessageEvent<WaiterStart>) => {
  const { symbols } = openDriver(library);
  const current = symbols.cuCtxSetCurrent(context);
  let next = 0;
  for (;;) {
    const head = Atomics.load(control, WAIT_CONTROL.head);
    if (Atomics.load(control, WAIT_CONTROL.stop) === 1) return;
    if (head === (next | 0)) {
      Atomics.wait(control, WAIT_CONTROL.head, head);
      continue;
    }
    const event = ring[next % ring.length]!;
    next++;
    const answer: WaiterAnswer = current !== 0 ? current : symbols.cuEventSynchronize(event);
    self.postMessage(answer);
  }
};
