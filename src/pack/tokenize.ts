/** A column of text as a column of token ids, by Workers where there is much of it. */
import { HeadraceError } from "../errors.ts";
import type { PackBatch, PackColumn, PackField } from "./rows.ts";
import {
  RowTokenizer,
  type Texts,
  type TokenizeSettings,
  type Tokens,
  tokenizerOf,
} from "./tokenize-rows.ts";
import { checkNames, fieldIndex, type Transform } from "./transforms.ts";

export interface TokenizeOptions {
  /** A `tokenizer.json`, a folder that holds one, or `bytes` for the bytes of the text as UTF-8. */
  readonly tokenizer: string;
  /** The column of text; its place is taken by the ids. */
  readonly column: string;
  /** Name of the column of ids; default `tokens`. */
  readonly output?: string | undefined;
  /** Whether the column of text stays, before the ids; default false. */
  readonly keep?: boolean | undefined;
  /** Most ids of a row, at least 1: what is over is cut off. Default all. */
  readonly maxLength?: number | undefined;
  /** Whether rows begin and end as the model's prompts do (BOS, most often); default true. */
  readonly addSpecial?: boolean | undefined;
  /** Workers; default one a core, 1 works in the calling thread. The ids do not depend on it. */
  readonly threads?: number | undefined;
}

/** Bytes of text in a batch from which on Workers are worth their messages. */
const WORTH_WORKERS = 256 * 1024;
/** Ids of vocabularies up to this size are U16. */
const SMALL_VOCABULARY = 65_536;

/**
 * A column of text as lists of token ids: U16 where all of the vocabulary's ids fit, else I32. Throws `UNKNOWN_COLUMN`,
 * `BAD_OPTION` for a column of no text and a bad option, and what opening the tokenizer throws.
 */
export function tokenizeColumn(options: TokenizeOptions): Transform {
  const { output = "tokens", keep = false, maxLength, addSpecial = true } = options;
  if (maxLength !== undefined && !(Number.isSafeInteger(maxLength) && maxLength >= 1)) {
    throw new HeadraceError("BAD_OPTION", `maxLength is ${maxLength}; it must be a whole number from 1`);
  }
  return (fields) => {
    const index = fieldIndex(fields, options.column);
    const field = fields[index]!;
    if (field.kind !== "utf8") {
      const text = `column ${JSON.stringify(field.name)} is ${field.kind} of ${field.dtype}, and only text is tokenised`;
      throw new HeadraceError("BAD_OPTION", text);
    }
    const settings: TokenizeSettings = { tokenizer: options.tokenizer, maxLength, addSpecial };
    const tokenizer = tokenizerOf(settings.tokenizer);
    const dtype = tokenizer.vocabSize <= SMALL_VOCABULARY ? "U16" : "I32";
    const tokens: PackField = { name: output, kind: "list", dtype, shape: [], nullable: field.nullable };
    const replaced = fields.toSpliced(keep ? index + 1 : index, keep ? 0 : 1, tokens);
    checkNames(replaced);
    const pool = new TokenizePool(settings, new RowTokenizer(settings, tokenizer), options.threads);
    return {
      fields: replaced,
      async apply(batch) {
        const column = columnOf(await pool.run(batch, index), batch.columns[index]!, batch.numRows, dtype);
        return { ...batch, columns: batch.columns.toSpliced(keep ? index + 1 : index, keep ? 0 : 1, column) };
      },
      close: () => pool.close(),
    };
  };
}

function columnOf(
  parts: readonly Tokens[],
  text: PackColumn,
  numRows: number,
  dtype: "U16" | "I32",
): PackColumn {
  const total = parts.reduce((sum, { ids }) => sum + ids.length, 0);
  const values = dtype === "U16" ? new Uint16Array(total) : new Int32Array(total);
  const offsets = new Int32Array(numRows + 1);
  let at = 0;
  let row = 0;
  for (const { ids, counts } of parts) {
    let end = at;
    for (const count of counts) {
      end += count;
      offsets[++row] = end;
    }
    values.set(ids, at);
    at += ids.length;
  }
  const bytes = new Uint8Array(values.buffer);
  return { values: bytes, offsets, validity: text.validity, nullCount: text.nullCount };
}

/** Workers that share a batch's rows, by bytes of text. */
class TokenizePool {
  readonly #settings: TokenizeSettings;
  readonly #here: RowTokenizer;
  readonly #size: number;
  #workers: TokenizeWorker[] = [];

  constructor(settings: TokenizeSettings, here: RowTokenizer, threads = navigator.hardwareConcurrency) {
    this.#settings = settings;
    this.#here = here;
    this.#size = Math.max(1, threads);
  }

  /** The ids of all rows, in order, in parts. */
  async run(batch: PackBatch, index: number): Promise<Tokens[]> {
    const { values, offsets: all, validity } = batch.columns[index]!;
    // A batch that was cut short may have more behind its rows.
    const offsets = all!.subarray(0, batch.numRows + 1);
    const bytes = values.subarray(0, offsets[batch.numRows]);
    const texts: Texts = { bytes, offsets, validity };
    const numWorkers = Math.min(this.#size, Math.floor(bytes.length / (WORTH_WORKERS / 2)));
    if (numWorkers < 2) return [this.#here.run(texts)];
    while (this.#workers.length < numWorkers) this.#workers.push(new TokenizeWorker(this.#settings));
    const work = this.#workers.slice(0, numWorkers);
    const starts = work.map((_, i) => firstRowAt(offsets, (bytes.length * i) / numWorkers));
    return Promise.all(
      work.map((worker, i) => worker.run(rowsOf(texts, starts[i]!, starts[i + 1] ?? batch.numRows))),
    );
  }

  async close(): Promise<void> {
    const workers = this.#workers;
    this.#workers = [];
    await Promise.all(workers.map((worker) => worker.close()));
  }
}

/** The first row that starts at `byte` or behind it. */
function firstRowAt(offsets: Int32Array, byte: number): number {
  let low = 0;
  let high = offsets.length - 1;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (offsets[middle]! < byte) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** Rows `[start, end)`, in memory of their own. */
function rowsOf({ bytes, offsets, validity }: Texts, start: number, end: number): Texts {
  const first = offsets[start]!;
  return {
    bytes: bytes.slice(first, offsets[end]!),
    offsets: offsets.slice(start, end + 1).map((offset) => offset - first),
    validity: validity?.slice(start, end),
  };
}

class TokenizeWorker {
  readonly #worker: Worker;
  readonly #gone: Promise<void>;
  #waiting: PromiseWithResolvers<Tokens> | undefined;
  #failure: HeadraceError | undefined;

  constructor(settings: TokenizeSettings) {
    this.#worker = new Worker(new URL("./tokenize-worker.ts", import.meta.url));
    const fail = (why: string) => {
      this.#failure ??= new HeadraceError(
        "BAD_MODEL",
        `tokenizer ${settings.tokenizer}: a Worker has failed: ${why}`,
      );
      this.#waiting?.reject(this.#failure);
    };
    this.#gone = new Promise((resolve) =>
      this.#worker.addEventListener(
        "close",
        () => {
          fail("it has ended");
          resolve();
        },
        { once: true },
      ),
    );
    this.#worker.onmessage = ({ data }: MessageEvent<Tokens>) => this.#waiting?.resolve(data);
    this.#worker.onerror = ({ message }) => fail(message);
    this.#worker.postMessage(settings);
  }

  run(texts: Texts): Promise<Tokens> {
    if (this.#failure !== undefined) throw this.#failure;
    this.#waiting = Promise.withResolvers();
    const { bytes, offsets, validity } = texts;
    const own = [bytes.buffer, offsets.buffer, ...(validity === undefined ? [] : [validity.buffer])];
    this.#worker.postMessage(texts, own as ArrayBuffer[]);
    return this.#waiting.promise;
  }

  close(): Promise<void> {
    // What was not waited for is of no interest any more.
    this.#waiting?.promise.catch(() => {});
    this.#worker.terminate();
    return this.#gone;
  }
}
