/** Text of a page in which nothing but what this project wrote is markup. */

/** Markup that needs no escaping any more. */
export class Html {
  readonly text: string;

  constructor(text: string) {
    this.text = text;
  }
}

/** What may stand between markup: text is escaped, markup and lists of it go in as they are. */
export type Piece = string | number | Html | readonly Piece[] | undefined;

/** Markup with values in it: html`<p>${text}</p>`. Attributes need their quotes. */
export function html(parts: TemplateStringsArray, ...values: readonly Piece[]): Html {
  return new Html(parts.reduce((all, part, i) => all + textOf(values[i - 1]) + part));
}

function textOf(value: Piece): string {
  if (value === undefined) return "";
  if (value instanceof Html) return value.text;
  return typeof value === "object" ? value.map(textOf).join("") : escapeHtml(String(value));
}

/** `text` as the content of an element or of a quoted attribute. */
export function escapeHtml(text: string): string {
  return cleanText(text)
    .replaceAll("&", "&amp;")
    .replaceAll("<", "&lt;")
    .replaceAll(">", "&gt;")
    .replaceAll('"', "&quot;")
    .replaceAll("'", "&#39;");
}

/** `text` with signs in place of control characters and of marks that turn the direction of what follows. */
export function cleanText(text: string): string {
  return text.replaceAll(UNSAFE, "\ufffd");
}

/** All but tabs and line feeds. */
const UNSAFE = /(?![\t\n])[\p{Cc}\u200e\u200f\u202a-\u202e\u2066-\u2069]/gu;

/**
 * The same for many columns: where the window is too narrow for them, each row becomes a card that has the heading of each
 * cell beside it. Roles are named, since tables that are laid out otherwise lose theirs in some browsers.
 */
export function wideTable(
  caption: string,
  head: readonly string[],
  rows: readonly (readonly Piece[])[],
  numeric: readonly number[] = [],
): Html {
  const side = (i: number) => new Html(numeric.includes(i) ? ' class="n"' : "");
  const cell = (value: Piece, i: number) =>
    i === 0
      ? html`<th scope="row" role="rowheader">${value}</th>`
      : html`<td role="cell"${side(i)} data-label="${head[i]}">${value}</td>`;
  const shown = (value: Piece, i: number) =>
    i > 0 && value === "" ? html`<td role="cell" class="none"></td>` : cell(value, i);
  return html`<div class="scroll"><table class="cards" role="table">
<caption>${caption}</caption>
<thead role="rowgroup"><tr role="row">${head.map((name, i) => html`<th scope="col" role="columnheader"${side(i)}>${name}</th>`)}</tr></thead>
<tbody role="rowgroup">${rows.map(
    (row) => html`<tr role="row">${row.map(shown)}</tr>
`,
  )}</tbody></table></div>`;
}

/** A table whose first cell of each row is its heading. Columns of `numeric` (from 0) are set to the right. */
export function table(
  caption: string,
  head: readonly string[],
  rows: readonly (readonly Piece[])[],
  numeric: readonly number[] = [],
): Html {
  const side = (i: number) => (numeric.includes(i) ? new Html(' class="n"') : "");
  const cells = (row: readonly Piece[]) =>
    row.map((cell, i) => (i === 0 ? html`<th scope="row">${cell}</th>` : html`<td${side(i)}>${cell}</td>`));
  return html`<div class="scroll" tabindex="0" role="region" aria-label="${caption}"><table>
<caption>${caption}</caption>
<thead><tr>${head.map((name, i) => html`<th scope="col"${side(i)}>${name}</th>`)}</tr></thead>
<tbody>${rows.map((row) => html`<tr>${cells(row)}</tr>\n`)}</tbody></table></div>`;
}
