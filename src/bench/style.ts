/** How a report looks: on a phone and a desk, on light and dark ground, on paper. */
import { colourRules } from "./palette.ts";

const DARK = `--ground: #14171a; --text: #e8eaed; --muted: #a9b1b8; --line: #3a4148; --box: #1d2226; --link: #7cc0ff; ${colourRules("dark")}`;
const LIGHT = `--ground: #ffffff; --text: #1b1f23; --muted: #57606a; --line: #d0d7de; --box: #f6f8fa; --link: #0a58ca; ${colourRules("light")}`;

export const STYLE = `
:root { color-scheme: light dark; ${LIGHT} }
@media (prefers-color-scheme: dark) { :root { ${DARK} } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 16px; max-width: 1160px; background: var(--ground); color: var(--text);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: 8px 0; }
h2 { font-size: 1.3rem; margin: 40px 0 8px; padding-top: 8px; border-top: 1px solid var(--line); }
h3 { font-size: 1.1rem; margin: 24px 0 4px; }
h4 { font-size: 1rem; line-height: 1.3; margin: 0 0 4px; }
p { margin: 8px 0; }
a { color: var(--link); }
nav ul { display: flex; flex-wrap: wrap; gap: 4px 16px; padding: 0; margin: 16px 0; list-style: none; }
:focus-visible { outline: 2px solid var(--link); outline-offset: 2px; }
.muted, .note { color: var(--muted); }
.note { font-size: 0.875rem; margin: 0 0 4px; }
.lead { font-size: 1.1rem; margin: 16px 0 8px; }
.verdicts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 440px), 1fr)); gap: 12px 16px; margin: 16px 0 8px; }
.verdicts article { border: 1px solid var(--line); border-radius: 8px; padding: 10px 14px; background: var(--box); min-width: 0; }
.verdicts h2 { font-size: 0.9rem; margin: 0; padding: 0; border: 0; color: var(--muted); }
.verdicts p { margin: 4px 0; font-size: 0.9rem; line-height: 1.4; }
.verdicts p.first { display: flex; flex-wrap: wrap; justify-content: space-between; gap: 0 12px; font-size: 1.15rem; }
.verdicts code span { display: inline-block; }
.sure { color: var(--c2); }
.unsure { color: var(--c1); }
code { font: 0.8125rem/1.4 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
.warn { border-left: 4px solid var(--c1); background: var(--box); padding: 8px 16px; margin: 16px 0; }
.warn ul { margin: 4px 0; padding-left: 20px; }
pre { background: var(--box); border: 1px solid var(--line); border-radius: 6px; padding: 12px; overflow-x: auto;
  white-space: pre-wrap; font: 0.875rem/1.4 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 520px), 1fr)); gap: 32px 32px; align-items: start; }
figure { margin: 0; min-width: 0; }
figure svg.wide, figure svg.narrow { width: 100%; height: auto; max-width: 640px; font-family: inherit; color: var(--text);
  font-variant-numeric: tabular-nums; }
figure svg.wide text, figure svg.narrow text { white-space: pre; }
figure svg.wide { display: none; }
@media (min-width: 620px) { figure svg.wide { display: block; } figure svg.narrow { display: none; } }
ul.legend { display: flex; flex-wrap: wrap; gap: 2px 16px; margin: 4px 0; padding: 0; list-style: none; font-size: 0.8125rem; }
ul.legend svg { vertical-align: -1px; }
details { margin: 8px 0; }
summary { cursor: pointer; color: var(--link); padding: 4px 0; }
.scroll { overflow-x: auto; max-width: 100%; }
table { border-collapse: collapse; font-size: 0.8125rem; line-height: 1.35; font-variant-numeric: tabular-nums; overflow-wrap: normal; }
caption { text-align: left; color: var(--muted); padding: 4px 0; }
th, td { text-align: left; padding: 4px 12px 4px 0; border-bottom: 1px solid var(--line); vertical-align: top; font-weight: 400; }
thead th { font-weight: 600; white-space: nowrap; }
tbody th { white-space: nowrap; }
td { min-width: 10rem; }
td.n { min-width: 0; }
td.n, th.n { text-align: right; white-space: nowrap; }
table.cards { width: 100%; }
table.cards th, table.cards td { min-width: 0; padding-right: 8px; white-space: normal; }
table.cards tbody th, table.cards td { overflow-wrap: anywhere; min-width: 4.75rem; }
table.cards td.n { min-width: 3.5rem; }
@media (max-width: 1199px) {
  table.cards, table.cards tbody, table.cards caption { display: block; }
  table.cards thead { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
  table.cards tr { display: grid; grid-template-columns: repeat(auto-fill, minmax(132px, 1fr)); gap: 4px 12px; padding: 10px 0;
    border-bottom: 1px solid var(--line); }
  table.cards th, table.cards td, table.cards td.n { border: 0; padding: 0; text-align: left; overflow-wrap: anywhere; }
  table.cards tbody th { grid-column: 1 / -1; font-weight: 600; }
  table.cards td::before { content: attr(data-label); display: block; color: var(--muted); font-size: 0.75rem; }
  table.cards td.none { display: none; }
}
@media print {
  :root { color-scheme: light; ${LIGHT} }
  body { max-width: none; font-size: 11pt; }
  nav { display: none; }
  figure, article, tr { break-inside: avoid; }
  figure details:not([open]) { display: none; }
  .scroll { overflow: visible; }
  .charts { display: block; }
  figure { margin-bottom: 24px; }
}
`;
