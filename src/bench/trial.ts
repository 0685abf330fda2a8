/**
 * One trial, in a process of its own, so that no trial has what another left in memory: takes the specification on
 * its standard input, and prints one line of JSON, a trial's record or why there is none.
 */
import { writeFileSync } from "node:fs";
import type { Device } from "../index.ts";
import { prepareFiles, type Temperature } from "./cold.ts";
import { measure, peakRssBytes, wiredBytes } from "./measure.ts";
import { openApacheArrow, openJsRead } from "./paths-javascript.ts";
import { type OpenWork, openLoaderWork, openTrialDevice } from "./paths-loader.ts";
import type { TrialRecord } from "./record.ts";
import { batchSizeOf, rehearsalOf, type TrialSpec } from "./spec.ts";
import { HostSum } from "./sums.ts";

/** Failures that say that a way is none here, and no failure of it. */
const DECLINES = ["UNSUPPORTED", "DEVICE_UNAVAILABLE", "UNSUPPORTED_COMPRESSION"];

/** Makes files cold or warm, and tells what they are then. */
type Prepare = (
  paths: readonly string[],
  wanted: Temperature["temperature"],
) => Temperature | Promise<Temperature>;

/** What the last line of a trial's output holds. */
export interface TrialOutcome {
  readonly trial?: TrialRecord;
  /** Why the cell is skipped. */
  readonly skipped?: string;
}

/** Ways that take no device of this project. */
const WITHOUT_DEVICE = ["js-read", "apache-arrow", "harness"];

/**
 * Runs the trial that `spec` asks for. First the rehearsal, with all that the trial has but its files; then `prepare`
 * makes the trial's files cold or warm, and right after it the trial is opened, and timed. The device stays open from
 * the one to the other, as it does in a program that runs for longer. A wrong sum is an error in the record.
 */
export async function runTrial(spec: TrialSpec, prepare: Prepare = prepareFiles): Promise<TrialOutcome> {
  if (spec.memoryGroup !== undefined) writeFileSync(spec.memoryGroup, String(process.pid));
  const wired = wiredBytes();
  const way = new Way(spec);
  try {
    const opened = await openTrial(spec, way, prepare);
    if ("skipped" in opened) return opened;
    const { work, rehearsal, prepared, openSeconds } = opened;
    try {
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
          ...(rehearsal === undefined ? {} : { rehearsal }),
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
    } finally {
      await work.close();
    }
  } finally {
    await way.close();
  }
}

/** Rehearses, makes the files what they shall be, and opens them. */
async function openTrial(spec: TrialSpec, way: Way, prepare: Prepare) {
  try {
    await way.open();
    const rehearsal = await rehearse(spec, way, prepare);
    const prepared = await prepare(spec.paths, spec.cell.temperature);
    const opening = performance.now();
    const work = await way.work(spec);
    const openSeconds = way.openSeconds + (performance.now() - opening) / 1000;
    return { work, rehearsal, prepared, openSeconds };
  } catch (error) {
    if (!DECLINES.includes((error as { code?: string }).code ?? "")) throw error;
    return { skipped: (error as Error).message };
  }
}

/** Reads the rehearsal's files as the trial will read its own, at the same temperature. Its failure is told, and no
 * more than that: where the trial fails as well, it says so itself. */
async function rehearse(spec: TrialSpec, way: Way, prepare: Prepare): Promise<TrialRecord["rehearsal"]> {
  const rehearsal = rehearsalOf(spec);
  if (rehearsal === undefined) return undefined;
  const { bytes } = rehearsal;
  const started = performance.now();
  try {
    await prepare(rehearsal.paths, rehearsal.cell.temperature);
    const work = await way.work(rehearsal);
    try {
      await measure(work);
    } finally {
      await work.close();
    }
    return { bytes, seconds: (performance.now() - started) / 1000 };
  } catch (error) {
    await way.close();
    await way.open();
    return { bytes: 0, seconds: (performance.now() - started) / 1000, error: (error as Error).message };
  }
}

/** What a path keeps from one dataset to the next: the device, where it has one. */
class Way {
  /** That opening the device took. */
  openSeconds = 0;
  readonly #spec: TrialSpec;
  #device: Device | undefined;

  constructor(spec: TrialSpec) {
    this.#spec = spec;
  }

  async open(): Promise<void> {
    if (WITHOUT_DEVICE.includes(this.#spec.cell.path)) return;
    const started = performance.now();
    this.#device = await openTrialDevice(this.#spec);
    this.openSeconds = (performance.now() - started) / 1000;
  }

  /** Opens the files of `spec`; the work is the caller's to close. */
  async work(spec: TrialSpec): Promise<OpenWork<never>> {
    switch (spec.cell.path) {
      case "js-read":
        return openJsRead(spec) as OpenWork<never>;
      case "apache-arrow":
        return openApacheArrow(spec) as OpenWork<never>;
      case "harness":
        return nothing(spec) as OpenWork<never>;
      default:
        return (await openLoaderWork(spec, this.#device!)) as OpenWork<never>;
    }
  }

  async close(): Promise<void> {
    const device = this.#device;
    this.#device = undefined;
    await device?.close();
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
