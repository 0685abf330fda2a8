/** Our side of the rows, through the public API alone: what a user would write, with a kernel that sums up all bytes. */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import {
  type Batch,
  type Dataset,
  type Device,
  Loader,
  type LoaderOptions,
  openDataset,
  openDevice,
  TraceRecorder,
} from "../../../src/index.ts";
import type { Strategy, View } from "../../../src/types.ts";
import type { Data } from "./data.ts";
import type { BenchOptions } from "./options.ts";
import { progress } from "./rounds.ts";
import { DeviceSums, type Sum } from "./sums.ts";

/** Over all that a loader holds, on host or device: what it may take is not what is measured. */
export const MEMORY_BYTES = 2 ** 40;

/** A device that closes at the end of its scope. */
export interface OwnDevice extends AsyncDisposable {
  readonly device: Device;
}

/** Opens the device that the options name. */
export function openBenchDevice(options: BenchOptions, ordinal = options.ordinal): OwnDevice {
  const device = openDevice(options.device, { ordinal });
  return { device, [Symbol.asyncDispose]: () => device.close() };
}

/** What one pass through the data took, and what came of it. */
export interface Pass {
  readonly seconds: number;
  readonly bytes: number;
  /** One of each batch's columns, in the order in which they came. */
  readonly sums: readonly Sum[];
  /** Row numbers of all batches, in order; empty where they were not asked for. */
  readonly ids: readonly Float64Array[];
}

export interface PassOptions {
  /** Batches whose checksums one submission computes; as many more segments must be free. Default 1. */
  readonly group?: number;
  /** Keeps the rows' numbers. */
  readonly ids?: boolean;
  /** Leaves the checksums out, where their kernels would disturb what is measured. */
  readonly unchecked?: boolean;
}

/** A dataset, a loader over it, and a queue that sums up what arrives. Borrows the device. Close it. */
export class Feed implements AsyncDisposable {
  readonly dataset: Dataset;
  readonly loader: Loader;
  readonly #sums: DeviceSums;

  constructor(
    device: Device,
    paths: readonly string[],
    strategy: Strategy,
    view: View,
    options: LoaderOptions,
    sums = new DeviceSums(device),
  ) {
    this.#sums = sums;
    this.dataset = openDataset(paths, device, { view, strategy });
    this.loader = new Loader(this.dataset, device, { memoryBytes: MEMORY_BYTES, ...options });
  }

  /** One epoch: each batch is summed up on the device as soon as it is there, and released when that has ended. */
  async epoch(options: PassOptions = {}): Promise<Pass> {
    const { group = 1, unchecked = false } = options;
    const ids: Float64Array[] = [];
    let bytes = 0;
    let full: Batch[] = [];
    let before: Promise<unknown> = Promise.resolve();
    const check = async () => {
      const held = full;
      full = [];
      if (held.length === 0) return;
      const summed = this.#sums.add(held).finally(() => {
        for (const batch of held) batch.release();
      });
      await before;
      before = summed;
    };
    const started = Bun.nanoseconds();
    for await (const batch of this.loader.epoch()) {
      bytes += batch.byteLength;
      if (options.ids === true) ids.push(batch.sampleIds);
      if (unchecked) batch.release();
      else if (full.push(batch) === group) await check();
    }
    await check();
    await before;
    const seconds = (Bun.nanoseconds() - started) / 1e9;
    return { seconds, bytes, sums: await this.#sums.finish(), ids };
  }

  async close(): Promise<void> {
    await this.loader.close();
    this.dataset.close();
    await this.#sums.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

/** Loads all tensors into device memory at once, as weights are loaded, from opening the files on; GB/s. What is there
 * is checked afterwards. Borrows the device, which must not have seen the files. */
export async function loadAll(device: Device, data: Data, strategy: Strategy): Promise<number> {
  const sums = new DeviceSums(device);
  // Belongs to the opening of the device, which is left out on both sides.
  await device.ready?.();
  const started = Bun.nanoseconds();
  await using feed = new Feed(
    device,
    data.paths,
    strategy,
    "tensors",
    { batchBytes: 2 ** 50, prefetch: 0 },
    sums,
  );
  for await (using batch of feed.loader) {
    const elapsed = Bun.nanoseconds() - started;
    if (batch.size !== Object.keys(data.sums).length) {
      throw new Error(`one batch holds ${batch.size} tensors of ${Object.keys(data.sums).length}`);
    }
    await sums.add([batch]);
    expectSums(data, await sums.finish());
    return batch.byteLength / elapsed;
  }
  throw new Error("there was no batch");
}

/** Throws unless each tensor of the data is among `sums` once, with its checksum. */
export function expectSums(data: Pick<Data, "sums">, sums: readonly Sum[]): void {
  const names = new Set(sums.map(({ column }) => column));
  const wanted = Object.keys(data.sums);
  if (names.size !== sums.length || names.size !== wanted.length) {
    throw new Error(
      `${sums.length} tensors arrived, ${names.size} of them different; ${wanted.length} were expected`,
    );
  }
  for (const { column, sum } of sums) {
    if (data.sums[column] !== sum) {
      throw new Error(
        `tensor ${column} has the checksum ${sum} on the device, ${data.sums[column]} in its file`,
      );
    }
  }
}

/** One epoch, not measured, as a trace; where traces are asked for. */
export async function traceEpoch(
  options: BenchOptions,
  name: string,
  run: (tracer: TraceRecorder) => Promise<unknown>,
): Promise<void> {
  if (options.traceFolder === undefined) return;
  const tracer = new TraceRecorder();
  await run(tracer);
  mkdirSync(options.traceFolder, { recursive: true });
  const path = join(options.traceFolder, `${name}.json`);
  writeFileSync(path, tracer.toJSON());
  progress(`trace written to ${path}`);
}
