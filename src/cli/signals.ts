/** Ctrl-C and SIGTERM: the first asks for an end in order, the second takes it at once. */
import { ExitCode } from "./output.ts";

/** A second signal so soon is the same key press: a terminal signals all of its processes, and those that
 * started this one pass theirs on. */
const SAME_KEY_MS = 500;

/** Listens until it is disposed. */
export class OnSignal implements Disposable {
  /** The first that came. */
  received: NodeJS.Signals | undefined;
  readonly #listener: (signal: NodeJS.Signals) => void;

  /** `first` is called once; `last` before the process ends by a second signal. */
  constructor(first: (signal: NodeJS.Signals) => void, last: () => void) {
    let receivedMs = 0;
    this.#listener = (signal) => {
      if (this.received === undefined) {
        this.received = signal;
        receivedMs = performance.now();
        first(signal);
      } else if (performance.now() - receivedMs > SAME_KEY_MS) {
        last();
        process.exit(exitCodeOf(signal));
      }
    };
    process.on("SIGINT", this.#listener).on("SIGTERM", this.#listener);
  }

  [Symbol.dispose](): void {
    process.off("SIGINT", this.#listener).off("SIGTERM", this.#listener);
  }
}

/** What a shell sees of a process that `signal` ended in order. */
export function exitCodeOf(signal: unknown): number {
  return signal === "SIGTERM" ? ExitCode.terminated : ExitCode.interrupted;
}
