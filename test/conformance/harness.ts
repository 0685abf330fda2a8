/** What the conformance cases need of a device under test, and of the file system. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { closeSync, ftruncateSync, mkdtempSync, openSync, rmSync, writeFileSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  type Completion,
  type Declined,
  type Device,
  type DeviceBuffer,
  type DeviceQueue,
  isDeclined,
  type SubmitOptions,
} from "../../src/device/device.ts";
import { RequestList } from "../../src/device/requests.ts";
import { type ErrorCode, HeadraceError } from "../../src/errors.ts";

/** One failure to inject, as data. */
export interface InjectedFault {
  readonly call: "pread" | "pwrite" | "sync";
  readonly nth: number;
  readonly times?: number;
  readonly errno?: string;
  readonly short?: number;
  readonly delayMs?: number;
}

/** A device under test. */
export interface Subject {
  readonly name: string;
  open(): Device;
  /** Whether bytes really move; cases that compare them are left out otherwise. */
  readonly movesData: boolean;
  /** Whether kernels may be JavaScript functions, which tests can look into. */
  readonly runsHostKernels: boolean;
  /** False where nothing compiles kernels: their cases are left out. */
  readonly runsKernels?: boolean;
  /** Whether it has the vendor's matrix products. */
  readonly multiplies?: boolean;
  /** The same device with a compressed form for streams; absent where it cannot stream. */
  openStreaming?(stream: { readonly codec: string; readonly cacheFolder: string }): Device;
  /** The same device with failures injected into its file calls; cases of failing disks need it. */
  openWithFaults?(faults: readonly InjectedFault[]): Device;
}

/** `test`, or a test that is skipped and says why. */
export function testWhere(holds: boolean, whyNot: string): typeof test {
  if (holds) return test;
  const skip = (name: string) => test.skip(`${name} (left out: ${whyNot})`, () => {});
  return skip as unknown as typeof test;
}

export interface TempDir extends Disposable {
  readonly path: string;
}

/** A directory of its own, removed on dispose. */
export function tempDir(): TempDir {
  const path = mkdtempSync(join(tmpdir(), "headrace-device-"));
  return { path, [Symbol.dispose]: () => rmSync(path, { recursive: true, force: true }) };
}

/** What the cases of one file share. */
export interface Rig {
  readonly dir: TempDir;
  readonly device: Device;
  readonly queue: DeviceQueue;
}

/** Opens a rig before the cases of the describe block around it, which `take` gets, and closes it after them. */
export function useRig(subject: Subject, take: (rig: Rig) => void): void {
  let rig: Rig | undefined;
  beforeAll(() => {
    const device = subject.open();
    rig = { dir: tempDir(), device, queue: device.createQueue() };
    take(rig);
  });
  afterAll(async () => {
    await rig?.device.close();
    rig?.dir[Symbol.dispose]();
  });
}

/** Bytes that differ from their neighbours and from those one page on. */
export function pattern(byteLength: number, seed = 1): Uint8Array {
  const bytes = new Uint8Array(byteLength);
  for (let i = 0; i < byteLength; i++) bytes[i] = (i * 31 + (i >>> 8) * 7 + seed * 13) & 0xff;
  return bytes;
}

export function patternFile(dir: string, name: string, byteLength: number, seed = 1): string {
  const path = join(dir, name);
  writeFileSync(path, pattern(byteLength, seed));
  return path;
}

/** A file of holes with `bytes` at `offset`. */
export function sparseFile(
  dir: string,
  name: string,
  byteLength: number,
  offset: number,
  bytes: Uint8Array,
): string {
  const path = join(dir, name);
  const fd = openSync(path, "w");
  try {
    ftruncateSync(fd, byteLength);
    writeSync(fd, bytes, 0, bytes.length, offset);
  } finally {
    closeSync(fd);
  }
  return path;
}

/** The bytes of a buffer, copied out. */
export function bytesOf(buffer: DeviceBuffer, byteOffset = 0, byteLength = buffer.byteLength): Uint8Array {
  return new Uint8Array(buffer.view(byteOffset, byteLength)).slice();
}

/** Fails with the first difference only: printing megabytes helps nobody. */
export function expectBytes(actual: Uint8Array, expected: Uint8Array): void {
  expect(actual.length).toBe(expected.length);
  if (Buffer.compare(actual, expected) === 0) return;
  const at = actual.findIndex((byte, index) => byte !== expected[index]);
  throw new Error(`byte ${at} of ${expected.length} is ${actual[at]} and should be ${expected[at]}`);
}

export function expectMapped(answer: DeviceBuffer | Declined): DeviceBuffer {
  if (isDeclined(answer)) throw new Error(`declined to map: ${answer.declined}`);
  return answer;
}

/** A list of what `fill` asks for. */
export function listOf(fill: (list: RequestList) => unknown): RequestList {
  const list = new RequestList();
  fill(list);
  return list;
}

/** Submits what `fill` asks for and waits for the end. */
export function run(
  queue: DeviceQueue,
  fill: (list: RequestList) => unknown,
  options?: SubmitOptions,
): Promise<Completion> {
  return queue.completion(queue.submit(listOf(fill), options));
}

/** {@link run}, which must end well. */
export async function runWell(queue: DeviceQueue, fill: (list: RequestList) => unknown): Promise<Completion> {
  const completion = await run(queue, fill);
  if (completion.error !== undefined) throw completion.error;
  return completion;
}

/** `work` throws a HeadraceError of this code, on one line. */
export function expectCode(code: ErrorCode, work: () => unknown): HeadraceError {
  let caught: unknown;
  try {
    work();
  } catch (error) {
    caught = error;
  }
  if (!(caught instanceof HeadraceError)) throw new Error(`expected ${code}, got ${String(caught)}`);
  expect(caught.code).toBe(code);
  expect(caught.message).not.toContain("\n");
  return caught;
}

/** The completion is a failure of this code, on one line. */
export function expectFailed(completion: Completion, code: ErrorCode): HeadraceError {
  const { error } = completion;
  if (error === undefined) throw new Error(`expected ${code}, and the ticket ended well`);
  expect(error.code).toBe(code);
  expect(error.message).not.toContain("\n");
  return error;
}

/** Opens a device, runs `work`, closes it, and checks that it held nothing back. */
export async function withDevice(device: Device, work: (device: Device) => Promise<void>): Promise<void> {
  try {
    await work(device);
  } finally {
    await device.close();
  }
  expect(device.openResources).toBe(0);
}
