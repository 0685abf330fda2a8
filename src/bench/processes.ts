/** Starts trials, each in a process of its own, and takes what they print. */
import { join } from "node:path";
import { HeadraceError } from "../index.ts";
import { prepareFiles } from "./cold.ts";
import { peerCommand } from "./peers.ts";
import type { TrialRecord } from "./record.ts";
import { batchSizeOf, type TrialSpec } from "./spec.ts";
import { quantile } from "./stats.ts";

/** A trial that takes longer is ended, ms. */
const LIMIT_MS = 15 * 60_000;
const SCRIPT = join(import.meta.dir, "trial.ts");
const LATENCIES = [0, 0.05, 0.5, 0.95, 0.99, 1];

/** How a trial ended: with a record (which may hold an error), or with the reason why its cell is none here. */
export type Outcome = { readonly trial: TrialRecord } | { readonly skipped: string };

/** Runs the trial of `spec`. Failures of the trial are in its record; throws `CANCELLED` where `signal` fires, which
 * ends the process. */
export async function runInProcess(spec: TrialSpec, python: string, signal?: AbortSignal): Promise<Outcome> {
  return spec.cell.peer === undefined ? await runOwn(spec, signal) : await runPeer(spec, python, signal);
}

async function runOwn(spec: TrialSpec, signal: AbortSignal | undefined): Promise<Outcome> {
  const outcome = await talk([process.execPath, SCRIPT], spec, signal);
  if ("failed" in outcome) return { trial: failed(spec, String(outcome.failed)) };
  return outcome as unknown as Outcome;
}

/** What a peer prints. */
interface PeerOutcome {
  readonly seconds: number;
  readonly checksum: string;
  readonly cpuSeconds: number;
  readonly minorFaults: number;
  readonly majorFaults: number;
  readonly peakRssBytes: number;
  readonly latenciesMs: readonly number[];
}

async function runPeer(spec: TrialSpec, python: string, signal: AbortSignal | undefined): Promise<Outcome> {
  const { cell, sums } = spec;
  if (sums.words === undefined) return { skipped: "its samples are no whole number of 64-bit words" };
  const prepared = prepareFiles(spec.paths, cell.temperature);
  const outcome = await talk(
    peerCommand(python),
    {
      peer: cell.peer,
      order: cell.order,
      paths: spec.paths,
      tensors: spec.tensors,
      batchSize: batchSizeOf(spec),
      seed: spec.seed,
      memoryGroup: spec.memoryGroup,
    },
    signal,
  );
  if ("failed" in outcome) return { trial: failed(spec, String(outcome.failed)) };
  const { latenciesMs, ...measured } = outcome as unknown as PeerOutcome;
  const wrong = measured.checksum !== sums.words;
  return {
    trial: {
      kind: "trial",
      cell: cell.id,
      round: spec.round,
      openSeconds: 0,
      bytes: spec.bytes,
      fileBytes: spec.fileBytes,
      residency: prepared.residency,
      temperature: prepared.temperature,
      ...measured,
      batchMs: LATENCIES.map((share) => (latenciesMs.length === 0 ? 0 : quantile(latenciesMs, share))),
      numBatches: latenciesMs.length,
      ...(wrong ? { error: `its sum of words is ${measured.checksum}, and not ${sums.words}` } : {}),
    },
  };
}

/** Gives `input` to a process as JSON, and parses the last line that it prints; `failed` says why there is none. */
async function talk(
  command: string[],
  input: unknown,
  signal: AbortSignal | undefined,
): Promise<Record<string, unknown>> {
  signal?.throwIfAborted();
  const child = Bun.spawn(command, {
    stdin: new TextEncoder().encode(JSON.stringify(input)),
    stdout: "pipe",
    stderr: "pipe",
    timeout: LIMIT_MS,
  });
  const end = () => child.kill("SIGKILL");
  signal?.addEventListener("abort", end);
  try {
    const [output, errors, code] = await Promise.all([
      new Response(child.stdout).text(),
      new Response(child.stderr).text(),
      child.exited,
    ]);
    if (signal?.aborted) throw new HeadraceError("CANCELLED", "the benchmark was interrupted");
    const line = output.trim().split("\n").at(-1) ?? "";
    if (code === 0 && line.startsWith("{")) return JSON.parse(line);
    const why = errors.trim().split("\n").at(-1) || (child.signalCode ?? `exit code ${code}`);
    return { failed: `the trial's process ended: ${why}` };
  } finally {
    signal?.removeEventListener("abort", end);
  }
}

/** The record of a trial that gave no figures. */
function failed(spec: TrialSpec, error: string): TrialRecord {
  return {
    kind: "trial",
    cell: spec.cell.id,
    round: spec.round,
    seconds: 0,
    openSeconds: 0,
    bytes: 0,
    fileBytes: spec.fileBytes,
    checksum: "",
    temperature: spec.cell.temperature,
    cpuSeconds: 0,
    minorFaults: 0,
    majorFaults: 0,
    peakRssBytes: 0,
    batchMs: LATENCIES.map(() => 0),
    numBatches: 0,
    error,
  };
}
