/** The order of samples: a function of dataset, seed and epoch alone, whoever reads which part of it. */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import type { OpenOptions } from "../../src/index.ts";
import { openLoader } from "./device.ts";
import { collect, expectCode, idsOf, type Snapshot, useTempDir } from "./helpers.ts";
import { SMALL_SPECS, writeDataset } from "./safetensors-files.ts";

const temp = useTempDir();
const COUNTS = [13, 0, 24, 5];
const TOTAL = 42;
const range = (count: number) => Array.from({ length: count }, (_, i) => i);

/** The batches of all ranks, one step after another. */
async function interleaved(worldSize: number, options: OpenOptions): Promise<Snapshot[]> {
  const ranks = await Promise.all(
    range(worldSize).map((rank) => collect(temp(), { ...options, rank, worldSize })),
  );
  const epochs = range(options.epochs ?? 1).map((epoch) =>
    ranks.map((batches) => batches.filter((batch) => batch.epoch === epoch)),
  );
  return epochs.flatMap((own) => {
    const steps = Math.max(...own.map((batches) => batches.length));
    return range(steps).flatMap((step) => own.flatMap((batches) => batches[step] ?? []));
  });
}

describe("epochs", () => {
  test("without a seed are the dataset's own order", async () => {
    writeDataset(temp, COUNTS, SMALL_SPECS);
    const all = await collect(temp(), { batchSize: 5, epochs: 2 });
    expect(idsOf(all)).toEqual([...range(TOTAL), ...range(TOTAL)]);
    expect(all.map((batch) => batch.epoch)).toEqual([...Array(9).fill(0), ...Array(9).fill(1)]);
  });

  for (const options of [{ seed: 1 }, { seed: 1, blockSize: 4, windowBlocks: 3 }, { shuffle: true }]) {
    test(`with ${JSON.stringify(options)} are permutations, each another, and come again`, async () => {
      writeDataset(temp, COUNTS, SMALL_SPECS);
      const all = await collect(temp(), { ...options, batchSize: 8, epochs: 3 });
      const epochs = range(3).map((epoch) => idsOf(all.filter((batch) => batch.epoch === epoch)));
      for (const epoch of epochs) expect([...epoch].sort((a, b) => a - b)).toEqual(range(TOTAL));
      expect(new Set(epochs.map((epoch) => epoch.join())).size).toBe(3);
      expect(await collect(temp(), { ...options, batchSize: 8, epochs: 3 })).toEqual(all);
      const other = await collect(temp(), { ...options, seed: 2, batchSize: 8 });
      expect(idsOf(other)).not.toEqual(epochs[0]!);
    });
  }

  test("batch sizes and strategies do not change the order", async () => {
    writeDataset(temp, COUNTS, SMALL_SPECS);
    const order = idsOf(await collect(temp(), { seed: 7, batchSize: 1 }));
    for (const options of [
      { batchSize: 42 },
      { batchBytes: 300 },
      { batchSize: 5, strategy: "read" },
    ] as const) {
      expect(idsOf(await collect(temp(), { seed: 7, ...options }))).toEqual(order);
    }
  });

  test("blocks keep neighbours together", async () => {
    writeDataset(temp, [64], SMALL_SPECS);
    const ids = idsOf(await collect(temp(), { seed: 3, blockSize: 8, windowBlocks: 2, batchSize: 16 }));
    for (let at = 0; at < 64; at += 16) {
      expect(new Set(ids.slice(at, at + 16).map((id) => id >> 3)).size).toBe(2);
    }
  });

  test("epoch() ends with the epoch it began in, and goes on with the next", async () => {
    writeDataset(temp, COUNTS, SMALL_SPECS);
    await using loader = await openLoader(temp(), { batchSize: 20, seed: 1, epochs: 2 });
    const found: number[][] = [[], [], []];
    for (const epoch of range(3)) {
      for await (using batch of loader.epoch()) {
        expect(batch.epoch).toBe(epoch);
        found[epoch]!.push(...batch.sampleIds);
      }
    }
    for (const ids of found) expect([...ids].sort((a, b) => a - b)).toEqual(range(TOTAL));
  });
});

describe("ranks", () => {
  for (const options of [{}, { seed: 5 }, { seed: 5, blockSize: 4 }, { batchBytes: 200, seed: 2 }] as const) {
    test(`divide one order, ${JSON.stringify(options)}`, async () => {
      writeDataset(temp, COUNTS, SMALL_SPECS);
      const alone = await collect(temp(), { batchSize: 4, epochs: 2, ...options });
      for (const worldSize of [1, 2, 3, 4]) {
        const together = await interleaved(worldSize, { batchSize: 4, epochs: 2, ...options });
        expect(together).toEqual(alone);
      }
    });
  }

  test("have equally many batches with drop and pad", async () => {
    writeDataset(temp, COUNTS, SMALL_SPECS);
    for (const [lastBatch, batches] of [
      ["drop", 3],
      ["pad", 4],
    ] as const) {
      for (const rank of range(3)) {
        const all = await collect(temp(), { batchSize: 4, lastBatch, rank, worldSize: 3 });
        expect(all.length).toBe(batches);
      }
    }
  });

  test("batchesPerEpoch and samplesPerEpoch say what comes", async () => {
    writeDataset(temp, COUNTS, SMALL_SPECS);
    for (const lastBatch of ["short", "drop", "pad"] as const) {
      for (const worldSize of [1, 3]) {
        for (const rank of range(worldSize)) {
          await using loader = await openLoader(temp(), {
            batchSize: 4,
            lastBatch,
            rank,
            worldSize,
            limit: 30,
          });
          let batches = 0;
          for await (using _ of loader) batches++;
          expect(loader.batchesPerEpoch).toBe(batches);
          expect(loader.samplesPerEpoch).toBe(30);
        }
      }
    }
  });
});

describe("limit", () => {
  test("takes the first samples of each epoch's order", async () => {
    writeDataset(temp, COUNTS, SMALL_SPECS);
    const whole = await collect(temp(), { seed: 1, batchSize: 6, epochs: 2 });
    const epochs = range(2).map((epoch) => idsOf(whole.filter((batch) => batch.epoch === epoch)));
    const some = await collect(temp(), { seed: 1, batchSize: 6, epochs: 2, limit: 10 });
    expect(idsOf(some)).toEqual([...epochs[0]!.slice(0, 10), ...epochs[1]!.slice(0, 10)]);
    expect(some.map((batch) => batch.ids.length)).toEqual([6, 4, 6, 4]);
  });

  test("0 gives nothing, more than there is gives all", async () => {
    writeDataset(temp, COUNTS, SMALL_SPECS);
    expect(await collect(temp(), { limit: 0, epochs: Number.POSITIVE_INFINITY })).toEqual([]);
    expect(idsOf(await collect(temp(), { limit: 10 ** 12 })).length).toBe(TOTAL);
  });
});

describe("epochs without a batch", () => {
  for (const epochs of [1, 2, 10 ** 12, Number.POSITIVE_INFINITY]) {
    test(`end at once, ${epochs} of them`, async () => {
      writeDataset(temp, [3], SMALL_SPECS);
      for (const options of [
        { batchSize: 4, lastBatch: "drop" },
        { batchSize: 4, lastBatch: "drop", seed: 1 },
        { batchSize: 4, rank: 1, worldSize: 2 },
        { batchBytes: 10 ** 9, lastBatch: "drop" },
      ] as const) {
        expect(await collect(temp(), { ...options, epochs })).toEqual([]);
      }
    });
  }

  test("a shuffled order that never fills a batch by bytes ends too", async () => {
    writeDataset(temp, [3], SMALL_SPECS);
    const options = { batchBytes: 10 ** 9, lastBatch: "drop", seed: 1 } as const;
    for (const epochs of [3, Number.POSITIVE_INFINITY]) {
      expect(await collect(temp(), { ...options, epochs })).toEqual([]);
    }
  });
});

test("property: each sample once an epoch for any world", async () => {
  writeDataset(temp, COUNTS, SMALL_SPECS);
  const cases = fc.record({
    worldSize: fc.integer({ min: 1, max: 5 }),
    batchSize: fc.integer({ min: 1, max: 50 }),
    seed: fc.option(fc.nat(), { nil: undefined }),
    blockSize: fc.option(fc.integer({ min: 1, max: 60 }), { nil: undefined }),
    limit: fc.integer({ min: 0, max: 60 }),
  });
  await fc.assert(
    fc.asyncProperty(cases, async ({ worldSize, seed, blockSize, ...rest }) => {
      const options = { ...rest, seed, ...(seed === undefined ? {} : { blockSize }) };
      const together = idsOf(await interleaved(worldSize, options));
      expect(together).toEqual(idsOf(await collect(temp(), options)));
      expect(new Set(together).size).toBe(Math.min(rest.limit, TOTAL));
    }),
    { numRuns: 15 },
  );
});

test("bad options are refused by name", async () => {
  writeDataset(temp, [3], SMALL_SPECS);
  const bad: readonly [OpenOptions, string][] = [
    [{ batchSize: 0 }, "batchSize"],
    [{ batchSize: 1.5 }, "batchSize"],
    [{ batchBytes: 0 }, "batchBytes"],
    [{ batchLength: -1 }, "batchLength"],
    [{ batchBytes: 1, batchLength: 1 }, "batchLength"],
    [{ seed: -1 }, "seed"],
    [{ seed: 2 ** 53 }, "seed"],
    [{ blockSize: 4 }, "blockSize"],
    [{ seed: 1, blockSize: 0 }, "blockSize"],
    [{ seed: 1, blockSize: 2, windowBlocks: 0 }, "windowBlocks"],
    [{ seed: 1, blockSize: 2, windowBlocks: 2 ** 20 }, "windowBlocks"],
    [{ epochs: -1 }, "epochs"],
    [{ epochs: Number.NaN }, "epochs"],
    [{ limit: -1 }, "limit"],
    [{ rank: 1 }, "rank"],
    [{ rank: 3, worldSize: 3 }, "rank"],
    [{ worldSize: 0 }, "worldSize"],
    [{ prefetch: -1 }, "prefetch"],
    [{ prefetch: 1025 }, "prefetch"],
    [{ memoryBytes: 0 }, "memoryBytes"],
    [{ padTo: 0 }, "padTo"],
    [{ padTo: 4, padValue: Number.NaN }, "padValue"],
    [{ timeoutMs: 0 }, "timeoutMs"],
    [{ lastBatch: "round" as never }, "lastBatch"],
    [{ maxOpenShards: 0 }, "maxOpenShards"],
    [{ strategy: "teleport" as never }, "strategy"],
    [{ view: "columns" as never }, "view"],
    [{ device: "abacus" }, "abacus"],
  ];
  for (const [options, name] of bad) await expectCode("BAD_OPTION", () => openLoader(temp(), options), name);
});
