/** Which settings the figures of a run support, and no more than that. */

import { type Measured, measuredOf } from "./measured.ts";
import type { BenchRecord, CellKey, RunRecord } from "./record.ts";
import {
  type CellResult,
  clearlyFaster,
  fastestFirst,
  type Group,
  groupsOf,
  interruptionText,
  isOwn,
  type Results,
  resultsOf,
} from "./results.ts";
import { amountText, intervalText, listText, wayText } from "./text.ts";

/** Trials below which a cell is not recommended. */
const LEAST_TRIALS = 3;
/** MLPerf Storage asks this share of an accelerator's time. */
const BUSY = 0.9;

/** What to look at. */
export interface RecommendOptions {
  /** Only cells of the device of this name. */
  readonly device?: string | undefined;
  /** Only cells whose processes never held more bytes of memory. */
  readonly memoryBytes?: number | undefined;
}

/** A setting: all values that no figure speaks against, the best one's first. */
export interface Supported<T> {
  readonly values: readonly T[];
  /** Whether the run had more than one to choose from. */
  readonly varied: boolean;
}

/** The advice for one use: a kind of data, in memory or not, in an order, on a device. */
export interface Advice extends Pick<CellKey, "data" | "temperature" | "order" | "device"> {
  /** The fastest. */
  readonly best: CellResult;
  /** Cells whose intervals reach into that of the best, which is one of them. */
  readonly tied: readonly CellResult[];
  /** The fastest of those that are clearly slower. */
  readonly next?: CellResult | undefined;
  readonly format: Supported<string>;
  readonly path: Supported<string>;
  readonly lanes: Supported<number>;
  readonly requestBytes: Supported<number>;
  /** Batches ahead, where the run kept its device busy with them. */
  readonly prefetch?: number | undefined;
  /** Why there is no advice on something. */
  readonly notes: readonly string[];
}

/** All that a run supports. */
export interface Recommendation {
  readonly run: RunRecord;
  readonly advice: readonly Advice[];
  /** For `strategy: "auto"`, of each device. */
  readonly measured: readonly Measured[];
  /** What was left out, and why. */
  readonly notes: readonly string[];
}

/** Finds the settings that `records` support. Throws `BAD_RESULTS` as `resultsOf` does. */
export function recommend(records: readonly BenchRecord[], options: RecommendOptions = {}): Recommendation {
  const results = resultsOf(records);
  const notes: string[] = [];
  const leave = (cells: readonly CellResult[], keeps: (cell: CellResult) => boolean, why: string) => {
    const kept = cells.filter(keeps);
    if (kept.length < cells.length)
      notes.push(`${cells.length - kept.length} of ${cells.length} cells ${why}`);
    return kept;
  };
  const { device, memoryBytes } = options;
  let cells = results.cells.filter(
    (cell) => cell.own && (device === undefined || cell.key.device === device),
  );
  if (memoryBytes !== undefined) {
    cells = leave(cells, ({ record }) => record.peakRssBytes <= memoryBytes, "took more memory than that");
  }
  cells = leave(
    cells,
    ({ rates }) => rates.length >= LEAST_TRIALS,
    `have under ${LEAST_TRIALS} trials that count`,
  );
  const interruption = interruptionText(results);
  if (interruption !== undefined) notes.push(interruption);
  notes.push(...withoutFigures(results, device));
  if (cells.length === 0) notes.push("no cell is left to recommend");
  const devices = [...new Set(cells.map(({ key }) => key.device))];
  const advice = groupsOf(cells).flatMap((group) =>
    devices.flatMap((name) => {
      const members = group.cells.filter(({ key }) => key.device === name);
      if (members.length === 0) return [];
      const advice = adviceOf(group, name, members, results.run);
      return [{ ...advice, notes: [...advice.notes, ...othersNote(advice, results.cells)] }];
    }),
  );
  return {
    run: results.run,
    advice,
    measured: devices.map((name) => measuredOf(results.run, name, cells)),
    notes,
  };
}

/** Own cells that no advice can be about, by reason: what failed may have been the best. And of a device that the run never had,
 * that it had others. */
function withoutFigures({ cells, skipped }: Results, device: string | undefined): string[] {
  const own = skipped.filter(({ key }) => isOwn(key) && (device === undefined || key.device === device));
  const reasons = [...Map.groupBy(own, ({ reason }) => reason)].map(([reason, members]) => {
    const ways = [...new Set(members.map(({ key }) => wayText(key)))];
    return `no figures of ${listText(ways)} (${amountText(members.length, "cell")}): ${reason}`;
  });
  const devices = [...new Set([...cells, ...skipped].map(({ key }) => key.device))];
  if (device === undefined || devices.includes(device)) return reasons;
  return [
    ...reasons,
    `the run has no cell of device ${device}; it has ${devices.join(", ") || "none at all"}`,
  ];
}

function adviceOf(group: Group, device: string, members: readonly CellResult[], run: RunRecord): Advice {
  const sorted = fastestFirst(members);
  const best = sorted[0]!;
  const tied = sorted.filter((cell) => !clearlyFaster(best, cell));
  const supported = <T>(pick: (key: CellKey) => T | undefined): Supported<T> => {
    const values = (cells: readonly CellResult[]) =>
      [...new Set(cells.map(({ key }) => pick(key)))].filter((value) => value !== undefined) as T[];
    return { values: values(tied), varied: values(members).length > 1 };
  };
  const { data, temperature, order } = group;
  const prefetch = prefetchOf(best, run);
  return {
    data,
    temperature,
    order,
    device,
    best,
    tied,
    next: sorted.find((cell) => !tied.includes(cell)),
    format: supported((key) => key.format),
    path: supported((key) => key.path),
    // A mapping has none.
    lanes: supported((key) => (key.lanes > 0 && key.path !== "map" ? key.lanes : undefined)),
    requestBytes: supported((key) => key.requestBytes),
    prefetch: prefetch.batches,
    notes: prefetch.note === undefined ? [] : [prefetch.note],
  };
}

/** What is not ours to recommend, but was faster. */
function othersNote(
  { best, data, temperature, order, device }: Advice,
  cells: readonly CellResult[],
): string[] {
  const others = cells.filter(
    ({ own, key }) =>
      !own &&
      key.data === data &&
      key.temperature === temperature &&
      key.order === order &&
      key.device === device,
  );
  const faster = fastestFirst(others).find((other) => clearlyFaster(other, best));
  if (faster === undefined) return [];
  return [
    `faster than all of these: ${wayText(faster.key)}, ${intervalText(faster.record.gigabytesPerSecond)}`,
  ];
}

function prefetchOf({ record }: CellResult, run: RunRecord): { batches?: number; note?: string } {
  const { prefetch } = run.settings;
  const busy = record.busyShare;
  if (busy === undefined) return {};
  const share = `${(busy.median * 100).toFixed(0)} %`;
  if (typeof prefetch !== "number") return {};
  if (busy.low >= BUSY) return { batches: prefetch };
  return {
    note: `with prefetch ${prefetch} the device was busy ${share} of the time: not enough to advise it`,
  };
}

/** A setting's one value; undefined where there are several, or none. */
export function onlyOf<T>({ values }: Supported<T>): T | undefined {
  return values.length === 1 ? values[0] : undefined;
}
