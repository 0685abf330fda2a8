/**
 * The lanes seen from the JavaScript thread: Workers that make the blocking calls. They start when there is
 * work for them, sleep while there is none, and keep the process alive only while they work.
 */
import { HeadraceError } from "../../errors.ts";
import { Feed, type FeedOptions } from "./feed.ts";
import type { Job, JobEnd, LaneRun, LaneSet } from "./jobs.ts";
import type { LaneStart } from "./lane.ts";
import { Control, ENDED, READY, ROOM } from "./ring.ts";
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
  /** Gives what that Worker needs besides, which is copied to it. */
  readonly extra?: () => unknown;
}

export class Lanes implements LaneSet {
  readonly #options: LanesOptions;
  readonly #feed: Feed;
  readonly #workers: LaneWorker[] = [];
  /** Of the Workers, those that know what to do. */
  #numStarted = 0;
  #numReady = 0;
  readonly #allReady = Promise.withResolvers<void>();
  /** Those that can work and have not ended. */
  readonly #running = new Set<LaneWorker>();
  readonly #allEnded = Promise.withResolvers<void>();
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

  /** Has the system make all Workers, so that they are there when there is work. */
  spawn(): void {
    while (this.#workers.length < this.#options.numLanes) this.#spawn();
  }

  /** Starts all Workers. Resolves when each has told that it can work, or when one has died. */
  warm(): Promise<void> {
    this.#startWorkers(this.#options.numLanes);
    return this.#allReady.promise;
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
    for (const worker of this.#workers) worker.ref();
    // What a lane holds is not the Worker's and would outlive it, so each may end by itself.
    if (this.#running.size > 0) await this.#allEnded.promise;
    for (const worker of this.#workers) worker.terminate();
    await Promise.all(this.#workersGone);
    // Whoever waits for lanes that were still on their way need not go on.
    this.#allReady.resolve();
  }

  #startWorkers(wanted: number): void {
    const { numLanes, faults, extra } = this.#options;
    const numCores = Math.max(2, navigator.hardwareConcurrency);
    while (this.#numStarted < Math.min(wanted, numLanes)) {
      const index = this.#numStarted++;
      if (index === this.#workers.length) this.#spawn();
      const start: LaneStart = { ring: this.#feed.ring, numLanes, index, numCores, faults, extra: extra?.() };
      this.#workers[index]!.postMessage(start);
    }
  }

  #spawn(): void {
    const url = this.#options.worker ?? new URL("./lane-worker.ts", import.meta.url);
    const worker = new Worker(url) as LaneWorker;
    if (this.#numRuns === 0) worker.unref();
    worker.onmessage = (event: MessageEvent<number>) => this.#onMessage(worker, event.data);
    worker.onerror = (event) => this.#break(event.message);
    const { promise, resolve } = Promise.withResolvers<void>();
    worker.addEventListener("close", () => resolve(), { once: true });
    this.#workersGone.push(promise.then(() => this.#laneEnded(worker)));
    this.#workers.push(worker);
  }

  /** By itself, or as it died. */
  #laneEnded(worker: LaneWorker): void {
    this.#running.delete(worker);
    if (this.#running.size === 0) this.#allEnded.resolve();
  }

  #onMessage(worker: LaneWorker, message: number): void {
    if (message === ROOM) this.#feed.fill();
    else if (message === ENDED) this.#laneEnded(worker);
    else if (message === READY) {
      this.#running.add(worker);
      if (++this.#numReady === this.#options.numLanes) this.#allReady.resolve();
    } else this.#feed.slotEnded(message);
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
    this.#allReady.resolve();
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
