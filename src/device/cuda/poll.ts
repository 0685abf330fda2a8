/** Asks the driver whether events were reached, between the tasks of the event loop: an answer after some microseconds,
 * where waking a Worker that sleeps in the driver, and hearing of it, takes many times as long. */
import type { CudaContext } from "./context.ts";
import { NOT_READY } from "./errors.ts";

interface Asked {
  readonly event: number;
  readonly untilMs: number;
  readonly answered: (result: number | undefined) => void;
}

export class Poll {
  readonly #context: CudaContext;
  #asked: Asked[] = [];
  #running = false;

  constructor(context: CudaContext) {
    this.#context = context;
  }

  /** Calls `answered` with the driver's result for a CUevent once that was reached, or with undefined when it was not by
   * `untilMs`, in the clock of `performance.now()`. Takes a core until then. */
  add(event: number, untilMs: number, answered: Asked["answered"]): void {
    this.#asked.push({ event, untilMs, answered });
    if (this.#running) return;
    this.#running = true;
    setImmediate(() => this.#ask());
  }

  #ask(): void {
    const { symbols } = this.#context.driver;
    const nowMs = performance.now();
    const current = symbols.cuCtxSetCurrent(this.#context.handle);
    const asked = this.#asked;
    // What the answered do may ask anew.
    this.#asked = [];
    const answers: (() => void)[] = [];
    for (const one of asked) {
      const result = current !== 0 ? current : symbols.cuEventQuery(one.event);
      if (result !== NOT_READY) answers.push(() => one.answered(result));
      else if (nowMs >= one.untilMs) answers.push(() => one.answered(undefined));
      else this.#asked.push(one);
    }
    for (const answer of answers) answer();
    if (this.#asked.length > 0) setImmediate(() => this.#ask());
    else this.#running = false;
  }
}
