/** How rows are scheduled: the options, their checks and defaults. */
import { HeadraceError } from "../errors.ts";
import { checkInteger } from "../plan/check.ts";
import type { EngineCapacity } from "./engine.ts";
import type { Decode } from "./stops.ts";
import type { AdmissionOrder } from "./waiting.ts";

/** The longest time that a failed row waits for its next try where the engine does not say, ms. */
const MOST_DELAY_MS = 30_000;

/** All of it is optional. */
export interface SchedulerOptions {
  /** `continuous`, the default, admits a row as soon as another ends; `static` admits a whole batch, and the next when
   * all of it has ended. */
  readonly mode?: "continuous" | "static" | undefined;
  /** Which of the waiting rows is admitted next; default `fifo`. */
  readonly order?: AdmissionOrder | undefined;
  /** Slots that are used; default and at most the engine's. */
  readonly slots?: number | undefined;
  /** Most tokens of one step; at least the slots that are used, default and at most the engine's. */
  readonly tokensPerStep?: number | undefined;
  /** Rows that may wait for a slot; default four times the slots. */
  readonly maxWaiting?: number | undefined;
  /** Tries after the first of a row whose engine says that another may help; default 3. */
  readonly maxRetries?: number | undefined;
  /** Time before the first of these where the engine does not say it, ms; it doubles with each, up to 30 s. Default
   * 500. */
  readonly retryDelayMs?: number | undefined;
  /** Needed for stop strings, unless the engine takes text; with it outputs have their `text`. */
  readonly decode?: Decode | undefined;
}

/** What has happened so far. */
export interface SchedulerCounts {
  /** Of rows that have not failed, prompts of those that ended. */
  readonly promptTokens: number;
  /** Of rows that have not failed; a token goes again where it is cut off, or its row fails or is tried again. */
  readonly outputTokens: number;
  readonly putBacks: number;
  readonly retries: number;
}

/** The options with their defaults. */
export interface ResolvedScheduling {
  readonly static: boolean;
  readonly order: AdmissionOrder;
  readonly slots: number;
  readonly tokensPerStep: number;
  readonly maxWaiting: number;
  readonly maxRetries: number;
  readonly retryDelayMs: number;
  readonly decode: Decode | undefined;
}

/** Checks and completes `options` for an engine of `capacity`. Throws `BAD_OPTION`. */
export function resolveScheduling(capacity: EngineCapacity, options: SchedulerOptions): ResolvedScheduling {
  checkCapacity(capacity);
  const { mode = "continuous", order = "fifo" } = options;
  oneOf("mode", mode, ["continuous", "static"]);
  oneOf("order", order, ["fifo", "longest-first"]);
  const slots = options.slots ?? capacity.slots;
  checkInteger("slots", slots, 1, capacity.slots);
  const { tokensPerStep = capacity.tokensPerStep, maxWaiting = 4 * slots } = options;
  checkInteger("tokensPerStep", tokensPerStep, slots, capacity.tokensPerStep);
  checkInteger("maxWaiting", maxWaiting, 1);
  const { maxRetries = 3, retryDelayMs = 500, decode } = options;
  checkInteger("maxRetries", maxRetries, 0);
  checkInteger("retryDelayMs", retryDelayMs, 0);
  const isStatic = mode === "static";
  return { static: isStatic, order, slots, tokensPerStep, maxWaiting, maxRetries, retryDelayMs, decode };
}

/** How long a row waits that has failed once and `failures` times before, ms. */
export function retryDelayMs(options: ResolvedScheduling, failures: number): number {
  return Math.min(MOST_DELAY_MS, options.retryDelayMs * 2 ** failures);
}

function checkCapacity({ slots, contextLength, tokensPerStep }: EngineCapacity): void {
  checkInteger("the engine's slots", slots, 1);
  checkInteger("the engine's contextLength", contextLength, 1);
  checkInteger("the engine's tokensPerStep", tokensPerStep, slots);
}

function oneOf(name: string, value: string, allowed: readonly string[]): void {
  if (allowed.includes(value)) return;
  throw new HeadraceError("BAD_OPTION", `${name} is ${value}; it must be one of ${allowed.join(", ")}`);
}
