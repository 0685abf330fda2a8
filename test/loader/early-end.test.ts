/** Loops that end early, by choice, by abort or by a second loop: nothing is lost, nothing comes twice. */
import { describe, expect, test } from "bun:test";
import type { OpenOptions } from "../../src/index.ts";
import { openLoader, openTestDevice } from "./device.ts";
import { collect, expectCode, idsOf, take, useTempDir } from "./helpers.ts";
import { writePlain } from "./safetensors-files.ts";

const temp = useTempDir();
const range = (count: number) => Array.from({ length: count }, (_, i) => i);

describe("leaving early", () => {
  for (const strategy of ["map", "read"] as const) {
    test(`loses and repeats nothing, wherever (${strategy})`, async () => {
      writePlain(temp("a.safetensors"), 101);
      const options: OpenOptions = { strategy, batchSize: 7, seed: 2, epochs: 2, prefetch: 3 };
      const whole = await collect(temp(), options);
      for (const stride of [1, 2, 5]) {
        await using loader = await openLoader(temp(), options);
        const pieces = [];
        for (;;) {
          const piece = await take(loader, stride);
          if (piece.length === 0) break;
          pieces.push(...piece);
        }
        expect(pieces).toEqual(whole);
      }
    });
  }

  test("also with the disk in the middle of reads", async () => {
    writePlain(temp("a.safetensors"), 100);
    const faults = [{ call: "pread", nth: 1, times: 10 ** 6, delayMs: 5 }] as const;
    await using device = openTestDevice({ faults, lanes: 2 });
    const options: OpenOptions = { strategy: "read", batchSize: 10, prefetch: 3, device };
    await using loader = await openLoader(temp(), options);
    const ids: number[] = [];
    for (let i = 0; i < 10; i++) ids.push(...idsOf(await take(loader, 1)));
    expect(ids).toEqual(range(100));
  });

  test("while another task releases a batch it holds, at any moment", async () => {
    writePlain(temp("a.safetensors"), 100);
    const faults = [{ call: "pread", nth: 1, times: 10 ** 6, delayMs: 5 }] as const;
    await using device = openTestDevice({ faults, lanes: 2 });
    for (const turns of range(12)) {
      const options: OpenOptions = { strategy: "read", batchSize: 10, prefetch: 3, device };
      await using loader = await openLoader(temp(), options);
      const iterator = loader[Symbol.asyncIterator]();
      const first = (await iterator.next()).value!;
      const left = iterator.return!();
      for (let turn = 0; turn < turns; turn++) await Promise.resolve();
      first.release();
      await left;
      expect(idsOf(await take(loader))).toEqual(range(90).map((i) => i + 10));
    }
  });

  test("by return() while next() is on its way", async () => {
    writePlain(temp("a.safetensors"), 50);
    await using loader = await openLoader(temp(), { strategy: "read", batchSize: 10 });
    const iterator = loader[Symbol.asyncIterator]();
    const next = iterator.next();
    await iterator.return!();
    const first = await next.then(
      ({ value }) => value,
      () => undefined,
    );
    const had = first === undefined ? [] : [...first.sampleIds];
    first?.release();
    expect(await iterator.next()).toEqual({ done: true, value: undefined });
    expect([...had, ...idsOf(await take(loader))]).toEqual(range(50));
  });

  test("one loop at a time, one next() at a time", async () => {
    writePlain(temp("a.safetensors"), 50);
    await using loader = await openLoader(temp(), { strategy: "read", batchSize: 10 });
    for await (using _ of loader) {
      await expectCode("BAD_OPTION", () => take(loader), "one loop at a time");
      break;
    }
    const iterator = loader[Symbol.asyncIterator]();
    const first = iterator.next();
    await expectCode("BAD_OPTION", () => iterator.next());
    (await first).value?.release();
  });
});

describe("abort", () => {
  test("between batches ends with CANCELLED, and the state is that of the last one", async () => {
    writePlain(temp("a.safetensors"), 50);
    const controller = new AbortController();
    await using loader = await openLoader(temp(), { batchSize: 10, signal: controller.signal });
    const ids: number[] = [];
    await expectCode("CANCELLED", async () => {
      for await (using batch of loader) {
        ids.push(...batch.sampleIds);
        if (ids.length === 20) controller.abort();
      }
    });
    expect(loader.state().position).toBe(20);
    const rest = await collect(temp(), { batchSize: 10, resume: loader.state() });
    expect([...ids, ...idsOf(rest)]).toEqual(range(50));
    await expectCode("CANCELLED", () => take(loader));
  });

  test("in the middle of a read ends it, long before the disk would", async () => {
    writePlain(temp("a.safetensors"), 50);
    const faults = [{ call: "pread", nth: 5, times: 100, delayMs: 700 }] as const;
    await using device = openTestDevice({ faults, lanes: 1 });
    const controller = new AbortController();
    const options: OpenOptions = { batchSize: 10, strategy: "read", prefetch: 0, device };
    await using loader = await openLoader(temp(), { ...options, signal: controller.signal });
    const ids: number[] = [];
    const started = performance.now();
    setTimeout(() => controller.abort(new Error("enough")), 50);
    await expectCode(
      "CANCELLED",
      async () => {
        for await (using batch of loader) ids.push(...batch.sampleIds);
      },
      "loading was cancelled",
    );
    expect(performance.now() - started).toBeLessThan(600);
    expect(loader.state().position).toBe(ids.length);
  });

  test("before the start", async () => {
    writePlain(temp("a.safetensors"), 50);
    await using loader = await openLoader(temp(), { signal: AbortSignal.abort() });
    await expectCode("CANCELLED", () => take(loader));
  });
});
