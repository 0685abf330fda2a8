/** What disks and other processes do to a loader in the middle of its work. */
import { describe, expect, test } from "bun:test";
import { closeSync, copyFileSync, ftruncateSync, openSync, rmSync, truncateSync } from "node:fs";
import { type HeadraceError, Loader, type OpenOptions, openDataset } from "../../src/index.ts";
import { writeArrow } from "./arrow-files.ts";
import { openLoader, openTestDevice } from "./device.ts";
import { collect, expectCode, expectRows, idsOf, take, useTempDir } from "./helpers.ts";
import { SMALL_SPECS, writeDataset, writePlain, writeRagged } from "./safetensors-files.ts";

const temp = useTempDir();
const range = (count: number) => Array.from({ length: count }, (_, i) => i);
const STRATEGIES = ["map", "read"] as const;

/** Shortens the file in place, as a writer that starts over does. */
function cut(path: string, byteLength: number): void {
  const fd = openSync(path, "r+");
  ftruncateSync(fd, byteLength);
  closeSync(fd);
}

describe("a shard that shrinks while it is open", () => {
  for (const strategy of STRATEGIES) {
    for (const seed of [undefined, 1]) {
      for (const prefetch of [0, 2]) {
        test(`${strategy}, seed ${seed}, prefetch ${prefetch}: FILE_CHANGED, never a fault`, async () => {
          writeDataset(temp, [64], SMALL_SPECS);
          await using loader = await openLoader(temp(), { strategy, seed, prefetch, batchSize: 4 });
          const path = temp("part-000.safetensors");
          let batches = 0;
          await expectCode(
            "FILE_CHANGED",
            async () => {
              for await (using _ of loader) if (++batches === 2) cut(path, 5000);
            },
            path,
            5000,
          );
          // What was read before stays good; what is mapped is gone at once.
          if (strategy === "map" && seed === undefined) expect(batches).toBe(2);
          expect(batches).toBeLessThanOrEqual(2 + prefetch + 1);
          await expectCode("FILE_CHANGED", () => take(loader));
        });
      }
    }

    test(`${strategy}: arrow with offsets, bits and codes`, async () => {
      writeArrow(temp("a.arrow"), { batches: [20, 20, 20], isNull: (s) => s % 5 === 0 });
      await using loader = await openLoader(temp(), { strategy, batchSize: 5, prefetch: 1 });
      let batches = 0;
      await expectCode("FILE_CHANGED", async () => {
        for await (using _ of loader) if (++batches === 2) cut(temp("a.arrow"), 700);
      });
    });

    test(`${strategy}: between the costs of batches`, async () => {
      writeRagged(temp("a.safetensors"), range(400), 399);
      await using loader = await openLoader(temp(), { strategy, batchBytes: 100, prefetch: 0 });
      await expectCode("FILE_CHANGED", async () => {
        for await (using _ of loader) cut(temp("a.safetensors"), 200);
      });
    });
  }

  test("a view that is asked for afterwards says so", async () => {
    writePlain(temp("a.safetensors"), 64);
    await using loader = await openLoader(temp(), { strategy: "map", batchSize: 8 });
    for await (using batch of loader) {
      cut(temp("a.safetensors"), 100);
      await expectCode("FILE_CHANGED", () => batch.column("x").view);
      await expectCode("FILE_CHANGED", () => [...batch.column("x").chunks()]);
      break;
    }
  });

  test("is noticed by each of two loaders that share the dataset", async () => {
    writeRagged(temp("a.safetensors"), range(6000), 5999);
    await using device = openTestDevice();
    using dataset = openDataset(temp(), device, { strategy: "map" });
    const options = { batchSize: 100, prefetch: 0, seed: 1 };
    await using first = new Loader(dataset, device, options);
    await using second = new Loader(dataset, device, options);
    expect((await take(first, 1)).length).toBe(1);
    const iterator = first[Symbol.asyncIterator]();
    (await iterator.next()).value!.release();
    cut(temp("a.safetensors"), 200);
    await iterator.return!();
    await expectCode("FILE_CHANGED", () => take(second));
    await expectCode("FILE_CHANGED", () => take(first));
  });
});

describe("a shard that goes", () => {
  for (const strategy of STRATEGIES) {
    test(`is read to its end where it is open (${strategy})`, async () => {
      const oracle = writeDataset(temp, [30, 30], SMALL_SPECS);
      await using loader = await openLoader(temp(), { strategy, batchSize: 7, seed: 1 });
      const ids: number[] = [];
      for await (using batch of loader) {
        expectRows(batch, oracle);
        ids.push(...batch.sampleIds);
        rmSync(temp("part-000.safetensors"), { force: true });
        rmSync(temp("part-001.safetensors"), { force: true });
      }
      expect(ids.sort((a, b) => a - b)).toEqual(range(60));
    });

    test(`is named where it must be opened again (${strategy})`, async () => {
      writeDataset(temp, [10, 10, 10], SMALL_SPECS);
      await using loader = await openLoader(temp(), {
        strategy,
        batchSize: 10,
        maxOpenShards: 1,
        prefetch: 0,
      });
      rmSync(temp("part-001.safetensors"));
      await expectCode("SOURCE_NOT_FOUND", () => take(loader), "part-001.safetensors");
      expect(loader.state().position).toBe(10);
    });

    test(`and comes back as another is read as that other (${strategy})`, async () => {
      writeRagged(temp("a.safetensors"), [0, 1, 3, 6], 6);
      writeRagged(temp("b.safetensors"), [0, 2, 4, 6], 6);
      writeRagged(temp("c.new"), [0, 4, 5, 6], 6);
      await using loader = await openLoader(temp("?.safetensors"), {
        strategy,
        batchSize: 3,
        epochs: 2,
        maxOpenShards: 1,
        prefetch: 0,
      });
      const lengths: number[][] = [];
      for await (using batch of loader) {
        const offsets = [...batch.column("t").offsets!.view].map(Number);
        lengths.push(offsets);
        if (lengths.length === 2) {
          rmSync(temp("a.safetensors"));
          copyFileSync(temp("c.new"), temp("a.safetensors"));
        }
      }
      expect([lengths[0], lengths[2]]).toEqual([
        [0, 1, 3, 6],
        [0, 4, 5, 6],
      ]);
    });
  }
});

describe("a disk that fails", () => {
  /** Opens with the default device first, to learn how many reads opening takes. */
  async function failing(faults: readonly object[], options: OpenOptions = {}) {
    const device = openTestDevice({ faults: faults as never, lanes: 1 });
    const loader = await openLoader(temp(), { strategy: "read", batchSize: 10, device, ...options });
    return {
      loader,
      async [Symbol.asyncDispose]() {
        await loader.close();
        await device.close();
      },
    };
  }

  async function idsUntil(loader: Loader, code: "IO_ERROR" | "SHORT_READ" | "TIMED_OUT", ...parts: string[]) {
    const ids: number[] = [];
    await expectCode(
      code,
      async () => {
        for await (using batch of loader) ids.push(...batch.sampleIds);
      },
      ...parts,
    );
    return ids;
  }

  test("gives IO_ERROR after the good batches before it, and a later loop goes on", async () => {
    writePlain(temp("a.safetensors"), 100);
    for (const prefetch of [0, 2, 5]) {
      // Opening takes reads too: those up to the sixth batch differ only in what came before.
      for (const nth of [4, 6, 9]) {
        await using one = await failing([{ call: "pread", nth, errno: "EIO" }], { prefetch });
        const before = await idsUntil(one.loader, "IO_ERROR", "a.safetensors", "EIO");
        expect(before).toEqual(range(before.length));
        expect(one.loader.state().position).toBe(before.length);
        expect([...before, ...idsOf(await take(one.loader))]).toEqual(range(100));
      }
    }
  });

  test("for metadata columns too, with restore in another loader", async () => {
    const oracle = writeDataset(temp, [40, 40], SMALL_SPECS);
    let failures = 0;
    for (let nth = 1; nth < 40; nth += 3) {
      const device = openTestDevice({ faults: [{ call: "pread", nth, errno: "EIO" }], lanes: 1 });
      try {
        await using loader = await openLoader(temp(), { strategy: "read", batchSize: 10, seed: 1, device });
        const ids: number[] = [];
        try {
          for await (using batch of loader) {
            expectRows(batch, oracle);
            ids.push(...batch.sampleIds);
          }
        } catch (error) {
          failures++;
          expect((error as { code: string }).code).toBe("IO_ERROR");
          const resume = JSON.parse(JSON.stringify(loader.state()));
          ids.push(...idsOf(await collect(temp(), { batchSize: 10, seed: 1, resume })));
        }
        expect(ids.sort((a, b) => a - b)).toEqual(range(80));
      } catch (error) {
        expect((error as { code: string }).code).toBe("IO_ERROR");
        failures++;
      }
      await device.close();
    }
    expect(failures).toBeGreaterThan(3);
  });

  test("short and interrupted reads change nothing", async () => {
    const oracle = writeDataset(temp, [40], SMALL_SPECS);
    const many = { nth: 1, times: 10 ** 6 };
    for (const fault of [
      { call: "pread", ...many, short: 7 },
      { call: "pread", nth: 3, times: 5, errno: "EINTR" },
    ]) {
      await using one = await failing([fault]);
      const ids: number[] = [];
      for await (using batch of one.loader) {
        expectRows(batch, oracle);
        ids.push(...batch.sampleIds);
      }
      expect(ids).toEqual(range(40));
    }
  });

  test("a file that seems to end gives SHORT_READ with its name", async () => {
    writePlain(temp("a.safetensors"), 100);
    await using one = await failing([{ call: "pread", nth: 6, times: 1, short: 0 }]);
    const before = await idsUntil(one.loader, "SHORT_READ", "a.safetensors");
    expect([...before, ...idsOf(await take(one.loader))]).toEqual(range(100));
  });

  test("a disk that hangs gives TIMED_OUT at the time asked for, and the next loop waits for its memory", async () => {
    writePlain(temp("a.safetensors"), 100);
    await using one = await failing([{ call: "pread", nth: 5, delayMs: 400 }], {
      timeoutMs: 60,
      prefetch: 1,
    });
    const started = performance.now();
    const words = ["batch 0:", " not ended within 60 ms (read, ", "a.safetensors); raise timeoutMs"];
    const before = await idsUntil(one.loader, "TIMED_OUT", ...words);
    expect(performance.now() - started).toBeLessThan(350);
    const after: number[] = [];
    // The memory of the read that hangs is no one else's before it has ended.
    for (let tries = 0; tries < 30 && before.length + after.length < 100; tries++) {
      try {
        for await (using batch of one.loader) after.push(...batch.sampleIds);
      } catch (error) {
        expect((error as { code: string }).code).toBe("TIMED_OUT");
      }
    }
    expect([...before, ...after]).toEqual(range(100));
  });

  test("a read that was given up never writes into a later batch", async () => {
    const data = writePlain(temp("a.safetensors"), 100, 1024);
    // Reads of several pieces, so that several lanes are at work and one may hang alone.
    const faults = [{ call: "pread", nth: 12, delayMs: 600 }];
    const device = openTestDevice({ faults: faults as never, lanes: 4, pieceBytes: 4096 });
    await using one = await failing([], { timeoutMs: 150, prefetch: 1, device });
    const before = await idsUntil(one.loader, "TIMED_OUT");
    const ids: number[] = [];
    for await (using batch of one.loader) {
      if (ids.length < 50) await Bun.sleep(120);
      const at = batch.sampleIds[0]! * 1024;
      expect(Buffer.from(batch.column("x").view as Uint8Array).equals(data.subarray(at, at + 10240))).toBe(
        true,
      );
      ids.push(...batch.sampleIds);
    }
    expect([...before, ...ids]).toEqual(range(100));
    await one.loader.close();
    await device.close();
  });

  test("a file that cannot be mapped is read, or refused by name", async () => {
    writePlain(temp("a.safetensors"), 100);
    for (const errno of ["ENOMEM", "EACCES", "ENODEV"]) {
      await using device = openTestDevice({ faults: [{ call: "mmap", nth: 1, errno }] });
      try {
        await using loader = await openLoader(temp(), { device, strategy: "map" });
        expect(idsOf(await take(loader))).toEqual(range(100));
        expect(loader.dataset.paths.get("a.safetensors")!.strategy).toBe("read");
      } catch (error) {
        const { code, message } = error as HeadraceError;
        expect(["MAP_FAILED", "OUT_OF_MEMORY"]).toContain(code);
        expect(message).toContain("a.safetensors");
      }
    }
  });
});

test("a file that grows is read as it was", async () => {
  const data = writePlain(temp("a.safetensors"), 40);
  for (const strategy of STRATEGIES) {
    await using loader = await openLoader(temp(), { strategy, batchSize: 10 });
    let batches = 0;
    for await (using batch of loader) {
      if (batches++ === 0) truncateSync(temp("a.safetensors"), 10 ** 6);
      const at = batch.sampleIds[0]! * 16;
      expect(Buffer.from(batch.column("x").view as Uint8Array).equals(data.subarray(at, at + 160))).toBe(
        true,
      );
    }
    writePlain(temp("a.safetensors"), 40);
  }
});
