/** The live bar of a long run: on a terminal only, on stderr, so that stdout stays clean. */
import { bytesText, countText, isTerminal } from "./output.ts";

/** Draws are this far apart, ms. */
const EVERY_MS = 100;
/** Columns that the long form of the bar takes. */
const WIDE = 110;

export interface Progress {
  update(samples: number, bytes: number): void;
  stop(): void;
}

/** A bar up to `total` samples for a run that began at `startedMs` on the clock of `performance.now()`;
 * undefined in a pipe. */
export async function openProgress(total: number, startedMs: number): Promise<Progress | undefined> {
  if (!isTerminal(2)) return undefined;
  const { default: cliProgress } = await import("cli-progress");
  const wide = (process.stderr.columns ?? WIDE) >= WIDE;
  const bar = new cliProgress.SingleBar(
    {
      format: wide
        ? "{bar} {percentage}% | {samples}/{all} samples | {rate} samples/s | {speed}/s | ETA {eta_formatted}"
        : "{bar} {percentage}% | {rate} samples/s | {speed}/s | ETA {eta_formatted}",
      stream: process.stderr,
      hideCursor: true,
      clearOnComplete: true,
      barsize: wide ? 24 : 12,
    },
    cliProgress.Presets.shades_classic,
  );
  let drawn = Number.NEGATIVE_INFINITY;
  const payload = (samples: number, bytes: number, now: number) => {
    const seconds = Math.max((now - startedMs) / 1000, 1e-3);
    return {
      samples: countText(samples),
      all: countText(total),
      rate: countText(samples / seconds),
      speed: bytesText(bytes / seconds),
    };
  };
  bar.start(total, 0, payload(0, 0, startedMs));
  return {
    update(samples, bytes) {
      const now = performance.now();
      if (now - drawn < EVERY_MS) return;
      drawn = now;
      bar.update(samples, payload(samples, bytes, now));
    },
    stop: () => bar.stop(),
  };
}
