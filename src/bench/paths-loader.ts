/** The ways of this project: its own loader over a device. */
import {
  type Batch,
  type Device,
  type Loader,
  type OpenOptions,
  openDevice,
  openLoader,
  type PreparedStream,
} from "../index.ts";
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

/** What is read in the end. */
export interface TrialFiles {
  readonly paths: readonly string[];
  readonly fileBytes: number;
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

/** The files that the cell reads: the shards, or what the device made of them. Throws `UNSUPPORTED` where the way is
 * not one here. */
export async function filesOf(spec: TrialSpec, device: Device): Promise<TrialFiles> {
  if (mtlioCodecOf(spec.cell.path) === undefined || device.prepareStream === undefined) return spec;
  const prepared: PreparedStream[] = [];
  for (const path of spec.paths) prepared.push(await device.prepareStream(path));
  return {
    paths: prepared.map(({ path }) => path),
    fileBytes: prepared.reduce((total, { byteLength }) => total + byteLength, 0),
  };
}

/** Files are opened and described with the first batch, in the time that is measured, as other readers do it; a device, as
 * their imports, is not. Throws `UNSUPPORTED` then where the way is not one here. `device` stays the caller's, and is to
 * outlive the work. */
export function openLoaderWork(spec: TrialSpec, device: Device): OpenWork<Batch> {
  const consumer = openConsumer(device, spec.tensors);
  let loader: Loader | undefined;
  let batches: AsyncIterator<Batch, undefined> | undefined;
  const open = async () => {
    loader = await openLoader(spec.paths, { ...loaderOptionsOf(spec), device });
    return loader[Symbol.asyncIterator]();
  };
  return {
    sum: consumer.sum,
    next: async () => {
      batches ??= await open();
      return (await batches.next()).value;
    },
    take: (batch) => consumer.take(batch),
    finish: () => consumer.finish(),
    async close() {
      await consumer.close();
      await loader?.close();
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
