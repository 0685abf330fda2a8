/** Brings rows from their source to the scheduler, as far as it has room for them. */
import type { InferRequest } from "./engine.ts";
import type { Scheduler } from "./scheduler.ts";

/** Pulls one row at a time. */
export class Feeder {
  readonly #source: AsyncIterator<InferRequest>;
  readonly #scheduler: Scheduler;
  readonly #onChange: () => void;
  #pulling = false;
  #pending = false;
  #ended = false;
  /** The source has said that it is done, or has failed. */
  #exhausted = false;
  #stopped: Promise<void> | undefined;
  #failed: { readonly error: unknown } | undefined;

  /** Calls `onChange` when a row has come, and when no more will. */
  constructor(source: AsyncIterator<InferRequest>, scheduler: Scheduler, onChange: () => void) {
    this.#source = source;
    this.#scheduler = scheduler;
    this.#onChange = onChange;
  }

  /** Whether the source has been asked and has not answered. */
  get pending(): boolean {
    return this.#pending;
  }

  get ended(): boolean {
    return this.#ended;
  }

  /** What the source threw, or what it gave that was no row. */
  get failed(): { readonly error: unknown } | undefined {
    return this.#failed;
  }

  /** Pulls while there is room. Call it when there may be some. */
  fill(): void {
    if (this.#pulling || this.#ended || this.#scheduler.room === 0) return;
    this.#pulling = true;
    void this.#pull();
  }

  /** Asks for no more. A row that is on its way is dropped, and not waited for: a source that hangs holds nothing up. */
  stop(): Promise<void> {
    this.#stopped ??= this.#stop();
    return this.#stopped;
  }

  async #stop(): Promise<void> {
    this.#end();
    if (this.#exhausted) return;
    const returned = this.#source.return?.();
    if (this.#pending) returned?.catch(() => {});
    else await returned;
  }

  async #pull(): Promise<void> {
    try {
      while (!this.#ended && this.#scheduler.room > 0) {
        const next = await this.#next();
        if (this.#ended) return;
        if (next.done) this.#end();
        else this.#scheduler.add(next.value);
        this.#onChange();
      }
    } catch (error) {
      // What fails while nobody asks any more is of no interest.
      if (this.#ended) return;
      this.#failed = { error };
      this.#end();
      this.#onChange();
    } finally {
      this.#pulling = false;
    }
  }

  async #next(): Promise<IteratorResult<InferRequest>> {
    this.#pending = true;
    try {
      const next = await this.#source.next();
      this.#exhausted = next.done === true;
      return next;
    } catch (error) {
      this.#exhausted = true;
      throw error;
    } finally {
      this.#pending = false;
    }
  }

  #end(): void {
    this.#ended = true;
    this.#scheduler.end();
  }
}
