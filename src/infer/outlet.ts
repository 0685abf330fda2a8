/** Finished outputs on their way to whoever takes them. */
import type { InferOutput } from "./output.ts";

/** A bounded queue between the job, which fills it, and one taker. */
export class Outlet {
  readonly #most: number;
  #outputs: InferOutput[] = [];
  #taken = 0;
  #ended = false;
  #error: unknown;
  #wakeTaker: (() => void) | undefined;
  #wakeFiller: (() => void) | undefined;

  /** `most` outputs may wait; more come in where one step ends several rows. */
  constructor(most: number) {
    this.#most = most;
  }

  get length(): number {
    return this.#outputs.length - this.#taken;
  }

  get full(): boolean {
    return this.length >= this.#most;
  }

  push(output: InferOutput): void {
    this.#outputs.push(output);
    this.#wakeTaker?.();
  }

  /** Nothing more comes; with `failed`, what was pushed can still be taken, and then comes its error. */
  end(failed?: { readonly error: unknown }): void {
    this.#ended = true;
    if (failed !== undefined) this.#error = failed;
    this.#wakeTaker?.();
  }

  /** The next output; undefined at the end. Throws what the job ended with. One call at a time. */
  async take(): Promise<InferOutput | undefined> {
    while (this.length === 0) {
      if (this.#ended) {
        const failed = this.#error as { readonly error: unknown } | undefined;
        this.#error = undefined;
        if (failed !== undefined) throw failed.error;
        return undefined;
      }
      await new Promise<void>((resolve) => {
        this.#wakeTaker = resolve;
      });
      this.#wakeTaker = undefined;
    }
    const output = this.#outputs[this.#taken++]!;
    if (this.#taken === this.#outputs.length) {
      this.#outputs = [];
      this.#taken = 0;
    }
    if (!this.full) this.#wakeFiller?.();
    return output;
  }

  /** Resolves when there is room, or when `interrupt` is called. */
  async room(): Promise<void> {
    if (!this.full || this.#ended) return;
    await new Promise<void>((resolve) => {
      this.#wakeFiller = resolve;
    });
    this.#wakeFiller = undefined;
  }

  /** Ends a wait for room. */
  interrupt(): void {
    this.#wakeFiller?.();
  }

  /** Nobody takes any more: gives back what outputs hold of the device. */
  discard(): void {
    for (const { embedding } of this.#outputs.slice(this.#taken)) embedding?.release();
    this.#outputs = [];
    this.#taken = 0;
  }
}
