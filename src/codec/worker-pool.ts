/** Workers that do pieces of one kind of work side by side, each answering in the order of what it was given. */
import { HeadraceError } from "../errors.ts";

/** What differs from one kind of work to another. */
export interface WorkerKind {
  /** For messages, behind "a thread that": `compresses`. */
  readonly does: string;
  /** Starts a Worker, which was told what it has to know before its first piece of work. */
  start(): Worker;
  /** Ends one that nothing is awaited of any more. */
  end(worker: Worker): void;
}

interface Thread<Done> {
  readonly worker: Worker;
  /** What waits for its answers, in their order. */
  readonly waiting: PromiseWithResolvers<Done>[];
}

/** Starts Workers as work comes. Owned by who made it; ends with {@link WorkerPool.close}. */
export class WorkerPool<Work, Done> {
  readonly #kind: WorkerKind;
  readonly #numThreads: number;
  readonly #threads: Thread<Done>[] = [];
  #broken: HeadraceError | undefined;

  constructor(kind: WorkerKind, numThreads: number) {
    this.#kind = kind;
    this.#numThreads = numThreads;
  }

  /** What a Worker answers to `work`; buffers in `transfer` are its own from here on. Rejects with `DEVICE_FAILED` where
   * any Worker died, or `work` alone cannot be given to one, and with `CLOSED` after the end. Nobody needs to wait for
   * the answer. */
  run(work: Work, transfer: Transferable[]): Promise<Done> {
    if (this.#broken !== undefined) return Promise.reject(this.#broken);
    const { worker, waiting } = this.#choose();
    const answer = Promise.withResolvers<Done>();
    answer.promise.catch(() => {});
    try {
      worker.postMessage(work, transfer);
      // Not before: a place in the order belongs to work that will be answered.
      waiting.push(answer);
    } catch (cause) {
      answer.reject(this.#notGiven(cause));
    }
    return answer.promise;
  }

  close(): void {
    this.#break(new HeadraceError("CLOSED", `what ${this.#kind.does} was closed`));
  }

  #notGiven(cause: unknown): HeadraceError {
    const reason = cause instanceof Error ? cause.message : String(cause);
    const text = `a thread that ${this.#kind.does} was not given its work: ${reason}`;
    return new HeadraceError("DEVICE_FAILED", text, { cause });
  }

  /** The one that has least to do, or another one rather than one that is busy. */
  #choose(): Thread<Done> {
    const idlest = this.#threads.toSorted((a, b) => a.waiting.length - b.waiting.length)[0];
    if (idlest === undefined) return this.#start();
    const isFull = this.#threads.length === this.#numThreads;
    return isFull || idlest.waiting.length === 0 ? idlest : this.#start();
  }

  #start(): Thread<Done> {
    const worker = this.#kind.start();
    const waiting: PromiseWithResolvers<Done>[] = [];
    worker.onmessage = ({ data }: MessageEvent<Done>) => waiting.shift()?.resolve(data);
    worker.onerror = (event) => {
      event.preventDefault?.();
      const [reason] = event.message.split("\n");
      this.#break(new HeadraceError("DEVICE_FAILED", `a thread that ${this.#kind.does} has died: ${reason}`));
    };
    const thread = { worker, waiting };
    this.#threads.push(thread);
    return thread;
  }

  #break(error: HeadraceError): void {
    this.#broken ??= error;
    for (const { worker, waiting } of this.#threads.splice(0)) {
      this.#kind.end(worker);
      for (const { reject } of waiting.splice(0)) reject(error);
    }
  }
}
