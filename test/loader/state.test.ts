/** State and restore: at every batch, also on another world size, exactly the rest. */
import { describe, expect, test } from "bun:test";
import { copyFileSync, mkdirSync } from "node:fs";
import type { LoaderState, OpenOptions } from "../../src/index.ts";
import { writeArrowDataset } from "./arrow-files.ts";
import { openLoader } from "./device.ts";
import { assertRestoresEverywhere, collect, expectCode, idsOf, take, useTempDir } from "./helpers.ts";
import { SMALL_SPECS, writeDataset } from "./safetensors-files.ts";

const temp = useTempDir();
const COUNTS = [7, 0, 11, 3];
const TOTAL = 21;
const range = (count: number) => Array.from({ length: count }, (_, i) => i);

describe("restores at every batch", () => {
  const cases: readonly OpenOptions[] = [
    { batchSize: 4 },
    { batchSize: 4, seed: 1, epochs: 2 },
    { batchSize: 3, seed: 1, blockSize: 4, windowBlocks: 2 },
    { batchSize: 4, seed: 1, lastBatch: "drop", epochs: 2 },
    { batchSize: 4, lastBatch: "pad", padTo: 4 },
    { batchSize: 2, rank: 1, worldSize: 3, epochs: 2 },
    { batchSize: 4, seed: 2, limit: 10, epochs: 2 },
    { batchSize: 4, seed: 2, strategy: "read", prefetch: 0 },
    { batchSize: 4, seed: 2, strategy: "read", prefetch: 5 },
  ];
  for (const options of cases) {
    test(JSON.stringify(options), async () => {
      writeDataset(temp, COUNTS, SMALL_SPECS);
      await assertRestoresEverywhere((resume) => openLoader(temp(), { ...options, resume }));
    });
  }

  test("of Arrow shards with dictionaries", async () => {
    writeArrowDataset(temp);
    await assertRestoresEverywhere((resume) => openLoader(temp(), { batchSize: 7, seed: 3, resume }));
  });

  test("and the helper that says so notices a loader that forgets", async () => {
    writeDataset(temp, COUNTS, SMALL_SPECS);
    const forgetful = assertRestoresEverywhere(() => openLoader(temp(), { batchSize: 4 }));
    expect(
      forgetful.then(
        () => "passed",
        () => "failed",
      ),
    ).resolves.toBe("failed");
  });
});

describe("another world size", () => {
  for (const options of [
    { seed: 4, batchSize: 2 },
    { batchBytes: 100, seed: 4 },
  ] as const) {
    for (const [before, after] of [
      [1, 3],
      [2, 1],
      [3, 2],
      [4, 3],
    ] as const) {
      test(`${before} ranks, then ${after}: ${JSON.stringify(options)}`, async () => {
        writeDataset(temp, COUNTS, SMALL_SPECS);
        for (const steps of [0, 1, 2, 3]) {
          const had: number[] = [];
          const states: LoaderState[] = [];
          for (const rank of range(before)) {
            await using loader = await openLoader(temp(), { ...options, rank, worldSize: before });
            const batches = await take(loader, steps);
            had.push(...idsOf(batches));
            if (batches.length === steps) states.push(loader.state());
          }
          if (states.length < before) continue;
          expect(new Set(states.map((state) => JSON.stringify(state))).size).toBe(1);
          for (const rank of range(after)) {
            const resume = JSON.parse(JSON.stringify(states[0]));
            had.push(...idsOf(await collect(temp(), { ...options, rank, worldSize: after, resume })));
          }
          expect(had.sort((a, b) => a - b)).toEqual(range(TOTAL));
        }
      });
    }
  }

  test("another batch size, strategy and prefetch also give the rest", async () => {
    writeDataset(temp, COUNTS, SMALL_SPECS);
    const order = idsOf(await collect(temp(), { seed: 6, batchSize: 1 }));
    await using loader = await openLoader(temp(), { seed: 6, batchSize: 4 });
    await take(loader, 2);
    const resume = loader.state();
    const rest = await collect(temp(), { seed: 6, batchSize: 5, strategy: "read", prefetch: 0, resume });
    expect(idsOf(rest)).toEqual(order.slice(8));
  });
});

describe("state", () => {
  test("is a small JSON of integers and a fingerprint, and does not run ahead of the consumer", async () => {
    writeDataset(temp, COUNTS, SMALL_SPECS);
    await using loader = await openLoader(temp(), { batchSize: 4, seed: 9, prefetch: 4 });
    const { fingerprint } = loader.dataset;
    const order = { seed: 9, blockSize: null, windowBlocks: null };
    expect(loader.state()).toEqual({ version: 1, fingerprint, epoch: 0, position: 0, ...order });
    let batches = 0;
    for await (using _ of loader) {
      batches++;
      const position = batches * 4;
      const expected = position >= TOTAL ? { epoch: 1, position: 0 } : { epoch: 0, position };
      expect(loader.state()).toEqual({ version: 1, fingerprint, ...expected, ...order });
    }
    expect(JSON.stringify(loader.state()).length).toBeLessThan(200);
  });

  test("of a finished run gives nothing more, and one more epoch where epochs grew", async () => {
    writeDataset(temp, COUNTS, SMALL_SPECS);
    await using loader = await openLoader(temp(), { batchSize: 4, seed: 9 });
    await take(loader);
    expect(await take(loader)).toEqual([]);
    const resume = loader.state();
    expect(await collect(temp(), { batchSize: 4, seed: 9, resume })).toEqual([]);
    const more = await collect(temp(), { batchSize: 4, seed: 9, resume, epochs: 2 });
    expect(more.map((batch) => batch.epoch)).toEqual(Array(6).fill(1));
  });

  test("holds wherever the dataset lies, and for any choice of columns", async () => {
    writeDataset(temp, COUNTS, SMALL_SPECS);
    await using loader = await openLoader(temp(), { batchSize: 4, seed: 9 });
    const all = await take(loader, 2);
    mkdirSync(temp("copy"));
    for (const i of range(4))
      copyFileSync(temp(`part-00${i}.safetensors`), temp("copy", `part-00${i}.safetensors`));
    const options = { batchSize: 4, seed: 9, resume: loader.state(), columns: ["i16"] };
    const rest = await collect(temp("copy"), options);
    expect(idsOf([...all, ...rest]).sort((a, b) => a - b)).toEqual(range(TOTAL));
  });

  test("of another dataset, order or nothing at all is refused", async () => {
    writeDataset(temp, COUNTS, SMALL_SPECS);
    mkdirSync(temp("other"));
    writeDataset((name) => temp("other", name!), [7, 0, 12, 3], SMALL_SPECS);
    const options = { batchSize: 4, seed: 9, blockSize: 2 };
    await using loader = await openLoader(temp(), options);
    const state = loader.state();
    const open = (resume: unknown, more: OpenOptions = {}) =>
      openLoader(temp(), { ...options, ...more, resume });
    await expectCode(
      "STATE_MISMATCH",
      () => openLoader(temp("other"), { ...options, resume: state }),
      "dataset",
    );
    await expectCode("STATE_MISMATCH", () => open(state, { seed: 10 }), "seed", 9, 10);
    await expectCode("STATE_MISMATCH", () => openLoader(temp(), { resume: state }), "seed", 9, "unset");
    await expectCode("STATE_MISMATCH", () => open(state, { blockSize: 3 }), "blockSize", 2, 3);
    for (const bad of [null, 3, "x", [], {}, { ...state, version: 2 }, { ...state, fingerprint: 7 }]) {
      await expectCode("STATE_MISMATCH", () => open(bad));
    }
    for (const key of ["epoch", "position"]) {
      for (const value of [-1, 0.5, "1", null, Number.NaN, 2 ** 60]) {
        await expectCode("STATE_MISMATCH", () => open({ ...state, [key]: value }), key);
      }
    }
    await expectCode("STATE_MISMATCH", () => open({ ...state, position: TOTAL + 1 }), TOTAL + 1, TOTAL);
  });

  test("past a smaller limit is refused with both numbers", async () => {
    writeDataset(temp, COUNTS, SMALL_SPECS);
    await using loader = await openLoader(temp(), { batchSize: 4 });
    await take(loader, 4);
    const options = { batchSize: 4, limit: 10, resume: loader.state() };
    await expectCode("STATE_MISMATCH", () => openLoader(temp(), options), 16, 10, "limit");
  });
});
