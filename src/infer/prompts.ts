/** Where a job's prompts come from: one column of a dataset, as token ids or as text. */
import type { Device } from "../device/device.ts";
import { HeadraceError } from "../errors.ts";
import type { Batch, Column, Part } from "../loader/batch.ts";
import type { Dataset } from "../loader/dataset.ts";
import { openDataset } from "../loader/open.ts";
import type { HostReader } from "../loader/reader.ts";
import { columnText } from "../loader/schema.ts";
import type { ColumnSchema, TypedArray } from "../types.ts";
import type { Tokenizer } from "./tokenizer.ts";

/** Columns that prompts come from where none is named, the first that is there. */
const DEFAULT_COLUMNS = ["tokens", "text"];
/** Types of token ids. */
const INTEGERS = ["U8", "I8", "U16", "I16", "U32", "I32", "U64", "I64"];

/** A dataset, of which the column with the prompts alone is delivered. */
export interface PromptDataset {
  readonly dataset: Dataset;
  readonly column: string;
  readonly kind: "tokens" | "text";
}

/** One row's prompt; `error` where it has none that could run. */
export interface Prompt {
  readonly row: number;
  readonly tokens: Int32Array;
  readonly text: string | undefined;
  readonly error: string | undefined;
}

const NO_TOKENS = new Int32Array(0);

/**
 * Opens `source` for its prompts: in column `column`, else in `tokens` where there is such a column of integers, else in
 * `text`. Borrows `device`; the caller closes the dataset. Throws what {@link openDataset} throws, `UNKNOWN_COLUMN`, and
 * `BAD_OPTION` for a column that holds neither token ids nor text.
 */
export function openPrompts(
  source: string | readonly string[],
  device: Device,
  column: string | undefined,
): PromptDataset {
  let first: unknown;
  for (const name of column === undefined ? DEFAULT_COLUMNS : [column]) {
    let dataset: Dataset;
    try {
      dataset = openDataset(source, device, { view: "rows", columns: [exactName(name)] });
    } catch (error) {
      if (!(error instanceof HeadraceError && error.code === "UNKNOWN_COLUMN")) throw error;
      first ??= error;
      continue;
    }
    const schema = dataset.schema.columns[0]!;
    const kind = kindOf(schema);
    if (kind !== undefined) return { dataset, column: schema.name, kind };
    dataset.close();
    // Says more than that there is no such column.
    first = notPrompts(schema);
  }
  if (column !== undefined) throw first;
  const why = first instanceof Error ? `: ${first.message}` : "";
  throw new HeadraceError(
    "UNKNOWN_COLUMN",
    `the dataset has no column tokens of integers and none of text; name the column with the prompts${why}`,
  );
}

/** A name, which the dataset shall not take for a pattern. */
function exactName(name: string): string {
  return /[*?[]/.test(name) ? name.replaceAll(/[*?[\]{}\\]/g, "\\$&") : name;
}

function kindOf({
  dtype,
  logical,
  ragged,
  shape,
  dictionary,
}: ColumnSchema): PromptDataset["kind"] | undefined {
  if (logical === "utf8" || dictionary?.logical === "utf8") return "text";
  const list = (ragged && shape.length === 0) || (!ragged && shape.length === 1);
  return logical === "number" && list && INTEGERS.includes(dtype) ? "tokens" : undefined;
}

function notPrompts(schema: ColumnSchema): HeadraceError {
  const { name, logical, dictionary } = schema;
  if (logical === "binary" || dictionary?.logical === "binary") {
    return new HeadraceError(
      "BAD_OPTION",
      `column ${name} is binary, not utf8, so nothing says that it is text; write it as utf8, or name another column`,
    );
  }
  return new HeadraceError(
    "BAD_OPTION",
    `column ${name} holds ${columnText(schema)}; prompts are lists of integers, or text (utf8)`,
  );
}

/**
 * The prompts of one batch, in memory of their own: the batch may be released then. Text is turned to tokens by
 * `tokenizer`; without one it stays text. `vocabSize`, where it is known, is what token ids have to be below. Throws what
 * {@link HostReader.read} throws.
 */
export async function promptsOf(
  batch: Batch,
  { column: name, kind }: Pick<PromptDataset, "column" | "kind">,
  reader: HostReader,
  tokenizer: Tokenizer | undefined,
  vocabSize: number | undefined,
): Promise<Prompt[]> {
  const column = batch.column(name);
  const present = column.validity === undefined ? undefined : await valuesOf(column.validity, reader);
  const rowOf = await rowsOf(column, batch.numSamples, reader);
  return Array.from(batch.sampleIds, (row, i): Prompt => {
    if (present?.[i] === 0) return failed(row, `column ${name} is null there`);
    const values = rowOf(i);
    return kind === "text"
      ? fromText(row, textOf(column, values), tokenizer)
      : fromTokens(row, values, vocabSize);
  });
}

function fromText(row: number, text: string, tokenizer: Tokenizer | undefined): Prompt {
  return { row, tokens: tokenizer?.encode(text) ?? NO_TOKENS, text, error: undefined };
}

function fromTokens(row: number, values: TypedArray, vocabSize = 2 ** 31): Prompt {
  const tokens = new Int32Array(values.length);
  for (let i = 0; i < values.length; i++) {
    const token = Number(values[i]);
    if (!(token >= 0 && token < vocabSize)) {
      return failed(
        row,
        `token ${i} of the prompt is ${token}; tokens of this model are 0 to ${vocabSize - 1}`,
      );
    }
    tokens[i] = token;
  }
  return { row, tokens, text: undefined, error: undefined };
}

function failed(row: number, error: string): Prompt {
  return { row, tokens: NO_TOKENS, text: undefined, error };
}

function textOf(column: Column, values: TypedArray): string {
  if (column.dictionary !== undefined) return column.dictionary.text(Number(values[0]));
  return new TextDecoder("utf-8", { ignoreBOM: true }).decode(values as Uint8Array);
}

/** The values of a row by its number in the batch. */
async function rowsOf(
  column: Column,
  numRows: number,
  reader: HostReader,
): Promise<(row: number) => TypedArray> {
  const values = await valuesOf(column, reader);
  if (column.offsets !== undefined) {
    const offsets = await valuesOf(column.offsets, reader);
    return (row) => values.subarray(Number(offsets[row]), Number(offsets[row + 1])) as TypedArray;
  }
  const length = numRows === 0 ? 0 : values.length / numRows;
  return (row) => values.subarray(row * length, (row + 1) * length) as TypedArray;
}

/** What the host sees is shown; other memory is copied. */
async function valuesOf(part: Part, reader: HostReader): Promise<TypedArray> {
  return part.hostVisible ? part.view : await reader.read(part);
}
