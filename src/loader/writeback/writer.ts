/** Takes outputs row by row, in any order, and makes shards of them that survive whatever happens in between. */
import { HeadraceError } from "../../errors.ts";
import type { SampleRange } from "../../plan/select.ts";
import { CellReader } from "./cells.ts";
import { Committer, partPath } from "./commit.ts";
import { Journal } from "./journal.ts";
import type { CommittedShard } from "./manifest.ts";
import type { ResolvedWriterOptions } from "./options.ts";
import type { OpenOutput } from "./output.ts";
import { Placer } from "./placing.ts";
import { Records } from "./records.ts";
import { Roster } from "./roster.ts";

/** One row's output. Its other properties are values, by the names of the columns: text as a string or UTF-8 bytes, lists
 * and values of fixed size as typed arrays of the column's dtype, scalars also as numbers; values of fixed size also
 * as `DeviceValues`. What is absent is null. Properties that are no column are ignored. */
export interface OutputRow {
  /** Index of the row in the dataset. */
  readonly row: number;
  /** How often the row was tried, for the dead-letter file; default 1. */
  readonly attempts?: number | undefined;
}

/** How far a job has got. */
export interface WriterSummary {
  /** Rows whose output is there. */
  readonly rows: number;
  /** Those of them that an earlier run had made. */
  readonly resumedRows: number;
  /** Rows of the first number that failed. */
  readonly failedRows: number;
  /** Those of them that failed in an earlier run, and are not run again. */
  readonly resumedFailedRows: number;
  /** Shards that were finished, and are made again because their file is gone or is not as it was. */
  readonly remadeShards: number;
  /** Output shards of the job, and those that are whole. */
  readonly shards: number;
  readonly committedShards: number;
  /** Bytes of whole shards. */
  readonly bytes: number;
  /** Whether every row of the job has its output, in a shard that is whole. */
  readonly complete: boolean;
}

/** What an opened folder held. */
export interface WriterStart {
  readonly committed: readonly CommittedShard[];
  /** Outputs that an earlier run has begun, and those of whole shards whose failed rows run again. */
  readonly begun: readonly OpenOutput[];
  readonly failedRows: number;
  readonly remadeShards: number;
  /** Gives the folder back; `complete` says whether the job is over. */
  readonly leave: (complete: boolean) => Promise<void>;
}

/**
 * Writes the outputs of one job. Made by {@link openWriter}.
 *
 * A row is *there* once it is in an attempt file; it is *durable* at the next sync (time or bytes), at {@link
 * Writer.flush}, and when its shard is whole. Whatever is there when the process ends is found again by the next writer
 * of the same job. After a failure (`DISK_FULL`, `IO_ERROR`, or a device's) every call throws it, what was there
 * before stays, and `close` gives the folder back.
 */
export class Writer implements AsyncDisposable {
  readonly #folder: string;
  readonly #options: ResolvedWriterOptions;
  readonly #roster: Roster;
  readonly #cells: CellReader;
  readonly #journal: Journal;
  readonly #committer: Committer;
  readonly #placer: Placer | undefined;
  readonly #records: Records;
  readonly #leave: WriterStart["leave"];
  readonly #resumedRows: number;
  readonly #resumedFailedRows: number;
  readonly #remadeShards: number;
  #rows: number;
  #failedRows: number;
  #failure: HeadraceError | undefined;
  /** Whether a call has thrown it. */
  #told = false;
  #closing: Promise<void> | undefined;
  #timer: ReturnType<typeof setTimeout> | undefined;

  /** @internal */
  constructor(folder: string, options: ResolvedWriterOptions, start: WriterStart) {
    this.#folder = folder;
    this.#options = options;
    const { names, fields, errorField, device, ops, job, syncBytes, stageBytes } = options;
    this.#roster = new Roster(names, options.inInputOrder);
    this.#cells = new CellReader(fields, errorField);
    this.#leave = start.leave;
    const onFailure = (error: unknown) => this.#fail(error);
    this.#journal = new Journal({
      ops,
      folder,
      digest: job.digest,
      syncBytes,
      onWritten: (output) => this.#written(output),
      onFailure,
    });
    this.#committer = new Committer({
      folder,
      options,
      committed: start.committed,
      onBegin: async (output) => {
        this.#placer?.closeFile(partPath(folder, output.name.fileName));
        await this.#journal.forget(output);
      },
      onCommitted: ({ name }) => this.#roster.commit(name),
      onFailure,
    });
    this.#placer = device && new Placer({ device, stageBytes, syncBytes, onFailure });
    const [cells, journal, placer] = [this.#cells, this.#journal, this.#placer];
    this.#records = new Records({ folder, options, cells, journal, placer });
    for (const { name } of start.committed) this.#roster.commit(name);
    for (const output of start.begun) this.#roster.resume(output);
    const rows = this.#roster.numRows;
    this.#rows = rows;
    this.#resumedRows = rows;
    this.#failedRows = start.failedRows;
    this.#resumedFailedRows = start.failedRows;
    this.#remadeShards = start.remadeShards;
  }

  /** @internal Looks at the dead letters, and commits what is whole already: shards without rows, and those that a crash
   * has kept from it. */
  async begin(): Promise<void> {
    await this.#committer.recoverLetters();
    for (const output of this.#roster.complete()) this.#committer.add(output);
  }

  get summary(): WriterSummary {
    const committedShards = this.#roster.numWhole;
    const shards = this.#options.names.length;
    return {
      rows: this.#rows,
      resumedRows: this.#resumedRows,
      failedRows: this.#failedRows,
      resumedFailedRows: this.#resumedFailedRows,
      remadeShards: this.#remadeShards,
      shards,
      committedShards,
      bytes: this.#committer.byteLength,
      complete: committedShards === shards,
    };
  }

  /** Rows that have their output, or were added: ranges of the dataset, in order. They need not run again. */
  finished(): readonly SampleRange[] {
    return this.#roster.finished();
  }

  /** The other rows of the job: what a loader is to be given as its `ranges`. */
  remaining(): readonly SampleRange[] {
    return this.#roster.remaining();
  }

  /**
   * Takes the output of a row, which must be one of the job's and without one. Values in JavaScript's memory are copied
   * before this returns; values in device memory are the writer's until it calls their `release`.
   *
   * Where too much waits for the disk, gives a promise that resolves when there is room again: who adds more before
   * makes more wait. Throws `BAD_OPTION` for values that do not fit their columns and for a row that has its output,
   * `OUT_OF_RANGE` for a row of no shard, `CLOSED`, and what has failed before.
   */
  add<T extends OutputRow>(output: T): Promise<void> | undefined {
    return this.addRows(output.row, 1, output);
  }

  /** Takes the outputs of `count` rows from `row` on, which lie in one shard: values in device memory hold those of all
   * rows back to back, all others are the same for each of them. Otherwise as {@link Writer.add}. */
  addRows<T extends object>(
    row: number,
    count: number,
    output: T & Omit<OutputRow, "row">,
  ): Promise<void> | undefined {
    this.#assertUsable();
    const open = this.#roster.outputOf(row, count);
    const cells = this.#cells;
    cells.read(output as Readonly<Record<string, unknown>>, row, count);
    const { attempts = 1 } = output;
    const placed = cells.placed.length > 0;
    if (placed && this.#placer === undefined) {
      throw new HeadraceError(
        "BAD_OPTION",
        `row ${row} is in device memory, and the writer was given no device`,
      );
    }
    this.#rows += count;
    if (cells.failed) this.#failedRows += count;
    const placing = this.#records.take(open, row, count, attempts);
    this.#arm();
    return this.#room(placing);
  }

  /** Resolves when all that was added is durable, and every shard that is whole by it is committed. Throws what has kept
   * it from that. */
  async flush(): Promise<void> {
    this.#assertUsable();
    await this.#settle();
    this.#assertGood();
  }

  /** Commits what is there and gives the folder back, whatever has failed. Throws that where no call has thrown it
   * before. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #close(): Promise<void> {
    clearTimeout(this.#timer);
    await this.#settle();
    await this.#placer?.close();
    await this.#journal.close();
    await this.#leave(this.summary.complete && this.#failure === undefined).catch((error) =>
      this.#fail(error),
    );
    if (!this.#told) this.#assertGood();
  }

  /** Never rejects. */
  async #settle(): Promise<void> {
    await this.#placer?.flush();
    await this.#journal.flush();
    await this.#committer.idle();
  }

  /** What is to be waited for before more is added. */
  #room(placing: Promise<void> | undefined): Promise<void> | undefined {
    const { maxPendingBytes } = this.#options;
    const full = this.#journal.pendingBytes > maxPendingBytes;
    if (!full && placing === undefined) return undefined;
    const journal = full ? this.#journal.room(maxPendingBytes / 2) : undefined;
    return Promise.all([placing, journal]).then(() => this.#assertGood());
  }

  #written(output: OpenOutput): void {
    if (output.complete) this.#committer.add(output);
  }

  /** Has what was added made durable in a while. Does not keep the process. */
  #arm(): void {
    if (this.#timer !== undefined) return;
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      if (this.#closing !== undefined || this.#failure !== undefined) return;
      void (async () => {
        await this.#placer?.flush();
        await this.#journal.flush();
      })();
    }, this.#options.syncMs);
    this.#timer.unref?.();
  }

  #fail(error: unknown): void {
    if (this.#failure !== undefined) return;
    this.#failure =
      error instanceof HeadraceError ? error : new HeadraceError("IO_ERROR", String(error), { cause: error });
  }

  #assertGood(): void {
    if (this.#failure === undefined) return;
    this.#told = true;
    throw this.#failure;
  }

  #assertUsable(): void {
    this.#assertGood();
    if (this.#closing !== undefined) {
      throw new HeadraceError("CLOSED", `${this.#folder}: the writer is closed`);
    }
  }
}
