import { describe, expect, test } from "bun:test";
import { parseHTML } from "linkedom";
import { compareRuns } from "../../../src/bench/compare.ts";
import { renderComparison } from "../../../src/bench/compare-page.ts";
import { clearText } from "../../../src/bench/group-charts.ts";
import { escapeHtml } from "../../../src/bench/html.ts";
import { FONT_SIZE } from "../../../src/bench/plot.ts";
import { renderReport } from "../../../src/bench/report.ts";
import { logTicks } from "../../../src/bench/rows-chart.ts";
import {
  FEW,
  hostileRecords,
  MACHINE,
  type MadeUp,
  madeUpRecords,
  manyCells,
  WIDE_RANGE,
} from "./made-up.ts";

const few = renderReport(madeUpRecords(FEW));
const many = renderReport(madeUpRecords(manyCells()));
const hostile = renderReport(hostileRecords());
const compared = renderComparison(
  compareRuns(
    madeUpRecords(manyCells(), {}, 1),
    madeUpRecords([...manyCells().slice(5), { rate: 1, lanes: 3 }], {}, 2),
  ),
);

const PAGES: readonly (readonly [name: string, page: string])[] = [
  ["few cells", few],
  ["many cells", many],
  ["hostile names", hostile],
  ["two runs", compared],
];

test.each([
  [5, 5, "All 5 are clear: no interval holds 1."],
  [1, 1, "It is clear: its interval does not hold 1."],
  [0, 3, "None of 3 is clear: their intervals hold 1."],
  [0, 1, "It is not clear: its interval holds 1."],
  [2, 3, "Clear are 2 of 3: the intervals of the others hold 1."],
])("%d of %d ratios are clear", (clear, all, text) => {
  expect(clearText(clear, all)).toBe(text);
});

const documentOf = (page: string) => parseHTML(page).document;

/** Where an element of a drawing lies, by the translations of all that it is in. */
function placeOf(element: Element): [x: number, y: number] {
  let [x, y] = [0, 0];
  for (let at: Element | null = element; at !== null && at.tagName !== "svg"; at = at.parentElement) {
    const match = /translate\((-?[\d.e-]+)(?:,\s*(-?[\d.e-]+))?\)/.exec(at.getAttribute("transform") ?? "");
    x += Number(match?.[1] ?? 0);
    y += Number(match?.[2] ?? 0);
  }
  return [x, y];
}

describe.each(PAGES)("a page of %s", (_, page) => {
  const document = documentOf(page);
  const drawings = [...document.querySelectorAll("figure > svg")];

  test("needs nothing from elsewhere and runs nothing", () => {
    const tags = new Set([...document.querySelectorAll("*")].map(({ tagName }) => tagName.toLowerCase()));
    for (const tag of [
      "script",
      "link",
      "img",
      "iframe",
      "object",
      "embed",
      "base",
      "foreignobject",
      "image",
      "use",
    ]) {
      expect(tags).not.toContain(tag);
    }
    for (const element of document.querySelectorAll("*")) {
      for (const { name, value } of element.attributes) {
        expect(name).not.toMatch(/^on/);
        if (name === "href") expect(value).toStartWith("#");
        expect(["src", "srcset", "xlink:href", "action", "data"]).not.toContain(name);
      }
    }
    const style = [...document.querySelectorAll("style")].map(({ textContent }) => textContent).join();
    expect(style).not.toMatch(/url\(|@import|@font-face/);
    expect(document.querySelector("meta[http-equiv]")?.getAttribute("content")).toStartWith(
      "default-src 'none'",
    );
  });

  test("leads only to places that it has", () => {
    for (const link of document.querySelectorAll("a")) {
      expect(document.getElementById(link.getAttribute("href")!.slice(1))).not.toBeNull();
    }
    const ids = [...document.querySelectorAll("[id]")].map(({ id }) => id);
    expect(new Set(ids).size).toBe(ids.length);
  });

  test("has drawings with titles, words for who does not see them, and axes with units", () => {
    expect(drawings.length).toBeGreaterThan(0);
    for (const drawing of drawings) {
      expect(drawing.getAttribute("role")).toBe("img");
      expect(drawing.getAttribute("aria-label")!.length).toBeGreaterThan(20);
      const title = drawing.querySelector("title")!.textContent!;
      expect(title).toMatch(/\((?:[^()]*(?:more|less) is better|% of the files' pages)\)$/);
      const labels = [...drawing.querySelectorAll("[data-part$='axis label']")].map(
        ({ textContent }) => textContent,
      );
      expect(labels.length).toBeGreaterThan(0);
      expect(labels.join(" ")).toMatch(/GB|ms|%|divided by/);
    }
    for (const figure of document.querySelectorAll("figure")) {
      expect(figure.querySelector("h4")!.textContent).toBe(figure.querySelector("svg > title")!.textContent);
      expect(figure.querySelectorAll("details tbody tr").length).toBeGreaterThan(0);
    }
  });

  test("has drawings with marks, and texts inside of them that are large enough", () => {
    for (const drawing of drawings) {
      const [, , width, height] = drawing.getAttribute("viewBox")!.split(" ").map(Number);
      expect(drawing.querySelectorAll("rect, circle, path[d], line").length).toBeGreaterThan(0);
      expect(drawing.outerHTML).not.toMatch(/NaN|Infinity|undefined/);
      expect(FONT_SIZE).toBeGreaterThanOrEqual(12);
      for (const text of drawing.querySelectorAll("text")) {
        const [x, y] = placeOf(text);
        expect(x).toBeGreaterThanOrEqual(0);
        expect(x).toBeLessThanOrEqual(width!);
        expect(y).toBeGreaterThanOrEqual(0);
        expect(y).toBeLessThanOrEqual(height!);
      }
    }
  });
});

describe("a report", () => {
  test("is the same for the same records", () => {
    expect(renderReport(madeUpRecords(manyCells()))).toBe(many);
  });

  test("says at its head which machine, data and version the figures are of", () => {
    const settings = { byteLength: 256_000_000, rounds: 7 };
    const page = documentOf(renderReport(madeUpRecords(FEW, { settings })));
    const about = page.querySelector("header .muted")!.innerHTML;
    expect(about).toBe(
      "2 cores · 25.0 GB of memory · ext4 on /dev/vda · Debian GNU/Linux 12 (bookworm)<br>2026-11-22 12:00 UTC · headrace 0.1.0 · 256 MB of each kind of data · 3 cells, 7 rounds each",
    );
  });

  test("tells of failed proofs, failures, few rounds, interruptions and what was skipped", () => {
    const cells: MadeUp[] = [
      { rate: 2, unproven: 3 },
      { rate: 1, path: "mtlio-raw", skipped: "no MTLIO here" },
    ];
    const records = madeUpRecords(cells);
    const failed = records.flatMap((record) =>
      record.kind === "trial" && record.round === 6
        ? [{ ...record, error: "the checksum is another" }]
        : [record],
    );
    const begun = {
      ...records.find(({ kind }) => kind === "trial")!,
      cell: "other",
    } as (typeof records)[number];
    const document = documentOf(renderReport([...failed, begun]));
    const text = document.querySelector(".warn")!.textContent;
    expect(text).toContain("Not shown to be cold: 3 trials of 1 cell");
    expect(text).toContain("1 trial failed: the checksum is another");
    expect(text).toContain("Fewer than 5 trials: 1 cell");
    expect(text).toContain("The run was interrupted: 1 cell had begun and have no figures");
    expect(document.getElementById("skipped")!.textContent).toContain("no MTLIO here");
    expect(documentOf(few).querySelector(".warn")).toBeNull();
  });

  test("has the machine, the command, ceilings and every cell", () => {
    const document = documentOf(many);
    expect(document.getElementById("machine")!.textContent).toContain("AMD EPYC 9B45");
    expect(document.querySelector("pre")!.textContent).toContain("headrace bench --formats");
    expect(document.getElementById("ceilings")!.querySelectorAll("tbody tr")).toHaveLength(3);
    const figures = manyCells().filter(({ skipped }) => skipped === undefined);
    expect(document.getElementById("cells")!.querySelectorAll("tbody tr")).toHaveLength(figures.length);
  });

  test("says that compressed forms may go beyond bare reads, where there are some", () => {
    const note = "Bare reads count bytes of files";
    const packed: MadeUp = { rate: 2.5, format: "safetensors.zst-3", path: "stream", compression: 1.5 };
    expect(renderReport(madeUpRecords([...FEW, packed]))).toContain(note);
    expect(few).not.toContain(note);
  });

  test("without a cell says so", () => {
    const page = documentOf(renderReport(madeUpRecords([])));
    expect(page.querySelector("main")!.textContent).toContain("No cell has figures.");
    expect(page.querySelectorAll("figure")).toHaveLength(0);
  });

  test("has long names whole at a phone's width, in lines, with their devices", () => {
    const page = documentOf(renderReport(madeUpRecords(WIDE_RANGE)));
    const words = [...page.querySelector("figure > svg.narrow")!.querySelectorAll("text")].map(
      ({ textContent }) => textContent,
    );
    const at = words.indexOf("safetensors.bp.zst-16 by");
    expect(at).toBeGreaterThan(-1);
    expect(words.filter((word) => word === "mtlio-compressed-zlib on metal")).toHaveLength(7);
    expect(words.filter((word) => word?.startsWith("pyarrow-dataset on host"))).toHaveLength(7);
    expect(words.join(" ")).not.toContain("…");
  });

  test("gives a format one colour in all charts", () => {
    const document = documentOf(many);
    const colours = new Map<string, Set<string>>();
    for (const item of document.querySelectorAll("ul.legend li")) {
      const format = item.textContent!.trim();
      const fill = item.querySelector("path")!.getAttribute("fill")!;
      colours.set(format, (colours.get(format) ?? new Set()).add(fill));
    }
    expect(colours.size).toBe(9);
    for (const [, fills] of colours) expect(fills.size).toBe(1);
  });

  test("shows what it was given as text alone", () => {
    const document = documentOf(hostile);
    expect(hostile).not.toMatch(/<script|<img/i);
    expect(hostile).not.toContain("\u202e");
    expect(document.querySelector("pre")!.textContent).toStartWith("<script>alert(1)</script>\"'><img src=x");
    expect(document.querySelector("h4")!.textContent).toContain("<script>alert(1)</script>");
  });
});

test("text is escaped for content and attributes", () => {
  expect(escapeHtml(`<a b="c" d='e'>&\n\u0000`)).toBe("&lt;a b=&quot;c&quot; d=&#39;e&#39;&gt;&amp;\n\ufffd");
});

test.each([
  [0.1, 1000, [0.1, 1, 10, 100, 1000]],
  [2, 8, [2, 3, 5, 7]],
  [0.9, 1.1, [0.9, 1, 1.1]],
  [0.5, 2, [0.5, 1, 2]],
])("ticks of a logarithmic axis from %d to %d", (low, high, ticks) => {
  const found = logTicks(low, high);
  for (const tick of ticks) expect(found).toContain(tick);
  expect(found.length).toBeLessThanOrEqual(9);
  for (const tick of found) expect(tick >= low && tick <= high).toBe(true);
});

test("one cell alone is no fastest", () => {
  const card = documentOf(renderReport(madeUpRecords([{ rate: 1 }]))).querySelector(".verdicts")!.textContent;
  expect(card).toContain("The only one measured.");
  expect(card).not.toMatch(/Clear|clear/);
});

test("settings are told in words, without those that are empty", () => {
  const settings = {
    byteLength: 256_000_000,
    requestBytes: ["default", "1048576"],
    peers: [],
    largerThanMemory: true,
    ceilings: false,
    someThing: 3,
  };
  const page = documentOf(renderReport(madeUpRecords([{ rate: 1 }], { settings })));
  const rows = [...page.querySelectorAll("#run tbody tr")].map((row) =>
    [...row.children].map(({ textContent }) => textContent),
  );
  expect(rows).toEqual([
    ["bytes of each kind of data", "256 MB"],
    ["bytes of a read", "the device's, 1 MiB"],
    ["larger than memory", "twice what there is"],
    ["ceilings", "left out"],
    ["some thing", "3"],
  ]);
});

test("a machine with other work is warned of, and one chip is named once", () => {
  const pageOf = (change: object) =>
    documentOf(renderReport(madeUpRecords([{ rate: 1 }], { machine: { ...MACHINE, ...change } })));
  expect(pageOf({ load: 0.5 }).querySelector(".warn")).toBeNull();
  expect(pageOf({ load: 3, cores: 16 }).querySelector(".warn")).toBeNull();
  expect(pageOf({ load: 1.5 }).querySelector(".warn")!.textContent).toBe(
    "The machine was not quiet when the run began: a load of 1.50 on 2 cores.",
  );
  const mac = { cpu: "Apple M4", gpu: "Apple M4", power: "battery", cores: 10 };
  expect(pageOf(mac).querySelector("h1")!.textContent).toBe("Headrace benchmark: Apple M4");
  expect(pageOf(mac).querySelector("header .muted")!.textContent).toStartWith("10 cores · 25.0 GB");
  expect(pageOf(mac).querySelector("header .muted")!.textContent).toContain("(bookworm) · battery");
  expect(pageOf({ gpu: "NVIDIA L4" }).querySelector("header .muted")!.textContent).toStartWith(
    "AMD EPYC 9B45 · 2 cores",
  );
});

test("short trials are warned of", () => {
  const warned = (rate: number, settings: Record<string, number>) =>
    documentOf(renderReport(madeUpRecords([{ rate }], { settings }))).querySelector(".warn")?.textContent ??
    "";
  expect(warned(20, {})).toContain("the start of threads and the compilation of code are in the figures");
  expect(warned(20, { rehearsalBytes: 0 })).toMatch(/as little as 4\d\.\d ms/);
  expect(warned(20, { rehearsalBytes: 2 ** 24 })).toBe("");
  expect(warned(100, { rehearsalBytes: 2 ** 24 })).toMatch(
    /as little as \d+\.?\d* ms: opening the files is a good part/,
  );
  expect(warned(2, {})).toBe("");
});
