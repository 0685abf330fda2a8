/** The chart of a report that proves which trials were cold. */
import type { ChartContext } from "./group-charts.ts";
import { table } from "./html.ts";
import type { Chart } from "./plot.ts";
import type { Group } from "./results.ts";
import { rowsChart } from "./rows-chart.ts";
import { amountText, percentText } from "./text.ts";

/** What of the files was in memory right before each trial. */
export function residencyChart(groups: readonly Group[], context: ChartContext): Chart | undefined {
  const cells = groups.flatMap((group) => group.cells);
  const kinds = Map.groupBy(cells, ({ key }) => JSON.stringify([key.temperature, key.format]));
  const found = [...kinds.values()].flatMap((members) => {
    const { temperature, format } = members[0]!.key;
    const parts = members.flatMap(({ done }) => done.flatMap(({ residency }) => residency ?? []));
    if (parts.length === 0) return [];
    const least = Math.min(...parts);
    const most = Math.max(...parts);
    const ends = [...new Set([percentText(least), percentText(most)])];
    const dots = [...new Set(parts.map((part) => Math.round(part * 1000) / 10))];
    const value = `${amountText(parts.length, "trial")}: ${ends.join(" to ")}`;
    return [
      { label: `${temperature}: ${format}`, value, dots, colour: context.palette.colour(format), most },
    ];
  });
  if (found.length === 0) return undefined;
  found.sort((a, b) => a.label.localeCompare(b.label));
  const title = "In memory before each trial (% of the files' pages)";
  const cold = found.filter(({ label }) => label.startsWith("cold"));
  const worst = Math.max(...cold.map(({ most }) => most));
  return {
    title,
    note: "As the system tells of each page (mincore). Cold files have to be at the left, warm ones at the right.",
    summary: cold.length === 0 ? "No cold trials." : `Before cold trials ${percentText(worst)} at most.`,
    figures: table(
      title,
      ["trials", "in memory"],
      found.map(({ label, value }) => [label, value]),
    ),
    options: (width) => rowsChart(found, { axis: "in memory, % of pages", domain: [0, 100] }, width),
  };
}
