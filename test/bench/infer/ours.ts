/** Our engine over the requests of the rows for a GPU, in rounds. */
import { type Generation, generate, type InferRequest, openDevice, openLlama } from "../../../src/index.ts";
import { type CaseResult, progress } from "../cuda/rounds.ts";
import type { Requests } from "./data.ts";
import type { InferBenchOptions } from "./options.ts";
import { gpuData } from "./peer-case.ts";

/** What one side of ours did. */
export interface OurMeasures {
  readonly mode: string;
  readonly fast: boolean;
  readonly device: string;
  /** Opening the model: weights, memory and kernels. */
  readonly openSeconds: number;
  /** The first round, which is not counted: sequences are encoded in it. */
  readonly firstSeconds: number;
  readonly outputTokens: number;
  /** One a round. */
  readonly tokensPerSecond: readonly number[];
  readonly steps: number;
  readonly stepMs: Generation["metrics"]["stepMs"];
  readonly firstTokenMs: Generation["metrics"]["firstTokenMs"];
  readonly occupancy: number;
  readonly dataWaitShare: number;
}

export async function* requestsOf({ prompts, maxNewTokens }: Requests): AsyncGenerator<InferRequest> {
  for (const [row, prompt] of prompts.entries()) {
    yield { row, prompt, maxNewTokens: maxNewTokens[row]! };
  }
}

/** The metrics of one round; throws where a request did not get all its tokens. */
export async function round(generation: Generation, expectedTokens: number): Promise<Generation["metrics"]> {
  for await (const { row, finish, error } of generation) {
    if (finish !== "length") throw new Error(`request ${row} ended with ${finish}: ${error}`);
  }
  const { metrics } = generation;
  if (metrics.outputTokens !== expectedTokens) {
    throw new Error(`${metrics.outputTokens} output tokens where ${expectedTokens} were asked for`);
  }
  return metrics;
}

/** Runs `repeats` rounds after a first that does not count. */
export async function measureOurs(
  options: InferBenchOptions,
  how: { readonly mode: "continuous" | "static"; readonly fast: boolean },
): Promise<OurMeasures> {
  const { shape, model, requests } = gpuData(options);
  const expected = requests.maxNewTokens.reduce((sum, count) => sum + count, 0);
  const started = performance.now();
  await using device = openDevice(options.device);
  const engine = await openLlama(model, device, {
    slots: options.slots,
    contextLength: Math.min(shape.context, 1024),
    fast: how.fast,
  });
  try {
    const openSeconds = (performance.now() - started) / 1000;
    const run = () => round(generate(requestsOf(requests), engine, { mode: how.mode }), expected);
    const first = await run();
    const rates: number[] = [];
    let last = first;
    for (let i = 0; i < options.repeats; i++) {
      last = await run();
      rates.push(last.outputTokensPerSecond);
      progress(`ours, ${how.mode}${how.fast ? ", fast" : ""}: ${Math.round(rates.at(-1)!)} output tokens/s`);
    }
    const { steps, stepMs, firstTokenMs, occupancy, dataWaitShare } = last;
    return {
      ...how,
      device: device.capabilities.name,
      openSeconds,
      firstSeconds: first.seconds,
      outputTokens: expected,
      tokensPerSecond: rates,
      steps,
      stepMs,
      firstTokenMs,
      occupancy,
      dataWaitShare,
    };
  } finally {
    await engine.close();
  }
}

/** A process of its own for one side; the environment says which. */
export async function oursOnGpu(options: InferBenchOptions): Promise<CaseResult> {
  const mode = process.env.HEADRACE_BENCH_MODE === "static" ? "static" : "continuous";
  const measures = await measureOurs(options, { mode, fast: process.env.HEADRACE_BENCH_FAST === "1" });
  return { rows: [], leftOut: [], details: { measures } };
}
