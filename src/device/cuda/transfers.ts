/** Puts copies into streams: large ones by the copy engines, many small ones by one kernel over a table. */
import { laneShiftFor, packConstants } from "../../kernels/constants.ts";
import { writeMove } from "../../kernels/move.ts";
import type { CudaContext } from "./context.ts";
import type { Launcher } from "./launch.ts";
import type { CudaPipeline } from "./pipeline.ts";
import type { Stream, Streams } from "./streams.ts";
import { TABLE_MOVES, type Table, type Tables } from "./tables.ts";
import type { Tail } from "./tail.ts";
import type { Windows } from "./windows.ts";

/** Longer copies are left to the copy engines. */
export const SMALL_BYTES = 64 * 1024;
/** Fewer small copies than this are cheaper one by one. */
const FEW = 8;

export interface TransferParts {
  readonly context: CudaContext;
  readonly launcher: Launcher;
  readonly tables: Tables;
  /** The kernel of small copies; undefined where there is no compiler. Made when first needed. */
  readonly moveKernel: () => CudaPipeline | undefined;
}

/** Copies that start together. All memory they use is registered, pinned or the device's. */
export class Transfers {
  readonly #parts: TransferParts;
  /** Source, target, byteLength of the small ones. */
  #small: number[] = [];
  #longestSmall = 0;
  readonly #used = new Set<Stream>();
  readonly #streams: Streams;
  readonly #tail: Tail;
  readonly #taken: Table[];

  /** Tables that the copies need until they have ended are put into `taken`. */
  constructor(parts: TransferParts, streams: Streams, tail: Tail, taken: Table[]) {
    this.#parts = parts;
    this.#streams = streams;
    this.#tail = tail;
    this.#taken = taken;
  }

  /** `windows` is there where the source is a mapping: one copy may not reach from one window into the next. */
  add(source: number, target: number, byteLength: number, toHost: boolean, windows: Windows | undefined): void {
    if (byteLength <= SMALL_BYTES && (windows === undefined || windows.indexOf(source) === windows.indexOf(source + byteLength - 1))) {
      this.#small.push(source, target, byteLength);
      this.#longestSmall = Math.max(this.#longestSmall, byteLength);
      if (this.#small.length === 3 * TABLE_MOVES) this.flush();
      return;
    }
    const stream = this.#stream(toHost);
    for (let at = 0; at < byteLength; ) {
      const length = Math.min(byteLength - at, windows === undefined ? byteLength : windows.restFrom(source + at));
      this.#copy(stream, source + at, target + at, length);
      at += length;
    }
  }

  /** What comes next starts after all of it. */
  end(): void {
    if (this.#used.size > 0) this.#tail.become(this.#used);
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

  /** Starts the small ones that were added. */
  flush(): void {
    const small = this.#small;
    const count = small.length / 3;
    if (count === 0) return;
    this.#small = [];
    const stream = this.#stream(false);
    const pipeline = count < FEW ? undefined : this.#parts.moveKernel();
    if (pipeline === undefined) {
      for (let i = 0; i < small.length; i += 3) this.#copy(stream, small[i]!, small[i + 1]!, small[i + 2]!);
      return;
    }
    const table = this.#parts.tables.take();
    this.#taken.push(table);
    for (let i = 0; i < count; i++) writeMove(table, i, small[3 * i]!, small[3 * i + 1]!, small[3 * i + 2]!);
    const laneShift = laneShiftFor(this.#longestSmall);
    const constants = packConstants([count, laneShift]);
    const addresses = [table.addressesAt, table.byteLengthsAt];
    this.#parts.launcher.run(stream.handle, pipeline, addresses, constants, count * 2 ** laneShift);
  }
}
