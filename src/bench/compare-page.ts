/** A comparison of two runs as one page that needs nothing else. */
import type { ComparedCell, Comparison } from "./compare.ts";
import { failedText, ratioText, verdictText } from "./compare-text.ts";
import { Html, html, type Piece, table, wideTable } from "./html.ts";
import { Palette } from "./palette.ts";
import { type Chart, figure } from "./plot.ts";
import { MAX_ROWS, type Row, rowsChart } from "./rows-chart.ts";
import { STYLE } from "./style.ts";
import { amountText, digits, groupText, intervalText, settingsText, shortWayText, wayText } from "./text.ts";

/** What differs, a chart of the ratios, and every cell. The same comparison gives the same page. */
export function renderComparison(comparison: Comparison): string {
  const { a, b, cells, differences, onlyA, onlyB, failed } = comparison;
  const alone = [...onlyA.map((key) => ({ key, run: "A" })), ...onlyB.map((key) => ({ key, run: "B" }))];
  return html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>Headrace benchmark: two runs compared</title>
${new Html(`<style>${STYLE}</style>`)}
</head>
<body>
<header><h1>Two runs compared</h1>
<p class="muted">A: ${a.date}, ${a.machine.cpu} · B: ${b.date}, ${b.machine.cpu}</p></header>
<main>
<p>${verdictText(comparison)}</p>
<p class="note">A cell counts as faster or slower where the 95 % interval of the ratio leaves out 1. Of cells that do not
differ at all, one in twenty would by chance.</p>
${failed.length === 0 ? undefined : html`<aside class="warn" aria-label="Failed trials"><ul>${failed.map((one) => html`<li>${failedText(one)}</li>`)}</ul></aside>`}
<section id="differences"><h2>What differs</h2>${differenceTable(differences)}</section>
${cells.some(({ ratio }) => ratio !== undefined) ? html`<section id="ratios"><h2>Ratios</h2><div class="charts">${figure(ratioChart(cells))}</div></section>` : undefined}
<section id="cells"><h2>All cells</h2>${cellTable(cells)}</section>
${
  alone.length === 0
    ? undefined
    : html`<section id="alone"><h2>In one run alone</h2>${wideTable(
        "Cells in one run alone",
        ["format and way", "run", "data", "settings"],
        alone.map(({ key, run }) => [wayText(key), run, groupText(key), settingsText(key)]),
      )}</section>`
}
</main>
</body>
</html>
`.text;
}

function differenceTable(differences: Comparison["differences"]): Piece {
  if (differences.length === 0) return html`<p>Machine, versions and settings are the same.</p>`;
  return table(
    "What is not the same in both",
    ["what", "A", "B"],
    differences.map(({ what, a, b }) => [what, a, b]),
  );
}

function ratioChart(cells: readonly ComparedCell[]): Chart {
  const clear = (cell: ComparedCell) => (cell.verdict === "unclear" ? 1 : 0);
  const found = cells
    .filter(({ ratio }) => ratio !== undefined && ratio.low > 0)
    .toSorted((x, y) => clear(x) - clear(y) || y.ratio!.median - x.ratio!.median);
  const shown = found.slice(0, MAX_ROWS);
  const palette = new Palette(cells.map(({ key }) => key.format));
  const rows = shown.map(
    ({ key, ratio }): Row => ({
      label: wayText(key),
      short: shortWayText(key),
      aside: settingsText(key),
      below: groupText(key),
      value: `${digits(ratio!.median)}×`,
      colour: palette.colour(key.format),
      interval: [ratio!.low, ratio!.high],
      dots: [ratio!.median],
    }),
  );
  const title = "B against A (ratio of the rates, more is better)";
  const hidden = found.length - shown.length;
  return {
    title,
    note: `Clear differences first. ${hidden > 0 ? `${amountText(hidden, "more cell")} in the figures below.` : ""}`.trim(),
    summary: shown[0] === undefined ? "" : `Highest: ${wayText(shown[0].key)}, ${ratioText(shown[0])}.`,
    figures: table(
      title,
      ["format and way", "data", "ratio"],
      found.map((cell) => [wayText(cell.key), groupText(cell.key), ratioText(cell)]),
      [2],
    ),
    options: (width) =>
      rowsChart(
        rows,
        {
          axis: "rate of B divided by that of A (logarithmic)",
          scale: "log",
          guides: [{ at: 1, label: "dashed: 1, as fast" }],
        },
        width,
      ),
  };
}

function cellTable(cells: readonly ComparedCell[]): Html {
  return wideTable(
    "Cells that both runs have",
    ["format and way", "B is", "ratio", "A", "B", "data", "settings", "note"],
    cells.map((cell) => [
      wayText(cell.key),
      cell.verdict,
      ratioText(cell),
      intervalText(cell.a),
      intervalText(cell.b),
      groupText(cell.key),
      settingsText(cell.key),
      cell.note,
    ]),
    [2, 3, 4],
  );
}
