/** The first screen of a report: what to use, by how much it is faster, and how sure that is. */
import { type Lead, type NameOf, namesOf, overallText, type Verdict, verdictsOf } from "./headline.ts";
import { type Html, html, type Piece } from "./html.ts";
import { recommend } from "./recommend.ts";
import { loadFlags, packFlags } from "./recommend-text.ts";
import type { BenchRecord } from "./record.ts";
import type { Results } from "./results.ts";
import { ceilingText, digits, groupText, listText, percentText, rateText, settingsText } from "./text.ts";

/** A card for each group of cells, in which the first line is the answer. `records` are those of `results`. */
export function verdictCards(results: Results, records: readonly BenchRecord[]): Html {
  const verdicts = verdictsOf(results);
  if (verdicts.length === 0) return html`<p>No cell has figures.</p>`;
  const nameOf = namesOf(results.cells);
  const overall = overallText(verdicts, nameOf);
  const commands = commandsOf(records);
  return html`${overall === undefined ? undefined : html`<p class="lead">${overall}</p>`}
<div class="verdicts">${verdicts.map((verdict) => card(verdict, nameOf, commands))}</div>
<p class="note">Cold: before each trial at most 2 % of the files' pages were in memory, as the system told; warm: at least
98 %. Rates are medians of what is delivered, in GB/s (10⁹ bytes a second), with the interval that holds the median with 95 %.
Clear means that these intervals do not meet.</p>`;
}

function card(verdict: Verdict, nameOf: NameOf, commands: ReadonlyMap<string, readonly string[]>): Html {
  const { group, first } = verdict;
  const { median, low, high } = first.record.gigabytesPerSecond;
  const { ceiling } = first.record;
  const settings = settingsText(first.key);
  const scale = median >= 0.01 ? 1 : 1000;
  const about = [
    `95 %: ${digits(low * scale)} to ${digits(high * scale)}`,
    ...(settings === "" ? [] : [settings]),
    ...(ceiling === undefined ? [] : [`${percentText(ceiling.part)} of ${ceilingText(ceiling.name)}`]),
  ];
  const lines = commands.get(first.key.id) ?? [];
  return html`<article><h2>${groupText(group)}</h2>
<p class="first"><b>${nameOf(first)}</b> <b>${rateText(median)}</b></p>
<p class="muted">${about.join(" · ")}</p>
${certainty(verdict, nameOf)}
${otherSide(verdict, nameOf)}
${lines.map((line) => html`<p><code>${line.split(" ").map((word) => html`<span>${word}</span> `)}</code></p>`)}</article>
`;
}

function certainty({ ways, tied, next }: Verdict, nameOf: NameOf): Piece {
  if (ways === 1) return html`<p>The only one measured.</p>`;
  const slower = next && `${timesText(next)} ${nameOf(next.over)}`;
  if (tied.length === 0) return html`<p><b class="sure">✓ Clear:</b> ${slower}, the next.</p>`;
  const also = html`<p><b class="unsure">≈ Not clear:</b> ${listText(tied.map(nameOf))} may be as fast.</p>`;
  return slower === undefined ? also : [also, html`<p>Clearly ${slower}.</p>`];
}

/** What others do is told beside what this project does, whichever of them came first. */
function otherSide({ first, tied, next, otherSide: lead }: Verdict, nameOf: NameOf): Piece {
  if (lead === undefined || lead.over === next?.over) return undefined;
  const whose = first.own ? "Best of others" : "Best of this project";
  const text = tied.includes(lead.over) ? "not clearly slower" : `${digits(lead.median)} times slower`;
  const rate = rateText(lead.over.record.gigabytesPerSecond.median);
  return html`<p>${whose}: ${nameOf(lead.over)}, ${rate}: ${text}.</p>`;
}

function timesText({ median, low, high }: Lead): string {
  return `${digits(median)} times (${digits(low)} to ${digits(high)}) as fast as`;
}

/** By the id of the cell that is recommended for a case: the commands that the figures of the case support, where they leave
 * one way alone. A cell with too few trials is never one of these, however fast. */
function commandsOf(records: readonly BenchRecord[]): Map<string, readonly string[]> {
  const commands = recommend(records).advice.map((advice): [string, readonly string[]] => {
    const { best, path } = advice;
    const pack = packFlags(advice);
    const load = path.values.length === 1 ? loadFlags(advice) : undefined;
    return [best.key.id, [pack, load].filter((line) => line !== undefined)];
  });
  return new Map(commands);
}
