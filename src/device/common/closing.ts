/** What closes once and takes a while over it. */

/** Closing it twice is harmless: there is one end, and all wait for it. */
export abstract class Closing implements Disposable, AsyncDisposable {
  #closing: Promise<void> | undefined;

  /** Does the closing; called once. */
  protected abstract end(): Promise<void>;

  /** Whether `close` was called. */
  protected get isClosing(): boolean {
    return this.#closing !== undefined;
  }

  close(): Promise<void> {
    this.#closing ??= this.end();
    return this.#closing;
  }

  [Symbol.dispose](): void {
    void this.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}
