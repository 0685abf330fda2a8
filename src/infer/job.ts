/** The whole way: prompts out of a dataset, through an engine, into shards of outputs. */
import { existsSync } from "node:fs";
import { HeadraceError } from "../errors.ts";
import { Loader } from "../loader/loader.ts";
import { HostReader } from "../loader/reader.ts";
import type { SampleRange } from "../plan/select.ts";
import type { InferRequest } from "./engine.ts";
import { JobEngine } from "./engines.ts";
import { generate } from "./generate.ts";
import { describeModel, type JobModel, settleOptions } from "./identity.ts";
import type { MetricsSnapshot } from "./metrics.ts";
import { type InferOptions, type ResolvedInferOptions, resolveInferOptions } from "./options.ts";
import { checkOut, isNewFolder, type Outputs, openOutputs } from "./outputs.ts";
import { openPrompts, type PromptDataset, promptsOf } from "./prompts.ts";
import type { InferReport } from "./report.ts";

/** Rows that are turned into requests together. */
const BATCH_ROWS = 64;

/** One run of a job, with all that it has found out. */
interface Run {
  readonly job: ResolvedInferOptions;
  readonly engine: JobEngine;
  readonly model: JobModel;
  readonly prompts: PromptDataset;
  readonly outputs: Outputs;
  readonly totalRows: number;
  readonly resumedRows: number;
  /** Why rows cannot run that have no usable prompt, by row, until their output comes. */
  readonly unusable: Map<number, string>;
}

/**
 * Runs a model over a dataset and writes an output for each row, exactly once over any number of runs, however they end:
 * a run of the same job in the same folder goes on where the one before was. Borrows the device, and an engine of the
 * caller's own. A row that cannot run or fails has an output with an `error`, and the others go on.
 *
 * Throws `BAD_OPTION`; `OTHER_JOB` where the folder holds another job's outputs, `BUSY` where another process writes there;
 * what the dataset, the model, the engine and the writer fail with; `CANCELLED` by `signal`. What was finished before is
 * kept then.
 */
export async function infer(options: InferOptions): Promise<InferReport> {
  const started = performance.now();
  const asked = resolveInferOptions(options);
  const model = describeModel(asked);
  const job = settleOptions(asked, model);
  await using engine = new JobEngine(job);
  const prompts = openPrompts(job.source, job.device, job.column);
  try {
    checkText(job, model, prompts);
    checkOut(job, prompts);
    const totalRows = Math.min(prompts.dataset.numSamples, job.limit ?? Number.POSITIVE_INFINITY);
    // What cannot run leaves nothing behind. A folder that was begun may need no engine any more.
    if (totalRows > 0 && isNewFolder(job.out)) await engine.open();
    const outputs = await openOutputs(job, model, prompts, totalRows);
    try {
      const left = outputs.writer.remaining();
      const resumedRows = totalRows - countOf(left);
      if (!job.resume && resumedRows > 0) throw resumeRefused(job, resumedRows);
      const run = { job, engine, model, prompts, outputs, totalRows, resumedRows, unusable: new Map() };
      const metrics = resumedRows === totalRows ? undefined : await runRows(run, left);
      await outputs.writer.close();
      return reportOf(run, metrics, (performance.now() - started) / 1000);
    } catch (error) {
      // What is finished is kept. That it cannot be is of less interest than what went wrong first.
      await outputs.writer.close().catch(() => {});
      throw error;
    }
  } finally {
    prompts.dataset.close();
  }
}

/** Runs the rows in `left`; gives what was measured. */
async function runRows(run: Run, left: readonly SampleRange[]): Promise<MetricsSnapshot> {
  const { job, model, prompts, outputs, unusable } = run;
  const { device, signal, drain, tracer } = job;
  const engine = await run.engine.open();
  await using loader = new Loader(prompts.dataset, device, {
    batchSize: BATCH_ROWS,
    ranges: left,
    signal,
    tracer,
  });
  await using reader = new HostReader(device);
  const { tokenizer } = model;
  const results = generate(requestsOf(run, loader, reader), engine, {
    slots: Math.min(job.slots ?? Number.POSITIVE_INFINITY, engine.capacity.slots),
    mode: job.scheduler,
    order: job.admit,
    maxRetries: job.retries,
    decode: tokenizer === undefined ? undefined : (tokens) => tokenizer.decode(tokens),
    signal,
    drain,
    tracer,
    onMetrics: (recent, whole) => tellProgress(run, recent, whole),
  });
  for await (const output of results) {
    const error = unusable.get(output.row) ?? output.error;
    unusable.delete(output.row);
    await outputs.add(error === output.error ? output : { ...output, error });
  }
  tellProgress(run, results.metrics, results.metrics);
  return results.metrics;
}

function tellProgress(
  { job, totalRows, resumedRows }: Run,
  recent: MetricsSnapshot,
  whole: MetricsSnapshot,
): void {
  const { outputTokensPerSecond, occupancy } = recent;
  job.onProgress?.({ rows: whole.rows, totalRows, resumedRows, outputTokensPerSecond, occupancy });
}

/** A request for each row that the loader brings. A batch is released before its requests go out. */
async function* requestsOf(run: Run, loader: Loader, reader: HostReader): AsyncGenerator<InferRequest> {
  const { job, model, prompts, unusable } = run;
  // An engine that takes text has a tokenizer of its own.
  const tokenizer = job.engine === "http" ? undefined : model.tokenizer;
  const shared = {
    maxNewTokens: job.maxNewTokens,
    stopIds: job.stopIds ?? model.stopIds,
    stopStrings: job.stop,
    logprobs: job.logprobs,
    timeoutMs: job.timeoutMs,
    sampling: {
      temperature: job.temperature,
      topK: job.topK,
      topP: job.topP,
      minP: job.minP,
      repetitionPenalty: job.repetitionPenalty,
      seed: job.seed,
    },
  };
  for await (const batch of loader) {
    const found = await promptsOf(batch, prompts, reader, tokenizer, model.vocabSize);
    batch.release();
    for (const { row, tokens, text, error } of found) {
      // An empty prompt makes the scheduler end the row with an error, in its turn.
      if (error !== undefined) unusable.set(row, error);
      yield { ...shared, row, prompt: tokens, text };
    }
  }
}

/** Throws `BAD_OPTION` where text is wanted and cannot be had. */
function checkText(
  { engine, stop, apiMode, model: folder }: ResolvedInferOptions,
  model: JobModel,
  prompts: PromptDataset,
): void {
  const takesText =
    engine === "http" || (typeof engine === "object" && engine.engine.capacity.takesText === true);
  const lacksTokenizer = model.tokenizer === undefined && !takesText;
  const where =
    folder === undefined ? "no model folder with a tokenizer is named" : `${folder} has no tokenizer.json`;
  if (lacksTokenizer && prompts.kind === "text") {
    throw new HeadraceError(
      "BAD_OPTION",
      `column ${prompts.column} is text, and ${where}; name a column of token ids`,
    );
  }
  if (lacksTokenizer && stop !== undefined && stop.length > 0) {
    throw new HeadraceError("BAD_OPTION", `stop is a text, and ${where}; leave it out`);
  }
  if (apiMode === "chat" && prompts.kind === "tokens") {
    throw new HeadraceError(
      "BAD_OPTION",
      `apiMode is chat, which takes text, and column ${prompts.column} holds token ids; name a column of text`,
    );
  }
}

function resumeRefused({ out }: ResolvedInferOptions, rows: number): HeadraceError {
  return new HeadraceError(
    "BAD_OPTION",
    `resume is false, and ${out} holds ${rows} finished rows of this job; name another folder, or go on with resume`,
  );
}

function countOf(ranges: readonly SampleRange[]): number {
  return ranges.reduce((sum, [start, end]) => sum + end - start, 0);
}

const NO_METRICS = {
  rows: 0,
  promptTokens: 0,
  outputTokens: 0,
  seconds: 0,
  outputTokensPerSecond: 0,
  occupancy: 0,
  dataWaitShare: 0,
  failedRows: 0,
  outputWaitShare: 0,
  steps: 0,
  stepMs: { p50: 0, p99: 0 },
  firstTokenMs: { p50: 0, p99: 0 },
  putBacks: 0,
  retries: 0,
};

function reportOf(run: Run, metrics: MetricsSnapshot | undefined, totalSeconds: number): InferReport {
  const { job, prompts, outputs, totalRows, resumedRows } = run;
  const { rows, promptTokens, outputTokens, seconds, outputTokensPerSecond, occupancy, ...more } =
    metrics ?? NO_METRICS;
  const { engine } = job;
  return {
    rows,
    promptTokens,
    outputTokens,
    seconds,
    outputTokensPerSecond,
    occupancy,
    dataWaitShare: more.dataWaitShare,
    resumedRows,
    failedRows: more.failedRows,
    resumedFailedRows: outputs.writer.summary.resumedFailedRows,
    remadeShards: outputs.writer.summary.remadeShards,
    totalRows,
    interrupted: rows + resumedRows < totalRows,
    outputWaitShare: more.outputWaitShare,
    steps: more.steps,
    stepMs: more.stepMs,
    firstTokenMs: more.firstTokenMs,
    putBacks: more.putBacks,
    retries: more.retries,
    totalSeconds,
    dataset: prompts.dataset.title,
    column: prompts.column,
    engine: typeof engine === "string" ? engine : engine.name,
    device: engine === "http" ? (URL.parse(job.url!)?.host ?? job.url!) : job.device.capabilities.name,
    out: job.out,
    deadLetters: existsSync(outputs.deadLetters) ? outputs.deadLetters : undefined,
  };
}
