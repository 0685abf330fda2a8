/** The ways of this project: its own loader over a device. */
import { type Batch, type Device, type Loader, type OpenOptions, openDevice, openLoader } from "../index.ts";
import { type Consumer, openConsumer } from "./consume.ts";
import { mtlioCodecOf } from "./formats.ts";
import type { Work } from "./measure.ts";
import { batchSizeOf, type TrialSpec } from "./spec.ts";

/** Bytes of a block of neighbours, where blocks are shuffled. */
const BLOCK_BYTES = 2 ** 20;

/** What a trial runs, and how it ends. */
export interface OpenWork<T> extends Work<T> {
  readonly sum: Consumer["sum"];
  close(): Promise<void>;
}

/** Opens the device that the cell wants. Throws what that throws: `DEVICE_UNAVAILABLE` where there is none. */
export async function openTrialDevice(spec: TrialSpec): Promise<Device> {
  const device = openDevice(spec.cell.device, deviceOptionsOf(spec));
  try {
    await device.ready?.();
    return device;
  } catch (error) {
    await device.close();
    throw error;
  }
}

/** Opens dataset and loader as the cell wants them. Throws what they throw: `UNSUPPORTED` where the way is not one
 * here. `device` stays the caller's, and is to outlive the work. */
export async function openLoaderWork(spec: TrialSpec, device: Device): Promise<OpenWork<Batch>> {
  if (mtlioCodecOf(spec.cell.path) !== undefined) {
    for (const path of spec.paths) await device.prepareStream?.(path);
  }
  const loader = await openLoader(spec.paths, { ...loaderOptionsOf(spec), device });
  return workOf(loader, openConsumer(device, spec.tensors));
}

function workOf(loader: Loader, consumer: Consumer): OpenWork<Batch> {
  const batches = loader[Symbol.asyncIterator]();
  return {
    sum: consumer.sum,
    next: async () => (await batches.next()).value,
    take: (batch) => consumer.take(batch),
    finish: () => consumer.finish(),
    async close() {
      await consumer.close();
      await loader.close();
    },
  };
}

function deviceOptionsOf({ cell, ordinal }: TrialSpec) {
  const codec = mtlioCodecOf(cell.path);
  return {
    lanes: cell.lanes,
    ...(cell.requestBytes === undefined ? {} : { pieceBytes: cell.requestBytes }),
    ...(ordinal === undefined ? {} : { ordinal }),
    ...(codec === undefined ? {} : { stream: { codec } }),
  };
}

function loaderOptionsOf(spec: TrialSpec): OpenOptions {
  const { cell, seed, prefetch, tensors } = spec;
  const strategy = cell.path.startsWith("mtlio") ? "stream" : (cell.path as "map" | "read" | "stream");
  const rows = batchSizeOf(spec);
  return {
    strategy,
    prefetch,
    columns: spec.columns,
    view: tensors ? "tensors" : "rows",
    ...(tensors ? { batchBytes: spec.batchBytes } : { batchSize: rows }),
    ...(cell.order === "sequential" ? {} : { shuffle: true, seed }),
    ...(cell.order === "block-shuffled"
      ? { blockSize: Math.max(1, Math.round((BLOCK_BYTES * spec.numSamples) / Math.max(1, spec.bytes))) }
      : {}),
  };
}
