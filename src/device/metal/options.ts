/** How the Metal device works, and how that is told to the library. */
import { HeadraceError } from "../../errors.ts";
import { bounded } from "../common/checks.ts";
import { Codec, OptionFlag, STRUCTS } from "./abi.ts";
import type { CompletionWay } from "./completions.ts";

/** Codecs by the names that options and capabilities use. */
export const CODECS = {
  zlib: Codec.ZLIB,
  lzfse: Codec.LZFSE,
  lz4: Codec.LZ4,
  lzma: Codec.LZMA,
  lzbitmap: Codec.LZBITMAP,
} as const;

export type StreamCodec = keyof typeof CODECS;

/** How files in mode `stream` are read. */
export interface StreamOptions {
  /** Reads from a compressed form of each file, which `prepareStream` makes; the file itself without. */
  readonly codec?: StreamCodec | (string & {});
  /** Where compressed forms lie; default a folder of the user's cache. */
  readonly cacheFolder?: string;
  /** Bytes that are compressed at a time, and so the unit of random access; 4 KiB to 16 MiB, default 64 KiB. */
  readonly chunkBytes?: number;
}

/** MTLIO queues. */
export interface FileQueueOptions {
  /** For compressed files, as each queue decompresses on one core; 1 to 16, default by the cores. */
  readonly queues?: number;
  /** Commands that run at once; 0, the default, lets the system choose. At most 4096. */
  readonly maxCommands?: number;
  /** Command buffers that are open at once; 1 to 4096, default 64. */
  readonly maxCommandBuffers?: number;
  readonly priority?: "high" | "normal" | "low";
  /** One command buffer after the other. */
  readonly serial?: boolean;
  /** Bound of the memory for decompressing; 1 MiB to 64 GiB, default 256 MiB. */
  readonly scratchBytes?: number;
}

/** Every field has a default that suits most Macs. */
export interface MetalOptions {
  /** Path of libHeadraceMetal; found in the package or by HEADRACE_METAL_LIBRARY without. */
  readonly library?: string;
  /** Of the GPU; 0, the default, is the system's own choice. */
  readonly ordinal?: number;
  /** Threads that read; 1 to 64, default 8 to 12 by the performance cores. */
  readonly lanes?: number;
  /** Threads that write; 1 to 16, default 3. */
  readonly writeLanes?: number;
  /** Longer requests are cut into pieces of this many bytes; 4 KiB to 1 GiB, default 8 MiB. */
  readonly pieceBytes?: number;
  /** Submissions of copies alone up to this many bytes are made on the calling thread; default 1 MiB. */
  readonly inlineCopyBytes?: number;
  /** Bytes of files that may be mapped at once; default three quarters of the working set. */
  readonly mapBudget?: number;
  /** Reads and writes leave the page cache as it is (F_NOCACHE); default false. */
  readonly noCache?: boolean;
  /** What `sync` requests mean: `data` (fsync), `barrier` (F_BARRIERFSYNC) or `full` (F_FULLFSYNC). */
  readonly sync?: "data" | "barrier" | "full";
  /** Runs GPU work again once after a timeout, a page fault or a reset; default false. */
  readonly retryOnce?: boolean;
  /** GPU work right behind reads of `stream` files is given to the GPU while those are on their way, to wait for them
   * there; with false, only once they have ended well. See the queue of the device interface. Default true. */
  readonly gpuAhead?: boolean;
  /** Residency sets, where the system has them; default true. */
  readonly residency?: boolean;
  /** Residency is kept up this long after the last GPU work; default 3 minutes. */
  readonly keepAliveMs?: number;
  readonly fileQueues?: FileQueueOptions;
  readonly stream?: StreamOptions;
  /** A file where compiled kernels are kept from run to run. */
  readonly kernelArchive?: string;
  /** How completions reach JavaScript. */
  readonly completions?: CompletionWay;
}

const KIB = 2 ** 10;
const MIB = 2 ** 20;
const GIB = 2 ** 30;
const MAX_BYTES = 2 ** 46;

/** The hr_device_options. Throws `BAD_OPTION` for an option out of its bounds. */
export function encodeOptions(options: MetalOptions): Uint8Array {
  checkChoices(options);
  const { byteLength, fields: at } = STRUCTS.hr_device_options;
  const out = new DataView(new ArrayBuffer(byteLength));
  const u32 = (field: number, name: string, value: number | undefined, least: number, most: number) => {
    if (value !== undefined) out.setUint32(field, bounded(name, value, least, most), true);
  };
  const u64 = (field: number, name: string, value: number | undefined, least: number, most: number) => {
    if (value === undefined) return;
    // A zero would mean the default, and one is as good as none.
    out.setBigUint64(field, BigInt(Math.max(1, bounded(name, value, least, most))), true);
  };
  const io = options.fileQueues ?? {};
  out.setUint32(at.flags, flagsOf(options), true);
  u32(at.lanes, "lanes", options.lanes, 1, 64);
  u32(at.write_lanes, "writeLanes", options.writeLanes, 1, 16);
  u32(at.io_queues, "fileQueues.queues", io.queues, 1, 16);
  u32(at.io_max_commands, "fileQueues.maxCommands", io.maxCommands, 0, 4096);
  u32(at.io_max_command_buffers, "fileQueues.maxCommandBuffers", io.maxCommandBuffers, 1, 4096);
  out.setUint32(at.io_priority, PRIORITIES.indexOf(io.priority ?? "high"), true);
  out.setUint32(at.io_serial, io.serial === true ? 1 : 0, true);
  u64(at.piece_bytes, "pieceBytes", options.pieceBytes, 4 * KIB, GIB);
  u64(at.inline_copy_bytes, "inlineCopyBytes", options.inlineCopyBytes, 0, GIB);
  u64(at.map_budget, "mapBudget", options.mapBudget, 0, MAX_BYTES);
  u64(at.io_scratch_bytes, "fileQueues.scratchBytes", io.scratchBytes, MIB, 64 * GIB);
  u64(at.keep_alive_ms, "keepAliveMs", options.keepAliveMs, 0, 2 ** 31 - 1);
  return new Uint8Array(out.buffer);
}

/** Throws `BAD_OPTION`. */
export function ordinalOf(options: MetalOptions): number {
  return bounded("ordinal", options.ordinal ?? 0, 0, 255);
}

/** Throws `BAD_OPTION`. */
export function chunkBytesOf(options: StreamOptions): number {
  return bounded("stream.chunkBytes", options.chunkBytes ?? 64 * KIB, 4 * KIB, 16 * MIB);
}

const PRIORITIES = ["high", "normal", "low"];
const SYNCS = ["data", "barrier", "full"];
const WAYS = ["auto", "wake", "worker"];

function checkChoices({ stream, fileQueues, sync, completions }: MetalOptions): void {
  if (stream !== undefined) chunkBytesOf(stream);
  // It would mean the current folder.
  if (stream?.cacheFolder === "") {
    throw new HeadraceError("BAD_OPTION", "stream.cacheFolder is empty; name a folder or leave it out");
  }
  choice("stream.codec", stream?.codec, Object.keys(CODECS));
  choice("fileQueues.priority", fileQueues?.priority, PRIORITIES);
  choice("sync", sync, SYNCS);
  choice("completions", completions, WAYS);
}

function choice(name: string, value: string | undefined, values: readonly string[]): void {
  if (value === undefined || values.includes(value)) return;
  throw new HeadraceError("BAD_OPTION", `${name} ${value} is none of ${values.join(", ")}`);
}

function flagsOf({ retryOnce, residency, sync, gpuAhead }: MetalOptions): number {
  return (
    (retryOnce === true ? OptionFlag.RETRY_ONCE : 0) |
    (residency === false ? OptionFlag.NO_RESIDENCY : 0) |
    (sync === "barrier" ? OptionFlag.BARRIER_FSYNC : 0) |
    (sync === "full" ? OptionFlag.FULL_FSYNC : 0) |
    (gpuAhead === false ? OptionFlag.GPU_BEHIND : 0)
  );
}
