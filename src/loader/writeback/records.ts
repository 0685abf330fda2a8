/** Puts rows into the attempts of their outputs: as records, and by a device where their values are in its memory. */
import { type FieldPlace, fixedPlaces, rowBytesOf } from "../../format/output-layout.ts";
import { RecordSink } from "./attempt.ts";
import type { CellReader } from "./cells.ts";
import { partPath } from "./commit.ts";
import type { Journal } from "./journal.ts";
import type { ResolvedWriterOptions } from "./options.ts";
import type { OpenOutput } from "./output.ts";
import type { DeviceValues, Placement, Placer } from "./placing.ts";

/** Rows that follow one another, as do their places in the shard. */
interface RowRun {
  readonly row: number;
  readonly position: number;
  readonly count: number;
}

export interface RecordParts {
  readonly folder: string;
  readonly options: ResolvedWriterOptions;
  /** Holds the cells of the rows that are put. */
  readonly cells: CellReader;
  readonly journal: Journal;
  /** Needed for rows with values in device memory. */
  readonly placer: Placer | undefined;
}

/** Borrows its parts. */
export class Records {
  readonly #parts: RecordParts;
  readonly #scratch = new RecordSink();

  constructor(parts: RecordParts) {
    this.#parts = parts;
  }

  /** Takes `count` rows from `row` on, which `open` is without, and adds what was read of them. A promise where values
   * in device memory wait for room. */
  take(open: OpenOutput, row: number, count: number, attempts: number): Promise<void> | undefined {
    const position = open.take(row, count);
    if (position === undefined) return this.#putEach(open, row, count, attempts);
    return this.#put(open, { row, position, count }, attempts, 0, (values) => values.release?.());
  }

  /** For places that are not side by side, which an earlier run may have left. */
  #putEach(open: OpenOutput, row: number, count: number, attempts: number): Promise<void> | undefined {
    const left = new Map<DeviceValues, number>();
    const release = (values: DeviceValues) => {
      const others = (left.get(values) ?? count) - 1;
      left.set(values, others);
      if (others === 0) values.release?.();
    };
    const waits: Promise<void>[] = [];
    for (let i = 0; i < count; i++) {
      const position = open.take(row + i, 1)!;
      const wait = this.#put(open, { row: row + i, position, count: 1 }, attempts, i, release);
      if (wait !== undefined) waits.push(wait);
    }
    return waits.length === 0 ? undefined : Promise.all(waits).then(() => {});
  }

  /** Adds a record of rows that were taken, of the cells that were read; of those in device memory, from the one of
   * number `skip` on. */
  #put(
    open: OpenOutput,
    run: RowRun,
    attempts: number,
    skip: number,
    release: (values: DeviceValues) => void,
  ): Promise<void> | undefined {
    const { cells, journal, placer } = this.#parts;
    const { row, position, count } = run;
    if (cells.placed.length === 0) {
      const before = open.sink.byteLength;
      cells.write(open.sink, row, position, count, attempts);
      this.#sealed(open, count, open.sink.byteLength - before);
      return undefined;
    }
    if (!open.hasPlaced) journal.madeFile();
    open.hasPlaced = true;
    cells.write(this.#scratch, row, position, count, attempts);
    const record = this.#scratch.take();
    return placer!.place(this.#placements(open, run, skip, release), () => {
      open.sink.append(record);
      this.#sealed(open, count, record.length);
    });
  }

  /** Where the values go that are in device memory. */
  #placements(
    open: OpenOutput,
    { position, count }: RowRun,
    skip: number,
    release: (values: DeviceValues) => void,
  ): Placement[] {
    const { folder, options, cells } = this.#parts;
    return cells.placed.map(({ field, values }): Placement => {
      const rowBytes = rowBytesOf(options.fields[field]!);
      const { buffer, byteOffset } = values;
      return {
        values: { buffer, byteOffset: byteOffset + skip * rowBytes, release: () => release(values) },
        byteLength: rowBytes * count,
        path: partPath(folder, open.name.fileName),
        fileOffset: this.#placesOf(open)[field]!.values + position * rowBytes,
      };
    });
  }

  #placesOf(open: OpenOutput): readonly FieldPlace[] {
    const { format, fields } = this.#parts.options;
    open.places ??= fixedPlaces(format, fields, open.name.shard.name, open.numRows).fields;
    return open.places;
  }

  #sealed(open: OpenOutput, count: number, bytes: number): void {
    open.sealed(count);
    this.#parts.journal.added(open, bytes);
  }
}
