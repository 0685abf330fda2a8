/** The loop that every trial runs, whoever makes its batches, and what is counted around it. */
import { readFileSync } from "node:fs";
import { quantile } from "./stats.ts";

/** Quantiles of a batch's latency that a record has. */
const LATENCIES = [0, 0.05, 0.5, 0.95, 0.99, 1];
/** A timer is no finer than this, ms: the rest of a wait is spent in turns of the event loop. */
const TIMER_MS = 2;

/** Batches, and what consumes them. */
export interface Work<T> {
  /** The next batch, or undefined at the end. */
  next(): Promise<T | undefined> | T | undefined;
  /** Consumes every byte of it; the batch is the work's own again afterwards. */
  take(batch: T): Promise<void> | void;
  /** When all is consumed: the checksum, in hex. */
  finish(): Promise<string> | string;
}

export interface Measured {
  readonly seconds: number;
  readonly checksum: string;
  readonly cpuSeconds: number;
  readonly minorFaults: number;
  readonly majorFaults: number;
  readonly batchMs: readonly number[];
  readonly numBatches: number;
  readonly busy?: { readonly computeMs: number; readonly share: number } | undefined;
}

/**
 * Takes every batch of `work`. With `computeMs` each batch keeps the device busy for so long, consuming included; the
 * share that is reported is that time over the whole, both without the first step.
 */
export async function measure<T>(work: Work<T>, computeMs?: number): Promise<Measured> {
  const latencies: number[] = [];
  let firstStepMs = 0;
  const before = process.resourceUsage();
  const started = performance.now();
  for (;;) {
    const asked = performance.now();
    const batch = await work.next();
    if (batch === undefined) break;
    const got = performance.now();
    latencies.push(got - asked);
    await work.take(batch);
    if (computeMs !== undefined) await until(got + computeMs);
    if (latencies.length === 1) firstStepMs = performance.now() - started;
  }
  const checksum = await work.finish();
  const ms = performance.now() - started;
  const after = process.resourceUsage();
  const cpuMicroseconds = after.userCPUTime + after.systemCPUTime - before.userCPUTime - before.systemCPUTime;
  const counted = latencies.length - 1;
  return {
    seconds: ms / 1000,
    checksum,
    cpuSeconds: cpuMicroseconds / 1e6,
    minorFaults: after.minorPageFault - before.minorPageFault,
    majorFaults: after.majorPageFault - before.majorPageFault,
    batchMs: latencyQuantiles(latencies),
    numBatches: latencies.length,
    ...(computeMs === undefined
      ? {}
      : { busy: { computeMs, share: busyShare(computeMs, counted, ms - firstStepMs) } }),
  };
}

/** What a record has of its batches' latencies in ms; zeros where there were none. */
export function latencyQuantiles(latenciesMs: readonly number[]): number[] {
  return LATENCIES.map((share) => (latenciesMs.length === 0 ? 0 : quantile(latenciesMs, share)));
}

/** Of steps after the first: none, where there was but one. */
function busyShare(computeMs: number, steps: number, ms: number): number {
  return steps < 1 ? 0 : Math.min(1, (computeMs * steps) / ms);
}

/** Waits without keeping the thread: what loads in the meantime gets its turns. */
async function until(endMs: number): Promise<void> {
  const left = endMs - performance.now();
  if (left > TIMER_MS) await Bun.sleep(left - TIMER_MS);
  while (performance.now() < endMs) await new Promise(setImmediate);
}

/** The most memory that this process ever had. Linux's own count: what it reports of a process's resources begins
 * with its parent's. */
export function peakRssBytes(): number {
  if (process.platform !== "linux") return process.resourceUsage().maxRSS;
  const match = /^VmHWM:\s+(\d+) kB$/m.exec(readFileSync("/proc/self/status", "utf8"));
  return match === null ? process.memoryUsage.rss() : Number(match[1]) * 1024;
}

/** Memory that the system may not page out, all processes together; undefined where it does not tell. macOS alone. */
export function wiredBytes(): number | undefined {
  if (process.platform !== "darwin") return undefined;
  const text = Bun.spawnSync(["vm_stat"]).stdout.toString();
  const page = /page size of (\d+) bytes/.exec(text)?.[1];
  const wired = /Pages wired down:\s+(\d+)/.exec(text)?.[1];
  return page === undefined || wired === undefined ? undefined : Number(page) * Number(wired);
}
