/**
 * One trial, in a process of its own, so that no trial has what another left in memory: takes the specification on
 * its standard input, and prints one line of JSON, a trial's record or why there is none.
 */
import { writeFileSync } from "node:fs";
import { prepareFiles } from "./cold.ts";
import { measure, peakRssBytes, wiredBytes } from "./measure.ts";
import { openApacheArrow, openJsRead } from "./paths-javascript.ts";
import { type OpenWork, openLoaderWork } from "./paths-loader.ts";
import type { TrialRecord } from "./record.ts";
import { batchSizeOf, type TrialSpec } from "./spec.ts";
import { HostSum } from "./sums.ts";

/** Failures that say that a way is none here, and no failure of it. */
const DECLINES = ["UNSUPPORTED", "DEVICE_UNAVAILABLE", "UNSUPPORTED_COMPRESSION"];

/** What the last line of a trial's output holds. */
export interface TrialOutcome {
  readonly trial?: TrialRecord;
  /** Why the cell is skipped. */
  readonly skipped?: string;
}

/** Runs the trial that `spec` asks for. A wrong sum is an error in the record. */
export async function runTrial(spec: TrialSpec): Promise<TrialOutcome> {
  if (spec.memoryGroup !== undefined) writeFileSync(spec.memoryGroup, String(process.pid));
  const wired = wiredBytes();
  const prepared = prepareFiles(spec.paths, spec.cell.temperature);
  const opening = performance.now();
  let work: OpenWork<unknown> | undefined;
  try {
    work = await openWork(spec);
    const openSeconds = (performance.now() - opening) / 1000;
    const measured = await measure(work, spec.computeMs);
    const wiredNow = wiredBytes();
    const wrong = wrongSum(spec, work.sum, measured.checksum);
    return {
      trial: {
        kind: "trial",
        cell: spec.cell.id,
        round: spec.round,
        openSeconds,
        bytes: spec.bytes,
        fileBytes: spec.fileBytes,
        residency: prepared.residency,
        temperature: prepared.temperature,
        peakRssBytes: peakRssBytes(),
        ...measured,
        ...(wired === undefined || wiredNow === undefined
          ? {}
          : { wiredBytes: Math.max(0, wiredNow - wired) }),
        ...(wrong === undefined ? {} : { error: wrong }),
      },
    };
  } catch (error) {
    if (DECLINES.includes((error as { code?: string }).code ?? ""))
      return { skipped: (error as Error).message };
    throw error;
  } finally {
    await work?.close();
  }
}

function openWork(spec: TrialSpec): Promise<OpenWork<never>> | OpenWork<never> {
  switch (spec.cell.path) {
    case "js-read":
      return openJsRead(spec) as OpenWork<never>;
    case "apache-arrow":
      return openApacheArrow(spec) as OpenWork<never>;
    case "harness":
      return nothing(spec) as OpenWork<never>;
    default:
      return openLoaderWork(spec) as Promise<OpenWork<never>>;
  }
}

/** As many batches as the data has, with nothing in them: what the loop itself costs. */
function nothing(spec: TrialSpec): OpenWork<number> {
  const count = Math.ceil(spec.numSamples / batchSizeOf(spec));
  const sum = new HostSum();
  const none = new Uint8Array(0);
  let batch = 0;
  return {
    sum: "xxh3",
    next: () => (batch === count ? undefined : batch++),
    take: (number) => sum.add(number, none),
    finish: () => sum.hex,
    async close() {},
  };
}

function wrongSum(
  { cell, sums }: TrialSpec,
  kind: OpenWork<unknown>["sum"],
  found: string,
): string | undefined {
  const known = sums[kind];
  if (cell.path === "harness" || known === found) return undefined;
  return known === undefined
    ? `the data has no ${kind} sum to compare with`
    : `the ${kind} sum of what was delivered is ${found}, and not ${known}: bytes are missing, damaged or misplaced`;
}

if (import.meta.main) {
  let outcome: TrialOutcome & { readonly failed?: string };
  try {
    outcome = await runTrial((await Bun.stdin.json()) as TrialSpec);
  } catch (error) {
    const { code, message } = error as { code?: string; message: string };
    outcome = { failed: code === undefined ? message : `${message} [${code}]` };
  }
  process.stdout.write(`${JSON.stringify(outcome)}\n`);
}
