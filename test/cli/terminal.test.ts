import { describe, expect, test } from "bun:test";
import { cpSync } from "node:fs";
import { join } from "node:path";
import { stripANSI } from "bun";
import { DATASETS, onTerminal, scratch } from "./process.ts";

const folder = scratch();

describe("on a terminal", () => {
  test.each([
    [140, /[█░]{24} +\d+% \| [\d,]+\/3,000,000 samples \| [\d,]+ samples\/s \| [\d.]+ [kMG]?B\/s \| ETA/],
    [60, /[█░]{12} +\d+% \| [\d,]+ samples\/s \| [\d.]+ [kMG]?B\/s \| ETA/],
  ])("of %d columns a bar goes before the table", async (cols, bar) => {
    const { code, out } = await onTerminal(cols, "load", "--columns", "id", "--epochs", "1000");
    expect(code).toBe(0);
    expect(out).toMatch(bar);
    expect(stripANSI(out)).toMatch(/samples +3,000,000 in 47,000 batches/);
    expect(out.lastIndexOf("ETA")).toBeLessThan(out.lastIndexOf("3,000,000 in"));
  });

  test("--json shows no bar", async () => {
    const { out } = await onTerminal(140, "load", "--json");
    expect(JSON.parse(out)).toMatchObject({ samples: 3000 });
  });

  test("tables are cut to its width, names at their front", async () => {
    const { out } = await onTerminal(70, "inspect", "datasets/prose");
    const lines = stripANSI(out).split(/\r?\n/);
    const wide = lines.filter((line) => Bun.stringWidth(line) > 70);
    expect(wide.filter((line) => !line.startsWith("fingerprint"))).toEqual([]);
    for (let shard = 0; shard < 4; shard++) {
      expect(lines.filter((line) => line.includes(`${shard}.arrow  `))).toHaveLength(1);
    }
    expect(out).toContain("81b05b033999d7de1038bbb66c43a076af2fee054756ea1403b9ce7a10a42c55");
  });

  test("a manifest says what it reads", async () => {
    cpSync(join(DATASETS, "digits"), folder, { recursive: true });
    const { code, out } = await onTerminal(100, "inspect", folder, "--manifest", folder);
    expect(code).toBe(0);
    expect(out).toContain("headrace: reading 1.65 MB for their sha256");
    expect(out).toContain(`headrace: wrote ${join(folder, "dataset.json")}: 4 shards`);
  });
});
