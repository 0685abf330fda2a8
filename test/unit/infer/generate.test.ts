/** The loop from rows to outputs: when it pulls, waits and yields. */
import { describe, expect, test } from "bun:test";
import {
  type Engine,
  generate,
  type InferRequest,
  type MetricsSnapshot,
  TraceRecorder,
} from "../../../src/index.ts";
import { FakeEngine } from "./fake-engine.ts";
import { counted, outputsOf, rowOf, rows, sourceOf } from "./rows.ts";

describe("rows", () => {
  test("come out in the order in which they end", async () => {
    const lengths = [9, 2, 5, 1];
    const outputs = await outputsOf(
      rows(4, (row) => ({ maxNewTokens: lengths[row]! })),
      new FakeEngine(),
    );
    expect(outputs.map(({ row }) => row)).toEqual([3, 1, 2, 0]);
  });

  test("are pulled only as far as there is room for them", async () => {
    const { source, seen } = counted(200);
    const engine = new FakeEngine({ slots: 2 });
    let taken = 0;
    for await (const _ of generate(source, engine, { maxWaiting: 3, maxFinished: 4 })) {
      taken++;
      // Running, waiting, on their way, and finished: the last step may have ended both that ran.
      expect(seen.pulled - taken).toBeLessThanOrEqual(2 + 3 + 1 + 4 + 1);
      if (taken % 10 === 0) await Bun.sleep(1);
    }
    expect([taken, seen.pulled, seen.returned]).toEqual([200, 200, 1]);
  });

  test("that can never run fill no memory either", async () => {
    let pulled = 0;
    async function* bad(): AsyncGenerator<InferRequest> {
      for (; pulled < 1000; pulled++) yield rowOf(pulled, { maxNewTokens: 0 });
    }
    let taken = 0;
    for await (const { finish } of generate(bad(), new FakeEngine(), { maxWaiting: 5, maxFinished: 5 })) {
      expect(finish).toBe("error");
      taken++;
      expect(pulled - taken).toBeLessThanOrEqual(5 + 5 + 5);
      if (taken % 100 === 0) await Bun.sleep(1);
    }
    expect(taken).toBe(1000);
  });

  test("fill all slots before the first step where they are at hand", async () => {
    const running: number[] = [];
    const engine = new FakeEngine({
      slots: 8,
      tokensPerStep: 100,
      onStep: (chunks, slots) => {
        running.push(chunks.length + slots.length);
      },
    });
    await outputsOf(rows(16), engine);
    expect(new Set(running)).toEqual(new Set([8]));
  });

  test("none at all is no error", async () => {
    expect(await outputsOf([], new FakeEngine())).toEqual([]);
  });

  test("tried again are waited for", async () => {
    const engine = new FakeEngine({
      failure: (row, _, attempt) =>
        row === 1 && attempt < 3 ? { message: "busy", retry: true, retryAfterMs: 30 } : undefined,
    });
    const started = performance.now();
    const outputs = await outputsOf(rows(2), engine);
    expect(outputs.map(({ row, attempts }) => [row, attempts])).toEqual([
      [0, 1],
      [1, 3],
    ]);
    expect(performance.now() - started).toBeGreaterThanOrEqual(59);
  });

  test("are seen to be late while nothing runs", async () => {
    const engine = new FakeEngine({ failure: () => ({ message: "busy", retry: true, retryAfterMs: 1e6 }) });
    const [output] = await outputsOf(
      rows(1, () => ({ timeoutMs: 20 })),
      engine,
    );
    expect(output!.error).toBe("timed out after 20 ms, with 0 tokens made");
  });
});

describe("batching", () => {
  test("keeps slots full where rows come and go, and empties them where the batch is fixed", async () => {
    const lengths = [1, 2, 3, 40];
    const many = () => rows(64, (row) => ({ maxNewTokens: lengths[row % 4]! }));
    const measure = async (mode: "continuous" | "static") => {
      const engine = new FakeEngine({ slots: 4 });
      const running: number[] = [];
      const counting: Engine = {
        capacity: engine.capacity,
        prefill: (chunks) => engine.prefill(chunks),
        decode: (slots) => engine.decode(slots),
        step: (chunks, slots) => {
          running.push(chunks.length + slots.length);
          return engine.step!(chunks, slots);
        },
        release: (slot) => engine.release(slot),
      };
      const outputs = await outputsOf(many(), counting, { mode });
      expect(outputs).toHaveLength(64);
      return { steps: engine.steps, share: running.reduce((sum, one) => sum + one, 0) / running.length / 4 };
    };
    const [continuous, fixed] = [await measure("continuous"), await measure("static")];
    // 16 batches of 40 steps.
    expect(fixed.steps).toBe(16 * 40);
    expect(fixed.share).toBeCloseTo((1 + 2 + 3 + 40) / 160, 6);
    expect(continuous.share).toBeGreaterThan(0.8);
    expect(continuous.steps).toBeLessThan(fixed.steps / 2);
  });

  test("longest first ends the tail sooner", async () => {
    const lengths = [...new Array<number>(30).fill(2), 60];
    const stepsOf = async (order: "fifo" | "longest-first") => {
      const engine = new FakeEngine({ slots: 4 });
      await outputsOf(
        rows(31, (row) => ({ maxNewTokens: lengths[row]! })),
        engine,
        { order, maxWaiting: 31 },
      );
      return engine.steps;
    };
    expect(await stepsOf("fifo")).toBeGreaterThan(70);
    expect(await stepsOf("longest-first")).toBeLessThan(65);
  });
});

describe("the event loop", () => {
  test("turns while an engine never waits", async () => {
    let fired = 0;
    const timer = setInterval(() => fired++, 5);
    const busy = () => {
      const until = performance.now() + 2;
      while (performance.now() < until);
    };
    const started = performance.now();
    await outputsOf(rows(40), new FakeEngine({ onStep: busy }));
    const lasted = performance.now() - started;
    clearInterval(timer);
    expect(lasted).toBeGreaterThan(70);
    expect(fired).toBeGreaterThan(3);
  });

  test("steps go on while outputs are handled", async () => {
    const engine = new FakeEngine({ onStep: () => Bun.sleep(1) });
    let first = true;
    for await (const _ of generate(sourceOf(rows(60)), engine, { maxFinished: 100 })) {
      if (!first) continue;
      first = false;
      const { steps } = engine;
      await Bun.sleep(40);
      expect(engine.steps).toBeGreaterThan(steps + 5);
    }
  });
});

describe("measures", () => {
  test("of a job add up, and go on while it runs", async () => {
    const recent: MetricsSnapshot[] = [];
    const whole: MetricsSnapshot[] = [];
    const engine = new FakeEngine({ onStep: () => Bun.sleep(2) });
    const tooLong = 7;
    const job = generate(
      sourceOf(rows(20, (row) => ({ maxNewTokens: 5, promptTokens: row === tooLong ? 128 : 3 }))),
      engine,
      {
        metricsEveryMs: 10,
        onMetrics: (last, all) => {
          recent.push(last);
          whole.push(all);
        },
      },
    );
    const outputs = await Array.fromAsync(job);
    const final = job.metrics;
    expect(final).toMatchObject({ rows: 20, failedRows: 1, promptTokens: 57, outputTokens: 95 });
    expect(outputs.reduce((sum, { outputTokens }) => sum + outputTokens, 0)).toBe(95);
    expect(final.steps).toBe(engine.steps);
    expect(final.occupancy).toBeGreaterThan(0.8);
    expect(final.occupancy).toBeLessThanOrEqual(1);
    expect(final.dataWaitShare).toBeLessThan(0.2);
    expect(final.stepMs.p50).toBeGreaterThan(1.5);
    expect(final.firstTokenMs.p50).toBeGreaterThan(1.5);
    expect(recent.length).toBeGreaterThan(2);
    for (let i = 0, rowsSoFar = 0; i < recent.length; i++) {
      rowsSoFar += recent[i]!.rows;
      expect(whole[i]!.rows).toBe(rowsSoFar);
    }
    await Bun.sleep(5);
    expect(job.metrics).toEqual(final);
  });

  test("tell waits for data from waits for whoever takes outputs", async () => {
    const slow = counted(5, () => Bun.sleep(10));
    const starved = generate(slow.source, new FakeEngine());
    await Array.fromAsync(starved);
    expect(starved.metrics.dataWaitShare).toBeGreaterThan(0.8);
    expect(starved.metrics.outputWaitShare).toBe(0);
    const held = generate(sourceOf(rows(30)), new FakeEngine(), { maxFinished: 1 });
    for await (const _ of held) await Bun.sleep(2);
    expect(held.metrics.outputWaitShare).toBeGreaterThan(0.6);
    expect(held.metrics.dataWaitShare).toBeLessThan(0.1);
  });

  test("take a wait for a row's next try for none of these", async () => {
    const engine = new FakeEngine({
      failure: (_row, tokens, attempt) =>
        tokens === 1 && attempt < 3 ? { message: "busy", retry: true, retryAfterMs: 20 } : undefined,
    });
    const retried = generate(sourceOf(rows(2)), engine);
    await Array.fromAsync(retried);
    expect(retried.metrics.retries).toBe(4);
    expect(retried.metrics.seconds).toBeGreaterThan(0.035);
    expect(retried.metrics.dataWaitShare).toBeLessThan(0.5);
    expect(retried.metrics.outputWaitShare).toBe(0);
  });

  test("are traced, step by step and wait by wait", async () => {
    const tracer = new TraceRecorder();
    const engine = new FakeEngine();
    await outputsOf(counted(3, () => Bun.sleep(5)).source, engine, { tracer });
    const { traceEvents } = JSON.parse(tracer.toJSON()) as {
      traceEvents: { ph: string; name: string; cat: string; args?: Record<string, number> }[];
    };
    const spans = traceEvents.filter(({ ph }) => ph === "X");
    const steps = spans.filter(({ cat }) => cat === "infer: steps");
    expect(steps.map(({ name }) => name)).toEqual(steps.map((_, i) => `step ${i}`));
    expect(steps).toHaveLength(engine.steps);
    expect(steps[0]!.args).toEqual({ running: 1, prefilled: 3, decoded: 0 });
    const waits = spans.filter(({ cat }) => cat === "infer: waits");
    expect(waits.length).toBeGreaterThanOrEqual(3);
    expect(new Set(waits.map(({ name }) => name))).toEqual(new Set(["wait for data"]));
  });
});
