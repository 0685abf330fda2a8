/** Charts as SVG by Observable Plot, drawn without a browser. Slow to load: only reports import this. */
import * as Plot from "@observablehq/plot";
import { parseHTML } from "linkedom";
import { cleanText, Html, html, type Piece } from "./html.ts";

/** Widths that charts are drawn for, in CSS pixels: a phone's, and half of a desk's. The page shows the one that fits. */
export const WIDTHS = [310, 540] as const;
/** Of text in charts, px. */
export const FONT_SIZE = 12;

/** One chart. */
export interface Chart {
  /** With what is shown, its unit, and whether more is better. */
  readonly title: string;
  /** What to know in order to read it. */
  readonly note?: string | undefined;
  /** For those who do not see it: what it shows, in a sentence. */
  readonly summary: string;
  readonly legend?: Html | undefined;
  /** The figures themselves. */
  readonly figures: Html;
  /** The chart at a width. */
  readonly options: (width: number) => Plot.PlotOptions;
}

/** The chart at each width, with its title, legend and figures. */
export function figure(chart: Chart): Html {
  const drawings = WIDTHS.map((width, i) => draw(chart, width, i === 0 ? "narrow" : "wide"));
  const note: Piece = chart.note === undefined ? undefined : html`<p class="note">${chart.note}</p>`;
  return html`<figure><figcaption><h4>${chart.title}</h4>${note}${chart.legend}</figcaption>
${drawings}
<details><summary>Figures</summary>${chart.figures}</details></figure>`;
}

function draw(chart: Chart, width: number, className: string): Html {
  const { document } = parseHTML("<html></html>");
  const svg = Plot.plot({
    document: document as unknown as Document,
    width,
    style: { fontSize: `${FONT_SIZE}px` },
    color: { type: "identity" },
    ...chart.options(width),
  }) as unknown as SVGElement;
  // Each drawing would carry rules for its own class; the page has them once.
  for (const style of svg.querySelectorAll("style")) style.remove();
  // Nobody reads a drawing out mark by mark: it is one image with a title and a summary.
  for (const part of svg.querySelectorAll("[aria-label]")) {
    part.setAttribute("data-part", part.getAttribute("aria-label")!);
    part.removeAttribute("aria-label");
  }
  roundPlaces(svg);
  // Attributes and title are written here, so that they are escaped as everything else on the page.
  const inner = new Html(cleanText(svg.innerHTML));
  const height = svg.getAttribute("height")!;
  const label = `${chart.title}. ${chart.summary}`;
  return html`<svg class="${className}" role="img" aria-label="${label}" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" font-size="${FONT_SIZE}" text-anchor="middle" fill="currentColor"><title>${chart.title}</title>${inner}</svg>
`;
}

/** Attributes that say where something lies. */
const PLACES = ["x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "width", "height", "d", "transform"];

/** Hundredths of a pixel are enough, and make a page a good part smaller. */
function roundPlaces(svg: Element): void {
  for (const element of svg.querySelectorAll("*")) {
    for (const name of PLACES) {
      const place = element.getAttribute(name);
      if (place === null || !LONG.test(place)) continue;
      const rounded = place.replaceAll(EACH_LONG, (digits) => String(Math.round(Number(digits) * 100) / 100));
      element.setAttribute(name, rounded);
    }
  }
}

const LONG = /\.\d{3}/;
const EACH_LONG = /-?\d*\.\d{3,}(?:e-?\d+)?/g;

/** `text` cut so that it takes `pixels` at most. */
export function fitText(text: string, pixels: number): string {
  if (textWidth(text) <= pixels) return text;
  const characters = [...text];
  let width = textWidth("…");
  const end = characters.findIndex((character) => {
    width += textWidth(character);
    return width > pixels;
  });
  return `${characters.slice(0, end).join("")}…`;
}

/** Pixels that `text` takes at most, at {@link FONT_SIZE}, in the fonts that systems have for their own windows. */
export function textWidth(text: string): number {
  let ems = 0;
  for (const character of text) ems += emsOf(character);
  return ems * FONT_SIZE;
}

/** By kinds of letters, from DejaVu Sans, which is among the widest. */
function emsOf(character: string): number {
  if (/[iljI.,:;|!'() ft[\]-]/.test(character)) return 0.4;
  if (/[mwMW@%<>=+&~…—×]/.test(character)) return 1;
  if (/[A-Z]/.test(character)) return 0.77;
  return character.codePointAt(0)! < 0x250 ? 0.64 : 1.1;
}
