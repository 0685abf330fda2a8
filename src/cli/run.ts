/** One run through a loader: takes every batch, and measures on the way. */
import { readFileSync } from "node:fs";
import type { Batch, Loader, ShardPath } from "../index.ts";
import { HeadraceError, HostReader, Quantiles, saveText } from "../index.ts";
import type { LoadFlags } from "./load.ts";
import { amountText, bytesText, countText, printPairs, timeText } from "./output.ts";
import { type Prepared, preparedText } from "./prepare.ts";
import { openProgress, type Progress } from "./progress.ts";

/** How often `--state` is written while loading, ms. */
const STATE_EVERY_MS = 5000;
/** A shorter run shows no bar, ms. */
const BAR_AFTER_MS = 150;
/** Bytes between the touches that bring a mapped page in. */
const TOUCH_STRIDE = 4096;

/** Borrows its loader. `startedMs` is when the command began, on the clock of `performance.now()`. */
export class Run {
  readonly #loader: Loader;
  readonly #flags: LoadFlags;
  readonly #started: number;
  readonly #signal: AbortSignal;
  readonly #prepared: Prepared | undefined;
  readonly #reader: HostReader;
  readonly #hashes = new Map<string, Bun.CryptoHasher>();
  readonly #waits = new Quantiles();
  #firstBatchMs = 0;
  #endedMs = 0;
  #stateSavedMs = 0;
  #interrupted = false;
  #progress: Progress | undefined;

  constructor(
    loader: Loader,
    flags: LoadFlags,
    startedMs: number,
    signal: AbortSignal,
    prepared: Prepared | undefined,
  ) {
    this.#prepared = prepared;
    this.#loader = loader;
    this.#reader = new HostReader(loader.device);
    this.#flags = flags;
    this.#started = startedMs;
    this.#signal = signal;
  }

  /** Whether the signal ended it. */
  get interrupted(): boolean {
    return this.#interrupted;
  }

  /** Takes every batch until the end or the signal. The state is saved however it ends. */
  async consume(): Promise<void> {
    try {
      await this.#takeAll();
    } catch (error) {
      const cancelled = error instanceof HeadraceError && error.code === "CANCELLED";
      if (!cancelled || !this.#signal.aborted) throw error;
      this.#interrupted = true;
    } finally {
      this.#endedMs = performance.now();
      this.#progress?.stop();
      this.saveState();
      await this.#reader.close();
    }
  }

  /** Leaves at once, but the terminal and the state whole. */
  abandon(): void {
    this.#progress?.stop();
    this.saveState();
  }

  /** Writes the state where one was asked for. */
  saveState(): void {
    this.#stateSavedMs = performance.now();
    if (this.#flags.state !== undefined)
      saveText(this.#flags.state, `${JSON.stringify(this.#loader.state())}\n`);
  }

  /** What `--json` prints. Times in ms where the name says so, rates a second. */
  report() {
    const { stats } = this.#loader;
    const seconds = (this.#endedMs - this.#started) / 1000;
    const paths = pathCounts(this.#loader.dataset.paths.values());
    const state = this.#loader.state();
    return {
      dataset: this.#loader.dataset.title,
      device: this.#loader.device.capabilities.name,
      strategy: strategyText(paths) ?? this.#flags.strategy,
      samples: stats.samples,
      batches: stats.batches,
      bytes: stats.bytes,
      ...(stats.decodedBytes > 0 ? { decodedBytes: stats.decodedBytes } : {}),
      seconds,
      firstBatchMs: this.#firstBatchMs,
      samplesPerSecond: stats.samples / seconds,
      bytesPerSecond: stats.bytes / seconds,
      batchMsP50: this.#waits.at(0.5),
      batchMsP99: this.#waits.at(0.99),
      peakRssBytes: peakRssBytes(),
      epochs: state.epoch,
      state,
      paths: Object.fromEntries(paths),
      ...(this.#prepared === undefined ? {} : { prepared: this.#prepared }),
      ...(this.#interrupted ? { interrupted: true } : {}),
      ...(this.#flags.digest ? { digests: this.#digests() } : {}),
    };
  }

  /** The closing table. */
  print(): void {
    const report = this.report();
    const { stats } = this.#loader;
    const rows: [string, string][] = [
      ["dataset", `${report.dataset} (${amountText(this.#loader.dataset.numShards, "shard")})`],
      ["device", report.device],
      ...Object.entries(report.paths).map(([path, count]): [string, string] => [
        "path",
        `${path}, ${amountText(count, "shard")}`,
      ]),
      ...(this.#prepared === undefined
        ? []
        : [["stream cache", preparedText(this.#prepared)] as [string, string]]),
      ["samples", `${countText(report.samples)} in ${amountText(report.batches, "batch", "batches")}`],
      ["bytes", bytesText(report.bytes)],
      ...(stats.decodedBytes > 0 ? [["decoded", bytesText(stats.decodedBytes)] as [string, string]] : []),
      ["time", `${timeText(report.seconds * 1000)}, first batch after ${timeText(report.firstBatchMs)}`],
      ["rate", `${countText(report.samplesPerSecond)} samples/s, ${bytesText(report.bytesPerSecond)}/s`],
      ["wait for a batch", `${timeText(report.batchMsP50)} median, ${timeText(report.batchMsP99)} p99`],
      ["peak memory", bytesText(report.peakRssBytes)],
      ["position", `epoch ${report.state.epoch}, sample ${countText(report.state.position)}`],
      ...Object.entries(report.digests ?? {}).map(([name, digest]): [string, string] => [
        `sha256 ${name}`,
        digest,
      ]),
    ];
    printPairs(rows);
  }

  async #takeAll(): Promise<void> {
    const loader = this.#loader;
    let asked = performance.now();
    let barDue = this.#flags.json ? Number.POSITIVE_INFINITY : asked + BAR_AFTER_MS;
    let first = true;
    for await (using batch of loader) {
      const now = performance.now();
      if (first) this.#firstBatchMs = now - this.#started;
      first = false;
      this.#waits.add(now - asked);
      if (this.#flags.digest) await this.#hash(batch);
      else touch(batch);
      if (now > barDue) {
        barDue = Number.POSITIVE_INFINITY;
        this.#progress = await openProgress(this.#samplesInAll(), this.#started);
      }
      if (this.#progress !== undefined) this.#progress.update(loader.stats.samples, loader.stats.bytes);
      if (now - this.#stateSavedMs > STATE_EVERY_MS) this.saveState();
      asked = performance.now();
    }
  }

  /** About as many samples as this run will have had at its end, for the bar. */
  #samplesInAll(): number {
    const { epoch, position } = this.#loader.state();
    const perEpoch = this.#loader.samplesPerEpoch;
    const left = Math.max(0, (this.#flags.epochs - epoch) * perEpoch - position);
    const share = this.#loader.stats.samples + Math.ceil(left / this.#flags.worldSize);
    return Math.min(share, Number.MAX_SAFE_INTEGER);
  }

  /** In the order of the batches, and within one of the columns. */
  async #hash(batch: Batch): Promise<void> {
    for (const column of batch.columns.values()) {
      const hash = this.#hashOf(column.name);
      for await (const bytes of this.#reader.chunks(column)) hash.update(bytes);
    }
  }

  #hashOf(name: string): Bun.CryptoHasher {
    let hash = this.#hashes.get(name);
    if (hash === undefined) {
      hash = new Bun.CryptoHasher("sha256");
      this.#hashes.set(name, hash);
    }
    return hash;
  }

  #digests(): Record<string, string> {
    return Object.fromEntries([...this.#hashes].map(([name, hash]) => [name, hash.copy().digest("hex")]));
  }
}

/** Brings every byte in: a mapped page that nobody touched was not loaded. */
function touch(batch: Batch): void {
  for (const column of batch.columns.values()) {
    if (!column.mapped || !column.hostVisible) continue;
    for (const bytes of column.chunks()) for (let at = 0; at < bytes.length; at += TOUCH_STRIDE) bytes[at];
  }
}

/** Shards by the path that they took, and why. Reasons that differ in their numbers alone are one, told in the
 * words of the first. */
export function pathCounts(paths: Iterable<ShardPath>): Map<string, number> {
  const texts = new Map<string, string>();
  const counts = new Map<string, number>();
  for (const { strategy, reason } of paths) {
    const kind = `${strategy} (${reason.replaceAll(/\d+/g, "#")})`;
    const text = texts.get(kind) ?? `${strategy} (${reason})`;
    texts.set(kind, text);
    counts.set(text, (counts.get(text) ?? 0) + 1);
  }
  return counts;
}

/** The strategy of all shards; undefined where none was opened. */
function strategyText(counts: ReadonlyMap<string, number>): string | undefined {
  const strategies = new Set([...counts.keys()].map((key) => key.split(" ")[0]!));
  return strategies.size > 1 ? "mixed" : [...strategies][0];
}

/** Linux's own count, since what it reports of a process's resources begins with its parent's; elsewhere the
 * reported one, which macOS gives in bytes. */
function peakRssBytes(): number {
  if (process.platform !== "linux") return process.resourceUsage().maxRSS;
  const match = /^VmHWM:\s+(\d+) kB$/m.exec(readFileSync("/proc/self/status", "utf8"));
  return match === null ? process.memoryUsage.rss() : Number(match[1]) * 1024;
}
