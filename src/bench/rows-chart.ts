/** Charts of one row a cell: its name and value in a line, and below it a bar, dots or a range. */
import * as Plot from "@observablehq/plot";
import { fitText, textWidth } from "./plot.ts";

/** Rows of the longest chart; the table of all cells has the others. */
export const MAX_ROWS = 24;
const LINE = 15;
const BODY = 17;
const GAP = 9;
/** How much wider bold text is. */
const BOLD = 1.1;
/** Between frame and edge, so that a tick's label at the end is whole. */
const SIDE = 16;
/** Between a row's texts and the edge: they reach beyond the frame, clear of its last line. */
const EDGE = 2;

/** A row. All figures are in the unit of the axis. */
export interface Row {
  readonly label: string;
  /** Stands for the label where that is too long. */
  readonly short?: string | undefined;
  /** A second line of the name, where there is one. */
  readonly below?: string | undefined;
  /** Said where there is room for it. */
  readonly aside?: string | undefined;
  /** What is shown, in words; stands at the right. */
  readonly value: string;
  readonly colour: string;
  /** From the axis's start to here. */
  readonly bar?: number | undefined;
  /** A thin line with ends: an interval, or the extent of all. */
  readonly interval?: readonly [low: number, high: number] | undefined;
  /** A thick line: where most values lie. */
  readonly range?: readonly [low: number, high: number] | undefined;
  readonly dots?: readonly number[] | undefined;
  /** Upright strokes. */
  readonly ticks?: readonly number[] | undefined;
}

/** A line beside the bars of all rows, with its name above. It leaves out the rows' texts, so that it crosses none. */
export interface Guide {
  readonly at: number;
  readonly label: string;
}

export interface RowsOptions {
  /** With the unit. */
  readonly axis: string;
  readonly scale?: "linear" | "log" | undefined;
  readonly domain?: readonly [number, number] | undefined;
  readonly guides?: readonly Guide[] | undefined;
}

interface Placed extends Row {
  readonly id: number;
  /** Its name, line by line. */
  readonly lines: readonly string[];
}

/** Plot's options for `rows` at `width` pixels. */
export function rowsChart(rows: readonly Row[], options: RowsOptions, width: number): Plot.PlotOptions {
  const data = rows.map((row, id): Placed => ({ ...row, id, lines: nameLines(row, width - 2 * EDGE) }));
  const lines = Math.max(1, ...data.map((row) => row.lines.length));
  const height = lines * LINE + BODY + GAP;
  const top = lines * LINE + 3;
  const { guides = [], scale = "linear" } = options;
  const marginTop = 4 + guides.length * LINE;
  const marginBottom = 42;
  return {
    height: marginTop + rows.length * height + marginBottom,
    marginTop,
    marginBottom,
    marginLeft: SIDE,
    marginRight: SIDE,
    x: {
      type: scale,
      label: options.axis,
      labelArrow: "none",
      labelAnchor: "center",
      labelOffset: 38,
      grid: true,
      ...ticksOf(rows, options, width),
    },
    y: { type: "band", domain: data.map(({ id }) => id), axis: null, padding: 0 },
    marks: [
      ...barMarks(data, top),
      ...guideMarks(guides, data, top),
      ...bodyMarks(data, top, height),
      ...guideNames(guides, width),
      ...labelMarks(data, height, lines),
    ],
  };
}

/** Ticks, and the domain that they lie in. */
function ticksOf(
  rows: readonly Row[],
  { domain, scale, guides = [] }: RowsOptions,
  width: number,
): Plot.ScaleOptions {
  if (domain !== undefined) return { domain: [...domain], ticks: width < 400 ? 5 : 10 };
  if (scale !== "log") return { ticks: width < 400 ? 4 : 7, nice: true };
  const values = rows.flatMap(({ interval = [], range = [], ticks = [], dots = [] }) => [
    ...interval,
    ...range,
    ...ticks,
    ...dots,
  ]);
  values.push(...guides.map(({ at }) => at));
  const [low, high] = [Math.min(...values) / 1.05, Math.max(...values) * 1.05];
  return { domain: [low, high], ticks: logTicks(low, high), tickFormat: plainNumber };
}

/** At most 9 round numbers from `low` to `high`, which are above 0: powers of ten where at least three lie there, else the
 * steps between them, or where these are too wide as well, numbers at even distances. */
export function logTicks(low: number, high: number): number[] {
  const first = Math.floor(Math.log10(low));
  const last = Math.ceil(Math.log10(high));
  for (const steps of STEPS) {
    const inside: number[] = [];
    for (let power = first; power <= last; power++) {
      for (const step of steps) {
        const tick = Number((step * 10 ** power).toPrecision(3));
        if (tick >= low && tick <= high) inside.push(tick);
      }
    }
    if (inside.length >= 3) return thinned(inside);
  }
  const rough = (high - low) / 4;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * (rough < 2 * power ? 1 : rough < 5 * power ? 2 : 5);
  const count = Math.floor((high - low) / step) + 1;
  const start = Math.ceil(low / step);
  const even = Array.from({ length: count }, (_, i) => Number(((start + i) * step).toPrecision(6)));
  return even.filter((tick) => tick >= low && tick <= high);
}

const STEPS = [[1], [1, 3], [1, 2, 5], [1, 1.5, 2, 3, 5, 7]];
const MAX_TICKS = 9;

function thinned(ticks: readonly number[]): number[] {
  const every = Math.ceil(ticks.length / MAX_TICKS);
  return ticks.filter((_, i) => i % every === 0);
}

function plainNumber(value: number): string {
  return value.toLocaleString("en-US", { maximumSignificantDigits: 4 });
}

function barMarks(data: readonly Placed[], top: number): Plot.Markish[] {
  const bars = having(data, "bar");
  return [Plot.barX(bars, { x1: 0, x2: "bar", y: "id", fill: "colour", insetTop: top, insetBottom: GAP })];
}

function having(data: readonly Placed[], field: keyof Row): Placed[] {
  return data.filter((row) => row[field] !== undefined);
}

/** Over the bars, since one may reach further than what should bound it. */
function guideMarks(guides: readonly Guide[], data: readonly Placed[], top: number): Plot.Markish[] {
  return guides.map(({ at }) =>
    Plot.tickX(data, {
      x: () => at,
      y: "id",
      stroke: "currentColor",
      strokeDasharray: "4 3",
      strokeWidth: 1.5,
      insetTop: top - 1,
      insetBottom: 1,
    }),
  );
}

/** At the frame's side and not at the line, where it might not fit; the line is told by its value. */
function guideNames(guides: readonly Guide[], width: number): Plot.Markish[] {
  return guides.map(({ label }, i) =>
    Plot.text([fitText(label, width - 2 * SIDE)], {
      frameAnchor: "top-right",
      dy: -(guides.length - i) * LINE + 2,
      textAnchor: "end",
      lineAnchor: "top",
    }),
  );
}

function bodyMarks(data: readonly Placed[], top: number, height: number): Plot.Markish[] {
  const shift = (top - GAP) / 2;
  const inset = { insetTop: top, insetBottom: GAP };
  const spread = (field: "dots" | "ticks") =>
    data.flatMap((row) => (row[field] ?? []).map((at) => ({ id: row.id, at, colour: row.colour })));
  const end = (side: 0 | 1) =>
    Plot.tickX(having(data, "interval"), {
      x: (row: Row) => row.interval![side],
      y: "id",
      stroke: "currentColor",
      insetTop: top + (height - top - GAP) / 4,
      insetBottom: GAP + (height - top - GAP) / 4,
    });
  return [
    Plot.ruleY(having(data, "interval"), {
      x1: (row: Row) => row.interval![0],
      x2: (row: Row) => row.interval![1],
      y: "id",
      dy: shift,
      stroke: "currentColor",
      strokeWidth: 1.5,
    }),
    end(0),
    end(1),
    Plot.ruleY(having(data, "range"), {
      x1: (row: Row) => row.range![0],
      x2: (row: Row) => row.range![1],
      y: "id",
      dy: shift,
      stroke: "colour",
      strokeWidth: 8,
    }),
    Plot.tickX(spread("ticks"), { x: "at", y: "id", stroke: "currentColor", strokeWidth: 2, ...inset }),
    Plot.dot(spread("dots"), {
      x: "at",
      y: "id",
      dy: shift,
      r: 4,
      fill: "colour",
      fillOpacity: 0.6,
      stroke: "var(--ground)",
      strokeWidth: 0.5,
    }),
  ];
}

/** A row's name in lines of `width`, the first of which leaves room for the value: the short one where the other does not fit,
 * broken between words where that does not fit either. */
function nameLines({ label, short = label, aside, below, value }: Row, width: number): string[] {
  const room = width - BOLD * textWidth(value) - 8;
  const under = below === undefined ? [] : [fitText(below, width)];
  const named = (name: string, pixels: number) => {
    const whole = aside === undefined ? name : `${name} · ${aside}`;
    return textWidth(whole) <= pixels ? whole : fitText(name, pixels);
  };
  const name = textWidth(label) <= room ? label : short;
  if (textWidth(name) <= room) return [named(name, room), ...under];
  const words = name.split(" ");
  const fitting = words.findLastIndex((_, i) => textWidth(words.slice(0, i).join(" ")) <= room);
  if (fitting < 1) return [fitText(name, room), ...under];
  return [words.slice(0, fitting).join(" "), named(words.slice(fitting).join(" "), width), ...under];
}

function labelMarks(data: readonly Placed[], height: number, lines: number): Plot.Markish[] {
  // Lines end around letters, so that both can be read.
  const halo = { fill: "currentColor", stroke: "var(--ground)", strokeWidth: 5 };
  const line = (i: number) => ({ ...halo, y: "id", dy: -height / 2 + LINE / 2 + i * LINE });
  const names = Array.from({ length: lines }, (_, i) =>
    Plot.text(data, {
      ...line(i),
      text: (row: Placed) => row.lines[i] ?? "",
      frameAnchor: "left",
      textAnchor: "start",
      dx: EDGE - SIDE,
    }),
  );
  const values = Plot.text(data, {
    ...line(0),
    text: "value",
    frameAnchor: "right",
    textAnchor: "end",
    dx: SIDE - EDGE,
    fontWeight: "bold",
    fontVariant: "tabular-nums",
  });
  return [...names, values];
}
