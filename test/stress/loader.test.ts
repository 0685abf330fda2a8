/** Thousands of loaders, one after another: nothing may be left behind. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Device, openDevice, openLoader } from "../../src/index.ts";
import { writeArrowDataset } from "../loader/arrow-files.ts";
import { expectRows, type Oracle, take } from "../loader/helpers.ts";
import { SMALL_SPECS, writeDataset } from "../loader/safetensors-files.ts";

let dir = "";
const inDir = (...parts: string[]) => join(dir, ...parts);
let oracle: Oracle = [];

beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), "headrace-stress-"));
  oracle = writeDataset(inDir, [30, 30], SMALL_SPECS);
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

/** What the process holds of the dataset, and in all. Linux alone tells. */
function held(): { descriptors: number; mappings: number; shardMappings: number } {
  const maps = readFileSync("/proc/self/maps", "utf8").split("\n");
  return {
    descriptors: readdirSync("/proc/self/fd").length,
    mappings: maps.length,
    shardMappings: maps.filter((line) => line.includes(dir)).length,
  };
}

/** The allocator and the collector keep some mappings of their own, which do not grow with the rounds. */
const SLACK = 200;

async function expectNothingLeft(rounds: number, round: (i: number) => Promise<void>): Promise<void> {
  for (let i = 0; i < 50; i++) await round(i);
  Bun.gc(true);
  const before = held();
  for (let i = 0; i < rounds; i++) await round(i);
  await Bun.sleep(50);
  Bun.gc(true);
  const after = held();
  expect(after.descriptors).toBe(before.descriptors);
  expect(after.shardMappings).toBe(0);
  expect(after.mappings).toBeLessThan(before.mappings + SLACK);
}

describe.if(process.platform === "linux")("descriptors and mappings are back to start after", () => {
  let device: Device;
  beforeAll(() => {
    device = openDevice("host");
  });
  afterAll(() => device.close());

  test("10,000 loaders opened, used a little and closed", async () => {
    await expectNothingLeft(10_000, async (i) => {
      const strategy = i % 2 === 0 ? "map" : "read";
      await using loader = await openLoader(dir, { device, strategy, batchSize: 8, seed: i });
      await take(loader, i % 3);
    });
    expect(device.openResources).toBe(0);
  });

  test("300 loaders with a device of their own", async () => {
    await expectNothingLeft(300, async (i) => {
      await using loader = await openLoader(dir, { strategy: i % 2 === 0 ? "map" : "read", batchSize: 8 });
      await take(loader, i % 4);
    });
  });

  test("2,000 loops left early, with nothing lost", async () => {
    for (const strategy of ["map", "read"] as const) {
      const ids: number[] = [];
      const epochs = Math.ceil((1000 * 7) / 60);
      await using loader = await openLoader(dir, {
        device,
        strategy,
        batchSize: 7,
        seed: 1,
        epochs: epochs + 50,
      });
      for (let i = 0; i < 1000; i++) ids.push(...(await take(loader, 1)).flatMap((batch) => batch.ids));
      const counts = new Map<number, number>();
      for (const id of ids) counts.set(id, (counts.get(id) ?? 0) + 1);
      expect(Math.max(...counts.values()) - Math.min(...counts.values())).toBeLessThanOrEqual(1);
    }
    expect(device.openResources).toBe(0);
  });

  test("500 loaders that fail to open", async () => {
    await expectNothingLeft(500, async (i) => {
      const options = [{ columns: ["nope"] }, { batchSize: 0 }, { resume: {} }][i % 3]!;
      await openLoader(dir, { device, ...options }).then(
        () => expect.unreachable(),
        () => {},
      );
    });
    expect(device.openResources).toBe(0);
  });
});

test("batches stay right while the collector runs and memory churns", async () => {
  for (const strategy of ["map", "read"] as const) {
    await using loader = await openLoader(inDir("part-*.safetensors"), {
      strategy,
      batchSize: 5,
      seed: 3,
      epochs: 40,
    });
    let churn: Uint8Array[] = [];
    let batches = 0;
    for await (using batch of loader) {
      churn.push(new Uint8Array(256 * 1024).fill(batches));
      if (churn.length > 20) churn = [];
      if (++batches % 8 === 0) Bun.gc(true);
      expectRows(batch, oracle);
    }
    expect(batches).toBe(40 * 12);
  }
  const arrowOracle = writeArrowDataset(inDir, { isNull: (s) => s % 6 === 0 });
  await using loader = await openLoader(inDir("*.arrow"), { batchSize: 5, seed: 3, epochs: 30 });
  let batches = 0;
  for await (using batch of loader) {
    if (++batches % 8 === 0) Bun.gc(true);
    expectRows(batch, arrowOracle);
  }
  expect(batches).toBe(30 * 6);
});
