/** What a run says to who has to choose. */
import {
  type BestCell,
  bestSettings,
  type CellResult,
  clearlyFaster,
  type Group,
  groupsOf,
  interruptionText,
  type Results,
} from "./results.ts";
import { ratioOf } from "./stats.ts";
import { amountText, digits, groupText, listText, timeText, wayText } from "./text.ts";

/** What starts up takes tens of milliseconds: in trials shorter than this, in seconds, it is a good part. */
const SHORT = 0.25;

/** After a rehearsal: opening the files and reading what they say of themselves is a good part of trials shorter than this. */
const SHORT_REHEARSED = 0.02;

/** Load before the run, as a part of the cores, from which it may have been in the way. */
const BUSY_PART = 0.25;

/** How many times as fast one cell was as another, with its 95 % interval. */
export interface Lead {
  readonly over: BestCell;
  readonly median: number;
  readonly low: number;
  readonly high: number;
}

/** What a group of cells says. */
export interface Verdict {
  readonly group: Group;
  /** With the highest median. */
  readonly first: BestCell;
  /** How many ways were compared, this one included. */
  readonly ways: number;
  /** Those whose intervals reach into that of the first: it is not shown that they are slower. */
  readonly tied: readonly BestCell[];
  /** Over the fastest that is clearly slower. */
  readonly next?: Lead | undefined;
  /** Over the fastest of others, where the first is this project's, and of this project's, where it is not. */
  readonly otherSide?: Lead | undefined;
}

/** A verdict for each group of cells. */
export function verdictsOf({ cells }: Pick<Results, "cells">): Verdict[] {
  return groupsOf(cells).map((group) => {
    const best = bestSettings(group.cells);
    const first = best[0]!;
    const tied = best.slice(1).filter((cell) => !clearlyFaster(first, cell));
    const next = best.slice(1).find((cell) => !tied.includes(cell));
    const other = best.find((cell) => cell.own !== first.own);
    return {
      group,
      first,
      ways: best.length,
      tied,
      next: next && leadOf(first, next),
      otherSide: other && leadOf(first, other),
    };
  });
}

function leadOf(first: BestCell, over: BestCell): Lead {
  if (first.rates.length > 0 && over.rates.length > 0) {
    const { median, low, high } = ratioOf(first.rates, over.rates);
    return { over, median, low, high };
  }
  // Without their trials the two intervals bound it.
  const [a, b] = [first.record.gigabytesPerSecond, over.record.gigabytesPerSecond];
  return { over, median: a.median / b.median, low: a.low / b.high, high: a.high / b.low };
}

/** What a cell is called on a page. */
export type NameOf = (cell: CellResult) => string;

/** Names of `cells`: with their devices where there are several. */
export function namesOf(cells: readonly CellResult[]): NameOf {
  const devices = new Set(cells.map(({ key }) => key.device)).size > 1;
  return ({ key }) => (devices ? `${wayText(key)} on ${key.device}` : wayText(key));
}

/** Which ways, as `nameOf` tells them apart, were first, or not clearly slower than the first, in most of several groups;
 * undefined of one group. */
export function overallText(verdicts: readonly Verdict[], nameOf: NameOf): string | undefined {
  const cases = verdicts.length;
  if (cases < 2) return undefined;
  const ways = Map.groupBy(
    verdicts.flatMap(({ first, tied }) => [first, ...tied]),
    nameOf,
  );
  const most = (own: boolean) => {
    const found = [...ways].filter(([, [one]]) => one!.own || !own);
    const count = Math.max(0, ...found.map(([, cells]) => cells.length));
    return { count, names: found.filter(([, cells]) => cells.length === count).map(([name]) => name) };
  };
  const [all, own] = [most(false), most(true)];
  if (all.count === 1)
    return `No way was the fastest, or not clearly slower, in more than one of ${cases} cases.`;
  const leaders =
    all.count === cases
      ? `Fastest, or not clearly slower, in all ${cases} cases: ${listText(all.names)}`
      : `No way was the fastest, or not clearly slower, in all ${cases} cases; in ${all.count}: ${listText(all.names)}`;
  if (own.count === 0 || own.count === all.count) return `${leaders}.`;
  return `${leaders}. Of this project's ways, in ${own.count}: ${listText(own.names)}.`;
}

/** What takes from the figures' worth: rounds that were not cold, failures, few rounds, an interruption. */
export function warnings(results: Results): string[] {
  const { run, cells, skipped } = results;
  const notes: string[] = [];
  const { rehearsalBytes = 0 } = run.settings;
  const shortest = Math.min(...cells.flatMap(({ trials }) => trials.map(({ seconds }) => seconds)));
  const { cores, load } = run.machine;
  if (load > Math.max(0.5, cores * BUSY_PART)) {
    notes.push(
      `The machine was not quiet when the run began: a load of ${digits(load)} on ${amountText(cores, "core")}.`,
    );
  }
  if (rehearsalBytes === 0 && shortest < SHORT) {
    notes.push(
      `Trials took as little as ${timeText(shortest * 1000)}, and nothing was read before them: the start of threads and the compilation of code are in the figures. Larger data makes that less.`,
    );
  }
  if (rehearsalBytes !== 0 && shortest < SHORT_REHEARSED) {
    notes.push(
      `Trials took as little as ${timeText(shortest * 1000)}: opening the files is a good part of that. Larger data makes it less.`,
    );
  }
  const interruption = interruptionText(results);
  if (interruption !== undefined) {
    notes.push(
      `${interruption[0]!.toUpperCase()}${interruption.slice(1)}. 'bench --resume FILE' goes on with it.`,
    );
  }
  const unproven = cells.filter((cell) => cell.unproven > 0);
  if (unproven.length > 0) {
    const rounds = unproven.reduce((total, cell) => total + cell.unproven, 0);
    notes.push(
      `Not shown to be cold: ${amountText(rounds, "trial")} of ${amountText(unproven.length, "cell")}; they count as warm and are in no cold figure.`,
    );
  }
  const failed = cells.filter((cell) => cell.failed.length > 0);
  for (const cell of failed) {
    const { length } = cell.failed;
    notes.push(
      `${wayText(cell.key)}, ${groupText(cell.key)}: ${amountText(length, "trial")} failed: ${cell.failed[0]!.error}`,
    );
  }
  const few = cells.filter((cell) => cell.rates.length < 5);
  if (few.length > 0) {
    notes.push(`Fewer than 5 trials: ${amountText(few.length, "cell")}. Their intervals say little.`);
  }
  if (skipped.length > 0)
    notes.push(`${amountText(skipped.length, "cell")} without figures; the reasons are at the end.`);
  return notes;
}
