/** Schedulers that are driven by hand. */
import {
  type Engine,
  type EngineCapacity,
  type InferRequest,
  Scheduler,
  type SchedulerOptions,
  type SlotResult,
  type StepPlan,
} from "../../../src/index.ts";

/** A scheduler over memory without end. */
export function schedule(capacity: Partial<EngineCapacity> = {}, options: SchedulerOptions = {}) {
  const released: number[] = [];
  const all = { slots: 3, contextLength: 64, tokensPerStep: 8, ...capacity };
  const scheduler = new Scheduler(all, { release: (slot) => released.push(slot) }, options);
  return { scheduler, released };
}

/** What a plan does, in short: `[slot, position, tokens, last]` of each chunk, and the slots that decode. */
export function shapeOf({ chunks, slots }: StepPlan) {
  return {
    chunks: chunks.map(({ slot, position, tokens, last }) => [slot, position, tokens.length, last]),
    slots,
  };
}

/** Token 9 for every slot that is due one. */
export function answer({ chunks, slots }: StepPlan): SlotResult[] {
  const due = [...chunks.filter(({ last }) => last).map(({ slot }) => slot), ...slots];
  return due.map((slot) => ({ slot, token: 9 }));
}

/** Plans and applies steps until nothing is left; the rows that run in each. */
export async function drive(scheduler: Scheduler, engine: Engine): Promise<void> {
  for (let step = 0; step < 1000; step++) {
    const plan = scheduler.plan(step);
    if (plan.chunks.length + plan.slots.length === 0) return;
    scheduler.apply(await engine.step!(plan.chunks, plan.slots), step);
  }
  throw new Error("there is no end");
}

export function add(scheduler: Scheduler, ...rows: InferRequest[]): void {
  for (const row of rows) scheduler.add(row);
}
