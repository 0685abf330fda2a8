/** The charts of a report with points: rates over a setting, and rates over how much a form compresses. */
import * as Plot from "@observablehq/plot";
import { boundsOf, type ChartContext } from "./group-charts.ts";
import { table } from "./html.ts";
import { type Chart, fitText } from "./plot.ts";
import type { CellKey } from "./record.ts";
import { bestSettings, type CellResult, fastestFirst, type Group } from "./results.ts";
import {
  ceilingText,
  digits,
  groupText,
  intervalText,
  rateText,
  requestText,
  settingsText,
  wayText,
} from "./text.ts";

const MARGIN_LEFT = 44;
const MARGIN_RIGHT = 18;

/** A setting that was varied. */
interface Sweep {
  readonly name: string;
  readonly axis: string;
  readonly of: (key: CellKey) => number | undefined;
  readonly tick: (value: number) => string;
}

const SWEEPS: readonly Sweep[] = [
  {
    name: "lanes",
    axis: "lanes (reads at the same time)",
    of: ({ lanes }) => (lanes > 0 ? lanes : undefined),
    tick: String,
  },
  {
    name: "request size",
    axis: "bytes of a request",
    of: ({ requestBytes }) => requestBytes,
    tick: requestText,
  },
];

interface Point {
  readonly format: string;
  readonly x: number;
  readonly rate: number;
  readonly low: number;
  readonly high: number;
  readonly cell: CellResult;
}

/** Of each way of a group: its rate over lanes and over the size of a request, where these were varied. */
export function sweepCharts(group: Group, context: ChartContext): Chart[] {
  const ways = Map.groupBy(group.cells, ({ key }) =>
    context.devices ? `${key.path} on ${key.device}` : key.path,
  );
  return [...ways].flatMap(([way, cells]) =>
    SWEEPS.flatMap((sweep) => {
      const points = pointsOf(cells, sweep);
      return new Set(points.map(({ x }) => x)).size < 2
        ? []
        : [sweepChart(group, way, sweep, points, context)];
    }),
  );
}

/** Of formats for which the setting was varied, the best cell at each of its values. */
function pointsOf(cells: readonly CellResult[], sweep: Sweep): Point[] {
  const own = cells.filter(({ key }) => key.peer === undefined && sweep.of(key) !== undefined);
  const formats = Map.groupBy(own, ({ key }) => key.format);
  return [...formats].flatMap(([format, members]) => {
    const places = Map.groupBy(members, ({ key }) => sweep.of(key)!);
    if (places.size < 2) return [];
    return [...places].map(([x, at]) => pointOf(format, x, fastestFirst(at)[0]!)).sort((a, b) => a.x - b.x);
  });
}

function pointOf(format: string, x: number, cell: CellResult): Point {
  const { median: rate, low, high } = cell.record.gigabytesPerSecond;
  return { format, x, rate, low, high, cell };
}

function sweepChart(
  group: Group,
  way: string,
  sweep: Sweep,
  points: readonly Point[],
  { palette, ceilings }: ChartContext,
): Chart {
  const most = Math.max(...points.map(({ high }) => high));
  const cells = points.map(({ cell }) => cell);
  const { near: bounds, beyond } = boundsOf(cells, most, ceilings);
  const formats = [...new Set(points.map(({ format }) => format))];
  const ticks = [...new Set(points.map(({ x }) => x))].sort((a, b) => a - b);
  const best = points.reduce((most, point) => (point.rate > most.rate ? point : most));
  const title = `Rate over ${sweep.name}: ${way}, ${groupText(group)} (GB/s, more is better)`;
  return {
    title,
    note: ["Each point is the best of the other settings; upright lines are 95 % intervals.", ...beyond].join(
      " ",
    ),
    summary: `Highest: ${best.format} at ${sweep.tick(best.x)}, ${rateText(best.rate)}.`,
    legend: palette.legend(formats),
    figures: table(
      title,
      ["format", sweep.name, "median and 95 % interval"],
      points.map(({ format, x, cell }) => [
        format,
        sweep.tick(x),
        intervalText(cell.record.gigabytesPerSecond),
      ]),
      [1, 2],
    ),
    options: (width) => ({
      ...frame(width, bounds.length),
      x: {
        type: "log",
        base: 2,
        label: sweep.axis,
        ...AXIS_BELOW,
        ticks: ticksThatFit(ticks, sweep.tick, width),
        tickFormat: sweep.tick,
      },
      y: RATE_AXIS,
      marks: [
        ...bounds.flatMap(({ name, gigabytesPerSecond: { median } }, i) =>
          ceilingMarks(name, median, bounds.length - i, width),
        ),
        Plot.line(points, {
          x: "x",
          y: "rate",
          z: "format",
          stroke: (d: Point) => palette.colour(d.format),
          strokeWidth: 2,
        }),
        ...pointMarks(points, palette),
      ],
    }),
  };
}

/** Rates of compressed forms over how much smaller they are. */
export function sizeChart(group: Group, { palette }: ChartContext): Chart | undefined {
  const cells = bestSettings(group.cells).filter(({ key }) => key.peer === undefined);
  const points = cells.map((cell) => pointOf(cell.key.format, cell.record.compression, cell));
  const sizes = points.map(({ x }) => x).filter((x) => x > 0);
  if (sizes.length < 2 || Math.max(...sizes) < 1.01 * Math.min(...sizes)) return undefined;
  const formats = [...new Set(points.map(({ format }) => format))];
  const title = `Size and rate: ${groupText(group)} (GB/s of what comes out, more is better)`;
  const small = points.reduce((most, point) => (point.x > most.x ? point : most));
  return {
    title,
    note: "Further right: a smaller file. Further up: faster. A form is worth having where no other is right of it and above.",
    summary: `Smallest: ${small.format}, ${digits(small.x)} times smaller, ${rateText(small.rate)}.`,
    legend: palette.legend(formats),
    figures: table(
      title,
      ["format and way", "settings", "times smaller", "median and 95 % interval"],
      points.map(({ x, cell }) => [
        wayText(cell.key),
        settingsText(cell.key),
        digits(x),
        intervalText(cell.record.gigabytesPerSecond),
      ]),
      [2, 3],
    ),
    options: (width) => ({
      ...frame(width, 0),
      x: {
        label: "bytes delivered for each byte of the file",
        ...AXIS_BELOW,
        ticks: width < 400 ? 5 : 8,
        nice: true,
      },
      y: RATE_AXIS,
      marks: pointMarks(points, palette),
    }),
  };
}

const AXIS_BELOW = { labelArrow: "none", labelAnchor: "center", labelOffset: 38 } as const;
const RATE_AXIS = {
  label: "GB/s",
  labelArrow: "none",
  labelAnchor: "top",
  grid: true,
  zero: true,
  nice: true,
  ticks: 5,
} as const;

function frame(width: number, lines: number): Plot.PlotOptions {
  return {
    width,
    height: Math.round(width * (width < 400 ? 0.75 : 0.55)) + lines * 15,
    marginLeft: MARGIN_LEFT,
    marginRight: MARGIN_RIGHT,
    marginTop: 26 + lines * 15,
    marginBottom: 44,
    insetLeft: 8,
    insetRight: 8,
  };
}

function ceilingMarks(name: string, median: number, line: number, width: number): Plot.Markish[] {
  const label = fitText(
    `dashed: ${ceilingText(name)}, ${rateText(median)}`,
    width - MARGIN_LEFT - MARGIN_RIGHT - 40,
  );
  return [
    Plot.ruleY([median], { stroke: "currentColor", strokeDasharray: "4 3", strokeWidth: 1.5 }),
    Plot.text([label], {
      frameAnchor: "top-right",
      textAnchor: "end",
      lineAnchor: "top",
      dy: -line * 15 - 6,
    }),
  ];
}

function pointMarks(points: readonly Point[], palette: ChartContext["palette"]): Plot.Markish[] {
  const fill = (point: Point) => palette.colour(point.format);
  return [
    Plot.ruleX(points, { x: "x", y1: "low", y2: "high", stroke: fill, strokeWidth: 1.5 }),
    ...[...Map.groupBy(points, ({ format }) => palette.mark(format))].map(([symbol, some]) =>
      Plot.dot(some, { x: "x", y: "rate", symbol, fill, r: 4.5 }),
    ),
  ];
}

/** Those of `ticks`, evenly thinned out, whose labels stand side by side. */
function ticksThatFit(ticks: readonly number[], text: (value: number) => string, width: number): number[] {
  const longest = Math.max(...ticks.map((tick) => text(tick).length)) * 6.6 + 10;
  const room = width - MARGIN_LEFT - MARGIN_RIGHT;
  const extent = Math.log2(ticks.at(-1)! / ticks[0]!);
  const kept: number[] = [];
  for (const tick of ticks) {
    const last = kept.at(-1);
    if (last === undefined || (Math.log2(tick / last) / extent) * room >= longest) kept.push(tick);
  }
  return kept;
}
