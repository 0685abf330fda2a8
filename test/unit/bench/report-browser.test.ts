/** The report as a browser lays it out; where there is none, this says so and passes over. */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { compareRuns } from "../../../src/bench/compare.ts";
import { renderComparison } from "../../../src/bench/compare-page.ts";
import { renderReport } from "../../../src/bench/report.ts";
import { Browser, findBrowser } from "./browser.ts";
import { FEW, hostileRecords, madeUpRecords, manyCells, WIDE_RANGE } from "./made-up.ts";

setDefaultTimeout(60_000);

const path = findBrowser();
if (path === undefined)
  console.warn("no Chromium found (HEADRACE_CHROMIUM): the report's layout is not tested");

/** Runs in the page: what of the drawings that show is cut off, collides, or is too small. Of marks the lines of the grid may
 * pass behind a text, which has a halo against them; all others stay away from it. */
const FAULTS = `(() => {
  const faults = [];
  const overlap = (a, b) => a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 2 && b.top < a.bottom - 2;
  // A line has no width, or no height.
  const touch = (a, b) => a.left < b.right + 1 && b.left - 1 < a.right && a.top + 2 < b.bottom && b.top < a.bottom - 2;
  for (const svg of document.querySelectorAll("figure > svg")) {
    const frame = svg.getBoundingClientRect();
    if (frame.width === 0) continue;
    const title = svg.querySelector("title").textContent;
    const texts = [...svg.querySelectorAll("text")].filter((text) => text.textContent !== "");
    const boxes = texts.map((text) => text.getBoundingClientRect());
    const marks = [...svg.querySelectorAll("line, path, rect, circle")]
      .filter((mark) => !/grid|axis tick$/.test(mark.closest("[data-part]")?.dataset.part ?? ""))
      .map((mark) => [mark.getBoundingClientRect(), mark]);
    for (const [i, box] of boxes.entries()) {
      const name = title + ": " + texts[i].textContent;
      if (box.left < frame.left - 1 || box.right > frame.right + 1) faults.push("cut off: " + name);
      if (box.top < frame.top - 2 || box.bottom > frame.bottom + 2) faults.push("cut off: " + name);
      const size = Number.parseFloat(getComputedStyle(texts[i]).fontSize) * frame.width / svg.viewBox.baseVal.width;
      if (size < 11) faults.push("too small, " + size + " px: " + name);
      for (let j = i + 1; j < boxes.length; j++) {
        if (overlap(box, boxes[j])) faults.push("overlap: " + name + " and " + texts[j].textContent);
      }
      for (const [at, mark] of marks) {
        if (touch(box, at)) faults.push("crossed: " + name + " by " + mark.outerHTML);
      }
    }
  }
  return faults;
})()`;

/** Runs in the page: contrast of text with its ground, and how the page fits. */
const FACTS = `(() => {
  const luminance = (colour) => {
    const [r, g, b] = colour.match(/[\\d.]+/g).map((part) => part / 255).map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const contrast = (a, b) => {
    const [x, y] = [luminance(a), luminance(b)].sort((p, q) => q - p);
    return (x + 0.05) / (y + 0.05);
  };
  const style = getComputedStyle(document.body);
  const ground = style.backgroundColor;
  const shown = [...document.querySelectorAll("figure > svg")].filter((svg) => svg.getBoundingClientRect().width > 0);
  const fills = [...document.querySelectorAll("figure > svg rect")].map((rect) => getComputedStyle(rect).fill);
  return {
    scroll: document.documentElement.scrollWidth - document.documentElement.clientWidth,
    text: contrast(style.color, ground),
    muted: Math.min(...[...document.querySelectorAll(".note, .muted, .sure, .unsure, caption")].map((e) => contrast(getComputedStyle(e).color, ground))),
    marks: Math.min(...new Set(fills.filter((fill) => fill.startsWith("rgb"))).values().map((fill) => contrast(fill, ground))),
    ground: luminance(ground),
    shown: shown.length,
    figures: document.querySelectorAll("figure").length,
  };
})()`;

interface Facts {
  readonly scroll: number;
  readonly text: number;
  readonly muted: number;
  readonly marks: number;
  readonly ground: number;
  readonly shown: number;
  readonly figures: number;
}

/** Runs in the page: tables of many columns that reach beyond their place. */
const CUT_TABLES = `[...document.querySelectorAll("table.cards")].flatMap((table) => {
  const { scrollWidth, clientWidth } = table.parentElement;
  return scrollWidth > clientWidth ? [table.caption.textContent + ": " + scrollWidth + " of " + clientWidth] : [];
})`;

describe.skipIf(path === undefined)("in a browser", () => {
  let browser: Browser;
  const folder = mkdtempSync(join(tmpdir(), "headrace-pages-"));
  const pages = {
    few: renderReport(madeUpRecords(FEW)),
    many: renderReport(madeUpRecords(manyCells())),
    hostile: renderReport(hostileRecords()),
    one: renderReport(madeUpRecords([{ rate: 2.1, busy: 0.8, against: "js-read of safetensors" }])),
    range: renderReport(madeUpRecords(WIDE_RANGE)),
    compared: renderComparison(
      compareRuns(madeUpRecords(manyCells(), {}, 1), madeUpRecords(manyCells(), {}, 2)),
    ),
  };

  beforeAll(async () => {
    for (const [name, page] of Object.entries(pages)) writeFileSync(join(folder, `${name}.html`), page);
    browser = await Browser.open(path!);
  });

  afterAll(async () => {
    await browser[Symbol.asyncDispose]();
    rmSync(folder, { recursive: true, force: true });
  });

  const widths = [320, 390, 768, 1280] as const;
  test.each(Object.keys(pages).flatMap((name) => widths.map((width) => [name, width] as const)))(
    "%s fits a window of %d px, with nothing cut off, overlapping or tiny",
    async (name, width) => {
      await browser.show(join(folder, `${name}.html`), { width, height: 900, scheme: "light" });
      const facts = await browser.evaluate<Facts>(FACTS);
      expect(facts.scroll).toBe(0);
      expect(facts.shown).toBe(facts.figures);
      expect(await browser.evaluate<string[]>(FAULTS)).toEqual([]);
      expect(await browser.evaluate<string[]>(CUT_TABLES)).toEqual([]);
    },
  );

  test("shows ratio and verdict of each cell beside its heading on a phone", async () => {
    await browser.show(join(folder, "compared.html"), { width: 390, height: 900, scheme: "light" });
    const first = await browser.evaluate<{ text: string; label: string; right: number; top: number }[]>(
      `[...document.querySelectorAll("#cells tbody tr:first-child td")].map((td) => ({
        text: td.textContent,
        label: getComputedStyle(td, "::before").content,
        right: td.getBoundingClientRect().right,
        top: td.getBoundingClientRect().top,
      }))`,
    );
    expect(first.slice(0, 2).map(({ label }) => label)).toEqual(['"B is"', '"ratio"']);
    expect(first[1]!.text).toMatch(/^\d.*×/);
    for (const { right } of first) expect(right).toBeLessThanOrEqual(390);
    expect(first[0]!.top).toBe(first[1]!.top);
  });

  test.each(["light", "dark"] as const)("can be told apart on %s ground", async (scheme) => {
    await browser.show(join(folder, "many.html"), { width: 1280, height: 900, scheme });
    const facts = await browser.evaluate<Facts>(FACTS);
    expect(facts.ground > 0.5).toBe(scheme === "light");
    expect(facts.text).toBeGreaterThan(7);
    expect(facts.muted).toBeGreaterThan(4.5);
    expect(facts.marks).toBeGreaterThan(3);
  });
});
