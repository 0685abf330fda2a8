/** The loop of one job: rows in, steps, outputs out, until nothing is left. */
import { HeadraceError } from "../errors.ts";
import type { Engine, InferRequest, SlotResult } from "./engine.ts";
import { Feeder } from "./feeder.ts";
import type { GenerateOptions } from "./generate.ts";
import { Metrics, type MetricsSnapshot } from "./metrics.ts";
import { Outlet } from "./outlet.ts";
import type { InferOutput } from "./output.ts";
import { checkResults } from "./results.ts";
import { Scheduler } from "./scheduler.ts";
import { checkEngine, checkIterable, iteratorOf } from "./shape.ts";
import type { StepPlan } from "./step.ts";

/** How long steps may follow one another without a wait, ms, before timers, signals and other connections of the process
 * get their turn: an engine on the host never waits for anything. */
const TURN_EVERY_MS = 10;
/** How long rows that wait may be cancelled or overdue before it is seen while nothing runs, ms. */
const LOOK_EVERY_MS = 100;
const METRICS_EVERY_MS = 1000;

/** Begins with the first {@link Run.take}. */
export class Run {
  readonly #requests: AsyncIterable<InferRequest> | Iterable<InferRequest>;
  readonly #engine: Engine;
  readonly #options: GenerateOptions;
  readonly #scheduler: Scheduler;
  readonly #outlet: Outlet;
  readonly #metrics: Metrics;
  readonly #wakeUp = () => this.#wake?.();
  #feeder: Feeder | undefined;
  #running: Promise<void> | undefined;
  #wake: (() => void) | undefined;
  #turnedMs = 0;
  #numSteps = 0;
  #draining = false;
  /** Nobody takes outputs any more. */
  #left = false;
  /** An end was asked for while nothing waited. */
  #interrupted = false;
  #onMetricsFailed: { readonly error: unknown } | undefined;

  constructor(
    requests: AsyncIterable<InferRequest> | Iterable<InferRequest>,
    engine: Engine,
    options: GenerateOptions,
  ) {
    checkIterable(requests);
    checkEngine(engine);
    this.#requests = requests;
    this.#engine = engine;
    this.#options = options;
    this.#scheduler = new Scheduler(engine.capacity, engine, options);
    const { numSlots } = this.#scheduler;
    this.#outlet = new Outlet(options.maxFinished ?? 4 * numSlots);
    this.#metrics = new Metrics(numSlots, this.#scheduler.counts, performance.now());
  }

  get metrics(): MetricsSnapshot {
    return this.#metrics.snapshot(performance.now());
  }

  /** The next output; undefined at the end. Throws what the job ended with. */
  take(): Promise<InferOutput | undefined> {
    this.#running ??= this.#run();
    return this.#outlet.take();
  }

  /** Ends the job early. Resolves when it has let go of everything. */
  async stop(): Promise<void> {
    this.#left = true;
    this.#interrupt();
    await this.#running;
    this.#outlet.discard();
  }

  async #run(): Promise<void> {
    this.#metrics.begin(performance.now());
    const { signal, drain } = this.#options;
    const ticking = this.#startMetrics();
    const interrupt = () => this.#interrupt();
    signal?.addEventListener("abort", interrupt);
    drain?.addEventListener("abort", interrupt);
    let failed: { readonly error: unknown } | undefined;
    try {
      this.#feeder = new Feeder(iteratorOf(this.#requests), this.#scheduler, this.#wakeUp);
      await this.#loop(this.#feeder);
      failed = this.#feeder.failed;
    } catch (error) {
      failed = { error };
    }
    failed = await this.#cleanUp(failed);
    signal?.removeEventListener("abort", interrupt);
    drain?.removeEventListener("abort", interrupt);
    clearInterval(ticking);
    this.#metrics.end(performance.now());
    this.#outlet.end(failed);
  }

  /** Frees slots and source; the first failure, also of that. */
  async #cleanUp(failed: { readonly error: unknown } | undefined): Promise<typeof failed> {
    let first = failed;
    try {
      this.#deliver();
      this.#scheduler.abort();
    } catch (error) {
      first ??= { error };
    }
    try {
      await this.#feeder?.stop();
    } catch (error) {
      first ??= { error };
    }
    return first;
  }

  async #loop(feeder: Feeder): Promise<void> {
    this.#turnedMs = performance.now();
    while (!this.#left) {
      this.#checkEnd(feeder);
      feeder.fill();
      if (this.#outlet.full) {
        await this.#waitForTaker();
        continue;
      }
      // A source that has its rows at hand fills the free slots within a turn.
      if (this.#scheduler.starved && feeder.pending) await this.#turn();
      const plan = this.#scheduler.plan(performance.now());
      this.#deliver();
      if (plan.chunks.length > 0 || plan.slots.length > 0) await this.#step(plan);
      else if (feeder.ended && this.#scheduler.idle) return;
      else await this.#waitForRows(feeder);
      if (performance.now() - this.#turnedMs > TURN_EVERY_MS) await this.#turn();
    }
  }

  #checkEnd(feeder: Feeder): void {
    const { signal, drain } = this.#options;
    if (this.#onMetricsFailed !== undefined) throw this.#onMetricsFailed.error;
    if (signal?.aborted) {
      throw new HeadraceError("CANCELLED", "inference was cancelled", { cause: signal.reason });
    }
    if (!drain?.aborted || this.#draining) return;
    this.#draining = true;
    this.#scheduler.drain();
    // What it throws comes when the job is cleaned up.
    feeder.stop().catch(() => {});
  }

  async #step(plan: StepPlan): Promise<void> {
    const startMs = performance.now();
    const results = await this.#callEngine(plan);
    const endMs = performance.now();
    const { firstTokenMs } = this.#scheduler.apply(results, endMs);
    const { numRunning, prefillTokens } = plan;
    this.#metrics.step({ durationMs: endMs - startMs, numRunning, firstTokenMs });
    const args = { running: numRunning, prefilled: prefillTokens, decoded: plan.slots.length };
    this.#options.tracer?.span("infer: steps", `step ${this.#numSteps}`, startMs, endMs, args);
    this.#numSteps++;
    this.#deliver();
  }

  async #callEngine({ chunks, slots }: StepPlan): Promise<readonly SlotResult[]> {
    const engine = this.#engine;
    const chunkSlots = chunks.map(({ slot }) => slot);
    if (engine.step !== undefined) {
      const results = await engine.step(chunks, slots);
      checkResults(results, "step", [...chunkSlots, ...slots]);
      return results;
    }
    const prefilled = chunks.length > 0 ? await engine.prefill(chunks) : [];
    checkResults(prefilled, "prefill", chunkSlots);
    const decoded = slots.length > 0 ? await engine.decode(slots) : [];
    checkResults(decoded, "decode", slots);
    return [...prefilled, ...decoded];
  }

  #deliver(): void {
    for (const output of this.#scheduler.takeFinished()) {
      this.#metrics.row(output.finish === "error");
      this.#outlet.push(output);
    }
  }

  async #waitForTaker(): Promise<void> {
    const startMs = performance.now();
    await this.#outlet.room();
    this.#waited("output", startMs);
  }

  /** Waits for a row, for one's next try, or for an end. */
  async #waitForRows(feeder: Feeder): Promise<void> {
    if (this.#interrupted) {
      this.#interrupted = false;
      return;
    }
    // What has just ended made room.
    feeder.fill();
    const startMs = performance.now();
    const forData = feeder.pending;
    const look = this.#scheduler.numWaiting > 0 ? LOOK_EVERY_MS : Number.POSITIVE_INFINITY;
    const mostMs = Math.min(look, Math.max(0, this.#scheduler.nextWakeMs - startMs));
    let timer: ReturnType<typeof setTimeout> | undefined;
    await new Promise<void>((resolve) => {
      this.#wake = resolve;
      if (mostMs < Number.POSITIVE_INFINITY) timer = setTimeout(resolve, Math.ceil(mostMs));
    });
    this.#wake = undefined;
    clearTimeout(timer);
    if (forData) this.#waited("data", startMs);
  }

  #waited(what: "data" | "output", startMs: number): void {
    const endMs = performance.now();
    this.#metrics.wait(what, endMs - startMs);
    const name = what === "data" ? "wait for data" : "wait for room for outputs";
    this.#options.tracer?.span("infer: waits", name, startMs, endMs);
  }

  async #turn(): Promise<void> {
    await new Promise(setImmediate);
    this.#turnedMs = performance.now();
  }

  #interrupt(): void {
    this.#interrupted = true;
    this.#wake?.();
    this.#outlet.interrupt();
  }

  #startMetrics(): ReturnType<typeof setInterval> | undefined {
    const { onMetrics, metricsEveryMs = METRICS_EVERY_MS } = this.#options;
    if (onMetrics === undefined) return undefined;
    return setInterval(() => {
      const nowMs = performance.now();
      try {
        onMetrics(this.#metrics.interval(nowMs), this.#metrics.snapshot(nowMs));
      } catch (error) {
        this.#onMetricsFailed ??= { error };
        this.#interrupt();
      }
    }, metricsEveryMs);
  }
}
