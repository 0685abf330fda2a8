/** Ways to run a kernel on bytes: its host form, and its text as CUDA, in the mock that runs threadgroups whole. */
import type { Device, DeviceQueue, KernelSource, Pipeline } from "../../../src/device/device.ts";
import type { DispatchCall } from "../../../src/device/requests.ts";
import type { Place } from "../../../src/kernels/constants.ts";
import { bytesOf, runWell } from "../../conformance/harness.ts";
import { filled, withCuda } from "../device/cuda-rig.ts";
import { Guarded, PIPELINE, runHost } from "./memory.ts";

/** An argument of a kernel: bytes, and by how much their place is to miss a multiple of 256. */
export interface Argument {
  readonly bytes: Uint8Array;
  readonly shift?: number;
}

export type Build = (pipeline: Pipeline, places: readonly Place[]) => DispatchCall;

/** Runs a dispatch over arguments, and gives what each of them holds then. */
export type Run = (source: KernelSource, args: readonly Argument[], build: Build) => Promise<Uint8Array[]>;

/** The host form, on memory between pages that nobody may touch. */
export const onHost: Run = async (source, args, build) => {
  const buffers = args.map(({ bytes, shift = 0 }) => {
    const buffer = new Guarded(Math.ceil(bytes.length / 16) * 16 + shift);
    buffer.bytes.set(bytes, shift);
    return buffer;
  });
  runHost(source, build(PIPELINE, placesOf(buffers, args)));
  const after = buffers.map((buffer, i) =>
    buffer.bytes.slice(args[i]!.shift ?? 0).slice(0, args[i]!.bytes.length),
  );
  for (const buffer of buffers) buffer.close();
  return after;
};

/** Gives `work` the kernel text's form as CUDA, on private memory of exactly that many bytes. */
export function withCudaRun(work: (run: Run) => Promise<void>): Promise<void> {
  return withCuda({}, async ({ device, queue }) => {
    const pipelines = new Map<string, Pipeline>();
    await work(async (source, args, build) => {
      const key = JSON.stringify([source.text, source.functionConstants]);
      const pipeline = pipelines.get(key) ?? device.createPipeline(source);
      pipelines.set(key, pipeline);
      const buffers = await Promise.all(args.map((argument) => uploaded(device, queue, argument)));
      const call = build(pipeline, placesOf(buffers, args));
      await runWell(queue, (list) => list.dispatch(call));
      const after = await Promise.all(
        args.map(({ bytes, shift = 0 }, i) => downloaded(device, queue, buffers[i]!, shift, bytes.length)),
      );
      for (const buffer of buffers) buffer.close();
      return after;
    });
    for (const pipeline of pipelines.values()) pipeline.close();
  });
}

function placesOf(buffers: readonly Place["buffer"][], args: readonly Argument[]): Place[] {
  return buffers.map((buffer, i) => ({ buffer, byteOffset: args[i]!.shift ?? 0 }));
}

async function uploaded(device: Device, queue: DeviceQueue, { bytes, shift = 0 }: Argument) {
  const buffer = device.createBuffer(bytes.length + shift, "private");
  using shared = filled(device, bytes);
  await runWell(queue, (list) => list.copy(shared, 0, buffer, shift, bytes.length));
  return buffer;
}

async function downloaded(
  device: Device,
  queue: DeviceQueue,
  buffer: Place["buffer"],
  offset: number,
  byteLength: number,
): Promise<Uint8Array> {
  using shared = device.createBuffer(byteLength);
  await runWell(queue, (list) => list.copy(buffer, offset, shared, 0, byteLength));
  return bytesOf(shared).slice();
}
