/** Where a job's outputs go: a row of columns for each, through the writer. */
import type { OutputColumn } from "../loader/writeback/columns.ts";
import { openWriter, type Writer } from "../loader/writeback/writer.ts";
import type { SampleRange } from "../plan/select.ts";
import { identityOf, type JobModel } from "./identity.ts";
import type { ResolvedInferOptions } from "./options.ts";
import type { InferOutput } from "./output.ts";
import type { PromptDataset } from "./prompts.ts";

const NO_LOGPROBS = new Float32Array(0);

/** A writer that takes what an engine gives. */
export interface Outputs {
  /** Rows of earlier runs, sorted and merged. */
  finished(): readonly SampleRange[];
  /** Waits while too much waits for the disk. Gives back what the output holds of the device. */
  add(output: InferOutput): Promise<void>;
  /** Makes what was added durable, and lets go of the folder. */
  close(): Promise<void>;
}

/** Opens the folder of `job`, whose rows are `[0, totalRows)`. Throws what {@link openWriter} throws. */
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
    shards: dataset.shards
      .filter(({ start, end }) => start < totalRows || (start === end && start === totalRows))
      .map(({ name, start, end }) => ({ name, start, end: Math.min(end, totalRows) })),
    columns: columnsOf(job, vector),
    order: job.order,
    device: vector === undefined ? undefined : job.device,
  });
  return {
    finished: () => writer.finished(),
    add: (output) => add(writer, output, job, vector),
    close: () => writer.close(),
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
