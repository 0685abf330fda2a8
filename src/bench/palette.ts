/** Colours and marks of formats: the same in every chart of a report. */
import { type Html, html } from "./html.ts";

/**
 * Told apart with any kind of colour vision, and against their ground with a contrast of 3 to 1 at least: after Okabe and
 * Ito's set (Color Universal Design, 2008), darker on light ground and lighter on dark.
 */
const COLOURS: readonly (readonly [light: string, dark: string])[] = [
  ["#0072b2", "#56b4e9"],
  ["#c44e00", "#ff9a57"],
  ["#00805f", "#2bd4a5"],
  ["#a8457f", "#e8a0c8"],
  ["#5b5b5b", "#bdbdbd"],
  ["#946200", "#f0c040"],
  ["#5b3fa8", "#b7a3f5"],
  ["#6b6f1f", "#c7cc5a"],
];

/** Plot's names of marks; the first are the easiest to tell apart. */
const MARKS = ["circle", "square", "triangle", "diamond", "star", "cross", "wye"] as const;
export type Mark = (typeof MARKS)[number];

/** Declarations of the colours. */
export function colourRules(ground: "light" | "dark"): string {
  return COLOURS.map((pair, i) => `--c${i}: ${pair[ground === "light" ? 0 : 1]};`).join(" ");
}

/** Which colour and mark each format has. */
export class Palette {
  readonly #index: ReadonlyMap<string, number>;

  constructor(formats: readonly string[]) {
    this.#index = new Map([...new Set(formats)].map((format, i) => [format, i]));
  }

  colour(format: string): string {
    return `var(--c${(this.#index.get(format) ?? 0) % COLOURS.length})`;
  }

  /** The marks go round at another pace than the colours, so that 56 pairs differ. */
  mark(format: string): Mark {
    return MARKS[(this.#index.get(format) ?? 0) % MARKS.length]!;
  }

  /** What the colours and marks of a chart mean. */
  legend(formats: readonly string[]): Html {
    const item = (format: string) =>
      html`<li><svg width="12" height="12" viewBox="-6 -6 12 12" aria-hidden="true"><path d="${SHAPES[this.mark(format)]}" fill="${this.colour(format)}"/></svg> ${format}</li>`;
    const inOrder = [...this.#index.keys()].filter((format) => formats.includes(format));
    return html`<ul class="legend">${inOrder.map(item)}</ul>`;
  }
}

/** The marks as they look in a legend, in a square from -6 to 6. */
const SHAPES: Readonly<Record<Mark, string>> = {
  circle: "M-4.5,0a4.5,4.5 0 1 0 9,0a4.5,4.5 0 1 0 -9,0",
  square: "M-4,-4h8v8h-8z",
  triangle: "M0,-5L5,4H-5z",
  diamond: "M0,-6L3.5,0L0,6L-3.5,0z",
  star: "M0,-6L1.5,-1.9L5.7,-1.9L2.3,0.8L3.5,4.9L0,2.4L-3.5,4.9L-2.3,0.8L-5.7,-1.9L-1.5,-1.9z",
  cross: "M-2,-5h4v3h3v4h-3v3h-4v-3h-3v-4h3z",
  wye: "M-2,5V1.2L-5.3,-0.7L-3.3,-4.2L0,-2.3L3.3,-4.2L5.3,-0.7L2,1.2V5z",
};
