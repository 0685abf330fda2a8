/** Threads that parse pieces of text, and rows in the order of the pieces. */
import { WorkerPool } from "../../codec/worker-pool.ts";
import type { PackColumn, PackField } from "../rows.ts";
import type { Spare } from "./builder.ts";
import type { CsvOptions } from "./csv-lines.ts";
import type { LinesOptions, ParsedLines } from "./json-lines.ts";
import type { KeyPath } from "./json-plan.ts";

/** What a thread's parser is made of. */
export type ParserSetup =
  | {
      readonly format: "jsonl";
      readonly fields: readonly PackField[];
      readonly paths: readonly KeyPath[];
      readonly options: LinesOptions;
    }
  | { readonly format: "csv"; readonly fields: readonly PackField[]; readonly options: CsvOptions };

/** Bytes `[start, end)` of a buffer that goes to the thread. */
export interface ParseTask {
  readonly buffer: ArrayBuffer;
  readonly start: number;
  readonly end: number;
  /** Memory of columns that were parsed before, which goes to the thread. */
  readonly spares?: readonly Spare[] | undefined;
}

/** The rows, and the buffer back. */
export interface ParseResult extends ParsedLines {
  readonly buffer: ArrayBuffer;
}

/** Ends with {@link ParsePool.close}. */
export class ParsePool {
  /** Tasks that keep all threads busy. */
  readonly depth: number;
  readonly #workers: WorkerPool<ParseTask, ParseResult>;
  readonly #spares: (readonly Spare[])[] = [];

  constructor(threads: number, setup: ParserSetup) {
    this.depth = 2 * threads;
    this.#workers = new WorkerPool({ does: "parses", start: () => startParser(setup), end }, threads);
  }

  /** Takes the task's buffer. Rejects with `DEVICE_FAILED` where a thread died; nobody needs to wait for the answer. */
  parse(task: ParseTask): Promise<ParseResult> {
    const spares = this.#spares.pop();
    const memory = (spares ?? []).flatMap(({ values, offsets }) =>
      offsets === undefined ? [values] : [values, offsets],
    );
    return this.#workers.run({ ...task, spares }, [task.buffer, ...memory]);
  }

  /** Takes the memory of columns that nobody looks at any more. */
  giveBack(columns: readonly PackColumn[]): void {
    if (this.#spares.length === this.depth) return;
    this.#spares.push(
      columns.map(({ values, offsets }) => ({
        values: values.buffer as ArrayBuffer,
        offsets: offsets?.buffer as ArrayBuffer | undefined,
      })),
    );
  }

  close(): void {
    this.#workers.close();
  }
}

function startParser(setup: ParserSetup): Worker {
  const worker = new Worker(new URL("./parse-worker.ts", import.meta.url));
  worker.postMessage(setup);
  return worker;
}

function end(worker: Worker): void {
  worker.terminate();
}
