/** A CUDA device of its own over the mock of the driver for each test, and what such tests ask of it. */
import { describe, expect, setDefaultTimeout } from "bun:test";
import { openCuda } from "../../../src/device/cuda/device.ts";
import type { CudaOptions } from "../../../src/device/cuda/options.ts";
import type { Completion, Device, DeviceBuffer, DeviceQueue } from "../../../src/device/device.ts";
import type { RequestList } from "../../../src/device/requests.ts";
import { cudaMock } from "../../conformance/cuda-subjects.ts";
import {
  bytesOf,
  expectMapped,
  patternFile,
  pattern as patternOf,
  runWell,
  tempDir,
} from "../../conformance/harness.ts";
import { addConstants } from "../../conformance/kernels.ts";
import type { CudaMock, MockConfig, MockFault } from "../../cuda-mock/mock.ts";

// A test waits for many threads in turn. Of several files in one run it is set for the first alone: `bun run test` sets
// it for all.
setDefaultTimeout(60_000);

export const KIB = 1024;
/** Longer than what counts as a small copy. */
export const WINDOW = 128 * KIB;

const opened = cudaMock();

/** `describe`, or one that is skipped and says why. */
export function describeOverMock(name: string, cases: () => void): void {
  const reason = "missing" in opened ? ` (left out: ${opened.missing})` : "";
  describe.skipIf("missing" in opened)(`${name}${reason}`, cases);
}

export function theMock(): { readonly path: string; readonly mock: CudaMock } {
  if ("missing" in opened) throw new Error(opened.missing);
  return opened;
}

export interface CudaRig {
  readonly device: Device;
  readonly queue: DeviceQueue;
  readonly mock: CudaMock;
  readonly dir: string;
  /** One more device over the same mock. */
  open(options?: CudaOptions): Device;
  /** A file of the usual bytes. */
  file(name: string, byteLength: number, seed?: number): string;
  map(path: string, byteOffset?: number, byteLength?: number): DeviceBuffer;
  /** A private buffer with the usual bytes, or with zeros where `seed` is left out. */
  hidden(byteLength: number, seed?: number): Promise<DeviceBuffer>;
  /** What a buffer of any storage holds. */
  bytes(buffer: DeviceBuffer): Promise<Uint8Array>;
}

export interface RigOptions {
  readonly options?: CudaOptions;
  readonly config?: MockConfig;
  /** Of the driver, from before the device is opened. */
  readonly driverFaults?: readonly MockFault[];
  /** Whether the context was lost, or calls failed, on purpose: then the mock may report what it likes. */
  readonly mayReport?: boolean;
}

/** Small enough for windows, pieces and slices to matter in files of a few hundred KiB. */
export const SMALL: CudaOptions = { lanes: 2, windowBytes: WINDOW, pieceBytes: 16 * KIB, inlineCopyBytes: 0 };
/** Streams that overtake each other wherever no event holds them. */
export const SHUFFLED: MockConfig = { maxDelayUs: 300, pieceBytes: 3000, seed: 11 };

/** Opens a device, runs `work`, and closes it: it must hold nothing back, and have used nothing wrongly. */
export async function withCuda(
  { options = {}, config = {}, driverFaults = [], mayReport = false }: RigOptions,
  work: (rig: CudaRig) => Promise<void>,
): Promise<void> {
  const { mock, path } = theMock();
  mock.reset();
  mock.configure(config);
  mock.setFaults(driverFaults);
  using dir = tempDir();
  const open = (more: CudaOptions = {}) => openCuda({ library: path, nvrtc: path, ...SMALL, ...more });
  const device = open(options);
  const queue = device.createQueue();
  const rig: CudaRig = {
    device,
    queue,
    mock,
    dir: dir.path,
    open,
    file: (name, byteLength, seed = 1) => patternFile(dir.path, name, byteLength, seed),
    map: (file, byteOffset = 0, byteLength) => {
      using from = device.openFile(file);
      return expectMapped(device.map(from, byteOffset, byteLength ?? from.byteLength - byteOffset));
    },
    hidden: (byteLength, seed) => hiddenBuffer(device, queue, byteLength, seed),
    bytes: (buffer) => contentOf(device, queue, buffer),
  };
  try {
    // Lanes pin memory on their way, which counts among the calls.
    await device.ready();
    await work(rig);
  } finally {
    mock.setFaults([]);
    await device.close();
  }
  expect(device.openResources).toBe(0);
  expectNothingLive(mock);
  if (!mayReport) expectNoMisuse(mock, (options.lanes ?? SMALL.lanes)!);
}

/** All of the driver's objects are gone. What a context takes with it, which is counted as abandoned, is what lives as
 * long as it does: reused events, the streams of lanes, and lanes' slices. */
export function expectNothingLive(mock: CudaMock): void {
  const { abandoned: _, ...live } = mock.live();
  for (const [kind, count] of Object.entries(live)) expect(`${count} ${kind}`).toBe(`0 ${kind}`);
}

/** Nothing was used wrongly, and contexts had only that left which lives as long as they do. */
function expectNoMisuse(mock: CudaMock, numLanes: number): void {
  const others: string[] = [];
  for (const line of mock.reports()) {
    const left =
      /destroyed with (\d+) streams, \d+ events, (\d+) modules, (\d+) graphs, (\d+) cuBLAS handles, (\d+) allocations/.exec(
        line,
      );
    if (left === null) others.push(line);
    else {
      const [, streams, modules, graphs, handles, registrations] = left.map(Number);
      // Two of the lanes', one for clearing.
      expect(streams).toBeLessThanOrEqual(3);
      expect([modules, graphs, handles]).toEqual([0, 0, 0]);
      // And where lanes send their first bytes.
      expect(registrations).toBeLessThanOrEqual(numLanes + 1);
    }
  }
  expect(others).toEqual([]);
}

async function hiddenBuffer(device: Device, queue: DeviceQueue, byteLength: number, seed?: number) {
  const buffer = device.createBuffer(byteLength, "private");
  if (seed === undefined) return buffer;
  using shared = filled(device, patternOf(byteLength, seed));
  await runWell(queue, (list) => list.copy(shared, 0, buffer, 0, byteLength));
  return buffer;
}

async function contentOf(device: Device, queue: DeviceQueue, buffer: DeviceBuffer): Promise<Uint8Array> {
  using shared = device.createBuffer(buffer.byteLength);
  await runWell(queue, (list) => list.copy(buffer, 0, shared, 0, buffer.byteLength));
  return bytesOf(shared);
}

/** A shared buffer with `bytes`. */
export function filled(device: Device, bytes: Uint8Array): DeviceBuffer {
  const buffer = device.createBuffer(bytes.length);
  new Uint8Array(buffer.view(0, bytes.length)).set(bytes);
  return buffer;
}

/** Bytes of a file as {@link patternFile} makes it, cut out. */
export function patternPart(byteOffset: number, byteLength: number, seed = 1): Uint8Array {
  return patternOf(byteOffset + byteLength, seed).subarray(byteOffset);
}

/** Has `add` raise each of the first `threads` bytes of `buffer`. */
export function addCall(
  pipeline: ReturnType<Device["createPipeline"]>,
  buffer: DeviceBuffer,
  amount: number,
) {
  return {
    pipeline,
    buffers: [{ buffer, offset: 0 }],
    constants: addConstants(amount),
    threads: buffer.byteLength,
  };
}

/** Submits without waiting: the ticket's end, and its quiet. */
export function begin(queue: DeviceQueue, list: RequestList, timeoutMs?: number) {
  const ticket = queue.submit(list, timeoutMs === undefined ? {} : { timeoutMs });
  return { ticket, ended: queue.completion(ticket), quiet: queue.quiesced(ticket) };
}

/** Fails where `promise` takes longer than any work of these tests. */
export async function soon<T>(what: string, promise: Promise<T>, ms = 4000): Promise<T> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what} has not come within ${ms} ms`)), ms);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** Waits until `holds`, or a second has gone by. */
export async function until(holds: () => boolean): Promise<void> {
  for (let round = 0; round < 500 && !holds(); round++) await Bun.sleep(2);
  expect(holds()).toBe(true);
}

export function errorOf(completion: Completion): string {
  const { error } = completion;
  return error === undefined ? "" : `${error.code}: ${error.message}`;
}
