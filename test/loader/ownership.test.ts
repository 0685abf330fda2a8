/** Who owns what and for how long: release, close, held batches, early ends. */
import { describe, expect, test } from "bun:test";
import { type Batch, type HeadraceError, Loader, openDataset } from "../../src/index.ts";
import { KINDS, writeArrow } from "./arrow-files.ts";
import { openLoader, openTestDevice } from "./device.ts";
import { collect, expectCode, idsOf, take, useTempDir } from "./helpers.ts";
import { SMALL_SPECS, writeDataset, writePlain } from "./safetensors-files.ts";

const temp = useTempDir();
const range = (count: number) => Array.from({ length: count }, (_, i) => i);

/** Pulls batches without releasing them. */
async function hold(loader: Loader, count: number): Promise<Batch[]> {
  const iterator = loader[Symbol.asyncIterator]();
  const held: Batch[] = [];
  for (let i = 0; i < count; i++) held.push((await iterator.next()).value!);
  await iterator.return!();
  return held;
}

describe("release", () => {
  test("empties every view and refuses new ones", async () => {
    writeArrow(temp("a.arrow"), { batches: [6], isNull: (s) => s === 1 });
    for (const strategy of ["map", "read"] as const) {
      for (const padTo of [undefined, 4]) {
        await using loader = await openLoader(temp(), { strategy, padTo, batchSize: 4, lastBatch: "pad" });
        for await (const batch of loader) {
          const columns = [...batch.columns.values()];
          const parts = [...columns.flatMap((c) => [c, c.offsets, c.mask, c.validity]), batch.rowMask].filter(
            (part) => part !== undefined,
          );
          const views = parts.flatMap((part) => [part.view, ...part.chunks()]);
          expect(views.every((view) => view.length > 0)).toBe(true);
          const ids = [...batch.sampleIds];
          expect(batch.released).toBe(false);
          batch.release();
          batch.release();
          expect(batch.released).toBe(true);
          expect(views.every((view) => view.length === 0)).toBe(true);
          for (const part of parts) {
            await expectCode("CLOSED", () => part.view, "release");
            await expectCode("CLOSED", () => [...part.chunks()], "release");
          }
          for (const column of columns) {
            await expectCode("CLOSED", () => column.row(0));
            await expectCode("CLOSED", () => column.text(0));
          }
          expect([...batch.sampleIds]).toEqual(ids);
          expect(batch.column("i8")).toBe(columns[0]!);
        }
      }
    }
  });

  test("using releases at the end of the block, also when it throws", async () => {
    writeDataset(temp, [6], SMALL_SPECS);
    await using loader = await openLoader(temp(), { batchSize: 3 });
    const seen: Batch[] = [];
    const failing = async () => {
      for await (using batch of loader) {
        seen.push(batch);
        throw new Error("mine");
      }
    };
    expect(failing()).rejects.toThrow("mine");
    await failing().catch(() => {});
    expect(seen.every((batch) => batch.released)).toBe(true);
  });

  test("of one batch leaves the others alone", async () => {
    const data = writePlain(temp("a.safetensors"), 64);
    for (const strategy of ["map", "read"] as const) {
      await using loader = await openLoader(temp(), { strategy, batchSize: 16, prefetch: 3 });
      const [first, second, third] = await hold(loader, 3);
      const kept = second!.column("x").view;
      first!.release();
      third!.release();
      expect(Buffer.from(kept as Uint8Array).equals(data.subarray(256, 512))).toBe(true);
      await take(loader);
      expect(Buffer.from(kept as Uint8Array).equals(data.subarray(256, 512))).toBe(true);
      second!.release();
    }
  });

  test("a column that is not there is named with those that are", async () => {
    writeDataset(temp, [6], SMALL_SPECS);
    await collect(temp(), {}, (batch) => {
      expect(() => batch.column("i17")).toThrow("no column i17 (it has: f32, i16, ragged_i32)");
    });
  });
});

describe("held batches", () => {
  for (const strategy of ["map", "read"] as const) {
    test(`as many as there are segments, then BATCHES_HELD; one less and it goes on (${strategy})`, async () => {
      writePlain(temp("a.safetensors"), 100);
      await using loader = await openLoader(temp(), { strategy, batchSize: 10, prefetch: 2 });
      const held: Batch[] = [];
      await expectCode(
        "BATCHES_HELD",
        async () => {
          for await (const batch of loader) held.push(batch);
        },
        3,
        "release",
      );
      expect(held.map((batch) => batch.sampleIds[0])).toEqual([0, 10, 20]);
      await expectCode("BATCHES_HELD", () => take(loader));
      held[1]!.release();
      const rest = await take(loader);
      expect(idsOf(rest)).toEqual(range(70).map((i) => i + 30));
      expect([...held[0]!.sampleIds, ...held[2]!.sampleIds].length).toBe(20);
      expect(held[0]!.column("x").view.length).toBe(160);
      for (const batch of held) batch.release();
    });
  }

  test("prefetch 0 has one segment", async () => {
    writePlain(temp("a.safetensors"), 30);
    await using loader = await openLoader(temp(), { strategy: "read", batchSize: 10, prefetch: 0 });
    expect(idsOf(await take(loader))).toEqual(range(30));
  });
});

describe("close", () => {
  test("after it, every method says CLOSED or does nothing", async () => {
    writePlain(temp("a.safetensors"), 50);
    const loader = await openLoader(temp(), { batchSize: 10 });
    const iterator = loader[Symbol.asyncIterator]();
    const batch = (await iterator.next()).value!;
    const column = batch.column("x");
    const view = column.view;
    const state = loader.state();
    await loader.close();
    await loader.close();
    expect(view.length).toBe(0);
    expect(batch.released).toBe(true);
    batch.release();
    await expectCode("CLOSED", () => column.view);
    await expectCode("CLOSED", () => iterator.next());
    await expectCode("CLOSED", () => loader[Symbol.asyncIterator]());
    await expectCode("CLOSED", () => loader.epoch()[Symbol.asyncIterator]());
    await expectCode("CLOSED", () => loader.dataset.describe(0));
    loader.dataset.close();
    expect(loader.state()).toEqual(state);
    expect(loader.stats.batches).toBe(1);
    expect(loader.samplesPerEpoch).toBe(50);
  });

  test("while a batch is waited for ends the wait", async () => {
    writePlain(temp("a.safetensors"), 50);
    const faults = [{ call: "pread", nth: 4, times: 100, delayMs: 100 }] as const;
    await using device = openTestDevice({ faults, lanes: 1 });
    const loader = await openLoader(temp(), { batchSize: 10, strategy: "read", prefetch: 2, device });
    const iterator = loader[Symbol.asyncIterator]();
    const outcomes: string[] = [];
    const consuming = (async () => {
      for (;;) {
        const { value, done } = await iterator.next();
        if (done) return outcomes.push("done");
        value.release();
      }
    })().catch((error) => outcomes.push(error.code));
    await Bun.sleep(30);
    await loader.close();
    await consuming;
    expect(outcomes).toEqual(["CLOSED"]);
    expect(device.openResources).toBe(0);
  });

  test("gives everything back to a borrowed device, from any point", async () => {
    writeDataset(temp, [20, 20], SMALL_SPECS);
    await using device = openTestDevice();
    for (const strategy of ["map", "read"] as const) {
      for (const stop of [0, 1, 3, 100]) {
        const loader = await openLoader(temp(), { strategy, device, batchSize: 5, seed: 1 });
        const held = await hold(loader, Math.min(stop, 2));
        await loader.close();
        expect(held.every((batch) => batch.released)).toBe(true);
        expect(device.openResources).toBe(0);
      }
    }
  });

  test("a loader that could not be opened leaves nothing open", async () => {
    writeDataset(temp, [20], SMALL_SPECS);
    await using device = openTestDevice();
    for (const options of [
      { batchSize: 0 },
      { columns: ["nope"] },
      { resume: 3 },
      { batchLength: 1, lengthColumn: "i16" },
    ]) {
      await openLoader(temp(), { device, ...options }).catch(() => {});
      expect(device.openResources).toBe(0);
    }
  });

  test("of the dataset or the device under a loader gives CLOSED, never bytes", async () => {
    for (const what of ["dataset", "device"] as const) {
      for (const strategy of ["map", "read"] as const) {
        writePlain(temp("a.safetensors"), 50);
        const device = openTestDevice();
        const dataset = openDataset(temp(), device, { strategy });
        const loader = new Loader(dataset, device, { batchSize: 10, prefetch: 1 });
        const iterator = loader[Symbol.asyncIterator]();
        const { value } = await iterator.next();
        const view = value!.column("x").view;
        if (what === "dataset") dataset.close();
        else await device.close();
        if (what === "device" || strategy === "map") expect(view.length).toBe(0);
        let failure: unknown;
        try {
          for (let i = 0; i < 5; i++) (await iterator.next()).value?.release();
        } catch (error) {
          failure = error;
        }
        // What was being read when the device was closed says so, where it had not ended.
        const inFlight = what === "device" && strategy === "read";
        const codes = inFlight ? ["CANCELLED", "CLOSED"] : ["CLOSED"];
        expect(codes).toContain((failure as HeadraceError | undefined)?.code ?? "nothing failed");
        await loader.close();
        dataset.close();
        await device.close();
        expect(device.openResources).toBe(0);
      }
    }
  });

  test("two loaders may share one dataset and one device", async () => {
    writeDataset(temp, [20, 20], SMALL_SPECS);
    await using device = openTestDevice();
    using dataset = openDataset(temp(), device);
    const ranks = range(2).map(
      (rank) => new Loader(dataset, device, { batchSize: 5, rank, worldSize: 2, seed: 1 }),
    );
    const [a, b] = await Promise.all(ranks.map((loader) => take(loader)));
    expect([...idsOf(a!), ...idsOf(b!)].sort((x, y) => x - y)).toEqual(range(40));
    for (const loader of ranks) await loader.close();
  });
});

test("text of dictionary columns outlives the batch", async () => {
  writeArrow(temp("a.arrow"), { batches: [3], kinds: KINDS.filter((kind) => kind.dictionary) });
  await using loader = await openLoader(temp());
  for await (const batch of loader) {
    const { dictionary } = batch.column("source");
    batch.release();
    expect(dictionary!.text(0)).toBe("web");
  }
});
