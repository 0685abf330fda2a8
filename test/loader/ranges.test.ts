/** Loading chosen ranges of samples: exactly those, in an order over them alone, and no shard without any. */
import { describe, expect, test } from "bun:test";
import { rmSync, writeFileSync } from "node:fs";
import fc from "fast-check";
import {
  encodeManifest,
  makeManifest,
  type OpenOptions,
  openDataset,
  openDevice,
  type SampleRange,
} from "../../src/index.ts";
import { SelectedOrder, Selection } from "../../src/plan/select.ts";
import { Order } from "../../src/plan/shuffle.ts";
import { openLoader } from "./device.ts";
import { assertRestoresEverywhere, collect, expectCode, expectRows, idsOf, useTempDir } from "./helpers.ts";
import { SMALL_SPECS, writeDataset } from "./safetensors-files.ts";

const temp = useTempDir();
const COUNTS = [7, 0, 11, 3];
const TOTAL = 21;
const RANGES: readonly SampleRange[] = [
  [1, 3],
  [3, 3],
  [5, 9],
  [9, 10],
  [18, 21],
];
const SELECTED = [1, 2, 5, 6, 7, 8, 9, 18, 19, 20];

const rangesOf = (most: number) =>
  fc
    .uniqueArray(fc.nat(most), { maxLength: 12 })
    .map((cuts) => cuts.sort((a, b) => a - b))
    .map((cuts) =>
      Array.from({ length: cuts.length >> 1 }, (_, i) => [cuts[2 * i]!, cuts[2 * i + 1]!] as const),
    );

describe("Selection", () => {
  test("numbers the samples of its ranges in order, by any way of asking", () => {
    fc.assert(
      fc.property(rangesOf(60), fc.nat(60), fc.option(fc.nat(5)), (ranges, at, seed) => {
        const selection = new Selection(ranges, 61);
        const expected = ranges.flatMap(([start, end]) =>
          Array.from({ length: end - start }, (_, i) => start + i),
        );
        const numSamples = expected.length;
        expect(selection.numSamples).toBe(numSamples);
        expect(expected.map((_, i) => selection.at(i))).toEqual(expected);
        const order = new Order({ numSamples, seed: seed ?? undefined, epoch: 0 });
        const selected = new SelectedOrder(order, selection);
        const whole = Array.from({ length: numSamples }, (_, i) => expected[order.at(i)]!);
        expect(whole.map((_, i) => selected.at(i))).toEqual(whole);
        const start = Math.min(at, numSamples);
        const out = new Float64Array(numSamples - start);
        selected.fill(out, start, out.length);
        expect([...out]).toEqual(whole.slice(start));
      }),
    );
  });

  test("refuses what is unsorted, overlapping, outside or no range", async () => {
    const bad: readonly [readonly SampleRange[], string][] = [
      [
        [
          [4, 6],
          [1, 2],
        ],
        "ranges[1] is [1, 2) and begins before 6",
      ],
      [
        [
          [1, 4],
          [3, 5],
        ],
        "ranges[1] is [3, 5) and begins before 4",
      ],
      [[[1, 22]], "the dataset has 21 samples"],
      [[[3, 2]], "the end of ranges[0] is 2"],
      [[[-1, 2]], "the start of ranges[0] is -1"],
      [[[0.5, 2]], "the start of ranges[0] is 0.5"],
    ];
    writeDataset(temp, COUNTS, SMALL_SPECS);
    for (const [ranges, text] of bad) {
      await expectCode("BAD_OPTION", () => openLoader(temp(), { ranges }), text);
    }
  });
});

describe("only the ranges come", () => {
  const cases: readonly OpenOptions[] = [
    { batchSize: 4 },
    { batchSize: 4, strategy: "read", seed: 1, epochs: 2 },
    { batchBytes: 90 },
    { batchBytes: 90, seed: 3 },
    { batchSize: 3, rank: 1, worldSize: 2 },
    { batchSize: 3, seed: 2, blockSize: 2, windowBlocks: 2 },
    { batchSize: 3, limit: 5 },
  ];
  for (const options of cases) {
    test(JSON.stringify(options), async () => {
      const oracle = writeDataset(temp, COUNTS, SMALL_SPECS);
      const wanted = { ...options, ranges: RANGES };
      const all = await collect(temp(), wanted, (batch) => expectRows(batch, oracle));
      const ids = idsOf(all);
      const shuffled = options.seed !== undefined;
      if (options.rank === undefined) {
        const perEpoch = SELECTED.slice(0, options.limit ?? SELECTED.length);
        expect(ids.length).toBe(perEpoch.length * (options.epochs ?? 1));
        if (shuffled) expect([...new Set(ids)].sort((a, b) => a - b)).toEqual(SELECTED);
        else expect(ids).toEqual(perEpoch);
      } else expect(ids).toEqual([6, 7, 8, 20].slice(0, ids.length));
      await assertRestoresEverywhere((resume) => openLoader(temp(), { ...wanted, resume }));
    });
  }

  test("none at all", async () => {
    writeDataset(temp, COUNTS, SMALL_SPECS);
    for (const ranges of [[], [[4, 4]]] as const) {
      expect(await collect(temp(), { ranges, epochs: 3, seed: 1 })).toEqual([]);
    }
  });
});

describe("a state", () => {
  test("goes on over the same samples, however they are cut, and over no others", async () => {
    writeDataset(temp, COUNTS, SMALL_SPECS);
    const options = { batchSize: 4, seed: 1 };
    await using loader = await openLoader(temp(), { ...options, ranges: RANGES });
    const resume = JSON.parse(JSON.stringify(loader.state()));
    await using same = await openLoader(temp(), {
      ...options,
      resume,
      ranges: [
        [1, 3],
        [5, 10],
        [18, 21],
      ],
    });
    expect(same.state()).toEqual(resume);
    await expectCode(
      "STATE_MISMATCH",
      () => openLoader(temp(), { ...options, resume, ranges: [[1, 3]] }),
      "give the same ranges",
    );
    await expectCode("STATE_MISMATCH", () => openLoader(temp(), { ...options, resume }), "all samples");
    await using whole = await openLoader(temp(), options);
    const before = whole.state();
    expect("ranges" in before).toBe(false);
    await expectCode("STATE_MISMATCH", () =>
      openLoader(temp(), { ...options, ranges: RANGES, resume: before }),
    );
  });
});

describe("shards", () => {
  test("are told with their samples, and without opening any", async () => {
    writeDataset(temp, COUNTS, SMALL_SPECS);
    const { dataset, device } = await openManifested();
    expect(dataset.shards.map(({ name, start, end }) => [name, start, end])).toEqual([
      ["part-000.safetensors", 0, 7],
      ["part-001.safetensors", 7, 7],
      ["part-002.safetensors", 7, 18],
      ["part-003.safetensors", 18, 21],
    ]);
    expect(dataset.shards.map(({ path }) => path)).toEqual([...dataset.shardPaths]);
    expect(dataset.paths.size).toBe(0);
    dataset.close();
    await device.close();
  });

  test("outside the ranges are not opened where a manifest tells their rows", async () => {
    writeDataset(temp, COUNTS, SMALL_SPECS);
    const { dataset, device } = await openManifested();
    dataset.close();
    await device.close();
    rmSync(temp("part-000.safetensors"));
    writeFileSync(temp("part-003.safetensors"), "not a shard");
    const ids = idsOf(
      await collect(temp(), {
        batchSize: 4,
        ranges: [
          [8, 12],
          [14, 18],
        ],
      }),
    );
    expect(ids).toEqual([8, 9, 10, 11, 14, 15, 16, 17]);
    await expectCode("SOURCE_NOT_FOUND", () => collect(temp(), { ranges: [[0, TOTAL]] }));
  });
});

/** The dataset of the test with a manifest, opened through it. */
async function openManifested() {
  const device = openDevice("host");
  using bare = openDataset(temp(), device);
  writeFileSync(temp("dataset.json"), encodeManifest(await makeManifest(bare, { folder: temp() })));
  return { device, dataset: openDataset(temp(), device) };
}
