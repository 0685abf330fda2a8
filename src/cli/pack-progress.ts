/** The live bar of packing and verifying: bytes of what is read, on a terminal, on stderr. */
import { bytesText, isTerminal, timeText } from "./output.ts";

/** Draws, and lines of `--progress`, are this far apart, ms. */
const EVERY_MS = 100;
const LINE_EVERY_MS = 5000;
/** Columns that the long form of the bar takes. */
const WIDE = 110;

/** A bar on a terminal, or with `lines` a line every 5 s in a pipe; nothing elsewhere. */
export class BytesBar implements Disposable {
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

  /** `text` stands behind the rate: rows, shards. */
  update(bytes: number, totalBytes: number, text: string): void {
    if (this.#silent || this.#stopped) return;
    const now = performance.now();
    if (now - this.#lastMs < (this.#lines ? LINE_EVERY_MS : EVERY_MS)) return;
    this.#lastMs = now;
    const all = this.#text(bytes, totalBytes, text, now);
    if (this.#lines) console.error(`headrace: ${all}`);
    else if (this.#bar !== undefined) this.#bar.update(bytes, { text: all });
    else if (!this.#opening) {
      this.#opening = true;
      void this.#open(totalBytes, bytes, all);
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

  #text(bytes: number, totalBytes: number, text: string, now: number): string {
    const ms = Math.max(now - this.#started, 1);
    const eta = bytes === 0 ? "unknown" : timeText((ms * Math.max(totalBytes - bytes, 0)) / bytes);
    return `${bytesText(bytes)}/${bytesText(totalBytes)} | ${bytesText((bytes * 1000) / ms)}/s | ${text} | ETA ${eta}`;
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
