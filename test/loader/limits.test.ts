/** Batches by bytes and by length: every batch within its limit, nothing lost, nothing needlessly small. */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import type { Batch, OpenOptions } from "../../src/index.ts";
import { openLoader } from "./device.ts";
import { assertRestoresEverywhere, collect, expectCode, expectRows, idsOf, useTempDir } from "./helpers.ts";
import { ALL_SPECS, writeDataset, writeRagged } from "./safetensors-files.ts";

const temp = useTempDir();
const SPECS = ALL_SPECS.filter((spec) => ["f32", "ragged_i32", "ragged_u8"].includes(spec.name));
const TOTAL = 40;

/** Values and offsets, or values and masks: what `batchBytes` bounds. */
function bytesOfBatch(batch: Batch): number {
  let total = 0;
  for (const column of batch.columns.values()) {
    total += column.byteLength + (column.offsets?.byteLength ?? 0) + (column.mask?.byteLength ?? 0);
  }
  return total;
}

async function run(options: OpenOptions, within: (batch: Batch) => boolean, padValue = 0) {
  const oracle = writeDataset(temp, [TOTAL - 7, 7], SPECS);
  const chosen = new Set(options.columns ?? SPECS.map((spec) => spec.name));
  const expected = oracle.filter((column) => chosen.has(column.name));
  const all = await collect(temp(), options, (batch) => {
    expectRows(batch, expected, padValue);
    expect(batch.numSamples === 1 || within(batch)).toBe(true);
  });
  expect(idsOf(all).sort((a, b) => a - b)).toEqual(Array.from({ length: TOTAL }, (_, i) => i));
  return all;
}

describe("batchBytes", () => {
  for (const batchBytes of [1, 40, 100, 333, 4096, 10 ** 9]) {
    test(`${batchBytes}`, async () => {
      for (const strategy of ["map", "read"] as const) {
        for (const seed of [undefined, 1]) {
          await run({ batchBytes, strategy, seed }, (batch) => bytesOfBatch(batch) <= batchBytes);
        }
      }
    });
    test(`${batchBytes}, one padded column`, async () => {
      const options = { batchBytes, padTo: 4, padValue: 3, columns: ["ragged_i32", "f32"] };
      await run(options, (batch) => bytesOfBatch(batch) <= batchBytes, 3);
    });
    test(`${batchBytes}, two padded columns: each sample counts as much as the largest`, async () => {
      const oracle = writeDataset(temp, [TOTAL - 7, 7], SPECS);
      const [f32, i32, u8] = oracle.map((column) => column.rows);
      const padded = (length: number) => Math.max(4, Math.ceil(length / 4) * 4);
      const cost = (id: number) =>
        f32![id]!.length + padded(i32![id]!.length / 4) * 5 + padded(u8![id]!.length) * 2;
      await run({ batchBytes, padTo: 4, seed: 3 }, (batch) => {
        const largest = Math.max(...[...batch.sampleIds].map(cost));
        return batch.numSamples * largest <= batchBytes;
      });
    });
  }

  test("with batchSize both limits hold", async () => {
    const all = await run({ batchBytes: 333, batchSize: 3 }, (batch) => bytesOfBatch(batch) <= 333);
    expect(Math.max(...all.map((batch) => batch.ids.length))).toBe(3);
  });

  test("batches are as large as the limit allows", async () => {
    const oracle = writeDataset(temp, [TOTAL], SPECS);
    const ragged = oracle.filter((column) => column.elementBytes !== undefined).length;
    const cost = (id: number) =>
      oracle.reduce((sum, c) => sum + c.rows[id]!.length + (c.elementBytes === undefined ? 0 : 4), 0);
    const limit = 300;
    const all = await collect(temp(), { batchBytes: limit });
    all.slice(0, -1).forEach((batch, i) => {
      const own = batch.ids.reduce((sum, id) => sum + cost(id), 0);
      expect(own + cost(all[i + 1]!.ids[0]!) + 4 * ragged).toBeGreaterThan(limit);
    });
  });
});

describe("batchLength", () => {
  for (const batchLength of [1, 17, 50, 1000]) {
    for (const padTo of [undefined, 1, 8]) {
      test(`${batchLength}, padTo ${padTo}`, async () => {
        const options = { batchLength, lengthColumn: "ragged_i32", padTo, seed: 2 };
        await run(options, (batch) => {
          const column = batch.column("ragged_i32");
          const elements = padTo === undefined ? column.shape[0]! : column.shape[0]! * column.shape[1]!;
          return elements <= batchLength;
        });
      });
    }
  }

  test("counts the only ragged column where none is named, and names the choice otherwise", async () => {
    writeDataset(temp, [9], SPECS);
    const options = { batchLength: 17, columns: ["f32", "ragged_i32"] };
    const named = await collect(temp(), { ...options, lengthColumn: "ragged_i32" });
    expect(await collect(temp(), options)).toEqual(named);
    await expectCode("BAD_OPTION", () => openLoader(temp(), { batchLength: 9 }), "ragged_i32, ragged_u8");
    await expectCode("BAD_OPTION", () => openLoader(temp(), { batchLength: 9, lengthColumn: "f32" }), "f32");
    await expectCode(
      "BAD_OPTION",
      () => openLoader(temp(), { batchLength: 9, columns: ["f32"] }),
      "there are: none",
    );
  });
});

test("samples without elements count as much as their padding", async () => {
  writeRagged(temp("a.safetensors"), Array(51).fill(0), 0);
  for (const [options, most] of [
    [{ batchLength: 8 }, 2],
    [{ batchBytes: 35 }, 4],
  ] as const) {
    const all = await collect(temp(), { ...options, padTo: 4 });
    expect(new Set(all.map((batch) => batch.ids.length))).toEqual(new Set([most, 50 % most || most]));
  }
});

test("limits by bytes restore anywhere", async () => {
  writeDataset(temp, [19, 5], SPECS);
  for (const options of [
    { batchBytes: 333, seed: 1 },
    { batchLength: 20, lengthColumn: "ragged_u8", padTo: 4 },
  ]) {
    await assertRestoresEverywhere((resume) => openLoader(temp(), { ...options, resume }));
  }
});

test("property: any limits, any padding, every sample once", async () => {
  writeDataset(temp, [13, 0, 8], SPECS);
  const limits = fc.record({
    batchBytes: fc.option(fc.integer({ min: 1, max: 900 }), { nil: undefined }),
    batchSize: fc.integer({ min: 1, max: 30 }),
    padTo: fc.option(fc.integer({ min: 1, max: 40 }), { nil: undefined }),
    seed: fc.option(fc.nat(), { nil: undefined }),
    lastBatch: fc.constantFrom("short", "pad"),
    strategy: fc.constantFrom("map", "read"),
    prefetch: fc.integer({ min: 0, max: 4 }),
  });
  await fc.assert(
    fc.asyncProperty(limits, async (options) => {
      const all = await collect(temp(), options as OpenOptions);
      expect(idsOf(all).sort((a, b) => a - b)).toEqual(Array.from({ length: 21 }, (_, i) => i));
    }),
    { numRuns: 40 },
  );
});
