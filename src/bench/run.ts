/** Runs a benchmark: data, ceilings, rounds of trials in changing order, figures. */
import { totalmem } from "node:os";
import { type Device, HeadraceError, openDevice } from "../index.ts";
import { measureCeilings } from "./ceilings.ts";
import { Datasets } from "./datasets.ts";
import type { BenchHooks } from "./hooks.ts";
import { Ledger } from "./ledger.ts";
import { freeBytes, machineOf, versionsOf } from "./machine.ts";
import { type Cell, checkCells, formatsOf } from "./matrix.ts";
import { MemoryGroup } from "./memory-group.ts";
import type { BenchPlan, PlacedPlan } from "./options.ts";
import { findPeer, pythonOf } from "./peers.ts";
import {
  type CeilingRecord,
  type CellRecord,
  RECORD_VERSION,
  type RunRecord,
  type TrialRecord,
} from "./record.ts";
import { settingsOf } from "./resume.ts";
import { type Bench, measureHarness, runRounds } from "./rounds.ts";

/** Bytes on disk that a form may take, as a part of the plain one. */
const ROOM = 1.1;

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
    const datasets = await Datasets.prepare(plan, hooks);
    const cells = datasets.cells();
    checkCells(plan, cells);
    const python = pythonOf(plan.python);
    const peers = findPeers(plan, python);
    const run = begin(plan, device, peers.versions, hooks);
    const ledger = new Ledger(hooks.onRecord, hooks.known);
    const bench: Bench = { plan, datasets, ledger, hooks, python, memoryGroup: group?.processes };
    await measureBounds(bench);
    skipUnavailable(bench, cells, peers.missing);
    await runRounds(bench, cells);
    await measureHarness(bench, cells);
    const figures = ledger.close(cells, plan.seed + 1);
    return { run, ceilings: ledger.ceilings, cells: figures, failures: ledger.failures };
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

/** The peers of a plan that are here, by what they have, and why the others are not. */
interface Peers {
  readonly versions: Readonly<Record<string, string>>;
  readonly missing: ReadonlyMap<string, string>;
}

function findPeers(plan: PlacedPlan, python: string): Peers {
  const versions: Record<string, string> = {};
  const missing = new Map<string, string>();
  for (const peer of plan.peers) {
    const found = findPeer(python, peer);
    if ("versions" in found) Object.assign(versions, found.versions);
    else missing.set(peer, found.missing);
  }
  return { versions, missing };
}

/** The first record: what runs, where, with what. One that is resumed has it already. */
function begin(plan: PlacedPlan, device: Device, peers: Peers["versions"], hooks: BenchHooks): RunRecord {
  const known = hooks.known?.find((record) => record.kind === "run");
  if (known !== undefined) return known;
  const run: RunRecord = {
    kind: "run",
    version: RECORD_VERSION,
    date: new Date().toISOString(),
    command: hooks.command,
    machine: machineOf(plan.folder, device),
    versions: { ...versionsOf(device), ...peers },
    settings: settingsOf(plan),
  };
  hooks.onRecord(run);
  return run;
}

/** What the machine gives at best, where a run before did not measure it. */
async function measureBounds({ plan, datasets, ledger, hooks }: Bench): Promise<void> {
  const sample = datasets.sample();
  if (!plan.ceilings || ledger.ceilings.length > 0 || sample === undefined) return;
  const { temperatures, device, ordinal } = plan;
  const { signal, onEvent } = hooks;
  const onStep = (text: string) => onEvent({ kind: "step", text });
  const options = { ...sample, temperatures, device, ordinal, signal, onStep };
  for await (const ceiling of measureCeilings(options)) ledger.addCeiling(ceiling);
}

/** Cells that cannot be measured here, before any round. */
function skipUnavailable(
  { datasets, ledger }: Bench,
  cells: readonly Cell[],
  missing: Peers["missing"],
): void {
  for (const cell of cells) {
    const reason = datasets.reasonAgainst(cell) ?? missing.get(cell.key.peer ?? "");
    if (reason !== undefined) ledger.skip(cell.key.id, reason);
  }
}
