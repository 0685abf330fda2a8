/** How fast memory and disk are here, measured through a device's queue as the loader uses it. */
import { closeSync, fsyncSync, ftruncateSync, mkdtempSync, openSync, rmSync, writeSync } from "node:fs";
import { join } from "node:path";
import {
  type Device,
  type DeviceBuffer,
  type DeviceFile,
  type DeviceQueue,
  HeadraceError,
  RequestList,
} from "../index.ts";
import { freeBytes } from "./machine.ts";
import { bytesText } from "./output.ts";

const MEMORY_ROUNDS = 9;
const DISK_ROUNDS = 5;
/** Rounds before those that count: they bring memory in and wake the lanes. */
const WARM_UP = 2;
/** Bytes that are written at once. */
const WRITE_BYTES = 8 * 2 ** 20;
/** Bytes of one request, as long as the loader's longest. */
const READ_BYTES = 32 * 2 ** 20;
/** A file of which less than this part is in memory was dropped from it. */
const COLD_PART = 0.02;

/** Bytes a second over several rounds. */
export interface Rate {
  readonly median: number;
  readonly least: number;
  readonly most: number;
  readonly rounds: number;
}

export interface DiskRate extends Rate {
  /** `cold`: the file was seen to be out of memory before each round; `may be warm`: the system does not say;
   * `warm`: it stayed in memory, so that no disk was measured. */
  readonly label: "cold" | "may be warm" | "warm";
  /** The largest part of the file that was in memory before a round; undefined: not known. */
  readonly residentBefore: number | undefined;
  readonly fileBytes: number;
  readonly folder: string;
}

/** Median, least and most of rates. */
export function summarize(rates: readonly number[]): Rate {
  const sorted = [...rates].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  const median = sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
  return { median, least: sorted[0]!, most: sorted.at(-1)!, rounds: sorted.length };
}

/** Copies `byteLength` bytes from one buffer of the device to another, again and again. Bytes count twice: each is
 * read and written, and both go over the memory's bus. */
export async function measureMemory(device: Device, byteLength: number, signal: AbortSignal): Promise<Rate> {
  using source = device.createBuffer(byteLength);
  using target = device.createBuffer(byteLength);
  const queue = device.createQueue();
  try {
    const rates: number[] = [];
    for (let round = 0; round < WARM_UP + MEMORY_ROUNDS; round++) {
      signal.throwIfAborted();
      // Pages that were never written may all be one and the same.
      if (round === 0 && source.hostAddress !== 0) fill(source);
      const seconds = await timed(
        queue,
        new RequestList().copy(source, 0, target, 0, byteLength),
        byteLength,
      );
      if (round >= WARM_UP) rates.push((2 * byteLength) / seconds);
    }
    return summarize(rates);
  } finally {
    await queue.close();
  }
}

/**
 * Reads a file that it makes below `folder` through `device`, dropping it from memory before each round. The file
 * has no name any more by the time that it holds data, so that nothing of it stays however this ends. `files` opens
 * it once more, to drop it and to see that it is gone: a device that knows how. Throws `DISK_FULL` where there is no
 * room, `IO_ERROR`.
 */
export async function measureDisk(
  device: Device,
  files: Device,
  folder: string,
  byteLength: number,
  signal: AbortSignal,
): Promise<DiskRate> {
  const free = freeBytes(folder);
  if (free !== undefined && free < byteLength) {
    const text = `${folder}: has ${bytesText(free)} free, and the measurement writes ${bytesText(byteLength)}; use --size or --folder`;
    throw new HeadraceError("DISK_FULL", text);
  }
  const { fd, file, watched } = makeFile(device, files, folder, byteLength);
  const queue = device.createQueue();
  try {
    await writeAll(fd, byteLength, signal);
    using buffer = device.createBuffer(Math.min(byteLength, 4 * READ_BYTES));
    const rates: number[] = [];
    const before: (number | undefined)[] = [];
    for (let round = 0; round < DISK_ROUNDS; round++) {
      signal.throwIfAborted();
      watched.forgetResident?.();
      before.push(watched.residentPart?.());
      const seconds = await timed(queue, readsOf(file, buffer, byteLength), byteLength);
      rates.push(byteLength / seconds);
    }
    return { ...summarize(rates), ...labelOf(before), fileBytes: byteLength, folder };
  } finally {
    await queue.close();
    file.close();
    watched.close();
    closeSync(fd);
  }
}

/** What the parts of the file that were in memory before each round say of the disk's share. */
export function labelOf(before: readonly (number | undefined)[]): Pick<DiskRate, "label" | "residentBefore"> {
  const known = before.filter((part) => part !== undefined);
  if (known.length < before.length) return { label: "may be warm", residentBefore: undefined };
  const most = Math.max(...known);
  return { label: most < COLD_PART ? "cold" : most > 0.5 ? "warm" : "may be warm", residentBefore: most };
}

function makeFile(device: Device, files: Device, folder: string, byteLength: number) {
  const own = makeFolder(folder);
  try {
    const path = join(own, "data");
    const fd = openSync(path, "wx+", 0o600);
    try {
      ftruncateSync(fd, byteLength);
      const file = device.openFile(path);
      try {
        return { fd, file, watched: files.openFile(path) };
      } catch (error) {
        file.close();
        throw error;
      }
    } catch (error) {
      closeSync(fd);
      throw error;
    }
  } finally {
    rmSync(own, { recursive: true, force: true });
  }
}

function makeFolder(folder: string): string {
  try {
    return mkdtempSync(join(folder, "headrace-doctor-"));
  } catch (cause) {
    const { code } = cause as { code?: string };
    throw new HeadraceError("IO_ERROR", `${folder}: no file can be made there (${code}); use --folder`, {
      cause,
    });
  }
}

/** Bytes that no file system can make smaller, written through to the disk. */
async function writeAll(fd: number, byteLength: number, signal: AbortSignal): Promise<void> {
  const chunk = new Uint8Array(WRITE_BYTES);
  for (let at = 0; at < chunk.length; at += 65_536) crypto.getRandomValues(chunk.subarray(at, at + 65_536));
  const numbers = new Uint32Array(chunk.buffer);
  for (let at = 0; at < byteLength; at += chunk.length) {
    signal.throwIfAborted();
    // No two chunks are alike, and no page of one is another's.
    for (let i = 0; i < numbers.length; i += 1024) numbers[i] = (at / 4096 + i) >>> 0;
    let done = 0;
    const wanted = Math.min(chunk.length, byteLength - at);
    try {
      while (done < wanted) done += writeSync(fd, chunk, done, wanted - done, at + done);
    } catch (cause) {
      const { code } = cause as { code?: string };
      const full = code === "ENOSPC" || code === "EDQUOT";
      const text = `writing ${bytesText(byteLength)} to measure the disk: ${code} after ${at + done} bytes; use --size or --folder`;
      throw new HeadraceError(full ? "DISK_FULL" : "IO_ERROR", text, { cause });
    }
    // Signals are heard between chunks.
    await new Promise(setImmediate);
  }
  fsyncSync(fd);
}

function readsOf(file: DeviceFile, buffer: DeviceBuffer, byteLength: number): RequestList {
  const list = new RequestList();
  const places = Math.max(1, Math.floor(buffer.byteLength / READ_BYTES));
  for (let at = 0, i = 0; at < byteLength; at += READ_BYTES, i++) {
    list.read(file, at, buffer, (i % places) * READ_BYTES, Math.min(READ_BYTES, byteLength - at));
  }
  return list;
}

/** Seconds that a submission took. Throws its failure. */
async function timed(queue: DeviceQueue, list: RequestList, byteLength: number): Promise<number> {
  const started = performance.now();
  const { error, bytesDone } = await queue.completion(queue.submit(list));
  const seconds = (performance.now() - started) / 1000;
  if (error !== undefined) throw error;
  if (bytesDone !== byteLength) {
    throw new HeadraceError(
      "DEVICE_FAILED",
      `${bytesDone} bytes were moved where ${byteLength} were asked for`,
    );
  }
  return seconds;
}

function fill(buffer: DeviceBuffer): void {
  const view = new Uint32Array(buffer.view(0, buffer.byteLength));
  for (let i = 0; i < view.length; i += 1024) view[i] = i + 1;
}
