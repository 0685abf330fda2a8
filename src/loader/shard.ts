/** One shard while it is open: its description, its mapping, and small reads of its metadata columns. */
import type { ChunkFile } from "../device/decode.ts";
import { type Device, type DeviceBuffer, type DeviceFile, isDeclined } from "../device/device.ts";
import { HeadraceError } from "../errors.ts";
import { codecNames } from "../format/chunks.ts";
import type { ColumnSchema, RowGroup, ShardDescription, Strategy } from "../types.ts";
import type { BlockCache, BlockSource } from "./blocks.ts";
import { describeShard } from "./describe.ts";
import {
  choosePath,
  compressedPath,
  type MeasuredPaths,
  mayPass,
  type ShardPath,
  wholePath,
} from "./path.ts";
import type { WholeShard } from "./whole.ts";

/** Longest typed view that is quick to index: past 2 GiB byte indices leave the engine's fast path. */
const MAX_VIEW = 2 ** 31;

/** Bytes that are brought in ahead of a reader that goes through a mapping in order. */
const AHEAD_BYTES = 16 * 1024 * 1024;
/** Shorter ranges out of order are left to page faults. */
const SMALL_BYTES = 64 * 1024;

/** Bytes of a mapping that were asked for ahead of their use. */
interface AskedRange {
  readonly buffer: DeviceBuffer;
  readonly from: number;
  readonly to: number;
}

export interface OpenShardOptions {
  readonly device: Device;
  readonly path: string;
  /** Of the shard in its dataset. */
  readonly index: number;
  /** Columns that must be of supported types; all where absent. */
  readonly columns?: readonly string[] | undefined;
  /** What the shard at `path` decodes to, where it has no random access: read instead of it, and borrowed. */
  readonly whole?: WholeShard | undefined;
  /** Whether checksums of what is compressed are verified; default true. */
  readonly checksums?: boolean | undefined;
  /** `auto` is decided by {@link choosePath}. */
  readonly strategy: Strategy | "auto";
  /** For {@link choosePath}. */
  readonly measured?: MeasuredPaths | undefined;
  readonly blocks: BlockCache;
  /** Length in bytes that a manifest gives. */
  readonly byteLength?: number | undefined;
}

/** An open shard. Closed by the cache that opened it once nothing pins it. */
export class OpenShard {
  /** For metadata, mappings and the check of the length. */
  readonly file: DeviceFile;
  /** The path by which people know the shard. */
  readonly name: string;
  /** What batches are read from: {@link OpenShard.file}, or the same path as a stream. */
  readonly source: DeviceFile;
  /** What batches are decoded through instead, where the shard is compressed: then all offsets but those of
   * {@link OpenShard.file} itself count in the bytes that it decodes to. */
  readonly chunkFile: ChunkFile | undefined;
  readonly description: ShardDescription;
  readonly index: number;
  /** First row of each group, and the number of rows at the end. */
  readonly groupStarts: Float64Array;
  /** Changed by {@link OpenShard.readInstead} and {@link OpenShard.chooseAgain} alone. */
  path: ShardPath;
  /** Batches and submissions that use this shard's memory. */
  pins = 0;
  /** File offset at which the buffer that {@link OpenShard.window} gave last begins. */
  windowStart = 0;
  /** Rows view: the layouts of the dataset's columns, in its order; set once by {@link OpenShard.select}. */
  columnOf: readonly number[] = [];
  /** Whether some row of the shard is null in each of those columns. */
  hasNulls: readonly boolean[] = [];
  /** Whether some of each column's values are stored as bits. */
  hasBits: readonly boolean[] = [];

  readonly #device: Device;
  readonly #asked: Strategy | "auto";
  readonly #measured: MeasuredPaths | undefined;
  readonly #whole: WholeShard | undefined;
  readonly #blocks: BlockCache;
  readonly #windows = new Map<number, DeviceBuffer>();
  readonly #windowLength: number;
  /** Windows overlap by half, so that what is shorter than that lies whole in one. */
  readonly #windowStride: number;
  /** What {@link OpenShard.window} gave last: it most often is what is asked for next. */
  #shown: DeviceBuffer | undefined;
  readonly #ahead = new Map<number, AskedRange>();
  readonly #metaSource: BlockSource;
  #metaView: Uint8Array | undefined;
  #checkedFor: object | undefined;

  constructor(options: OpenShardOptions) {
    this.index = options.index;
    this.#device = options.device;
    this.#asked = options.strategy;
    this.#measured = options.measured;
    this.#blocks = options.blocks;
    this.#windowLength = options.device.capabilities.maxMapLength;
    this.name = options.path;
    this.#whole = options.whole;
    this.file = options.device.openFile(options.whole?.file.path ?? options.path);
    const { byteLength } = this.file;
    this.#windowStride = this.#windowLength >= byteLength ? byteLength : Math.ceil(this.#windowLength / 2);
    this.source = this.file;
    try {
      const fileBytes = this.#fileBytes(options.device);
      this.#checkListed(options.byteLength, fileBytes);
      const { description, chunkFile } = describeShard(options.device, this.file, {
        ...options,
        wholeOf: options.whole === undefined ? undefined : options.path,
      });
      this.description = { ...description, byteLength: fileBytes };
      this.chunkFile = chunkFile;
      this.#metaSource =
        chunkFile === undefined
          ? this.file
          : {
              byteLength: chunkFile.table.byteLength,
              table: chunkFile.table,
              readSync: (byteOffset, length) => chunkFile.readSync(byteOffset, length),
            };
      const groups = this.description.rows?.groups ?? [];
      this.groupStarts = Float64Array.from([
        ...groups.map((g) => g.rowStart),
        this.description.rows?.numRows ?? 0,
      ]);
      this.path = this.#choosePath();
      if (this.path.strategy === "stream" && chunkFile === undefined)
        this.source = options.device.openFile(options.path, "stream");
    } catch (error) {
      this.close();
      throw error;
    }
  }

  /** Reads from now on, and maps no more. */
  readInstead(reason: string): void {
    if (this.path.strategy === "map") this.path = { strategy: "read", reason };
  }

  /** Looks again where the choice depends on what is in memory, which reading has changed. */
  chooseAgain(): void {
    if (this.#asked === "auto" && mayPass(this.path)) this.path = this.#choosePath();
  }

  /** Fixes which of the file's columns the dataset's columns are. */
  select(columns: readonly ColumnSchema[]): void {
    const names = new Map(this.description.rows?.schema.columns.map((column, i) => [column.name, i]));
    this.columnOf = columns.map((column) => names.get(column.name) ?? -1);
    const groups = this.description.rows?.groups ?? [];
    this.hasNulls = this.columnOf.map((own) =>
      groups.some((group) => group.columns[own]?.validity !== undefined),
    );
    this.hasBits = this.columnOf.map((own) => groups.some((group) => group.columns[own]?.bitPacked === true));
  }

  /** Index of the group that holds `row`. */
  groupAt(row: number): number {
    const starts = this.groupStarts;
    let low = 0;
    let high = starts.length - 2;
    while (low < high) {
      const middle = (low + high + 1) >>> 1;
      if (starts[middle]! <= row) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  /** The group that holds `row`. */
  groupOf(row: number): RowGroup {
    const groups = this.description.rows!.groups;
    return groups.length === 1 ? groups[0]! : groups[this.groupAt(row)]!;
  }

  /** Throws `FILE_CHANGED` where the file has shrunk; asks the system once for each `occasion`. */
  check(occasion: object): void {
    if (this.#checkedFor === occasion) return;
    this.file.checkLength();
    this.#checkedFor = occasion;
  }

  /** A mapping that shows `[start, end)` whole, or undefined where this shard is read; sets
   * {@link OpenShard.windowStart}. */
  window(start: number, end: number): DeviceBuffer | undefined {
    if (this.path.strategy !== "map") return undefined;
    const shown = this.#shown;
    if (shown !== undefined && start >= this.windowStart && end <= this.windowStart + shown.byteLength) {
      return shown;
    }
    const key = Math.floor(start / this.#windowStride);
    const windowStart = key * this.#windowStride;
    const windowEnd = this.windowEnd(start);
    if (end > windowEnd) return undefined;
    let buffer = this.#windows.get(key);
    if (buffer === undefined) {
      const answer = this.#device.map(this.file, windowStart, windowEnd - windowStart);
      if (isDeclined(answer)) return undefined;
      buffer = answer;
      this.#windows.set(key, buffer);
    }
    this.windowStart = windowStart;
    this.#shown = buffer;
    return buffer;
  }

  /** Where the furthest window that shows file offset `start` ends. */
  windowEnd(start: number): number {
    const stride = this.#windowStride;
    return Math.min(Math.floor(start / stride) * stride + this.#windowLength, this.file.byteLength);
  }

  /** Bytes of a metadata column (offsets, bits, codes): borrowed, to be read at once. Blocks on the disk. */
  meta(byteOffset: number, byteLength: number): Uint8Array {
    if (this.path.strategy === "map" && this.file.byteLength < MAX_VIEW) {
      this.#metaView ??= this.#mapMeta();
      if (this.#metaView !== undefined) return this.#metaView.subarray(byteOffset, byteOffset + byteLength);
    }
    return this.#blocks.read(this.#metaSource, this.index, byteOffset, byteLength);
  }

  /**
   * Has pages of a mapping brought in ahead of their use, off this thread. `reader` tells apart those who each
   * go through the shard in an order of their own (columns). Who goes on where it stopped gets
   * {@link AHEAD_BYTES} at once, since asking has a price of its own; what was asked for already is not again.
   */
  willNeed(reader: number, buffer: DeviceBuffer, byteOffset: number, byteLength: number): void {
    const end = byteOffset + byteLength;
    const asked = this.#ahead.get(reader);
    const goesOn = asked?.buffer === buffer && byteOffset >= asked.from && byteOffset <= asked.to;
    if (goesOn && end <= asked.to) return;
    if (!goesOn && byteLength < SMALL_BYTES) return;
    const from = goesOn ? asked.to : byteOffset;
    const to = Math.min(buffer.byteLength, goesOn ? Math.max(end, from + AHEAD_BYTES) : end);
    buffer.advise("will-need", from, to - from);
    this.#ahead.set(reader, { buffer, from: goesOn ? asked.from : byteOffset, to });
  }

  /** Lets the system take back the pages of this shard's mappings; they come again when touched. */
  dropResidency(): void {
    this.#ahead.clear();
    for (const buffer of this.#windows.values()) buffer.advise("dont-need", 0, buffer.byteLength);
  }

  close(): void {
    for (const buffer of this.#windows.values()) buffer.close();
    this.#windows.clear();
    this.#shown = undefined;
    this.#metaView = undefined;
    // The path may lead to another file when it is opened again.
    this.#blocks.drop(this.index);
    this.chunkFile?.close();
    if (this.source !== this.file) this.source.close();
    this.file.close();
  }

  /** Of the shard as it lies on the disk. */
  #fileBytes(device: Device): number {
    if (this.#whole === undefined) return this.file.byteLength;
    using compressed = device.openFile(this.name);
    return compressed.byteLength;
  }

  #checkListed(byteLength: number | undefined, fileBytes: number): void {
    if (byteLength === undefined || byteLength === fileBytes) return;
    throw new HeadraceError(
      "FILE_CHANGED",
      `${this.name}: has ${fileBytes} bytes where the manifest says ${byteLength}`,
    );
  }

  #mapMeta(): Uint8Array | undefined {
    const buffer = this.window(0, this.file.byteLength);
    if (buffer === undefined || buffer.hostAddress === 0) return undefined;
    return new Uint8Array(buffer.view(0, buffer.byteLength));
  }

  #choosePath(): ShardPath {
    const { chunks } = this.description;
    if (chunks !== undefined)
      return compressedPath(this.#asked, this.name, codecNames(chunks), chunks.unverifiedFrames);
    const whole = this.#whole;
    // What was asked to be streamed has become a plain file.
    const asked = whole !== undefined && this.#asked === "stream" ? "auto" : this.#asked;
    const path = this.#chooseWay(asked);
    return whole === undefined ? path : wholePath(path, whole.reason);
  }

  #chooseWay(asked: Strategy | "auto"): ShardPath {
    const path = choosePath(asked, this.#device.capabilities, this.file, this.#measured);
    if (path.strategy !== "map" || this.#windows.has(0)) return path;
    const answer = this.#device.map(this.file, 0, Math.min(this.file.byteLength, this.#windowLength));
    if (isDeclined(answer)) return { strategy: "read", reason: answer.declined };
    this.#windows.set(0, answer);
    return path;
  }
}
