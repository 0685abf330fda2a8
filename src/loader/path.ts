/** Which way the bytes of a shard take, and why. */
import type { Capabilities, DeviceFile } from "../device/device.ts";
import { HeadraceError } from "../errors.ts";
import type { Strategy } from "../types.ts";
import type { MeasuredChoice } from "./recommended.ts";

/** How the bytes of a shard will be reached, and why. */
export interface ShardPath {
  readonly strategy: Strategy;
  /** For people; the same words for the same reason, so that shards can be counted by it. */
  readonly reason: string;
}

/** A file of which less than this part is in memory counts as cold. */
const WARM_PART = 0.5;

const COLD = "most of it is not in memory";
const WARM = "it is in memory already";
const COLD_RULE = `${COLD}: lanes read faster than pages are faulted in`;

/** What was measured of this machine and device, for files that are in memory and those that are not. */
export interface MeasuredPaths {
  readonly cold?: MeasuredChoice | undefined;
  readonly warm?: MeasuredChoice | undefined;
}

/** Whether the reason for a path may pass: reading brings a file into memory. */
export function mayPass({ strategy, reason }: ShardPath): boolean {
  return strategy === "read" && reason.startsWith(COLD);
}

const ASKED = "asked for";

/** Throws `BAD_OPTION` for an unknown strategy. */
export function checkStrategy(strategy: string): void {
  if (["auto", "map", "read", "stream"].includes(strategy)) return;
  throw new HeadraceError("BAD_OPTION", `strategy is ${strategy}; it must be auto, map, read or stream`);
}

/** The way of a shard that was decoded as a whole, from what was chosen for what it decodes to. */
export function wholePath({ strategy, reason }: ShardPath, why: string): ShardPath {
  const text = `compressed without random access (${why}): decoded once to a temporary file; pack it again to stream it`;
  return { strategy, reason: `${text}; ${reason}` };
}

/** Throws `UNSUPPORTED` for `stream` on a device that streams no plain files. */
export function checkPlain(asked: Strategy | "auto", { name, canStream }: Capabilities): void {
  if (asked !== "stream" || canStream) return;
  throw new HeadraceError(
    "UNSUPPORTED",
    `strategy stream: device ${name} has no file queue to stream through; use auto, map or read, or the device metal on a Mac`,
  );
}

/** The way of a compressed shard, whose chunks are `codecs` and were made of so many frames whose checksums are not
 * verified. Throws `UNSUPPORTED` where another way was asked for. */
export function compressedPath(
  asked: Strategy | "auto",
  path: string,
  codecs: string,
  unverifiedFrames = 0,
): ShardPath {
  if (asked === "auto" || asked === "stream") {
    const unverified = unverifiedFrames === 0 ? "" : ", checksums over several verified by verify alone";
    return { strategy: "stream", reason: `compressed (${codecs}): its chunks are decoded${unverified}` };
  }
  throw new HeadraceError(
    "UNSUPPORTED",
    `${path}: is compressed (${codecs}), and its bytes are decoded instead of ${asked === "map" ? "mapped" : "read"}; use the strategy auto or stream, or decompress it`,
  );
}

/**
 * Decides for one file. What was asked for is done where the device can at all. Else: a file that is in memory
 * is mapped, since that costs nothing; one that is not is read by lanes, which keep more requests on their way
 * than page faults do, and leave no fault to the GPU; one beyond what the device can keep resident is read, since
 * a device may make the whole of a mapping resident when it first uses it. A device with memory of its own does not:
 * there a mapping stays in the host's. No plain file streams unasked: nobody has shown that to be faster. What was
 * `measured` stands above the rule of what is in memory, not above what the device can do. Throws `UNSUPPORTED` for
 * `stream` on a device that has no file queue.
 */
export function choosePath(
  asked: Strategy | "auto",
  device: Capabilities,
  file: DeviceFile,
  measured: MeasuredPaths = {},
): ShardPath {
  checkPlain(asked, device);
  if (asked === "read" || asked === "stream") return { strategy: asked, reason: ASKED };
  if (!device.canMap) return { strategy: "read", reason: "the device does not map files" };
  if (file.byteLength === 0) return { strategy: "read", reason: "the file is empty" };
  if (asked === "map") return { strategy: "map", reason: ASKED };
  if (device.unifiedMemory && file.byteLength > device.workingSet) {
    return { strategy: "read", reason: "larger than what the device can keep resident" };
  }
  const resident = file.residentPart?.();
  if (resident === undefined) return { strategy: "map", reason: "the device maps it" };
  if (resident >= WARM_PART) return measuredPath(WARM, measured.warm) ?? { strategy: "map", reason: WARM };
  return measuredPath(COLD, measured.cold) ?? { strategy: "read", reason: COLD_RULE };
}

function measuredPath(state: string, choice: MeasuredChoice | undefined): ShardPath | undefined {
  if (choice === undefined) return undefined;
  const { strategy, gigabytesPerSecond, otherGigabytesPerSecond } = choice;
  const rates = [gigabytesPerSecond, otherGigabytesPerSecond].map((rate) => rate.toPrecision(3));
  const other = strategy === "map" ? "read" : "map";
  return { strategy, reason: `${state}: measured here, ${strategy} ${rates[0]} GB/s, ${other} ${rates[1]}` };
}
