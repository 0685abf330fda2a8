/** Lets one call at a time into an engine, and none once it is closed. */
import { HeadraceError } from "../../errors.ts";

export class Turn {
  readonly #what: string;
  #busy: Promise<unknown> | undefined;
  #closing: Promise<void> | undefined;

  /** `what` names the engine in errors. */
  constructor(what: string) {
    this.#what = what;
  }

  /** Throws `CLOSED` once {@link Turn.close} was called. */
  checkOpen(): void {
    if (this.#closing !== undefined) throw new HeadraceError("CLOSED", `${this.#what} is closed`);
  }

  /** Runs `work`. Throws `CLOSED`, and `BAD_OPTION` where the call before has not ended. */
  async take<T>(work: () => Promise<T>): Promise<T> {
    this.checkOpen();
    if (this.#busy !== undefined) {
      const text = `${this.#what} is in the middle of a step; wait for it before the next call`;
      throw new HeadraceError("BAD_OPTION", text);
    }
    const running = work();
    this.#busy = running;
    try {
      return await running;
    } finally {
      this.#busy = undefined;
    }
  }

  /** Runs `work` once, after the call that is under way. */
  close(work: () => Promise<void>): Promise<void> {
    this.#closing ??= (async () => {
      await this.#busy?.catch(() => undefined);
      await work();
    })();
    return this.#closing;
  }
}
