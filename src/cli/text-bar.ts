/** The live bar of work whose progress is one line of text: on a terminal, on stderr. */
import { isTerminal } from "./output.ts";

/** Draws, and lines of `--progress`, are this far apart, ms. */
const EVERY_MS = 100;
const LINE_EVERY_MS = 5000;
/** Columns that the long form of the bar takes. */
const WIDE = 110;

/** A bar on a terminal, or with `--progress` a line every 5 s in a pipe; nothing elsewhere. */
export class TextBar implements Disposable {
  readonly #started = performance.now();
  readonly #lines: boolean;
  readonly #silent: boolean;
  #bar: import("cli-progress").SingleBar | undefined;
  #lastMs: number;
  #opening = false;
  #stopped = false;

  constructor({ json, progress }: { readonly json?: true; readonly progress?: true }) {
    const onTerminal = isTerminal(2);
    this.#lines = progress === true && !onTerminal;
    this.#silent = !this.#lines && (!onTerminal || (json === true && progress !== true));
    this.#lastMs = this.#lines ? this.#started : Number.NEGATIVE_INFINITY;
  }

  /** `textOf` is called where there is something to draw; it gets the milliseconds since the bar was made. */
  update(done: number, total: number, textOf: (elapsedMs: number) => string): void {
    if (this.#silent || this.#stopped) return;
    const now = performance.now();
    if (now - this.#lastMs < (this.#lines ? LINE_EVERY_MS : EVERY_MS)) return;
    this.#lastMs = now;
    const text = textOf(Math.max(now - this.#started, 1));
    if (this.#lines) console.error(`headrace: ${text}`);
    else if (this.#bar !== undefined) this.#bar.update(done, { text });
    else if (!this.#opening) {
      this.#opening = true;
      void this.#open(total, done, text);
    }
  }

  /** Takes the bar away. Harmless when repeated. */
  stop(): void {
    this.#stopped = true;
    this.#bar?.stop();
    this.#bar = undefined;
  }

  [Symbol.dispose](): void {
    this.stop();
  }

  /** Loads what draws only now: most runs have no terminal. */
  async #open(total: number, done: number, text: string): Promise<void> {
    const { default: cliProgress } = await import("cli-progress");
    if (this.#stopped) return;
    const wide = (process.stderr.columns ?? WIDE) >= WIDE;
    const options = {
      format: wide ? "{bar} {percentage}% | {text}" : "{percentage}% | {text}",
      stream: process.stderr,
      hideCursor: true,
      clearOnComplete: true,
      barsize: 24,
    };
    this.#bar = new cliProgress.SingleBar(options, cliProgress.Presets.shades_classic);
    this.#bar.start(total, done, { text });
  }
}
