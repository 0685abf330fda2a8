/** What comparing two runs gave, in words. */
import type { ComparedCell, Comparison, FailedTrials } from "./compare.ts";
import type { CellKey } from "./record.ts";
import { amountText, digits, listText } from "./text.ts";

/** `B against A: of 24 cells 3 faster, 1 slower, 20 without a clear difference.` Where there is none in common, what keeps the
 * runs apart, and what to do. */
export function verdictText({
  counts,
  onlyA,
  onlyB,
}: Pick<Comparison, "counts" | "onlyA" | "onlyB">): string {
  const { faster, slower, unclear } = counts;
  const all = faster + slower + unclear;
  if (all === 0) {
    const why = apartText(onlyA, onlyB);
    return `The runs have no cell in common${why === "" ? "" : `: ${why}`}. Measure both with the same options to compare them.`;
  }
  return `B against A: of ${amountText(all, "cell")} ${faster} faster, ${slower} slower, ${unclear} without a clear difference.`;
}

const AXES = ["data", "format", "path", "temperature", "order", "device"] as const;

/** `device cuda in A, host in B`: of each axis on which the two share nothing. */
function apartText(a: readonly CellKey[], b: readonly CellKey[]): string {
  const apart = AXES.flatMap((axis) => {
    const [inA, inB] = [a, b].map((keys) => [...new Set(keys.map((key) => key[axis]))]) as [
      string[],
      string[],
    ];
    if (inA.length === 0 || inB.length === 0 || inA.some((value) => inB.includes(value))) return [];
    return [`${axis} ${listText(inA)} in A, ${listText(inB)} in B`];
  });
  return apart.join("; ");
}

/** `A: 2 trials failed: tokens/arrow/read/…: the trial's process ended`. */
export function failedText({ run, cell, count, error }: FailedTrials): string {
  return `${run}: ${amountText(count, "trial")} failed: ${cell}: ${error}`;
}

/** `1.25× (1.20 to 1.31)`, or a dash where there are too few trials. */
export function ratioText({ ratio }: ComparedCell): string {
  if (ratio === undefined) return "-";
  return `${digits(ratio.median)}× (${digits(ratio.low)} to ${digits(ratio.high)})`;
}
