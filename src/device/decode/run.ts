/** A decoding on its way: ends once, and is quiet when no lane touches its memory any more. */
import { constants } from "node:os";
import { HeadraceError } from "../../errors.ts";
import { errnoError } from "../common/errors.ts";
import { shortReadError, shrunkError } from "../common/files.ts";
import { startDeadline } from "../common/tickets.ts";
import type { DecodeEnd, Decoding } from "../decode.ts";
import type { JobFailure, LaneRun, LaneSet } from "../host/jobs.ts";
import { Failure } from "../host/ring.ts";
import type { OpenChunks } from "./file.ts";
import type { DecodeJob } from "./job.ts";
import { CHUNK_FAILED, type FailureText, type FailureTexts } from "./records.ts";

export class Run implements Decoding {
  readonly #job: DecodeJob;
  readonly #bytesBefore: number;
  readonly #failures: FailureTexts;
  readonly #onQuiet: () => void;
  readonly #ended = Promise.withResolvers<DecodeEnd>();
  readonly #quiet = Promise.withResolvers<void>();
  readonly #timer: ReturnType<typeof setTimeout> | undefined;
  #lanes: LaneSet | undefined;
  #run: LaneRun | undefined;
  #isOver = false;

  /** `onQuiet` is called when no lane touches the job's memory any more, before {@link Run.quiet} resolves. `bytesBefore`
   * were decoded for it already. */
  constructor(
    job: DecodeJob,
    failures: FailureTexts,
    timeoutMs: number | undefined,
    onQuiet: () => void,
    bytesBefore: number,
  ) {
    this.#job = job;
    this.#bytesBefore = bytesBefore;
    this.#failures = failures;
    this.#onQuiet = onQuiet;
    this.#timer = startDeadline(timeoutMs, () => {
      this.end(new HeadraceError("TIMED_OUT", `${this.#title()} has not ended within ${timeoutMs} ms`));
    });
  }

  get ended(): Promise<DecodeEnd> {
    return this.#ended.promise;
  }

  get quiet(): Promise<void> {
    return this.#quiet.promise;
  }

  /** Has the lanes begin. Throws what they throw. */
  begin(lanes: LaneSet): void {
    const { program, tasks, lanesWanted } = this.#job;
    if (tasks.length === 0) {
      this.#becameQuiet(0, undefined);
      return;
    }
    const ended = ({ bytesDone, failure }: { bytesDone: number; failure?: JobFailure }) => {
      // Taken in any case: what a lane noted of one that was stopped would be told of the slot's next job.
      const noted = this.#failures.take(this.#run?.slot ?? -1);
      this.#becameQuiet(bytesDone, failure && this.#explain(failure, noted));
    };
    this.#lanes = lanes;
    try {
      this.#run = lanes.start({
        program,
        first: 0,
        end: tasks.length,
        numPieces: tasks.length,
        lanesWanted,
        ended,
      });
    } catch (error) {
      clearTimeout(this.#timer);
      throw error;
    }
  }

  cancel(): void {
    this.end(new HeadraceError("CANCELLED", `${this.#title()} was cancelled`));
  }

  /** Ends now unless it has; lanes finish the chunks that they are at. */
  end(error: HeadraceError): void {
    if (this.#isOver) return;
    this.#endWith({ error, decodedBytes: 0 });
    if (this.#run !== undefined) this.#lanes?.stop(this.#run);
  }

  #becameQuiet(bytesDone: number, error: HeadraceError | undefined): void {
    const decodedBytes = this.#bytesBefore + bytesDone;
    this.#onQuiet();
    this.#quiet.resolve();
    this.#endWith(error === undefined ? { decodedBytes } : { decodedBytes, error });
  }

  #endWith(end: DecodeEnd): void {
    if (this.#isOver) return;
    this.#isOver = true;
    clearTimeout(this.#timer);
    this.#ended.resolve(end);
  }

  #title(): string {
    const { tasks } = this.#job;
    const files = new Set(tasks.map((task) => task.file.path));
    const more = files.size > 1 ? ` and ${files.size - 1} more` : "";
    return `decoding ${tasks.length} chunks of ${tasks[0]?.file.path ?? "no file"}${more}`;
  }

  /** What a lane noted, in words. */
  #explain(failure: JobFailure, noted: FailureText | undefined): HeadraceError {
    if (failure instanceof HeadraceError) return failure;
    const isRefusal = failure.code === CHUNK_FAILED && noted !== undefined;
    const task = this.#job.tasks[isRefusal ? noted.request : failure.request]!;
    if (isRefusal) return chunkError(task.file, task.chunk, noted.code, noted.text);
    return readError(task.file, task.chunk, failure.code, failure.done);
  }
}

/** Why a chunk does not decode; `text` says it without the file. */
export function chunkError(
  { path, table }: OpenChunks,
  chunk: number,
  code: HeadraceError["code"],
  text: string,
): HeadraceError {
  const start = table.fileOffset[chunk]!;
  const range = `bytes [${start}, ${start + table.fileLength[chunk]!})`;
  return new HeadraceError(code, `${path}: chunk ${chunk} of ${table.numChunks} (${range}): ${text}`);
}

/** Why a chunk's bytes did not come: `code` as lanes note it, `done` bytes of them did. */
export function readError(file: OpenChunks, chunk: number, code: number, done: number): HeadraceError {
  const { path, table } = file;
  const start = table.fileOffset[chunk]!;
  const length = table.fileLength[chunk]!;
  if (code === Failure.shrunk) return shrunkError(path, done, start + length);
  if (code === Failure.shortRead) {
    const now = file.lengthNow();
    return shortReadError(path, start, length, now < 0 ? done : Math.min(length, Math.max(0, now - start)));
  }
  const isMemory = code === constants.errno.ENOMEM;
  return errnoError(`${path}: ${isMemory ? "memory for" : "reading"} chunk ${chunk}`, code);
}
