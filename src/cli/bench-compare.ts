/** `bench compare`: two runs side by side. */
import { Command } from "commander";
import { type Comparison, compareRuns } from "../bench/compare.ts";
import { failedText, ratioText, verdictText } from "../bench/compare-text.ts";
import { readRecords } from "../bench/read.ts";
import { groupText, intervalText, settingsText, wayText } from "../bench/text.ts";
import { saveText } from "../index.ts";
import { amountText, printable, printPairs, printTable } from "./output.ts";

interface CompareFlags {
  readonly html?: string;
  readonly json?: true;
}

const NOTES = `
Cells that both runs have are compared by the medians of their trials. B is faster or slower where the 95 % interval of
the ratio leaves out 1; anything else is no clear difference.

Examples:
  headrace bench compare before.jsonl after.jsonl
  headrace bench compare mac.jsonl linux.jsonl --html both.html
`;

/** The command, ready to be added to `bench`. */
export function benchCompareCommand(): Command {
  return new Command("compare")
    .description("Compare two runs, cell by cell: two machines, or two versions.")
    .argument("<a>", "results of the run to compare with")
    .argument("<b>", "results of the run to be judged")
    .option("--html <file>", "write a page with a chart, too")
    .option("--json", "one JSON object on stdout instead of tables")
    .addHelpText("after", NOTES)
    .action(compare);
}

async function compare(a: string, b: string, flags: CompareFlags): Promise<void> {
  const comparison = compareRuns(readRecords(a), readRecords(b));
  if (flags.html !== undefined) {
    const { renderComparison } = await import("../bench/compare-page.ts");
    saveText(flags.html, renderComparison(comparison));
    console.error(`headrace: wrote ${printable(flags.html)}`);
  }
  if (flags.json) console.log(JSON.stringify(comparison));
  else await print(comparison, a, b);
}

async function print(comparison: Comparison, a: string, b: string): Promise<void> {
  const { differences, cells, onlyA, onlyB } = comparison;
  printPairs([
    ["A", `${a}, ${comparison.a.date}, ${comparison.a.machine.cpu}`],
    ["B", `${b}, ${comparison.b.date}, ${comparison.b.machine.cpu}`],
  ]);
  console.log("");
  if (differences.length === 0) console.log("machine, versions and settings are the same");
  else
    await printTable(
      ["what differs", "A", "B"],
      differences.map((one) => [one.what, one.a, one.b]),
    );
  if (cells.length > 0) {
    console.log("");
    const rows = cells.map((cell) => [
      wayText(cell.key),
      groupText(cell.key),
      settingsText(cell.key),
      intervalText(cell.a),
      intervalText(cell.b),
      ratioText(cell),
      cell.verdict,
      cell.note,
    ]);
    await printTable(["format and way", "data", "settings", "A", "B", "ratio", "B is", "note"], rows);
  }
  for (const [name, keys] of [
    ["A", onlyA],
    ["B", onlyB],
  ] as const) {
    if (keys.length === 0) continue;
    console.log(`\nin ${name} alone: ${amountText(keys.length, "cell")}`);
    for (const key of keys)
      console.log(printable(`  ${wayText(key)}, ${groupText(key)}, ${settingsText(key)}`));
  }
  if (comparison.failed.length > 0) console.log("");
  for (const one of comparison.failed) console.log(printable(failedText(one)));
  console.log(`\n${verdictText(comparison)}`);
}
