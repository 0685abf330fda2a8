/** What comparing two runs gave, in words. */
import type { ComparedCell, Comparison, FailedTrials } from "./compare.ts";
import { amountText, digits } from "./text.ts";

/** `3 cells faster, 1 slower, 20 without a clear difference`. */
export function verdictText({ faster, slower, unclear }: Comparison["counts"]): string {
  const all = faster + slower + unclear;
  if (all === 0) return "The runs have no cell in common.";
  return `B against A: of ${amountText(all, "cell")} ${faster} faster, ${slower} slower, ${unclear} without a clear difference.`;
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
