/** The live bar of packing and verifying: bytes of what is read. */
import { bytesText, timeText } from "./output.ts";
import { exitCodeOf, OnSignal } from "./signals.ts";
import { TextBar } from "./text-bar.ts";

export class BytesBar extends TextBar {
  /** `text` stands behind the rate: rows, shards. */
  updateBytes(bytes: number, totalBytes: number, text: string): void {
    this.update(bytes, totalBytes, (ms) => {
      const eta = bytes === 0 ? "unknown" : timeText((ms * Math.max(totalBytes - bytes, 0)) / bytes);
      return `${bytesText(bytes)}/${bytesText(totalBytes)} | ${bytesText((bytes * 1000) / ms)}/s | ${text} | ETA ${eta}`;
    });
  }
}

/** What `work` gives; or undefined where Ctrl-C or SIGTERM ended it, which is said by `interrupted` and the exit code.
 * The bar is gone then, either way. */
export async function untilSignal<T>(
  bar: BytesBar,
  interrupted: string,
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T | undefined> {
  const cancel = new AbortController();
  using signals = new OnSignal(
    (signal) => {
      cancel.abort(signal);
      bar.stop();
    },
    () => bar.stop(),
  );
  try {
    return await work(cancel.signal);
  } catch (error) {
    if (signals.received === undefined) throw error;
    console.error(`headrace: ${interrupted}`);
    process.exitCode = exitCodeOf(signals.received);
    return undefined;
  } finally {
    bar.stop();
  }
}
