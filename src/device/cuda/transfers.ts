/** Puts copies into streams: large ones by the copy engines, many small ones by one kernel over a table. */
import { laneShiftFor, packConstants, teamThreads } from "../../kernels/constants.ts";
import { writeMove } from "../../kernels/move.ts";
import type { CudaContext } from "./context.ts";
import type { Launcher } from "./launch.ts";
import type { CudaPipeline } from "./pipeline.ts";
import type { Stream } from "./streams.ts";
import { TABLE_MOVES, type Table, type Tables } from "./tables.ts";
import type { Tail } from "./tail.ts";
import type { Windows } from "./windows.ts";

/** Longer copies are left to the copy engines. */
export const SMALL_BYTES = 64 * 1024;
/** Fewer copies than this are cheaper one by one. */
export const FEW = 8;

export interface TransferParts {
  readonly context: CudaContext;
  readonly launcher: Launcher;
  readonly tables: Tables;
  /** The kernel of small copies, of which there are up to `count` more; undefined where they go one by one. */
  readonly moveKernel: (count: number) => CudaPipeline | undefined;
}

/** Where copies go. */
export interface CopyStreams {
  readonly upload: Stream;
  readonly download: Stream;
}

/** Copies that start together. All memory they use is registered, pinned or the device's. */
export class Transfers {
  readonly #parts: TransferParts;
  readonly #used = new Set<Stream>();
  readonly #streams: CopyStreams;
  readonly #tail: Tail;
  readonly #taken: Table[];
  readonly #kernel: CudaPipeline | undefined;
  /** Holds the small ones until they are started. */
  #table: Table | undefined;
  #numSmall = 0;
  #longestSmall = 0;

  /** `count` copies are about to be added. Tables that they need until they have ended are put into `taken`. */
  constructor(parts: TransferParts, streams: CopyStreams, tail: Tail, taken: Table[], count: number) {
    this.#parts = parts;
    this.#kernel = count < FEW ? undefined : parts.moveKernel(count);
    this.#streams = streams;
    this.#tail = tail;
    this.#taken = taken;
  }

  /** Copies up to so many bytes are for {@link Transfers.addSmall}, longer ones for {@link Transfers.add}. */
  get smallBytes(): number {
    return this.#kernel === undefined ? 0 : SMALL_BYTES;
  }

  /** Hot: one call a row. */
  addSmall(source: number, target: number, byteLength: number): void {
    this.#table ??= this.#takeTable();
    writeMove(this.#table, this.#numSmall, source, target, byteLength);
    if (byteLength > this.#longestSmall) this.#longestSmall = byteLength;
    if (++this.#numSmall === TABLE_MOVES) this.flush();
  }

  /** `windows` is there where the source is a mapping: the copy engines do not go from one window into the next. */
  add(
    source: number,
    target: number,
    byteLength: number,
    toHost: boolean,
    windows: Windows | undefined,
  ): void {
    const stream = this.#stream(toHost);
    for (let at = 0; at < byteLength; ) {
      const rest = byteLength - at;
      const length = windows === undefined ? rest : Math.min(rest, windows.restFrom(source + at));
      this.#copy(stream, source + at, target + at, length);
      at += length;
    }
  }

  /** Starts the small ones that were added. */
  flush(): void {
    const table = this.#table;
    const count = this.#numSmall;
    if (table === undefined || count === 0) return;
    this.#table = undefined;
    this.#numSmall = 0;
    const laneShift = laneShiftFor(this.#longestSmall);
    const addresses = [table.addressesAt, table.byteLengthsAt];
    const constants = packConstants([count, laneShift]);
    const stream = this.#stream(false);
    const kernel = this.#kernel!;
    this.#parts.launcher.run(stream.handle, kernel, addresses, constants, teamThreads(count, laneShift));
  }

  /** What comes next starts after all of it. */
  end(): void {
    if (this.#used.size > 0) this.#tail.become(this.#used);
  }

  #takeTable(): Table {
    const table = this.#parts.tables.take();
    this.#taken.push(table);
    return table;
  }

  #stream(toHost: boolean): Stream {
    const stream = toHost ? this.#streams.download : this.#streams.upload;
    if (!this.#used.has(stream)) {
      this.#tail.behind(stream);
      this.#used.add(stream);
    }
    return stream;
  }

  #copy(stream: Stream, source: number, target: number, byteLength: number): void {
    const { context } = this.#parts;
    const { cuMemcpyAsync } = context.driver.symbols;
    context.check(`copying ${byteLength} bytes`, cuMemcpyAsync(target, source, byteLength, stream.handle));
  }
}
