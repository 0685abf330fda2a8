/** Starts trials, each in a process of its own, and takes what they print. */
import { join } from "node:path";
import { HeadraceError } from "../index.ts";
import { prepareFiles, type Temperature } from "./cold.ts";
import { latencyQuantiles } from "./measure.ts";
import { peerCommand } from "./peers.ts";
import type { TrialRecord } from "./record.ts";
import { batchSizeOf, rehearsalOf, type TrialSpec } from "./spec.ts";

/** A trial that takes longer is ended, ms. */
const LIMIT_MS = 15 * 60_000;
const SCRIPT = join(import.meta.dir, "trial.ts");

/** How a trial ended: with a record (which may hold an error), or with the reason why its cell is none here. */
export type Outcome = { readonly trial: TrialRecord } | { readonly skipped: string };

/** Runs the trial of `spec`. Failures of the trial are in its record; throws `CANCELLED` where `signal` fires, which
 * ends the process. */
export async function runInProcess(spec: TrialSpec, python: string, signal?: AbortSignal): Promise<Outcome> {
  return spec.cell.peer === undefined ? await runOwn(spec, signal) : await runPeer(spec, python, signal);
}

async function runOwn(spec: TrialSpec, signal: AbortSignal | undefined): Promise<Outcome> {
  const outcome = await talk([process.execPath, SCRIPT], spec, signal);
  if ("failed" in outcome) {
    const { computeMs } = spec;
    // By it the trial is known again where a run that goes on makes it good.
    const busy = computeMs === undefined ? {} : { busy: { computeMs, share: 0 } };
    return { trial: { ...failed(spec, String(outcome.failed)), ...busy } };
  }
  return outcome as unknown as Outcome;
}

/** Files that are not there are the peer's to miss, which tells of it. */
function prepareRehearsed({ paths, cell }: TrialSpec): void {
  try {
    prepareFiles(paths, cell.temperature);
  } catch (error) {
    if (!(error instanceof HeadraceError) && (error as { code?: string }).code === undefined) throw error;
  }
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

/** What it prints before: it has rehearsed, and waits to be told to begin. */
interface PeerReady {
  readonly seconds?: number | undefined;
  readonly error?: string | undefined;
}

async function runPeer(spec: TrialSpec, python: string, signal: AbortSignal | undefined): Promise<Outcome> {
  const { cell, sums } = spec;
  if (sums.words === undefined) return { skipped: "its samples are no whole number of 64-bit words" };
  const rehearsal = rehearsalOf(spec);
  if (rehearsal !== undefined) prepareRehearsed(rehearsal);
  let ready: PeerReady = {};
  let prepared: Temperature | undefined;
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
      ...(rehearsal === undefined
        ? {}
        : { rehearsal: { paths: rehearsal.paths, batchSize: batchSizeOf(rehearsal) } }),
    },
    signal,
    (line) => {
      ready = line;
      prepared = prepareFiles(spec.paths, cell.temperature);
    },
  );
  if ("failed" in outcome) return { trial: failed(spec, String(outcome.failed)) };
  if (prepared === undefined) return { trial: failed(spec, "the trial's process never got ready") };
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
      ...(rehearsal === undefined
        ? {}
        : {
            rehearsal: {
              bytes: ready.error === undefined ? rehearsal.bytes : 0,
              seconds: ready.seconds ?? 0,
              ...(ready.error === undefined ? {} : { error: ready.error }),
            },
          }),
      residency: prepared.residency,
      temperature: prepared.temperature,
      ...measured,
      batchMs: latencyQuantiles(latenciesMs),
      numBatches: latenciesMs.length,
      ...(wrong ? { error: `its sum of words is ${measured.checksum}, and not ${sums.words}` } : {}),
    },
  };
}

/** Gives `input` to a process as a line of JSON, and parses the last line that it prints; `failed` says why there is
 * none. With `onReady` the process prints a line first, which that is called with, and waits until it returned. */
async function talk(
  command: string[],
  input: unknown,
  signal: AbortSignal | undefined,
  onReady?: (line: Record<string, unknown>) => void,
): Promise<Record<string, unknown>> {
  signal?.throwIfAborted();
  const child = Bun.spawn(command, {
    stdin: "pipe",
    stdout: "pipe",
    stderr: "pipe",
    timeout: LIMIT_MS,
  });
  const end = () => child.kill("SIGKILL");
  signal?.addEventListener("abort", end);
  try {
    const [output, errors, code] = await Promise.all([
      converse(child, JSON.stringify(input), onReady),
      new Response(child.stderr).text(),
      child.exited,
    ]);
    if (signal?.aborted) throw new HeadraceError("CANCELLED", "the benchmark was interrupted");
    const line = output.trim().split("\n").at(-1) ?? "";
    if (code === 0 && line.startsWith("{")) return JSON.parse(line);
    const why = errors.trim().split("\n").at(-1) || (child.signalCode ?? `exit code ${code}`);
    return { failed: `the trial's process ended: ${why}` };
  } catch (error) {
    end();
    throw error;
  } finally {
    signal?.removeEventListener("abort", end);
  }
}

/** Everything that `child` prints. */
async function converse(
  child: Bun.Subprocess<"pipe", "pipe", "pipe">,
  input: string,
  onReady: ((line: Record<string, unknown>) => void) | undefined,
): Promise<string> {
  await say(child, input, onReady === undefined);
  const decoder = new TextDecoder();
  let output = "";
  let waits = onReady !== undefined;
  for await (const bytes of child.stdout) {
    output += decoder.decode(bytes, { stream: true });
    // Libraries may have something to say first.
    const line = waits ? /^\{.*\}\n/m.exec(output)?.[0] : undefined;
    if (line === undefined) continue;
    waits = false;
    onReady?.(JSON.parse(line));
    await say(child, "go", true);
  }
  return output;
}

/** A process that has ended listens no more; how it ended is what is told then. */
async function say(child: Bun.Subprocess<"pipe">, line: string, last: boolean): Promise<void> {
  try {
    await child.stdin.write(`${line}\n`);
    await (last ? child.stdin.end() : child.stdin.flush());
  } catch (error) {
    if ((error as { code?: string }).code !== "EPIPE") throw error;
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
    batchMs: latencyQuantiles([]),
    numBatches: 0,
    error,
  };
}
