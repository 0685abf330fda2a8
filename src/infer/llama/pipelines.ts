/** Kernels of a model, each compiled once however many layers and buckets use it. */
import type { Device, KernelSource, Pipeline } from "../../device/device.ts";

export class Pipelines {
  readonly #device: Device;
  readonly #made = new Map<string, Pipeline>();

  constructor(device: Device) {
    this.#device = device;
  }

  /** The pipeline of `key`, compiled from `source` where it is not there yet. */
  get(key: string, source: () => KernelSource): Pipeline {
    return this.keep(key, () => this.#device.createPipeline(source()));
  }

  /** The pipeline of `key`, as `make` makes it where it is not there yet. */
  keep(key: string, make: () => Pipeline): Pipeline {
    let pipeline = this.#made.get(key);
    if (pipeline === undefined) {
      pipeline = make();
      this.#made.set(key, pipeline);
    }
    return pipeline;
  }

  close(): void {
    for (const pipeline of this.#made.values()) pipeline.close();
    this.#made.clear();
  }
}
