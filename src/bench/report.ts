/** A run as one page that needs nothing else: no network, no script. */
import {
  busyChart,
  type ChartContext,
  cpuChart,
  latencyChart,
  rateChart,
  ratioChart,
} from "./group-charts.ts";
import { warnings } from "./headline.ts";
import { Html, html, type Piece, table, wideTable } from "./html.ts";
import { sizeChart, sweepCharts } from "./line-charts.ts";
import { Palette } from "./palette.ts";
import { type Chart, figure } from "./plot.ts";
import type { BenchRecord, RunRecord } from "./record.ts";
import { residencyChart } from "./residency-chart.ts";
import { type CellResult, type Group, groupsOf, type Results, resultsOf } from "./results.ts";
import { settingRows } from "./settings-text.ts";
import { STYLE } from "./style.ts";
import {
  amountText,
  bytesText,
  ceilingText,
  dateText,
  digits,
  groupText,
  intervalText,
  percentText,
  settingsText,
  timeText,
  wayText,
} from "./text.ts";
import { verdictCards } from "./verdict-cards.ts";

/** A part of the page; without charts it is left out. */
interface Section {
  readonly id: string;
  readonly title: string;
  readonly body: Piece;
}

/**
 * One run as an HTML page: sentences, charts with their figures, the machine, the settings and every cell. All that comes
 * from the records is escaped. The same records give the same page. Throws `BAD_RESULTS` as `resultsOf` does.
 */
export function renderReport(records: readonly BenchRecord[]): string {
  const results = resultsOf(records);
  const sections = [...chartSections(results), ...factSections(results)];
  const { run } = results;
  const title = `Headrace benchmark: ${run.machine.gpu ?? run.machine.cpu}`;
  const contents = sections.map(({ id, title: name }) => html`<li><a href="#${id}">${name}</a></li>`);
  return html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>${title}</title>
${new Html(`<style>${STYLE}</style>`)}
</head>
<body>
<header>
<h1>${title}</h1>
${aboutPart(results)}
</header>
<main>
${verdictCards(results, records)}
${warningPart(results)}
<nav aria-label="Contents"><ul>${contents}</ul></nav>
${sections.map(({ id, title: name, body }) => html`<section id="${id}"><h2>${name}</h2>${body}</section>\n`)}
</main>
</body>
</html>
`.text;
}

/** What was measured, where and with what, in two lines. */
function aboutPart({ run, cells }: Results): Html {
  const { machine, versions, settings } = run;
  const where = [
    // On a Mac they are one chip, and the title has it.
    ...(machine.gpu === undefined || machine.gpu === machine.cpu ? [] : [machine.cpu]),
    amountText(machine.cores, "core"),
    `${bytesText(machine.memoryBytes)} of memory`,
    machine.disk,
    machine.os,
    ...(machine.power === undefined ? [] : [machine.power]),
  ];
  const { byteLength, rounds } = settings;
  const what = [
    dateText(run.date),
    ...(versions.headrace === undefined ? [] : [`headrace ${versions.headrace}`]),
    ...(typeof byteLength === "number" && settings.source === undefined
      ? [`${bytesText(byteLength)} of each kind of data`]
      : []),
    `${amountText(cells.length, "cell")}${typeof rounds === "number" ? `, ${amountText(rounds, "round")} each` : ""}`,
  ];
  return html`<p class="muted">${where.join(" · ")}<br>${what.join(" · ")}</p>`;
}

function warningPart(results: Results): Piece {
  const notes = warnings(results);
  if (notes.length === 0) return undefined;
  return html`<aside class="warn" aria-label="Warnings"><ul>${notes.map((note) => html`<li>${note}</li>`)}</ul></aside>`;
}

function chartSections(results: Results): Section[] {
  const groups = groupsOf(results.cells);
  const context: ChartContext = {
    palette: new Palette(results.cells.map(({ key }) => key.format)),
    ceilings: results.ceilings,
    devices: new Set(results.cells.map(({ key }) => key.device)).size > 1,
  };
  const names = new Map(results.cells.map(({ key }) => [key.id, wayText(key)]));
  const each = (draw: (group: Group) => Chart | readonly Chart[] | undefined) =>
    groups.flatMap((group) => draw(group) ?? []);
  const kinds: readonly [id: string, title: string, charts: readonly Chart[]][] = [
    ["rate", "Rate", each((group) => rateChart(group, context))],
    ["others", "Against others", each((group) => ratioChart(group, names, context))],
    ["sweeps", "Lanes and request sizes", each((group) => sweepCharts(group, context))],
    ["size", "Size and rate", each((group) => sizeChart(group, context))],
    ["busy", "Device busy", each((group) => busyChart(group, context))],
    ["latency", "Wait for a batch", each((group) => latencyChart(group, context))],
    ["cpu", "Processor time", each((group) => cpuChart(group, context))],
    ["residency", "Proof of cold and warm", [residencyChart(groups, context) ?? []].flat()],
  ];
  return kinds
    .filter(([, , charts]) => charts.length > 0)
    .map(([id, title, charts]) => ({
      id,
      title,
      body: html`<div class="charts">${charts.map(figure)}</div>`,
    }));
}

function factSections(results: Results): Section[] {
  const { run, ceilings, cells, skipped } = results;
  const sections: Section[] = [];
  if (ceilings.length > 0) sections.push({ id: "ceilings", title: "Ceilings", body: ceilingTable(results) });
  sections.push({ id: "machine", title: "Machine and versions", body: machinePart(run) });
  sections.push({ id: "run", title: "Command and settings", body: settingsPart(run) });
  if (skipped.length > 0) {
    const rows = skipped.map(({ key, reason }) => [wayText(key), groupText(key), key.device, reason]);
    const body = wideTable(
      "Cells without figures, and why",
      ["format and way", "data", "device", "reason"],
      rows,
    );
    sections.push({ id: "skipped", title: "Skipped", body });
  }
  if (cells.length > 0) {
    const body = html`<details open><summary>${amountText(cells.length, "cell")}</summary>${cellTable(cells)}</details>`;
    sections.push({ id: "cells", title: "All cells", body });
  }
  return sections;
}

function ceilingTable({ ceilings }: Results): Html {
  return table(
    "What the machine does at best, measured in the same run",
    ["ceiling", "median and 95 % interval", "p5 to p95, GB/s", "how"],
    ceilings.map(({ name, gigabytesPerSecond: rate, note }) => [
      ceilingText(name) === name ? name : `${ceilingText(name)} (${name})`,
      intervalText(rate),
      `${digits(rate.p5)} to ${digits(rate.p95)}`,
      note,
    ]),
    [1, 2],
  );
}

function machinePart({ machine, versions }: RunRecord): Html {
  const rows: [string, string][] = [
    ["processor", machine.cpu],
    ["cores", String(machine.cores)],
    ["memory", `${bytesText(machine.memoryBytes)}, ${bytesText(machine.memoryFreeBytes)} free at the start`],
    ...(machine.gpu === undefined ? [] : [["GPU", machine.gpu] as [string, string]]),
    ["system", `${machine.os}, kernel ${machine.kernel}, ${machine.arch}`],
    ["disk", machine.disk],
    ...(machine.power === undefined ? [] : [["power", machine.power] as [string, string]]),
    ["load at the start", `${digits(machine.load)} over a minute`],
  ];
  return html`${table("Machine", ["what", "value"], rows)}
${table("Versions", ["what", "version"], Object.entries(versions))}`;
}

function settingsPart({ command, settings }: RunRecord): Html {
  return html`<p>The exact command:</p><pre tabindex="0"><code>${command}</code></pre>${table("Settings", ["setting", "value"], settingRows(settings))}`;
}

const CELL_HEAD = [
  "format and way",
  "data",
  "device, settings",
  "trials",
  "rate and 95 % interval",
  "p5 to p95, GB/s",
  "of its ceiling",
  "times smaller",
  "wait: median, p99",
  "CPU s/GB",
  "faults/GB: minor, major",
  "peak memory",
  "in memory before",
  "busy",
];

function cellTable(cells: readonly CellResult[]): Html {
  const numeric = CELL_HEAD.map((_, i) => i).filter((i) => i > 2);
  return wideTable("Every cell with figures", CELL_HEAD, cells.map(cellRow), numeric);
}

function cellRow({ key, record, rates }: CellResult): Piece[] {
  const { gigabytesPerSecond: rate, batchMs, ceiling, busyShare, residency } = record;
  return [
    wayText(key),
    groupText(key),
    [key.device, settingsText(key)].filter((text) => text !== "").join(", "),
    rates.length > 0 ? rates.length : record.rounds,
    intervalText(rate),
    `${digits(rate.p5)} to ${digits(rate.p95)}`,
    ceiling === undefined ? "-" : `${percentText(ceiling.part)} of ${ceilingText(ceiling.name)}`,
    digits(record.compression),
    batchMs.length < 6 ? "-" : `${timeText(batchMs[2]!)}, ${timeText(batchMs[4]!)}`,
    digits(record.cpuSecondsPerGigabyte),
    `${digits(record.minorFaultsPerGigabyte)}, ${digits(record.majorFaultsPerGigabyte)}`,
    bytesText(record.peakRssBytes),
    residency === undefined ? "-" : percentText(residency),
    busyShare === undefined ? "-" : percentText(busyShare.median),
  ];
}
