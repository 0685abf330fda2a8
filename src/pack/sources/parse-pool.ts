/** Threads that parse pieces of text, and rows in the order of the pieces. */
import { HeadraceError } from "../../errors.ts";
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

interface Pending {
  resolve(result: ParseResult): void;
  reject(error: unknown): void;
}

interface Thread {
  readonly worker: Worker;
  /** In the order of their tasks. */
  readonly pending: Pending[];
}

/** Ends with {@link ParsePool.close}. */
export class ParsePool {
  /** Tasks that keep all threads busy. */
  readonly depth: number;
  readonly #threads: readonly Thread[];
  readonly #spares: (readonly Spare[])[] = [];
  #failure: HeadraceError | undefined;

  constructor(threads: number, setup: ParserSetup) {
    this.depth = 2 * threads;
    this.#threads = Array.from({ length: threads }, () => this.#start(setup));
  }

  /** Takes the task's buffer. */
  parse(task: ParseTask): Promise<ParseResult> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    const thread = this.#threads.reduce((a, b) => (b.pending.length < a.pending.length ? b : a));
    const { promise, resolve, reject } = Promise.withResolvers<ParseResult>();
    thread.pending.push({ resolve, reject });
    const spares = this.#spares.pop();
    const memory = (spares ?? []).flatMap(({ values, offsets }) =>
      offsets === undefined ? [values] : [values, offsets],
    );
    thread.worker.postMessage({ ...task, spares }, [task.buffer, ...memory]);
    return promise;
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
    this.#fail(new HeadraceError("CLOSED", "the threads that parse have ended"));
    for (const { worker } of this.#threads) worker.terminate();
  }

  #start(setup: ParserSetup): Thread {
    const worker = new Worker(new URL("./parse-worker.ts", import.meta.url));
    const pending: Pending[] = [];
    worker.onmessage = ({ data }: MessageEvent<ParseResult>) => pending.shift()?.resolve(data);
    worker.onerror = (event) => {
      event.preventDefault?.();
      this.#fail(new HeadraceError("DEVICE_FAILED", `a thread that parses broke down: ${event.message}`));
    };
    worker.postMessage(setup);
    return { worker, pending };
  }

  #fail(error: HeadraceError): void {
    this.#failure ??= error;
    for (const { pending } of this.#threads) for (const { reject } of pending.splice(0)) reject(error);
  }
}
