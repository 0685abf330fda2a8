/** Our engine on a GPU against Hugging Face transformers, each in a process of its own, over the same requests. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import type { CaseResult, LeftOut } from "../cuda/rounds.ts";
import { judge, progress } from "../cuda/rounds.ts";
import { makeModel, makeRequests, SMOLLM2_135M, TINY } from "./data.ts";
import { argumentsFor, type InferBenchOptions } from "./options.ts";
import type { OurMeasures } from "./ours.ts";

const ROW = "infer.peer.transformers";
/** Times their output tokens a second. */
const AT_LEAST = 20;
/** Beyond its limit, a peer loads its libraries and its model. */
const PEER_START_MS = 60_000;

/** What transformers_peer.py prints. */
interface PeerMeasures {
  readonly outputTokens: number;
  /** One a round. */
  readonly seconds: readonly number[];
  readonly requests: number;
  readonly versions: Readonly<Record<string, string>>;
  readonly gpu: string;
}

/** Model and requests of the rows for a GPU, made where they are not there. */
export function gpuData({ dataFolder, quick, requests }: InferBenchOptions) {
  const shape = quick ? TINY : SMOLLM2_135M;
  const folder = join(dataFolder, quick ? "infer-tiny" : "infer-smollm2-135m");
  const model = makeModel(join(folder, "model"), shape);
  return {
    shape,
    model,
    requests: makeRequests(join(folder, `requests-${requests}`), shape.vocab, requests),
  };
}

export async function transformers(options: InferBenchOptions): Promise<CaseResult> {
  const data = gpuData(options);
  const leftOut: LeftOut[] = [];
  const ours = await side(options, { mode: "continuous", fast: false });
  // A device without its vendor's library refuses that.
  const fast = await side(options, { mode: "continuous", fast: true }).catch(
    (error: unknown) => error as Error,
  );
  const continuous = await peer(options, data, "continuous").catch((error: unknown) => error as Error);
  const batches = await peer(options, data, "static").catch((error: unknown) => error as Error);
  const rows = [];
  const versions = [continuous, batches].flatMap((one) => (one instanceof Error ? [] : [one.versions]))[0];
  for (const [name, theirs, against] of [
    [ROW, continuous, "transformers' continuous batching, paged SDPA"],
    [`${ROW}.static`, batches, "transformers' static batches of 32"],
  ] as const) {
    if (theirs instanceof Error) {
      leftOut.push({ name, reason: theirs.message });
      continue;
    }
    const rates = theirs.seconds.map((seconds) => theirs.outputTokens / seconds);
    const note = `${theirs.requests} requests, ${theirs.outputTokens} output tokens, ${JSON.stringify(theirs.versions)}`;
    for (const [suffix, mine] of [["", ours] as const, [".fast", fast] as const]) {
      if (mine instanceof Error) leftOut.push({ name: name + suffix, reason: mine.message });
      else {
        const text = { name: name + suffix, unit: "output tokens/s", against, note, atLeast: AT_LEAST };
        rows.push(judge(text, mine.tokensPerSecond, rates));
      }
    }
  }
  return {
    rows,
    leftOut,
    details: { ours, fast: said(fast), continuous: said(continuous), static: said(batches), versions },
  };
}

function said(result: PeerMeasures | OurMeasures | Error): unknown {
  return result instanceof Error ? { error: result.message } : result;
}

/** Our side in a process of its own, so that neither holds memory that the other wants. */
export async function side(
  options: InferBenchOptions,
  how: { readonly mode: "continuous" | "static"; readonly fast: boolean },
): Promise<OurMeasures> {
  const child = Bun.spawn(
    [process.execPath, join(import.meta.dir, "bench.ts"), ...argumentsFor(options, "side.ours")],
    {
      stdin: "ignore",
      stdout: "pipe",
      stderr: "inherit",
      timeout: 2 * options.limitSeconds * 1000,
      killSignal: "SIGKILL",
      env: { ...process.env, HEADRACE_BENCH_MODE: how.mode, HEADRACE_BENCH_FAST: how.fast ? "1" : "" },
    },
  );
  const output = await new Response(child.stdout).text();
  await child.exited;
  if (child.exitCode !== 0) {
    throw new Error(`our ${how.mode} side ended with ${child.exitCode ?? child.signalCode}`);
  }
  const { details } = JSON.parse(output.trimEnd().split("\n").at(-1)!) as CaseResult;
  return details.measures as OurMeasures;
}

async function peer(
  options: InferBenchOptions,
  data: ReturnType<typeof gpuData>,
  mode: "continuous" | "static",
): Promise<PeerMeasures> {
  const python = process.env.HEADRACE_PEERS_PYTHON ?? Bun.which("python3");
  if (python === null || (python.includes("/") && !existsSync(python))) {
    throw new Error("there is no python3; HEADRACE_PEERS_PYTHON names one with torch and transformers");
  }
  progress(`${ROW}: transformers, ${mode}`);
  const child = Bun.spawn(
    [
      python,
      join(import.meta.dir, "peers/transformers_peer.py"),
      ...[data.model, data.requests.path, mode, String(options.limitSeconds)],
      options.device === "cuda" ? "cuda" : "cpu",
    ],
    {
      stdin: "ignore",
      stdout: "pipe",
      stderr: "pipe",
      timeout: options.limitSeconds * 1000 + PEER_START_MS,
      killSignal: "SIGKILL",
    },
  );
  const [output, errors] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
  ]);
  await child.exited;
  const line = output.trimEnd().split("\n").at(-1) ?? "";
  if (child.signalCode === "SIGKILL") throw new Error(`transformers, ${mode}: no result within its limit`);
  if (!line.startsWith("{")) {
    throw new Error(`transformers, ${mode}: ${errors.trim().split("\n").at(-1) || "no answer"}`);
  }
  const result = JSON.parse(line) as PeerMeasures & { readonly error?: string };
  if (result.error !== undefined) throw new Error(`transformers, ${mode}: ${result.error}`);
  return result;
}
