/** The charts of a report that have a row for each format and way. */
import { table } from "./html.ts";
import type { Palette } from "./palette.ts";
import type { Chart } from "./plot.ts";
import type { CeilingRecord } from "./record.ts";
import { type BestCell, bestSettings, type CellResult, type Group } from "./results.ts";
import { type Guide, MAX_ROWS, type Row, type RowsOptions, rowsChart } from "./rows-chart.ts";
import {
  amountText,
  ceilingText,
  digits,
  groupText,
  intervalText,
  percentText,
  rateText,
  settingsText,
  shortWayText,
  timeText,
  wayText,
} from "./text.ts";

/** A guide that is further out than this would leave the bars no room. */
const GUIDE_REACH = 1.6;
/** Share of its time that MLPerf Storage asks an accelerator to be busy. */
const BUSY = 0.9;

/** What charts have in common. */
export interface ChartContext {
  readonly palette: Palette;
  readonly ceilings: readonly CeilingRecord[];
  /** Whether the run had more than one device. */
  readonly devices: boolean;
}

interface Kind {
  readonly title: string;
  readonly note?: string | undefined;
  readonly summary: string;
  readonly options: RowsOptions;
  /** Name of the column of figures. */
  readonly figure: string;
}

/** A row of a chart with the cell that it is of. */
interface CellRow extends Pick<Row, "value" | "bar" | "interval" | "range" | "dots" | "ticks" | "below"> {
  readonly cell: BestCell;
}

function cellChart(kind: Kind, all: readonly CellRow[], { palette, devices }: ChartContext): Chart {
  const shown = all.slice(0, MAX_ROWS);
  const placed = (way: string, { key }: BestCell) => (devices ? `${way} on ${key.device}` : way);
  const nameOf = (cell: BestCell) => placed(wayText(cell.key), cell);
  const rows = shown.map(({ cell, ...row }): Row => {
    const aside = settingsText(cell.key);
    return {
      ...row,
      label: nameOf(cell),
      short: placed(shortWayText(cell.key), cell),
      aside,
      colour: palette.colour(cell.key.format),
    };
  });
  const hidden = all.length - shown.length;
  const more = hidden > 0 ? ` ${amountText(hidden, "more row")} in the figures below.` : "";
  return {
    title: kind.title,
    note: `${kind.note ?? ""}${more}`.trim() || undefined,
    summary: kind.summary,
    figures: table(
      kind.title,
      ["format and way", "settings", kind.figure],
      all.map(({ cell, value, below }) => [
        nameOf(cell),
        settingsText(cell.key),
        below === undefined ? value : `${value}; ${below}`,
      ]),
      [2],
    ),
    options: (width) => rowsChart(rows, kind.options, width),
  };
}

function firstText(rows: readonly CellRow[]): string {
  const [first] = rows;
  return first === undefined ? "" : `First: ${wayText(first.cell.key)}, ${first.value}.`;
}

/** The ceilings that bound `cells`: those that charts up to `most` can show, and a sentence on the others. */
export function boundsOf(
  cells: readonly CellResult[],
  most: number,
  ceilings: readonly CeilingRecord[],
): { readonly near: readonly CeilingRecord[]; readonly beyond: readonly string[] } {
  const names = new Set(cells.map(({ record }) => record.ceiling?.name));
  const bounds = ceilings.filter(({ name }) => names.has(name));
  const near = bounds.filter((bound) => bound.gigabytesPerSecond.median <= most * GUIDE_REACH);
  const far = bounds.filter((bound) => !near.includes(bound));
  if (far.length === 0) return { near, beyond: [] };
  const texts = far.map(
    ({ name, gigabytesPerSecond: { median } }) => `${ceilingText(name)}, ${rateText(median)}`,
  );
  return { near, beyond: [`Beyond the axis: ${texts.join("; ")}.`] };
}

/** Rates with their intervals, and the ceilings that bound them. */
export function rateChart(group: Group, context: ChartContext): Chart {
  const best = bestSettings(group.cells);
  const rows = best.map((cell): CellRow => {
    const { gigabytesPerSecond: rate } = cell.record;
    return { cell, value: rateText(rate.median), bar: rate.median, interval: [rate.low, rate.high] };
  });
  const most = Math.max(...best.map(({ record }) => record.gigabytesPerSecond.high));
  const { near, beyond } = boundsOf(best, most, context.ceilings);
  const guides = near.map(({ name, gigabytesPerSecond: { median } }): Guide => {
    return { at: median, label: `dashed: ${ceilingText(name)}, ${rateText(median)}` };
  });
  const notes = [
    ...(best.some(({ settings }) => settings > 1) ? ["Each row has the best of the settings tried."] : []),
    ...beyond,
    ...(near.some(({ name }) => name.startsWith("pread")) &&
    best.some(({ record }) => record.compression > 1.05)
      ? [
          "Bare reads count bytes of files: what is compressed may go beyond them by as much as it is smaller.",
        ]
      : []),
  ];
  const chart = cellChart(
    {
      title: `Rate: ${groupText(group)} (GB/s, more is better)`,
      note: notes.join(" "),
      summary: firstText(rows),
      options: { axis: "median rate, GB/s; the line is its 95 % interval", guides },
      figure: "median and 95 % interval",
    },
    rows,
    context,
  );
  const figures = table(
    chart.title,
    ["format and way", "settings", "median and 95 % interval", "of its ceiling"],
    best.map(({ key, record }) => [
      wayText(key),
      settingsText(key),
      intervalText(record.gigabytesPerSecond),
      record.ceiling === undefined
        ? "-"
        : `${percentText(record.ceiling.part)} of ${ceilingText(record.ceiling.name)}`,
    ]),
    [2, 3],
  );
  return { ...chart, figures };
}

/** How long a batch was waited for. */
export function latencyChart(group: Group, context: ChartContext): Chart | undefined {
  const best = bestSettings(group.cells).filter(({ record }) => record.batchMs.length === 6);
  if (best.length === 0) return undefined;
  const least = Math.min(...best.flatMap(({ record }) => record.batchMs.filter((ms) => ms > 0)));
  const floor = Number.isFinite(least) ? least : 0.001;
  const rows = best
    .toSorted((a, b) => a.record.batchMs[2]! - b.record.batchMs[2]!)
    .map((cell): CellRow => {
      // A batch that was there already took no time, which a logarithmic axis has no place for.
      const [min, p5, median, p95, p99, max] = cell.record.batchMs.map((ms) => Math.max(ms, floor));
      return {
        cell,
        value: `${timeText(cell.record.batchMs[2]!)}, ${timeText(cell.record.batchMs[4]!)}`,
        interval: [min!, max!],
        range: [p5!, p95!],
        ticks: [median!, p99!],
      };
    });
  return cellChart(
    {
      title: `Wait for a batch: ${groupText(group)} (ms, less is better)`,
      note: "Median and p99 in words and as upright strokes; thick from p5 to p95; thin from the shortest to the longest.",
      summary: firstText(rows),
      options: {
        axis: "from asking to having, ms (logarithmic)",
        scale: "log",
      },
      figure: "median, p99",
    },
    rows,
    context,
  );
}

/** What the processor spent. */
export function cpuChart(group: Group, context: ChartContext): Chart {
  const rows = bestSettings(group.cells)
    .toSorted((a, b) => a.record.cpuSecondsPerGigabyte - b.record.cpuSecondsPerGigabyte)
    .map((cell): CellRow => {
      const spent = cell.record.cpuSecondsPerGigabyte;
      const trials = cell.trials.filter(({ bytes }) => bytes > 0);
      const each = trials.map(({ cpuSeconds, bytes }) => cpuSeconds / (bytes / 1e9));
      return {
        cell,
        value: `${digits(spent)} s/GB`,
        bar: spent,
        interval: each.length < 2 ? undefined : [Math.min(...each), Math.max(...each)],
      };
    });
  return cellChart(
    {
      title: `Processor time: ${groupText(group)} (CPU seconds a GB, less is better)`,
      note: "The line goes from the trial with the least to that with the most.",
      summary: firstText(rows),
      options: { axis: "CPU seconds of all threads for each GB delivered" },
      figure: "CPU seconds a GB",
    },
    rows,
    context,
  );
}

/** The share of time in which the device computed. */
export function busyChart(group: Group, context: ChartContext): Chart | undefined {
  const best = bestSettings(group.cells).filter(({ record }) => record.busyShare !== undefined);
  if (best.length === 0) return undefined;
  const rows = best
    .toSorted((a, b) => b.record.busyShare!.median - a.record.busyShare!.median)
    .map((cell): CellRow => {
      const { median, low, high } = cell.record.busyShare!;
      return { cell, value: percentText(median), bar: median * 100, interval: [low * 100, high * 100] };
    });
  return cellChart(
    {
      title: `Device busy: ${groupText(group)} (% of the time, more is better)`,
      note: "With a fixed time of computing for each batch; what is missing to 100 % was spent waiting for data.",
      summary: firstText(rows),
      options: {
        axis: "share of the time, %",
        domain: [0, 100],
        guides: [{ at: BUSY * 100, label: `dashed: ${percentText(BUSY)}, as MLPerf Storage asks` }],
      },
      figure: "share and 95 % interval",
    },
    rows,
    context,
  );
}

/** Rates against those of other libraries. */
export function ratioChart(
  group: Group,
  names: ReadonlyMap<string, string>,
  context: ChartContext,
): Chart | undefined {
  const rows = bestSettings(group.cells)
    .flatMap((cell) => (cell.record.ratios ?? []).map((one) => ({ cell, ...one })))
    .filter(({ ratio }) => ratio.low > 0)
    .toSorted((a, b) => b.ratio.median - a.ratio.median)
    .map(
      ({ cell, against, ratio }): CellRow => ({
        cell,
        below: `against ${names.get(against) ?? otherText(against)}`,
        value: `${digits(ratio.median)}×`,
        interval: [ratio.low, ratio.high],
        dots: [ratio.median],
      }),
    );
  if (rows.length === 0) return undefined;
  const clear = rows.filter(({ interval }) => interval![0] > 1 || interval![1] < 1).length;
  return cellChart(
    {
      title: `Against others: ${groupText(group)} (ratio of the rates, more is better)`,
      note: `Above 1 the one named first was faster. ${clearText(clear, rows.length)}`,
      summary: firstText(rows),
      options: {
        axis: "rate divided by the other's (logarithmic)",
        scale: "log",
        guides: [{ at: 1, label: "dashed: 1, as fast" }],
      },
      figure: "ratio",
    },
    rows,
    context,
  );
}

/** How many ratios tell which is faster: their intervals lie on one side of 1. */
export function clearText(clear: number, all: number): string {
  if (clear === all)
    return all === 1
      ? "It is clear: its interval does not hold 1."
      : `All ${all} are clear: no interval holds 1.`;
  if (clear === 0)
    return all === 1
      ? "It is not clear: its interval holds 1."
      : `None of ${all} is clear: their intervals hold 1.`;
  return `Clear are ${clear} of ${all}: the intervals of the others hold 1.`;
}

/** What a ratio is against, as ways are named elsewhere: of `pyarrow of arrow` it is `arrow by pyarrow`. */
function otherText(against: string): string {
  return against.replace(/^(.+) of (\S+)$/s, "$2 by $1");
}
