/** Where a job's outputs go: a row of columns for each, through the writer. */

import { realpathSync, statSync } from "node:fs";
import { dirname, join, sep } from "node:path";
import { HeadraceError } from "../errors.ts";
import { MANIFEST_FILE } from "../format/manifest.ts";
import type { OutputColumn } from "../loader/writeback/columns.ts";
import { LETTERS_FILE, WORK_FOLDER } from "../loader/writeback/manifest.ts";
import { openWriter } from "../loader/writeback/open.ts";
import type { Writer } from "../loader/writeback/writer.ts";
import { identityOf, type JobModel } from "./identity.ts";
import type { ResolvedInferOptions } from "./options.ts";
import type { InferOutput } from "./output.ts";
import type { PromptDataset } from "./prompts.ts";

const NO_LOGPROBS = new Float32Array(0);

/** A writer that takes what an engine gives. */
export interface Outputs {
  readonly writer: Writer;
  /** The file of the rows that failed. */
  readonly deadLetters: string;
  /** Takes an output, and what it holds of the device. Waits while too much waits for the disk. */
  add(output: InferOutput): Promise<void> | undefined;
}

/** Throws `BAD_OPTION` where outputs would come to lie among the shards that they are made from. */
export function checkOut({ out, source }: ResolvedInferOptions, { dataset }: PromptDataset): void {
  const folder = realPath(out);
  if (folder === undefined) return;
  const named = typeof source === "string" ? [source] : source;
  const inside = dataset.shards.find(({ path }) =>
    realPath(dirname(path))?.concat(sep).startsWith(`${folder}${sep}`),
  );
  const itself = named.find((path) => realPath(path) === folder);
  if (inside === undefined && itself === undefined) return;
  throw new HeadraceError(
    "BAD_OPTION",
    `out is ${out}, which holds the source's shards (${inside?.path ?? itself}); give another folder`,
  );
}

/** Whether no job has begun in `folder`. */
export function isNewFolder(folder: string): boolean {
  const stats = statSync(folder, { throwIfNoEntry: false });
  if (stats === undefined) return true;
  const has = (name: string) => statSync(join(folder, name), { throwIfNoEntry: false }) !== undefined;
  return stats.isDirectory() && !has(MANIFEST_FILE) && !has(WORK_FOLDER);
}

/** Undefined where there is nothing. */
function realPath(path: string): string | undefined {
  try {
    return realpathSync(path);
  } catch {
    return undefined;
  }
}

/** Opens the folder of `job`, whose rows are `[0, totalRows)`. The caller closes the writer. Throws what
 * {@link openWriter} throws. */
export async function openOutputs(
  job: ResolvedInferOptions,
  model: JobModel,
  prompts: PromptDataset,
  totalRows: number,
): Promise<Outputs> {
  const { dataset } = prompts;
  const vector = vectorLength(job, model);
  const writer = await openWriter(job.out, {
    job: identityOf(job, model, prompts),
    fingerprint: dataset.fingerprint,
    // The first is there always: a dataset has a shard, if one without rows.
    shards: dataset.shards
      .filter(({ start, end }, i) => i === 0 || start < totalRows || (start === end && start === totalRows))
      .map(({ name, start, end }) => ({ name, start, end: Math.min(end, totalRows) })),
    columns: columnsOf(job, vector),
    order: job.order,
    retryFailed: job.retryFailed,
    device: vector === undefined ? undefined : job.device,
  });
  // A model without a tokenizer has no texts; where there are some, that of a failed row is empty.
  const noText = model.tokenizer === undefined && job.engine !== "http" ? undefined : "";
  return {
    writer,
    deadLetters: join(job.out, LETTERS_FILE),
    add: (output) =>
      writer.add({
        ...output,
        text: output.text ?? noText,
        logprobs: output.logprobs ?? NO_LOGPROBS,
      }),
  };
}

/** Elements of a row's vector; undefined where none is put out. */
function vectorLength({ engine }: ResolvedInferOptions, { hiddenSize }: JobModel): number | undefined {
  if (engine === "embed") return hiddenSize;
  return typeof engine === "object" ? engine.vectorLength : undefined;
}

function columnsOf({ logprobs }: ResolvedInferOptions, vector: number | undefined): OutputColumn[] {
  const columns: OutputColumn[] = [
    { name: "tokens", kind: "list", dtype: "I32" },
    { name: "text", kind: "utf8", nullable: true },
    { name: "finish", kind: "utf8" },
    { name: "error", kind: "utf8", nullable: true },
  ];
  if (logprobs) columns.push({ name: "logprobs", kind: "list", dtype: "F32" });
  if (vector !== undefined) {
    columns.push({ name: "embedding", kind: "fixed", dtype: "F32", length: vector, nullable: true });
  }
  return columns;
}
