/** Walks through the epochs: which samples this rank's next batch is made of. */
import type { Costs } from "../plan/cost.ts";
import { planStep, type SamplerOptions, type Step } from "../plan/sampler.ts";
import { type SampleOrder, SelectedOrder, type Selection } from "../plan/select.ts";
import { Order } from "../plan/shuffle.ts";
import type { ResolvedOptions } from "./options.ts";

/** A place in the order of samples. */
export interface Cursor {
  readonly epoch: number;
  readonly position: number;
}

/** One batch of this rank, and where the walk stands after it. */
export interface WalkStep {
  readonly epoch: number;
  readonly order: SampleOrder;
  readonly step: Step;
  readonly after: Cursor;
}

/** Gives the costs of positions in `order`, as {@link Costs} does. */
export type CostsOf = (order: SampleOrder, start: number, count: number) => ArrayLike<number>;

/** Stands between two batches. Whoever makes the batch that {@link Walk.next} names moves {@link Walk.at}. */
export class Walk {
  at: Cursor;
  readonly #sampler: SamplerOptions;
  /** Of the dataset or its selection, whatever the sampler's limit. */
  readonly #numSamples: number;
  readonly #selection: Selection | undefined;
  readonly #options: ResolvedOptions;
  readonly #costs: CostsOf | undefined;
  #order: { readonly epoch: number; readonly order: SampleOrder } | undefined;

  constructor(
    start: Cursor,
    sampler: SamplerOptions,
    samples: number | Selection,
    options: ResolvedOptions,
    costs?: CostsOf,
  ) {
    this.at = start;
    this.#sampler = sampler;
    this.#numSamples = typeof samples === "number" ? samples : samples.numSamples;
    this.#selection = typeof samples === "number" ? undefined : samples;
    this.#options = options;
    this.#costs = costs;
  }

  /** The next batch before `endEpoch`, or undefined when there is none; passes over epochs that have none
   * for this rank. Throws what reading costs throws. */
  next(endEpoch: number): WalkStep | undefined {
    while (this.at.epoch < endEpoch) {
      const { epoch, position } = this.at;
      const order = this.#orderOf(epoch);
      const costs = this.#costsIn(order);
      const step = planStep(this.#sampler, position, costs);
      if (step !== undefined) return { epoch, order, step, after: this.#after(epoch, step) };
      if (position === 0 && endEpoch === Number.POSITIVE_INFINITY) return undefined;
      const alike = costs === undefined || order.sequential;
      this.at = { epoch: position === 0 && alike ? endEpoch : epoch + 1, position: 0 };
    }
    return undefined;
  }

  #after(epoch: number, step: Step): Cursor {
    const over = step.nextPosition >= this.#sampler.numSamples;
    return over ? { epoch: epoch + 1, position: 0 } : { epoch, position: step.nextPosition };
  }

  #costsIn(order: SampleOrder): Costs | undefined {
    const costs = this.#costs;
    return costs === undefined ? undefined : (start, count) => costs(order, start, count);
  }

  #orderOf(epoch: number): SampleOrder {
    if (this.#order?.epoch !== epoch) {
      const { seed, blockSize, windowBlocks } = this.#options;
      const order = new Order({ numSamples: this.#numSamples, seed, epoch, blockSize, windowBlocks });
      const selected = this.#selection === undefined ? order : new SelectedOrder(order, this.#selection);
      this.#order = { epoch, order: selected };
    }
    return this.#order!.order;
  }
}
