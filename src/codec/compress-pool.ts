/** Workers that compress side by side, started as work comes. */
import { HeadraceError } from "../errors.ts";
import { COMPRESS_END, type CompressDone, type CompressStart, type CompressWork } from "./compress-worker.ts";

interface Thread {
  readonly worker: Worker;
  /** What waits for its answers, in their order. */
  readonly waiting: PromiseWithResolvers<CompressDone>[];
}

/** Owned by who made it; ends with {@link CompressPool.close}. */
export class CompressPool {
  readonly #start: CompressStart;
  readonly #stop = new Int32Array(new SharedArrayBuffer(4));
  readonly #numThreads: number;
  readonly #threads: Thread[] = [];
  #broken: HeadraceError | undefined;

  constructor(start: Omit<CompressStart, "stop">, numThreads: number) {
    this.#start = { ...start, stop: this.#stop };
    this.#numThreads = numThreads;
  }

  /** The buffer is the worker's until the answer brings it back. Rejects with `DEVICE_FAILED` where a thread died. */
  run(work: CompressWork): Promise<CompressDone> {
    if (this.#broken !== undefined) return Promise.reject(this.#broken);
    const thread = this.#choose();
    const answer = Promise.withResolvers<CompressDone>();
    // Whoever asked may have given up by the time of an answer.
    answer.promise.catch(() => {});
    thread.waiting.push(answer);
    thread.worker.postMessage(work, [work.buffer]);
    return answer.promise;
  }

  /** Threads end by themselves, after the chunks that they are at. */
  close(): void {
    this.#break(new HeadraceError("CLOSED", "compression was ended"));
  }

  #choose(): Thread {
    const idlest = this.#threads.toSorted((a, b) => a.waiting.length - b.waiting.length)[0];
    if (idlest !== undefined && (idlest.waiting.length === 0 || this.#threads.length === this.#numThreads)) {
      return idlest;
    }
    const worker = new Worker(new URL("./compress-worker.ts", import.meta.url));
    const thread: Thread = { worker, waiting: [] };
    worker.onmessage = (event: MessageEvent<CompressDone>) => thread.waiting.shift()?.resolve(event.data);
    worker.onerror = (event) => {
      const reason = event.message.split("\n")[0];
      this.#break(new HeadraceError("DEVICE_FAILED", `a thread that compresses has died: ${reason}`));
    };
    worker.postMessage(this.#start);
    this.#threads.push(thread);
    return thread;
  }

  #break(error: HeadraceError): void {
    this.#broken ??= error;
    Atomics.store(this.#stop, 0, 1);
    for (const { worker, waiting } of this.#threads.splice(0)) {
      worker.postMessage(COMPRESS_END);
      for (const { reject } of waiting.splice(0)) reject(error);
    }
  }
}
