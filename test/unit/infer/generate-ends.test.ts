/** How jobs end: by failures of any part, by signals, by being left. */
import { describe, expect, test } from "bun:test";
import { type Engine, generate, type InferOutput } from "../../../src/index.ts";
import { failureOf } from "../failure.ts";
import { FakeEngine } from "./fake-engine.ts";
import { codeOf, counted, failureOfJob, outputsOf, rowOf, rows, sourceOf, stuck } from "./rows.ts";

describe("failures", () => {
  test("of the engine come behind all that was finished, and free the slots", async () => {
    const broken = new Error("the device is gone");
    const engine: FakeEngine = new FakeEngine({
      onStep: () => {
        if (engine.steps === 9) throw broken;
      },
    });
    const { source, seen } = counted(40);
    const { error, outputs } = await failureOfJob(source, engine);
    expect(error).toBe(broken);
    expect(outputs.map(({ row }) => row)).toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
    expect([engine.numHeld, seen.returned]).toEqual([0, 1]);
  });

  test("of the engine's manners too, also with what the same step had finished", async () => {
    const engine: Engine = {
      capacity: { slots: 2, contextLength: 20, tokensPerStep: 20 },
      prefill: async (chunks) => [
        ...chunks.map(({ slot }) => ({ slot, token: 1, finish: "stop" as const })),
        { slot: 7, token: 1 },
      ],
      decode: async () => [],
      release: () => {},
    };
    const { error, outputs } = await failureOfJob(sourceOf(rows(2)), engine);
    expect(codeOf(error)).toBe("BAD_ENGINE");
    expect(outputs.map(({ row }) => row)).toEqual([0, 1]);
  });

  test("of the source come behind all rows before it", async () => {
    const broken = new Error("the shard is corrupt");
    const { source } = counted(40, (row) => {
      if (row === 11) throw broken;
    });
    const { error, outputs } = await failureOfJob(source, new FakeEngine());
    expect(error).toBe(broken);
    expect(outputs.map(({ row }) => row).sort((a, b) => a - b)).toEqual([...Array(11).keys()]);
  });

  test("of a row that is none close the source", async () => {
    const seen = { returned: 0 };
    async function* source() {
      try {
        yield rowOf(0);
        yield { ...rowOf(1), row: Number.NaN };
        yield rowOf(2);
      } finally {
        seen.returned++;
      }
    }
    const { error, outputs } = await failureOfJob(source(), new FakeEngine());
    expect([codeOf(error), (error as Error).message]).toEqual([
      "BAD_OPTION",
      expect.stringContaining("row is NaN"),
    ]);
    expect([outputs.length, seen.returned]).toEqual([1, 1]);
  });

  test("of a source that cannot be iterated, or of a callback, end the job", async () => {
    const broken = new Error("no");
    const source = {
      [Symbol.asyncIterator]: () => {
        throw broken;
      },
    };
    expect((await failureOfJob(source, new FakeEngine())).error).toBe(broken);
    const onMetrics = () => {
      throw broken;
    };
    const { error } = await failureOfJob(stuck(1), new FakeEngine(), { onMetrics, metricsEveryMs: 5 });
    expect(error).toBe(broken);
  });

  test("of options are thrown at once", () => {
    for (const options of [{ maxFinished: 0 }, { metricsEveryMs: 0 }, { slots: 99 }]) {
      expect(failureOf(() => generate(sourceOf([]), new FakeEngine(), options)).code).toBe("BAD_OPTION");
    }
  });
});

describe("ends", () => {
  test("at once by a signal, with what was there", async () => {
    const stop = new AbortController();
    const engine: FakeEngine = new FakeEngine({
      onStep: () => {
        if (engine.steps === 9) stop.abort(new Error("enough"));
      },
    });
    const { source, seen } = counted(1000);
    const { error, outputs } = await failureOfJob(source, engine, { signal: stop.signal });
    expect(codeOf(error)).toBe("CANCELLED");
    expect((error as Error).cause).toEqual(new Error("enough"));
    expect(outputs).toHaveLength(8);
    expect([engine.numHeld, engine.steps, seen.returned]).toEqual([0, 10, 1]);
  });

  test.each(["signal", "drain"] as const)("by %s though the source hangs", async (how) => {
    const stop = new AbortController();
    const outputs: InferOutput[] = [];
    let thrown: unknown;
    setTimeout(() => stop.abort(), 30);
    try {
      const job = generate(stuck(3), new FakeEngine(), { [how]: stop.signal });
      for await (const output of job) outputs.push(output);
    } catch (error) {
      thrown = error;
    }
    expect(outputs).toHaveLength(3);
    expect(thrown === undefined ? "nothing" : codeOf(thrown)).toBe(
      how === "signal" ? "CANCELLED" : "nothing",
    );
  });

  test.each(["signal", "drain"] as const)(
    "by %s though it comes at the turn before the wait",
    async (how) => {
      const stop = new AbortController();
      setImmediate(() => stop.abort());
      const ended = outputsOf(stuck(0), new FakeEngine(), { [how]: stop.signal }).then(
        (outputs) => outputs.length,
        (error) => codeOf(error),
      );
      const late = Bun.sleep(2000).then(() => "it hangs");
      expect(await Promise.race([ended, late])).toBe(how === "signal" ? "CANCELLED" : 0);
    },
  );

  test.each(["signal", "drain"] as const)("by %s though nobody takes outputs", async (how) => {
    const stop = new AbortController();
    const engine = new FakeEngine();
    const job = generate(sourceOf(rows(100)), engine, { [how]: stop.signal, maxFinished: 1 });
    const outputs = job[Symbol.asyncIterator]();
    await outputs.next();
    await Bun.sleep(10);
    const { steps } = engine;
    await Bun.sleep(10);
    expect(engine.steps).toBe(steps);
    stop.abort();
    let more = 0;
    const rest = (async () => {
      while (!(await outputs.next()).done) more++;
    })();
    if (how === "signal") await expect(rest).rejects.toThrow("cancelled");
    else await rest;
    expect(more).toBeLessThan(10);
    expect(engine.numHeld).toBe(0);
  });

  test("in good order by drain: what runs is finished, what waits is not begun", async () => {
    const stop = new AbortController();
    const engine: FakeEngine = new FakeEngine({
      slots: 3,
      onStep: () => {
        if (engine.steps === 5) stop.abort();
      },
    });
    const { source, seen } = counted(1000);
    const outputs = await outputsOf(source, engine, { drain: stop.signal });
    expect(outputs.map(({ row, finish }) => [row, finish])).toEqual(
      [0, 1, 2, 3, 4, 5].map((row) => [row, "length"]),
    );
    expect(seen.returned).toBe(1);
    const none = counted(10);
    expect(await outputsOf(none.source, new FakeEngine(), { drain: AbortSignal.abort() })).toEqual([]);
  });

  test("where the loop is left, with all that was held given back", async () => {
    let [made, released] = [0, 0];
    const engine: Engine = {
      capacity: { slots: 4, contextLength: 20, tokensPerStep: 100, promptsOnly: true },
      prefill: async (chunks) =>
        chunks.map(({ slot }) => {
          made++;
          const embedding = {
            buffer: undefined as never,
            byteOffset: 0,
            length: 1,
            release: () => released++,
          };
          return { slot, finish: "stop" as const, embedding };
        }),
      decode: async () => [],
      release: () => {},
    };
    const { source, seen } = counted(100);
    let taken = 0;
    for await (const { embedding } of generate(source, engine, { maxFinished: 8 })) {
      embedding!.release();
      if (++taken === 3) await Bun.sleep(5);
      if (taken === 3) break;
    }
    expect(made).toBeGreaterThan(3);
    expect([released, seen.returned]).toEqual([made, 1]);
  });

  test("before it has begun, and only once", async () => {
    const { source, seen } = counted(3);
    const job = generate(source, new FakeEngine());
    const outputs = job[Symbol.asyncIterator]();
    expect(failureOf(() => job[Symbol.asyncIterator]()).message).toContain("only once");
    expect(await outputs.return!()).toEqual({ done: true, value: undefined });
    expect(await outputs.next()).toEqual({ done: true, value: undefined });
    expect(seen.pulled).toBe(0);
  });

  test("as often as it is asked", async () => {
    const outputs = generate(sourceOf(rows(1)), new FakeEngine())[Symbol.asyncIterator]();
    const first = outputs.next();
    await expect(outputs.next()).rejects.toThrow("before the last call had ended");
    expect((await first).value?.row).toBe(0);
    for (let i = 0; i < 3; i++) expect(await outputs.next()).toEqual({ done: true, value: undefined });
  });
});
