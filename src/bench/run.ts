/** Runs a benchmark: data, ceilings, rounds of trials in changing order, figures. */
import { existsSync } from "node:fs";
import { totalmem } from "node:os";
import { type Device, HeadraceError, openDevice } from "../index.ts";
import { type CeilingOptions, measureCeilings } from "./ceilings.ts";
import type { PreparedData } from "./data/forms.ts";
import { type DataSource, prepareData } from "./data/prepare.ts";
import { prepareRehearsal } from "./data/rehearsal.ts";
import { freeBytes, machineOf, versionsOf } from "./machine.ts";
import { type Cell, cellsOf, formatsOf } from "./matrix.ts";
import { MemoryGroup } from "./memory-group.ts";
import type { BenchPlan, PlacedPlan } from "./options.ts";
import { findPeer, pythonOf } from "./peers.ts";
import { runInProcess } from "./processes.ts";
import { Random, seedFor } from "./random.ts";
import {
  type BenchRecord,
  type CeilingRecord,
  type CellRecord,
  RECORD_VERSION,
  type RunRecord,
  type TrialRecord,
} from "./record.ts";
import { settingsOf } from "./resume.ts";
import type { RehearsalSpec, TrialSpec } from "./spec.ts";
import { median, quantilesOf } from "./stats.ts";
import { countedTrials, summarize } from "./summary.ts";

/** The harness alone must take less than this part of the shortest cell. */
const HARNESS_PART = 0.01;
/** Bytes on disk that a form may take, as a part of the plain one. */
const ROOM = 1.1;

/** What happens, for whoever shows it. */
export type BenchEvent =
  | { readonly kind: "step"; readonly text: string }
  | { readonly kind: "warning"; readonly text: string }
  | {
      readonly kind: "trial";
      readonly cell: string;
      readonly round: number;
      readonly done: number;
      readonly total: number;
      readonly secondsLeft: number;
    };

export interface BenchHooks {
  /** What was typed, for the record. */
  readonly command: string;
  readonly onEvent: (event: BenchEvent) => void;
  /** Takes each record as it comes; those of a run that is resumed are not given again. */
  readonly onRecord: (record: BenchRecord) => void;
  /** Ends the run with `CANCELLED`; records that were given stay good. */
  readonly signal?: AbortSignal | undefined;
  /** Records of a run that was interrupted, to go on from. */
  readonly known?: readonly BenchRecord[] | undefined;
}

export interface BenchResult {
  readonly run: RunRecord;
  readonly ceilings: readonly CeilingRecord[];
  readonly cells: readonly CellRecord[];
  /** Trials that failed: a sum that was wrong, a process that ended early. */
  readonly failures: readonly TrialRecord[];
}

/** Runs `asked`, whose folder is there. Throws what opening the device and making data throw, `DISK_FULL` before anything is
 * written where data larger than memory would not fit, `FILE_CHANGED` where data is taken away meanwhile, `CANCELLED`.
 * Trials that fail are in the result. */
export async function runBench(asked: PlacedPlan, hooks: BenchHooks): Promise<BenchResult> {
  const device = openDevice(asked.device, asked.ordinal === undefined ? {} : { ordinal: asked.ordinal });
  try {
    const plan = sized({ ...asked, device: nameOf(asked, device) }, hooks);
    const limit = plan.largerThanMemory;
    using group = typeof limit === "number" ? new MemoryGroup(limit) : undefined;
    return await new Run(plan, device, group, hooks).run();
  } finally {
    await device.close();
  }
}

/** Which device `auto` is. */
function nameOf({ device: asked }: BenchPlan, device: Device): string {
  if (asked !== "auto") return asked;
  return device.capabilities.canStream ? "metal" : "host";
}

/** Data of twice the memory, cold, where that was asked for. */
function sized(plan: PlacedPlan, { onEvent }: BenchHooks): PlacedPlan {
  if (plan.largerThanMemory === undefined) return plan;
  const memory = plan.largerThanMemory === true ? totalmem() : plan.largerThanMemory;
  const byteLength = 2 * memory;
  const forms = plan.data.reduce((total, kind) => total + formatsOf(plan, kind).length, 0);
  const needed = plan.source === undefined ? Math.ceil(byteLength * forms * ROOM) : 0;
  const free = freeBytes(plan.folder);
  if (needed > free) {
    throw new HeadraceError(
      "DISK_FULL",
      `${plan.folder}: has ${free} bytes free, and ${forms} forms of ${byteLength} bytes, twice the memory, need ${needed}; name fewer formats, another folder, or a limit of memory`,
    );
  }
  onEvent({ kind: "step", text: `working set of ${byteLength} bytes over ${memory} bytes of memory` });
  return { ...plan, byteLength, temperatures: ["cold"] };
}

/** One trial to come. */
interface Job {
  readonly cell: Cell;
  readonly busy: boolean;
}

class Run {
  readonly #plan: PlacedPlan;
  readonly #device: Device;
  readonly #group: MemoryGroup | undefined;
  readonly #hooks: BenchHooks;
  readonly #python: string;
  readonly #datasets: PreparedData[] = [];
  /** Of each dataset; none where they are left out. */
  readonly #rehearsals: PreparedData[] = [];
  readonly #trials = new Map<string, TrialRecord[]>();
  readonly #skipped = new Map<string, string>();
  readonly #ceilings: CeilingRecord[] = [];
  readonly #peerVersions: Record<string, string> = {};
  readonly #failures: TrialRecord[] = [];

  constructor(plan: PlacedPlan, device: Device, group: MemoryGroup | undefined, hooks: BenchHooks) {
    this.#plan = plan;
    this.#device = device;
    this.#group = group;
    this.#hooks = hooks;
    this.#python = pythonOf(plan.python);
  }

  async run(): Promise<BenchResult> {
    const plan = this.#plan;
    await this.#prepare();
    const cells = cellsOf(
      plan,
      this.#datasets.map(({ name, facts }) => ({ name, kind: kindOf(plan, name), tensors: facts.tensors })),
    );
    this.#findPeers();
    const run = this.#begin();
    for (const record of this.#hooks.known ?? []) this.#takeUp(record);
    await this.#measureCeilings();
    await this.#rounds(cells);
    await this.#measureHarness(cells);
    const results = { trials: this.#trials, skipped: this.#skipped, ceilings: this.#ceilings };
    const figures = summarize(cells, results, plan.seed + 1);
    for (const figure of figures) this.#hooks.onRecord(figure);
    return { run, ceilings: this.#ceilings, cells: figures, failures: this.#failures };
  }

  async #prepare(): Promise<void> {
    const { source, data, byteLength, seed, folder, rehearsalBytes } = this.#plan;
    const { signal, onEvent } = this.#hooks;
    const sources: DataSource[] =
      source === undefined ? data.map((kind) => ({ kind, byteLength, seed })) : [{ own: source }];
    for (const one of sources) {
      const formats = formatsOf(this.#plan, "kind" in one ? one.kind : undefined);
      const onStep = (text: string) => onEvent({ kind: "step", text });
      const options = { folder, formats, signal, onStep };
      const prepared = await prepareData(one, options);
      this.#datasets.push(prepared);
      if (rehearsalBytes === 0) continue;
      const said = { ...options, onStep: (text: string) => onStep(`for rehearsals: ${text}`) };
      this.#rehearsals.push(await prepareRehearsal(one, prepared, rehearsalBytes, said));
    }
  }

  /** The first record: what runs, where, with what. One that is resumed has it already. */
  #begin(): RunRecord {
    const known = this.#hooks.known?.find((record) => record.kind === "run");
    if (known !== undefined) return known;
    const run: RunRecord = {
      kind: "run",
      version: RECORD_VERSION,
      date: new Date().toISOString(),
      command: this.#hooks.command,
      machine: machineOf(this.#plan.folder, this.#device),
      versions: { ...versionsOf(this.#device), ...this.#peerVersions },
      settings: settingsOf(this.#plan),
    };
    this.#hooks.onRecord(run);
    return run;
  }

  #takeUp(record: BenchRecord): void {
    if (record.kind === "ceiling") this.#ceilings.push(record);
    if (record.kind === "trial" && record.error === undefined) this.#keep(record);
  }

  #keep(trial: TrialRecord): void {
    const all = this.#trials.get(trial.cell) ?? [];
    all.push(trial);
    this.#trials.set(trial.cell, all);
  }

  /** Peers that are not here are skipped, with the reason, before any round. */
  #findPeers(): void {
    for (const peer of this.#plan.peers) {
      const found = findPeer(this.#python, peer);
      if ("versions" in found) Object.assign(this.#peerVersions, found.versions);
      else this.#peerReasons.set(peer, found.missing);
    }
  }

  readonly #peerReasons = new Map<string, string>();

  async #measureCeilings(): Promise<void> {
    if (!this.#plan.ceilings || this.#ceilings.length > 0) return;
    const plan = this.#plan;
    const { signal, onEvent } = this.#hooks;
    const data = this.#datasets[0]!;
    const form = [...data.forms.values()].find((one) => typeof one !== "string");
    if (form === undefined) return;
    const options: CeilingOptions = {
      paths: form.paths,
      temperatures: plan.temperatures,
      sampleBytes: data.facts.bytes / data.facts.numSamples,
      device: plan.device,
      ordinal: plan.ordinal,
      signal,
      onStep: (text) => onEvent({ kind: "step", text }),
    };
    for await (const ceiling of measureCeilings(options)) this.#addCeiling(ceiling);
  }

  #addCeiling(ceiling: CeilingRecord): void {
    this.#ceilings.push(ceiling);
    this.#hooks.onRecord(ceiling);
  }

  /** A warm-up, then the rounds that count; each in an order of its own, so that no cell always follows the same one. */
  async #rounds(cells: readonly Cell[]): Promise<void> {
    const { rounds, seed, computeMs } = this.#plan;
    const jobs: Job[] = cells.flatMap((cell) =>
      computeMs === undefined ? [{ cell, busy: false }] : [false, true].map((busy) => ({ cell, busy })),
    );
    for (const { cell } of jobs) this.#skipUnavailable(cell);
    const total = jobs.length * (rounds + 1);
    const started = performance.now();
    let done = 0;
    let ran = 0;
    for (let round = -1; round < rounds; round++) {
      for (const job of new Random(seedFor(seed, `round ${round}`)).shuffle([...jobs])) {
        if (await this.#runJob(job, round)) ran++;
        done++;
        const msEach = ran === 0 ? 0 : (performance.now() - started) / ran;
        const left = jobs.filter(({ cell }) => !this.#skipped.has(cell.key.id)).length / jobs.length;
        const secondsLeft = ((total - done) * left * msEach) / 1000;
        this.#hooks.onEvent({ kind: "trial", cell: job.cell.key.id, round, done, total, secondsLeft });
      }
    }
  }

  #skipUnavailable({ key, data }: Cell): void {
    const { forms, facts } = this.#datasets[data]!;
    const form = forms.get(key.format);
    const others = ["js-read", "apache-arrow", "peer"].includes(key.path);
    const reason =
      typeof form === "string"
        ? form
        : others && !facts.plain
          ? "other readers are measured with one column of numbers, or tensors, alone"
          : this.#peerReasons.get(key.peer ?? "");
    if (reason !== undefined) this.#skipped.set(key.id, reason);
  }

  /** Whether a trial ran: not where the cell is skipped, or the trial is one that an earlier run had. */
  async #runJob({ cell, busy }: Job, round: number): Promise<boolean> {
    const { id } = cell.key;
    if (this.#skipped.has(id)) return false;
    const had = this.#trials.get(id)?.some((one) => one.round === round && (one.busy !== undefined) === busy);
    if (had) return false;
    const spec = this.#specOf(cell, round, busy);
    const outcome = await runInProcess(spec, this.#python, this.#hooks.signal);
    checkThere(spec);
    if ("skipped" in outcome) {
      this.#skipped.set(id, outcome.skipped);
      return true;
    }
    const { trial } = outcome;
    this.#hooks.onRecord(trial);
    const unrehearsed = trial.rehearsal?.error;
    if (unrehearsed !== undefined) {
      this.#hooks.onEvent({ kind: "warning", text: `${id}: no rehearsal: ${unrehearsed}` });
    }
    if (trial.error === undefined) this.#keep(trial);
    else {
      this.#failures.push(trial);
      this.#skipped.set(id, `failed: ${trial.error}`);
      this.#hooks.onEvent({ kind: "warning", text: `${id}: ${trial.error}` });
    }
    return true;
  }

  #specOf({ key, format, data }: Cell, round: number, busy: boolean): TrialSpec {
    const { batchBytes, prefetch, seed, computeMs, ordinal } = this.#plan;
    const { facts, forms } = this.#datasets[data]!;
    const form = forms.get(key.format);
    if (form === undefined || typeof form === "string") throw new TypeError(`${key.id} has no files`);
    const tensors = facts.tensors && format.base === "safetensors";
    const rehearsal = rehearsalIn(this.#rehearsals[data], key.format);
    return {
      cell: key,
      round,
      paths: form.paths,
      fileBytes: form.fileBytes,
      bytes: facts.bytes,
      numSamples: facts.numSamples,
      tensors,
      sums: (tensors ? facts.tensorSums : undefined) ?? facts.rowSums,
      batchBytes,
      prefetch,
      seed: seedFor(seed, `order ${round}`),
      ...(format.codec === "zstd" ? { container: "zst" } : {}),
      ...(facts.columns === undefined ? {} : { columns: facts.columns }),
      ...(busy ? { computeMs } : {}),
      ...(ordinal === undefined || key.device !== "cuda" ? {} : { ordinal }),
      ...(rehearsal === undefined ? {} : { rehearsal }),
      ...(this.#group === undefined ? {} : { memoryGroup: this.#group.processes }),
    };
  }

  /** The trial's own loop around nothing, beside the shortest cell. */
  async #measureHarness(cells: readonly Cell[]): Promise<void> {
    if (!this.#plan.ceilings || this.#ceilings.some(({ name }) => name === "harness")) return;
    const medians = cells.map((cell) => ({
      cell,
      seconds: median(countedTrials(cell, { trials: this.#trials }).map(({ seconds }) => seconds)),
    }));
    const shortest = medians
      .filter(({ seconds }) => Number.isFinite(seconds))
      .toSorted((a, b) => a.seconds - b.seconds)[0];
    if (shortest === undefined) return;
    this.#hooks.onEvent({ kind: "step", text: "ceiling: the harness alone" });
    const { cell } = shortest;
    const key = {
      ...cell.key,
      id: "harness",
      path: "harness",
      temperature: "warm",
      peer: undefined,
    } as const;
    const seconds: number[] = [];
    for (let round = 0; round < this.#plan.rounds; round++) {
      const spec = { ...this.#specOf(cell, round, false), cell: key };
      const outcome = await runInProcess(spec, this.#python, this.#hooks.signal);
      if ("trial" in outcome && outcome.trial.error === undefined) seconds.push(outcome.trial.seconds);
    }
    if (seconds.length === 0) return;
    const { bytes } = this.#datasets[cell.data]!.facts;
    const part = median(seconds) / shortest.seconds;
    const percent = `${(100 * part).toPrecision(2)} %`;
    const note = `the trial's loop over as many empty batches: ${percent} of the shortest cell's time (${cell.key.id})`;
    const rates = seconds.map((one) => bytes / one / 1e9);
    this.#addCeiling({ kind: "ceiling", name: "harness", gigabytesPerSecond: quantilesOf(rates), note });
    if (part > HARNESS_PART) {
      const text = `the harness takes ${percent} of ${cell.key.id}, over 1 %: make the data larger`;
      this.#hooks.onEvent({ kind: "warning", text });
    }
  }
}

/** Data that is taken away says nothing of a cell: the run ends, with what it has. */
function checkThere({ paths }: TrialSpec): void {
  const gone = paths.find((path) => !existsSync(path));
  if (gone === undefined) return;
  throw new HeadraceError(
    "FILE_CHANGED",
    `${gone}: is gone, in the middle of the run; give each run a --data-folder of its own`,
  );
}

/** What is read of a rehearsal's data in one form; undefined where it is not there in that. */
function rehearsalIn(data: PreparedData | undefined, format: string): RehearsalSpec | undefined {
  const form = data?.forms.get(format);
  if (data === undefined || form === undefined || typeof form === "string") return undefined;
  const { bytes, numSamples, columns } = data.facts;
  return { paths: form.paths, bytes, numSamples, ...(columns === undefined ? {} : { columns }) };
}

function kindOf({ source, data }: BenchPlan, name: string) {
  return source === undefined ? data.find((kind) => kind === name) : undefined;
}
