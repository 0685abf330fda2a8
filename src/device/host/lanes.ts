/**
 * The lanes seen from the JavaScript thread: Workers that make the blocking calls. They start when there is
 * work for them, sleep while there is none, and keep the process alive only while they work.
 */
import { HeadraceError } from "../../errors.ts";
import { Feed, type FeedOptions } from "./feed.ts";
import type { Job, JobEnd, LaneRun, LaneSet } from "./jobs.ts";
import type { LaneStart } from "./lane.ts";
import { Control, ROOM } from "./ring.ts";
import type { FaultPlan } from "./syscalls.ts";

/** The runtime's Worker: the standard one, and whether it keeps the process alive. */
interface LaneWorker extends Worker {
  ref(): void;
  unref(): void;
}

export interface LanesOptions extends FeedOptions {
  readonly numLanes: number;
  readonly faults: FaultPlan | undefined;
  /** Of a Worker that takes a {@link LaneStart}; default the host's. */
  readonly worker?: URL;
  /** What that Worker needs besides; copied to it. */
  readonly extra?: unknown;
}

export class Lanes implements LaneSet {
  readonly #options: LanesOptions;
  readonly #feed: Feed;
  readonly #workers: LaneWorker[] = [];
  readonly #workersGone: Promise<void>[] = [];
  /** Runs that have not ended. */
  #numRuns = 0;
  #whenIdle: (() => void)[] = [];
  #broken: HeadraceError | undefined;
  #closing: Promise<void> | undefined;

  constructor(options: LanesOptions) {
    this.#options = options;
    this.#feed = new Feed(options, (run, end) => this.#ended(run, end));
  }

  start(job: Job): LaneRun {
    if (this.#broken !== undefined) throw this.#broken;
    // Each job under way may keep a lane busy, or stuck.
    this.#startWorkers(this.#numRuns + job.lanesWanted);
    if (this.#numRuns++ === 0) for (const worker of this.#workers) worker.ref();
    const run = this.#feed.add(job);
    this.#feed.fill();
    return run;
  }

  stop(run: LaneRun): void {
    if (!run.over) this.#feed.stop(run);
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    if (this.#numRuns > 0) await new Promise<void>((resolve) => this.#whenIdle.push(resolve));
    const { control } = this.#feed.ring;
    Atomics.store(control, Control.stop, 1);
    Atomics.store(control, Control.narrow, 0);
    Atomics.notify(control, Control.narrow);
    Atomics.add(control, Control.wake, 1);
    Atomics.notify(control, Control.wake);
    for (const worker of this.#workers) {
      worker.ref();
      worker.terminate();
    }
    await Promise.all(this.#workersGone);
  }

  #startWorkers(wanted: number): void {
    const { numLanes, faults, extra, worker: url } = this.#options;
    while (this.#workers.length < Math.min(wanted, numLanes)) {
      const worker = new Worker(url ?? new URL("./lane-worker.ts", import.meta.url)) as LaneWorker;
      if (this.#numRuns === 0) worker.unref();
      worker.onmessage = (event: MessageEvent<number>) => this.#onMessage(event.data);
      worker.onerror = (event) => this.#break(event.message);
      this.#workersGone.push(
        new Promise((resolve) => worker.addEventListener("close", () => resolve(), { once: true })),
      );
      const index = this.#workers.length;
      const numCores = Math.max(2, navigator.hardwareConcurrency);
      const start: LaneStart = { ring: this.#feed.ring, numLanes, index, numCores, faults, extra };
      worker.postMessage(start);
      this.#workers.push(worker);
    }
  }

  #onMessage(message: number): void {
    if (message === ROOM) this.#feed.fill();
    else this.#feed.slotEnded(message);
  }

  #ended(run: LaneRun, end: JobEnd): void {
    if (--this.#numRuns === 0) {
      for (const worker of this.#workers) worker.unref();
      for (const resolve of this.#whenIdle.splice(0)) resolve();
    }
    run.job.ended(end);
  }

  /** A lane died: what it had taken will never be counted down, so everything ends here. */
  async #break(message: string): Promise<void> {
    if (this.#broken !== undefined) return;
    const broken = new HeadraceError("DEVICE_FAILED", `host device: a lane has died: ${message}`);
    this.#broken = broken;
    for (const worker of this.#workers) worker.terminate();
    // A Worker in a system call is gone only when the call has returned; memory is in use until then.
    await Promise.all(this.#workersGone);
    for (const run of this.#feed.abandon()) {
      // Whoever hears of one may stop another.
      if (run.over) continue;
      run.over = true;
      this.#ended(run, { bytesDone: 0, failure: broken });
    }
  }
}
