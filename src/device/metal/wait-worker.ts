/** The wake-up by a Worker that waits in the library, and posts the rows that come. */
import type { Waker } from "./completions.ts";
import type { CompletionsStart } from "./completions-worker.ts";

/** The runtime's Worker: the standard one, and whether it keeps the process alive. */
interface RuntimeWorker extends Worker {
  unref(): void;
}

export class WaitWorker implements Waker {
  readonly #worker: RuntimeWorker;
  readonly #over = Promise.withResolvers<void>();
  readonly #gone: Promise<void>;

  /** `path` is the library's, `device` a handle. `died` is called where the Worker ends by itself. */
  constructor(path: string, device: number, deliver: (rows: Float64Array) => void, died: () => void) {
    const worker = new Worker(new URL("./completions-worker.ts", import.meta.url)) as RuntimeWorker;
    this.#worker = worker;
    worker.unref();
    this.#gone = new Promise((resolve) => worker.addEventListener("close", () => resolve(), { once: true }));
    worker.onmessage = (event: MessageEvent<Float64Array | null>) => {
      if (event.data === null) this.#over.resolve();
      else deliver(event.data);
    };
    worker.onerror = () => {
      this.#over.resolve();
      died();
    };
    worker.postMessage({ path, device } satisfies CompletionsStart);
  }

  /** The Worker must not be ended while it is in the library. */
  async close(): Promise<void> {
    await this.#over.promise;
    this.#worker.terminate();
    await this.#gone;
  }
}
