/** The first screen of a report: what it claims, and how sure of it it is. */
import { describe, expect, test } from "bun:test";
import { parseHTML } from "linkedom";
import { renderReport } from "../../../src/bench/report.ts";
import { FEW, type MadeUp, madeUpRecords } from "./made-up.ts";

const documentOf = (page: string) => parseHTML(page).document;

describe("a report", () => {
  const cardsOf = (cells: readonly MadeUp[]) =>
    [...documentOf(renderReport(madeUpRecords(cells))).querySelectorAll(".verdicts article")].map((card) =>
      card.textContent!.replaceAll(/\s+/g, " ").trim(),
    );

  test("says first what was fastest, by how much, how sure that is, and how to load it", () => {
    const [card, ...others] = cardsOf(FEW);
    expect(others).toEqual([]);
    expect(card).toStartWith("weights, cold, sequential safetensors by read 2.");
    expect(card).toMatch(/95 %: \d\.\d\d to \d\.\d\d · 8 lanes · \d\d % of bare cold reads/);
    expect(card).toMatch(
      /✓ Clear: 1\.\d\d times \(1\.\d\d to 1\.\d\d\) as fast as safetensors by js-read, the next\./,
    );
    expect(card).toEndWith("headrace load SOURCE --device host --strategy read");
    expect(card).not.toContain("Not clear");
  });

  test("says how to load what it shows, and not another cell that has trials enough to be recommended", () => {
    const [card] = cardsOf([{ rate: 4.5, format: "arrow", rounds: 2 }, ...FEW]);
    expect(card).toContain("arrow by read 4.");
    expect(card).not.toMatch(/headrace (pack|load)/);
    const [whole] = cardsOf([{ rate: 4.5, format: "arrow", rounds: 3 }, ...FEW]);
    expect(whole).toContain("arrow by read 4.");
    expect(whole).toEndWith(
      "headrace pack SOURCE --out DIR --to arrow headrace load SOURCE --device host --strategy read",
    );
  });

  test("tells who was fastest, whoever that is, and how far behind it this project's best is", () => {
    const cells = [
      { rate: 1 },
      { rate: 0.8, path: "map" },
      { rate: 4, path: "peer", peer: "pyarrow 24 (Python)" },
      { rate: 2, path: "js-read" },
    ];
    const [card] = cardsOf(cells);
    expect(card).toContain("safetensors by pyarrow 24 (Python) 4.");
    expect(card).toMatch(/✓ Clear: \S+ times \(\S+ to \S+\) as fast as safetensors by js-read, the next/);
    expect(card).toMatch(
      /Best of this project: safetensors by read, [\d.]+ GB\/s: [34]\.\d\d times slower\.$/,
    );
  });

  test("claims no winner where intervals overlap", () => {
    const cells = [
      { rate: 2, spread: 0.2 },
      { rate: 1.99, path: "map", spread: 0.2 },
      { rate: 1.98, path: "js-read", spread: 0.2 },
      { rate: 0.5, format: "safetensors.zst-3", path: "stream" },
    ];
    const [card] = cardsOf(cells);
    expect(card).toMatch(/≈ Not clear: safetensors by [\w-]+ and safetensors by [\w-]+ may be as fast\./);
    expect(card).toMatch(
      /Clearly [34]\.\d+ times \([\d.]+ to [\d.]+\) as fast as safetensors\.zst-3 by stream\./,
    );
    expect(card).toMatch(/: not clearly slower\./);
    expect(card).not.toContain("✓");
  });

  test("names the devices where there are several", () => {
    const [card] = cardsOf([
      { rate: 2, device: "cuda" },
      { rate: 1, path: "js-read" },
    ]);
    expect(card).toContain("safetensors by read on cuda 2.");
    expect(card).toContain("as fast as safetensors by js-read on host, the next");
  });

  test("knows by how much without trials, from the intervals", () => {
    const records = madeUpRecords(FEW).filter(({ kind }) => kind !== "trial");
    const card = documentOf(renderReport(records)).querySelector(".verdicts article")!.textContent!;
    expect(card).toMatch(/Clear: 1\.\d\d times \(1\.\d\d to 1\.\d\d\) as fast as/);
  });

  const leadOf = (cells: readonly MadeUp[]) =>
    documentOf(renderReport(madeUpRecords(cells))).querySelector(".lead")?.textContent;
  const both = (read: number, map: number, temperature: "cold" | "warm"): MadeUp[] => [
    { rate: read, temperature },
    { rate: map, temperature, path: "map" },
  ];

  test("says over all cases which ways are never clearly slower", () => {
    expect(leadOf([...both(2, 1, "cold"), ...both(2, 2, "warm")])).toBe(
      "Fastest, or not clearly slower, in all 2 cases: safetensors by read.",
    );
    expect(leadOf([...both(2, 1, "cold"), ...both(1, 2, "warm")])).toBe(
      "No way was the fastest, or not clearly slower, in more than one of 2 cases.",
    );
    const random = both(2, 1, "cold").map((cell): MadeUp => ({ ...cell, order: "random" }));
    expect(leadOf([...both(2, 1, "cold"), ...both(1, 2, "warm"), ...random])).toBe(
      "No way was the fastest, or not clearly slower, in all 3 cases; in 2: safetensors by read.",
    );
    const js: MadeUp[] = (["cold", "warm"] as const).map((temperature) => ({
      rate: 9,
      path: "js-read",
      temperature,
    }));
    expect(leadOf([...js, ...both(9, 1, "cold"), ...both(1, 2, "warm")])).toBe(
      "Fastest, or not clearly slower, in all 2 cases: safetensors by js-read. Of this project's ways, in 1: safetensors by read.",
    );
    expect(leadOf(FEW)).toBeUndefined();
    const on = (device: string) =>
      (["cold", "warm"] as const).map(
        (temperature): MadeUp => ({ rate: 2, spread: 0.3, temperature, device }),
      );
    expect(leadOf([...on("host"), ...on("metal")])).toMatch(
      /^Fastest, or not clearly slower, in all 2 cases: safetensors by read on (host|metal) and safetensors by read on (host|metal)\.$/,
    );
  });
});
