/** Runs rows through an engine: the way from requests to outputs. */
import { HeadraceError } from "../errors.ts";
import type { Tracer } from "../loader/trace.ts";
import { checkInteger } from "../plan/check.ts";
import type { Engine, InferRequest } from "./engine.ts";
import type { MetricsSnapshot } from "./metrics.ts";
import type { InferOutput } from "./output.ts";
import { Run } from "./run.ts";
import type { SchedulerOptions } from "./scheduling.ts";

/** All of it is optional. */
export interface GenerateOptions extends SchedulerOptions {
  /** Ends the job at once, as far as the engine lets it: after the step that is under way. Iteration then throws
   * `CANCELLED`, behind the outputs that were there. */
  readonly signal?: AbortSignal | undefined;
  /** Ends the job in good order: takes in no more rows, begins none, and finishes those that run. Rows that were not
   * begun have no output. */
  readonly drain?: AbortSignal | undefined;
  /** Outputs that may wait to be taken before the job waits for that; default four times the slots. */
  readonly maxFinished?: number | undefined;
  /** Called every `metricsEveryMs` with what was done since the last time, and since the job began. */
  readonly onMetrics?: ((recent: MetricsSnapshot, whole: MetricsSnapshot) => void) | undefined;
  /** Default 1000. */
  readonly metricsEveryMs?: number | undefined;
  /** Records the steps, and the waits between them. */
  readonly tracer?: Tracer | undefined;
}

/** The outputs of a job, to be iterated once, and what is known of it. */
export interface Generation extends AsyncIterable<InferOutput> {
  /** What was done so far; all of it once the iteration has ended. */
  readonly metrics: MetricsSnapshot;
}

/**
 * Runs each of `requests`, which may be an array, through `engine`, and gives an output for each in the order in which they end. The job begins
 * with the first `next`, and goes on by itself while outputs are handled: rows are pulled as far as `maxWaiting` allows,
 * and steps are done while anything runs and fewer than `maxFinished` outputs wait.
 *
 * A row that cannot run, fails, is cancelled or times out has an output with `error`. What `requests` throws comes behind
 * the outputs of all rows that came before it; what the engine throws behind those that were there. A loop that is left
 * early ends the job; outputs that were not taken are lost, and what they hold of the device is released.
 *
 * Borrows `engine`, all of whose slots are free when the iteration has ended. Throws `BAD_OPTION`; iteration throws
 * `CANCELLED`, `BAD_ENGINE`, `BAD_OPTION` for requests that are none, and what `requests` and `engine` throw.
 */
export function generate(
  requests: AsyncIterable<InferRequest> | Iterable<InferRequest>,
  engine: Engine,
  options: GenerateOptions = {},
): Generation {
  if (options.maxFinished !== undefined) checkInteger("maxFinished", options.maxFinished, 1);
  if (options.metricsEveryMs !== undefined) checkInteger("metricsEveryMs", options.metricsEveryMs, 1);
  const run = new Run(requests, engine, options);
  let iterated = false;
  return {
    get metrics() {
      return run.metrics;
    },
    [Symbol.asyncIterator]() {
      if (iterated) throw new HeadraceError("BAD_OPTION", "a job's outputs can be iterated only once");
      iterated = true;
      return new OutputIterator(run);
    },
  };
}

/** What a `for await` loop talks to. */
class OutputIterator implements AsyncIterator<InferOutput, undefined> {
  readonly #run: Run;
  #taking = false;
  #done = false;

  constructor(run: Run) {
    this.#run = run;
  }

  async next(): Promise<IteratorResult<InferOutput, undefined>> {
    if (this.#taking) {
      throw new HeadraceError("BAD_OPTION", "next() was called before the last call had ended");
    }
    if (this.#done) return { done: true, value: undefined };
    this.#taking = true;
    try {
      const value = await this.#run.take();
      if (value !== undefined) return { done: false, value };
      this.#done = true;
      return { done: true, value };
    } catch (error) {
      this.#done = true;
      throw error;
    } finally {
      this.#taking = false;
    }
  }

  async return(): Promise<IteratorResult<InferOutput, undefined>> {
    this.#done = true;
    await this.#run.stop();
    return { done: true, value: undefined };
  }
}
