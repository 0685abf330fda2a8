/** Consumes batches of a loader: every byte of every sample goes into the sum. */
import {
  type Batch,
  type Column,
  type Device,
  type DeviceBuffer,
  type DeviceQueue,
  type Pipeline,
  RequestList,
} from "../index.ts";
import { tensorKey } from "./data/facts.ts";
import { elementBytesOf, rowSumCall, rowSumPipeline } from "./row-sum.ts";
import { HostSum, type KnownSums } from "./sums.ts";

/** Takes batches over, and releases each. */
export interface Consumer {
  /** Which of a dataset's known sums this one is to give. */
  readonly sum: keyof KnownSums;
  take(batch: Batch): Promise<void> | void;
  /** The sum of all batches, in hex. */
  finish(): Promise<string> | string;
  close(): Promise<void>;
}

/** Sums on `device` where it runs kernels of its own, and on the host elsewhere. `tensors` says what samples are. */
export function openConsumer(device: Device, tensors: boolean): Consumer {
  const pipeline = rowSumPipeline(device);
  return pipeline === undefined ? new HostConsumer(tensors) : new DeviceConsumer(device, pipeline, tensors);
}

/** Calls `each` with every sample's key and bytes, column by column. The bytes are the batch's. */
export function eachSample(
  batch: Batch,
  tensors: boolean,
  each: (key: number, bytes: Uint8Array) => void,
): void {
  eachColumn(batch, tensors, (column, numRows, keyOf) => {
    const bytes = bytesOf(column);
    const { offsets } = column;
    const rowBytes = column.byteLength / numRows;
    const unit = elementBytesOf(column);
    for (let row = 0; row < numRows; row++) {
      const start = offsets === undefined ? row * rowBytes : Number(offsets.view[row]) * unit;
      const end = offsets === undefined ? start + rowBytes : Number(offsets.view[row + 1]) * unit;
      each(keyOf(row), bytes.subarray(start, end));
    }
  });
}

class HostConsumer implements Consumer {
  readonly sum = "xxh3";
  readonly #tensors: boolean;
  readonly #sum = new HostSum();

  constructor(tensors: boolean) {
    this.#tensors = tensors;
  }

  take(batch: Batch): void {
    eachColumn(batch, this.#tensors, (column, numRows, keyOf) => {
      const bytes = bytesOf(column);
      const { offsets } = column;
      if (offsets === undefined) {
        this.#sum.addRows(bytes, numRows, column.byteLength / numRows, keyOf);
        return;
      }
      const unit = elementBytesOf(column);
      const places = offsets.view;
      for (let row = 0, start = 0; row < numRows; row++) {
        const end = Number(places[row + 1]) * unit;
        this.#sum.add(keyOf(row), bytes.subarray(start, end));
        start = end;
      }
    });
    batch.release();
  }

  finish(): string {
    return this.#sum.hex;
  }

  async close(): Promise<void> {}
}

/** A batch whose kernel runs. */
interface Running {
  readonly batch: Batch;
  readonly keys: DeviceBuffer;
  readonly done: Promise<{ readonly error?: Error }>;
}

/** One kernel a column, one batch behind the loader: the device sums while the next batch arrives. */
class DeviceConsumer implements Consumer {
  readonly sum = "mix";
  readonly #device: Device;
  readonly #tensors: boolean;
  readonly #pipeline: Pipeline;
  readonly #queue: DeviceQueue;
  readonly #sums: DeviceBuffer;
  readonly #requests = new RequestList();
  #spare: DeviceBuffer | undefined;
  #running: Running | undefined;

  constructor(device: Device, pipeline: Pipeline, tensors: boolean) {
    this.#device = device;
    this.#pipeline = pipeline;
    this.#tensors = tensors;
    this.#queue = device.createQueue();
    this.#sums = device.createBuffer(8, "private");
  }

  async take(batch: Batch): Promise<void> {
    const keys: number[] = [];
    const columns: { column: Column; numRows: number; at: number }[] = [];
    eachColumn(batch, this.#tensors, (column, numRows, keyOf) => {
      columns.push({ column, numRows, at: keys.length });
      for (let row = 0; row < numRows; row++) keys.push(keyOf(row));
    });
    const buffer = this.#keysBuffer(keys);
    this.#requests.clear();
    for (const { column, numRows, at } of columns) {
      const call = rowSumCall(this.#pipeline, column, numRows, { buffer, offset: at * 4 }, this.#sums);
      this.#requests.dispatch(call);
    }
    const done = this.#queue.completion(this.#queue.submit(this.#requests));
    await this.#settle();
    this.#running = { batch, keys: buffer, done };
  }

  async finish(): Promise<string> {
    await this.#settle();
    using shown = this.#device.createBuffer(8);
    this.#requests.clear();
    this.#requests.copy(this.#sums, 0, shown, 0, 8);
    const { error } = await this.#queue.completion(this.#queue.submit(this.#requests));
    if (error !== undefined) throw error;
    const sums = new Uint32Array(shown.view(0, 8));
    return [...sums].map((sum) => sum.toString(16).padStart(8, "0")).join("");
  }

  async close(): Promise<void> {
    await this.#queue.close();
    this.#running?.batch.release();
    this.#running?.keys.close();
    this.#spare?.close();
    this.#sums.close();
    this.#pipeline.close();
  }

  /** Waits for the kernel that runs, and gives its batch back. */
  async #settle(): Promise<void> {
    const running = this.#running;
    if (running === undefined) return;
    const { error } = await running.done;
    this.#running = undefined;
    running.batch.release();
    this.#spare?.close();
    this.#spare = running.keys;
    if (error !== undefined) throw error;
  }

  #keysBuffer(keys: readonly number[]): DeviceBuffer {
    const byteLength = Math.max(4, keys.length * 4);
    let buffer = this.#spare;
    this.#spare = undefined;
    if (buffer === undefined || buffer.byteLength < byteLength) {
      buffer?.close();
      buffer = this.#device.createBuffer(2 ** Math.ceil(Math.log2(byteLength)));
    }
    const view = buffer.view(0, byteLength);
    new Uint32Array(view).set(keys);
    view.transfer(0);
    return buffer;
  }
}

/** Columns that hold bytes, each with the number of its rows and their keys: the same for the same sample, whatever
 * the order and the file. */
function eachColumn(
  batch: Batch,
  tensors: boolean,
  each: (column: Column, numRows: number, keyOf: (row: number) => number) => void,
): void {
  if (tensors) {
    for (const [name, column] of batch.columns) {
      const key = tensorKey(name);
      if (column.byteLength > 0) each(column, 1, () => key);
    }
    return;
  }
  const ids = batch.sampleIds;
  const names = [...batch.columns.keys()].sort();
  names.forEach((name, place) => {
    const column = batch.columns.get(name)!;
    const keyOf = (row: number) => (ids[row]! * names.length + place) >>> 0;
    if (column.byteLength > 0) each(column, batch.numSamples, keyOf);
  });
}

function bytesOf(column: Column): Uint8Array {
  const { buffer, byteOffset, byteLength } = column.view;
  return new Uint8Array(buffer, byteOffset, byteLength);
}
