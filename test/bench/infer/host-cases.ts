/** Inference on this machine's processor: tiny-llama over prose, as the command does it. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  generate,
  type InferReport,
  type InferRequest,
  infer,
  openDevice,
  openLlama,
} from "../../../src/index.ts";
import { type CaseResult, interleave, judge, progress } from "../cuda/rounds.ts";
import { quantile } from "../harness.ts";
import { makeRequests } from "./data.ts";
import type { InferBenchOptions } from "./options.ts";
import { round } from "./ours.ts";
import { side } from "./peer-case.ts";

const ROOT = join(import.meta.dir, "../../..");
const PROSE = join(ROOT, "datasets/prose");
const MODEL = join(ROOT, "datasets/tiny-llama");
const SLOTS = 16;
const ROWS = 96;
/** Output tokens a second that the host has to reach. */
const HOST_RATE = 300;
/** Of continuous over static batching. */
const CONTINUOUS_OVER_STATIC = 1.8;
/** Share of the time in which the engine may wait for data. */
const DATA_WAIT = 0.01;

/** One run of the job into a fresh folder. */
async function run(rows: number): Promise<InferReport> {
  const out = mkdtempSync(join(tmpdir(), "headrace-bench-infer-"));
  try {
    await using device = openDevice("host");
    return await infer({
      source: PROSE,
      model: MODEL,
      out,
      device,
      slots: SLOTS,
      maxNewTokens: 64,
      limit: rows,
    });
  } finally {
    rmSync(out, { recursive: true, force: true });
  }
}

async function runs(options: InferBenchOptions): Promise<InferReport[]> {
  const rows = options.quick ? SLOTS : ROWS;
  const reports: InferReport[] = [];
  for (let i = 0; i < options.repeats; i++) {
    reports.push(await run(rows));
    progress(`infer.host: ${reports.at(-1)!.outputTokensPerSecond.toFixed(0)} output tokens/s`);
  }
  return reports;
}

export async function hostRate(options: InferBenchOptions): Promise<CaseResult> {
  const reports = await runs(options);
  const rates = reports.map((report) => report.outputTokensPerSecond);
  const { promptTokens, outputTokens, seconds } = reports[0]!;
  const through = Math.round((promptTokens + outputTokens) / seconds);
  const text = {
    name: "infer.host",
    unit: "output tokens/s",
    against: "a bar",
    note: `tiny-llama over prose, ${SLOTS} slots, 64 new tokens; ${through} tokens/s through the model, prompts included`,
    atLeast: 1,
  };
  return { rows: [judge(text, rates, [HOST_RATE])], leftOut: [], details: { reports } };
}

export async function dataWait(options: InferBenchOptions): Promise<CaseResult> {
  const reports = await runs(options);
  const text = {
    name: "infer.data-wait",
    unit: "of the time",
    against: "a bar",
    note: "share of the time in which the engine waited for the loader; tiny-llama over prose",
    atLeast: 1,
    higherIsBetter: false,
  };
  // A share of nothing at all would have no ratio.
  const shares = reports.map((report) => Math.max(report.dataWaitShare, 1e-6));
  return { rows: [judge(text, shares, [DATA_WAIT])], leftOut: [], details: { shares } };
}

/** The same requests with both schedulers, on the device that was asked for. On the host they are for comparison: there a
 * step takes as long as its tokens, so that empty slots cost nothing. */
export async function continuousStatic(options: InferBenchOptions): Promise<CaseResult> {
  const text = {
    name: "infer.continuous-static",
    unit: "output tokens/s",
    against: "static batches of the same engine",
    atLeast: CONTINUOUS_OVER_STATIC,
  };
  const rows = [];
  const leftOut = [];
  try {
    // Fewer slots than requests: with a slot for each there is but one batch.
    const few = { ...options, slots: Math.min(options.slots, Math.max(1, options.requests >> 3)) };
    const continuous = await side(few, { mode: "continuous", fast: false });
    const batches = await side(few, { mode: "static", fast: false });
    const note = `${options.requests} requests, ${few.slots} slots, on ${continuous.device}; slots in use ${continuous.occupancy.toFixed(2)} against ${batches.occupancy.toFixed(2)}`;
    rows.push(judge({ ...text, note }, continuous.tokensPerSecond, batches.tokensPerSecond));
  } catch (error) {
    leftOut.push({ name: text.name, reason: (error as Error).message });
  }
  rows.push(await onHost(options, { ...text, name: `${text.name}.host`, atLeast: 0.9 }));
  return { rows, leftOut, details: {} };
}

async function onHost(options: InferBenchOptions, text: Omit<Parameters<typeof judge>[0], "note">) {
  const count = options.quick ? 24 : 64;
  const { prompts, maxNewTokens } = makeRequests(join(options.dataFolder, `infer-host-${count}`), 256, count);
  // As many tokens as the model's context allows, shorter by the same factor.
  const bounds = maxNewTokens.map((bound) => Math.max(1, bound >> 2));
  const expected = bounds.reduce((sum, bound) => sum + bound, 0);
  async function* requests(): AsyncGenerator<InferRequest> {
    for (const [row, prompt] of prompts.entries()) {
      yield { row, prompt: prompt.subarray(0, 32), maxNewTokens: bounds[row]! };
    }
  }
  await using device = openDevice("host");
  const engine = await openLlama(MODEL, device, { slots: SLOTS >> 1 });
  try {
    const occupancy: Record<string, number[]> = { continuous: [], static: [] };
    const rate = async (mode: "continuous" | "static") => {
      const metrics = await round(generate(requests(), engine, { mode }), expected);
      occupancy[mode]!.push(metrics.occupancy);
      return metrics.outputTokensPerSecond;
    };
    const figures = await interleave(
      text.name,
      { continuous: () => rate("continuous"), static: () => rate("static") },
      options.repeats,
    );
    const used = (mode: string) => quantile(occupancy[mode]!, 0.5).toFixed(2);
    const note = `tiny-llama on the host, ${count} requests, ${SLOTS >> 1} slots; slots in use ${used("continuous")} against ${used("static")}`;
    return judge({ ...text, note }, figures.continuous, figures.static);
  } finally {
    await engine.close();
  }
}
