/** What a run says, in sentences. */
import type { Results } from "./results.ts";
import { bestSettings, type CellResult, clearlyFaster, type Group, groupsOf, medianOf } from "./results.ts";
import {
  amountText,
  digits,
  groupText,
  intervalText,
  percentText,
  rateText,
  settingsText,
  timeText,
  wayText,
} from "./text.ts";

/** What starts up takes tens of milliseconds: in trials shorter than this, in seconds, it is a good part. */
const SHORT = 0.25;
/** Names that a sentence lists before it counts. */
const LISTED = 3;

/** A sentence for each group of cells: what was fastest, how sure that is, and what stands beside it. */
export function headlines({ cells }: Results): { readonly title: string; readonly text: string }[] {
  return groupsOf(cells).map((group) => ({ title: groupText(group), text: headlineOf(group) }));
}

function headlineOf(group: Group): string {
  const best = bestSettings(group.cells);
  const first = best[0]!;
  const tied = best.slice(1).filter((cell) => !clearlyFaster(first, cell));
  const parts = [
    `${tied.length > 0 ? "Highest median" : group.cells.length > 1 ? "Fastest" : "The only one measured"}: ${rankText(first)}`,
  ];
  if (tied.length > 0) parts.push(`no clear difference to ${listText(tied)}`);
  else if (best[1] !== undefined) parts.push(`next: ${wayText(best[1].key)}, ${rateText(medianOf(best[1]))}`);
  // What others do is told beside what this project does, whichever of them came first.
  const other = best.find((cell) => cell.own !== first.own);
  if (other !== undefined && other !== best[1]) parts.push(againstText(first, other));
  return `${parts.join("; ")}.`;
}

function rankText({ key, record }: CellResult): string {
  const settings = settingsText(key);
  const { ceiling } = record;
  const part = ceiling === undefined ? "" : `, ${percentText(ceiling.part)} of ${ceiling.name}`;
  const rate = intervalText(record.gigabytesPerSecond);
  return `${wayText(key)}${settings === "" ? "" : ` (${settings})`}, ${rate}${part}`;
}

function listText(cells: readonly CellResult[]): string {
  const names = cells.slice(0, LISTED).map(({ key }) => wayText(key));
  return cells.length > LISTED ? `${names.join(", ")} and ${cells.length - LISTED} more` : names.join(", ");
}

function againstText(first: CellResult, other: CellResult): string {
  const whose = other.own ? "the best of this project's" : "the best of others";
  const name = `${whose}: ${wayText(other.key)}, ${rateText(medianOf(other))}`;
  if (!clearlyFaster(first, other)) return `${name}, no clear difference`;
  return `${name}, ${digits(medianOf(first) / medianOf(other))} times slower`;
}

/** What takes from the figures' worth: rounds that were not cold, failures, few rounds, an interruption. */
export function warnings({ run, cells, skipped, unfinished }: Results): string[] {
  const notes: string[] = [];
  const { rehearsalBytes = 0 } = run.settings;
  const shortest = Math.min(...cells.flatMap(({ trials }) => trials.map(({ seconds }) => seconds)));
  if (rehearsalBytes === 0 && shortest < SHORT) {
    notes.push(
      `Trials took as little as ${timeText(shortest * 1000)}, and nothing was read before them: the start of threads and the compilation of code are in the figures. Larger data makes that less.`,
    );
  }
  if (unfinished.length > 0) {
    notes.push(
      `The run was interrupted: ${amountText(unfinished.length, "cell")} had begun and have no figures here.`,
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
