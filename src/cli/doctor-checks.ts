/** What `doctor` can know of its options before it measures anything. */
import { statSync } from "node:fs";
import { InvalidArgumentError } from "commander";
import { type Device, HeadraceError } from "../index.ts";
import { freeBytes } from "./machine.ts";
import { byteCount, bytesText } from "./output.ts";

const LEAST_BYTES = 2 ** 20;
/** The longest page of the systems that this runs on: a multiple of it is one of every page. */
const PAGE_BYTES = 2 ** 16;

/** What is measured with, and which of it was typed rather than taken from the defaults. */
export interface Measured {
  readonly folder: string;
  readonly size: number;
  readonly memory: number;
  readonly typed: ReadonlySet<string>;
}

/** Parses the bytes of a measurement, rounded up to whole pages. */
export function measuredBytes(text: string): number {
  const bytes = Math.ceil(byteCount(text) / PAGE_BYTES) * PAGE_BYTES;
  if (byteCount(text) >= LEAST_BYTES && Number.isSafeInteger(bytes)) return bytes;
  throw new InvalidArgumentError("It must be at least 1MiB; less is over too soon to be measured.");
}

/** Parses the name of a folder. */
export function folderName(text: string): string {
  if (text !== "") return text;
  throw new HeadraceError("BAD_OPTION", "--folder is empty; name a folder, or leave it out");
}

/** Throws `BAD_OPTION` where a folder or a size that was typed cannot work. Defaults that cannot work are no bad
 * usage: the measurement tells why it failed. */
export function checkDisk({ folder, size, typed }: Measured): void {
  if (typed.has("folder")) {
    const found = statSync(folder, { throwIfNoEntry: false });
    if (found === undefined) throw new HeadraceError("BAD_OPTION", `--folder ${folder} is not there`);
    if (!found.isDirectory()) throw new HeadraceError("BAD_OPTION", `--folder ${folder} is not a folder`);
  }
  const free = freeBytes(folder);
  if (!typed.has("size") || free === undefined || size <= free) return;
  const text = `--size: ${folder} has ${bytesText(free)} free, and the measurement writes ${bytesText(size)}`;
  throw new HeadraceError("BAD_OPTION", `${text}; use a smaller --size or another --folder`);
}

/** Throws `BAD_OPTION` where the memory that was typed cannot work, by the device and by the machine. */
export function checkMemory({ memory, typed }: Measured, device: Device, machineBytes: number): void {
  if (!typed.has("memory")) return;
  const { name, maxBufferLength } = device.capabilities;
  if (memory > maxBufferLength) {
    const text = `--memory: ${bytesText(memory)} is more than the longest buffer of device ${name}`;
    throw new HeadraceError("BAD_OPTION", `${text}, ${bytesText(maxBufferLength)}`);
  }
  if (memory <= machineBytes / 2) return;
  const text = `--memory: ${bytesText(memory)} is copied to as much again, and this machine has`;
  throw new HeadraceError("BAD_OPTION", `${text} ${bytesText(machineBytes)}; use half of it at most`);
}
