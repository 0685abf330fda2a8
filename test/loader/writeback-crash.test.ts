/** Outputs on a disk that crashes, fills up or fails at every single operation: each row once, and the same bytes. */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import type { DeviceValues, WriterOptions } from "../../src/index.ts";
import { openWriterOver } from "../../src/loader/writeback/open.ts";
import type { Writer } from "../../src/loader/writeback/writer.ts";
import { CrashDisk, type Fate, fillBuffer } from "./writeback-disk.ts";
import { addRow, knownLetters, optionsOf, outputOf, randomOf, shuffled } from "./writeback-job.ts";

const COUNTS = [5, 0, 9, 1, 4];
const TOTAL = 19;

/** Small enough that every mechanism is met with few rows. */
const SMALL: Partial<WriterOptions> = {
  maxPendingBytes: 700,
  syncBytes: 900,
  syncMs: 0,
  stageBytes: 48,
  mergeBytes: 300,
};

interface Run {
  readonly disk: CrashDisk;
  readonly options: WriterOptions;
  readonly random: (below: number) => number;
  /** Whether embeddings come from device memory. */
  readonly placed: boolean;
}

/** Opens, adds what is missing in some order, flushes now and then, closes. Returns rows known to be durable. */
async function goOn({ disk, options, random, placed }: Run, durable: Set<number>): Promise<void> {
  const device = disk.device();
  const ops = disk.process();
  const writer = await openWriterOver("/out", placed ? { ...options, device } : options, ops);
  expectHolds(writer, durable);
  const missing = writer
    .remaining()
    .flatMap(([start, end]) => Array.from({ length: end - start }, (_, i) => start + i));
  const rows = random(3) === 0 ? shuffled(missing, random) : nearly(missing, random);
  let wanted = 0;
  let released = 0;
  const place = (values: Float32Array): DeviceValues & { release(): void } => {
    wanted++;
    const buffer = device.createBuffer(values.byteLength + 8);
    fillBuffer(device, buffer, new Uint8Array([...new Uint8Array(8), ...new Uint8Array(values.buffer)]));
    return { buffer, byteOffset: 8, release: () => released++ };
  };
  const added: number[] = [];
  try {
    for (const row of rows) {
      await addRow(writer, row, placed ? place : undefined);
      added.push(row);
      if (random(6) === 0) {
        await writer.flush();
        for (const one of added) durable.add(one);
      }
      if (random(4) === 0) await new Promise(setImmediate);
    }
  } finally {
    await writer.close();
  }
  expect(released).toBe(wanted);
  expect(writer.summary).toMatchObject({ rows: TOTAL, complete: true, committedShards: COUNTS.length });
}

/** Neighbours change places, as they do in a running batch. */
function nearly(rows: readonly number[], random: (below: number) => number): number[] {
  const keyed = rows.map((row, i) => [i + random(4), row] as const);
  return keyed.sort((a, b) => a[0] - b[0]).map(([, row]) => row);
}

/** What was durable is found again. */
function expectHolds(writer: Writer, durable: ReadonlySet<number>): void {
  const finished = writer.finished();
  for (const row of durable) {
    expect({ row, found: finished.some(([start, end]) => row >= start && row < end) }).toEqual({
      row,
      found: true,
    });
  }
}

/** A manifest lists whole shards alone, whatever happens. */
function expectListedWhole(disk: CrashDisk, whole: Readonly<Record<string, string>>): void {
  const { "/out/dataset.json": manifest, ...files } = disk.files();
  if (manifest === undefined) return;
  for (const { path } of JSON.parse(manifest).shards as { path: string }[]) {
    expect(files[`/out/${path}`] === whole[`/out/${path}`]).toBe(true);
  }
}

async function undisturbed(
  run: Omit<Run, "disk">,
): Promise<{ files: Record<string, string>; operations: number }> {
  const disk = new CrashDisk(randomOf(1));
  await goOn({ ...run, disk, random: randomOf(2) }, new Set());
  expect([...disk.names.keys()].filter((path) => path.includes("/.headrace/"))).toEqual([]);
  return { files: disk.files(), operations: disk.operations };
}

/** Goes on after each failure until the job is done; then all files must be those of the undisturbed run. */
async function survive(
  run: Run,
  whole: Readonly<Record<string, string>>,
  fate: (operation: number) => Fate,
): Promise<number> {
  const durable = new Set<number>();
  run.disk.fate = fate;
  for (let tries = 0; ; tries++) {
    expect(tries).toBeLessThan(500);
    try {
      await goOn(run, durable);
      break;
    } catch (error) {
      const { code } = error as { code?: string };
      if (code !== "IO_ERROR" && code !== "DISK_FULL") throw error;
      // Whoever threw may still have operations under way: a process that ends has not.
      run.disk.crash(false);
      if (run.options.order !== "completion") expectListedWhole(run.disk, whole);
    }
  }
  const files = run.disk.files();
  expect(Object.keys(files)).toEqual(Object.keys(whole));
  if (run.options.order !== "completion") expect(files).toEqual({ ...whole });
  expect(files["/out/errors.jsonl"]).toBe(Buffer.from(knownLetters(COUNTS)).toString("latin1"));
  return run.disk.operations;
}

/** The last number: failures are tried at every operation, or at every so many of them. */
const WAYS: readonly (readonly [string, Partial<WriterOptions>, boolean, number])[] = [
  ["Arrow", {}, false, 1],
  ["Arrow, in several batches a shard", { maxBatchBytes: 350 }, false, 5],
  ["Arrow, from device memory", {}, true, 5],
  ["Arrow, from device memory, in several batches", { maxBatchBytes: 350 }, true, 1],
  ["safetensors, from device memory", { format: "safetensors" }, true, 5],
  ["Arrow, in order of completion", { order: "completion" }, true, 3],
];

for (const [name, more, placed, stride] of WAYS) {
  describe(name, () => {
    const options = optionsOf(COUNTS, { ...SMALL, ...more });

    test("does not depend on the order in which rows are added, nor on where their values are", async () => {
      const { files } = await undisturbed({ options, random: randomOf(1), placed });
      for (let seed = 2; seed < 6; seed++) {
        const disk = new CrashDisk(randomOf(seed));
        await goOn({ disk, options, random: randomOf(seed), placed: placed && seed % 2 === 0 }, new Set());
        if (more.order !== "completion") expect(disk.files()).toEqual(files);
      }
    });

    test("survives a crash at every operation", async () => {
      const { files, operations } = await undisturbed({ options, random: randomOf(1), placed });
      expect(operations).toBeGreaterThan(60);
      // A crash may come later than the undisturbed run's last operation, since orders differ.
      for (let at = 0; at < operations + 20; at += stride) {
        const random = randomOf(at + 7);
        const run = { disk: new CrashDisk(random), options, random, placed };
        await survive(run, files, (operation) => (operation === at ? "crash" : undefined));
      }
    }, 120_000);

    test("survives a full disk and a failing one at every operation", async () => {
      const { files, operations } = await undisturbed({ options, random: randomOf(1), placed });
      for (let at = 0; at < operations; at += stride) {
        const random = randomOf(at + 3);
        const run = { disk: new CrashDisk(random), options, random, placed };
        await survive(run, files, (operation) =>
          operation === at ? (at % 2 === 0 ? "ENOSPC" : "EIO") : undefined,
        );
      }
    }, 120_000);

    test("survives one crash after another", async () => {
      const { files } = await undisturbed({ options, random: randomOf(1), placed });
      await fc.assert(
        fc.asyncProperty(fc.nat(10 ** 6), fc.integer({ min: 80, max: 400 }), async (seed, every) => {
          const random = randomOf(seed);
          const run = { disk: new CrashDisk(random), options, random, placed };
          await survive(run, files, () => (random(every) === 0 ? "crash" : undefined));
        }),
        // The last ones had a record outlive the name of the file that it told of, in four of ten runs.
        { numRuns: 20, examples: Array.from({ length: 5 }, (): [number, number] => [751_114, 80]) },
      );
    }, 120_000);
  });
}

test("what was flushed outlives a loss of power, also in files that an earlier run has made", async () => {
  const options = optionsOf([12], SMALL);
  for (let seed = 0; seed < 60; seed++) {
    const disk = new CrashDisk(randomOf(seed));
    const first = await openWriterOver("/out", options, disk.process());
    for (const row of [0, 1]) first.add(outputOf(row));
    // Written, and not made durable.
    await new Promise(setImmediate);
    for (let i = 0; i < 40; i++) await Promise.resolve();
    disk.crash(false);
    const second = await openWriterOver("/out", options, disk.process());
    for (const row of [4, 5]) second.add(outputOf(row));
    await second.flush();
    disk.crash(true);
    const third = await openWriterOver("/out", options, disk.process());
    expectHolds(third, new Set([4, 5]));
    await third.close();
  }
});
