/** What the scheduler decides, step by step. */
import { describe, expect, test } from "bun:test";
import { Scheduler } from "../../../src/index.ts";
import { failureOf } from "../failure.ts";
import { FakeEngine } from "./fake-engine.ts";
import { rowOf } from "./rows.ts";
import { add, answer, drive, schedule, shapeOf } from "./schedules.ts";

describe("a step", () => {
  test("decodes first, and prefills with what is left, the oldest first", () => {
    const { scheduler } = schedule();
    add(scheduler, rowOf(0, { promptTokens: 10 }), rowOf(1), rowOf(2, { promptTokens: 20 }), rowOf(3));
    const first = scheduler.plan(0);
    expect(shapeOf(first)).toEqual({ chunks: [[0, 0, 8, false]], slots: [] });
    expect([first.prefillTokens, first.numRunning]).toEqual([8, 1]);
    scheduler.apply(answer(first), 0);
    const second = scheduler.plan(0);
    expect(shapeOf(second)).toEqual({
      chunks: [
        [0, 8, 2, true],
        [1, 0, 3, true],
        [2, 0, 3, false],
      ],
      slots: [],
    });
    scheduler.apply(answer(second), 0);
    expect(shapeOf(scheduler.plan(0))).toEqual({ chunks: [[2, 3, 6, false]], slots: [0, 1] });
    expect([scheduler.numRunning, scheduler.numWaiting]).toEqual([3, 1]);
  });

  test("gives a slot on at once, within the same step as the others' next tokens", () => {
    const { scheduler, released } = schedule({ slots: 2 });
    add(scheduler, rowOf(0, { maxNewTokens: 1 }), rowOf(1), rowOf(2));
    const plan = scheduler.plan(0);
    scheduler.apply(answer(plan), 0);
    expect(released).toEqual([0]);
    expect(scheduler.takeFinished()).toMatchObject([{ row: 0, finish: "length", outputTokens: 1 }]);
    expect(shapeOf(scheduler.plan(0))).toEqual({ chunks: [[0, 0, 3, true]], slots: [1] });
  });

  test("never starves a prompt: one token is left for it at least", () => {
    const { scheduler } = schedule({ slots: 3, tokensPerStep: 3 });
    add(
      scheduler,
      rowOf(0, { promptTokens: 1, maxNewTokens: 50 }),
      rowOf(1, { promptTokens: 1, maxNewTokens: 50 }),
    );
    scheduler.apply(answer(scheduler.plan(0)), 0);
    add(scheduler, rowOf(2, { promptTokens: 4 }));
    for (const position of [0, 1, 2, 3]) {
      const plan = scheduler.plan(0);
      expect(shapeOf(plan)).toEqual({ chunks: [[2, position, 1, position === 3]], slots: [0, 1] });
      scheduler.apply(answer(plan), 0);
    }
    expect(scheduler.plan(0).slots).toEqual([0, 1, 2]);
  });

  test("begins the longest first where that is asked for", () => {
    const { scheduler } = schedule({ tokensPerStep: 40 }, { order: "longest-first" });
    const bounds = [4, 30, 12, 30, 6];
    for (const [row, maxNewTokens] of bounds.entries()) scheduler.add(rowOf(row, { maxNewTokens }));
    expect(scheduler.plan(0).chunks.map(({ request }) => request.row)).toEqual([1, 3, 2]);
  });

  test("of a static batch waits until the whole batch is there, and has ended", () => {
    const { scheduler } = schedule({ slots: 2, tokensPerStep: 4 }, { mode: "static" });
    add(scheduler, rowOf(0, { maxNewTokens: 3 }));
    expect(scheduler.starved).toBe(true);
    expect(shapeOf(scheduler.plan(0))).toEqual({ chunks: [], slots: [] });
    add(scheduler, rowOf(1, { maxNewTokens: 1 }), rowOf(2), rowOf(3), rowOf(4));
    // All of it is admitted, though the tokens do not suffice for its second row.
    const plan = scheduler.plan(0);
    expect(plan.numRunning).toBe(2);
    expect(shapeOf(plan).chunks).toEqual([
      [0, 0, 3, true],
      [1, 0, 1, false],
    ]);
    scheduler.apply(answer(plan), 0);
    expect(scheduler.starved).toBe(false);
    scheduler.apply(answer(scheduler.plan(0)), 0);
    expect(scheduler.takeFinished().map(({ row }) => row)).toEqual([1]);
    const last = scheduler.plan(0);
    expect(shapeOf(last)).toEqual({ chunks: [], slots: [0] });
    scheduler.apply(answer(last), 0);
    expect(scheduler.plan(0).chunks.map(({ request }) => request.row)).toEqual([2, 3]);
    expect(scheduler.numWaiting).toBe(1);
  });

  test("of the last static batch does not wait for more", () => {
    const { scheduler } = schedule({ slots: 2 }, { mode: "static" });
    add(scheduler, rowOf(0));
    expect(scheduler.plan(0).chunks).toHaveLength(0);
    scheduler.end();
    expect(scheduler.plan(0).chunks).toHaveLength(1);
  });
});

describe("memory", () => {
  test("that is exhausted puts the youngest back, whose tokens are prefilled again", async () => {
    const chunks: unknown[] = [];
    const engine = new FakeEngine({
      slots: 2,
      blockTokens: 4,
      numBlocks: 4,
      onStep: (all) => {
        for (const { request, position, tokens, last, generated } of all) {
          chunks.push([request.row, position, tokens.length, last, generated]);
        }
      },
    });
    const scheduler = new Scheduler(engine.capacity, engine);
    add(
      scheduler,
      rowOf(0, { promptTokens: 4, maxNewTokens: 8 }),
      rowOf(1, { promptTokens: 4, maxNewTokens: 8 }),
    );
    await drive(scheduler, engine);
    expect(scheduler.counts.putBacks).toBe(1);
    expect(chunks).toEqual([
      [0, 0, 4, true, 0],
      [1, 0, 4, true, 0],
      // Both filled two blocks of four tokens: five were made, and the last one not stored.
      [1, 0, 9, true, 5],
    ]);
    expect(scheduler.takeFinished().map(({ row, outputTokens }) => [row, outputTokens])).toEqual([
      [0, 8],
      [1, 8],
    ]);
    expect([engine.numHeld, engine.blocksInUse]).toEqual([0, 0]);
    expect(engine.begins.get(1)).toBe(1);
  });

  test("lets none go before one that was put back", async () => {
    const engine = new FakeEngine({ slots: 3, blockTokens: 1, numBlocks: 16 });
    const scheduler = new Scheduler(engine.capacity, engine);
    add(
      scheduler,
      rowOf(0, { promptTokens: 6, maxNewTokens: 10 }),
      rowOf(1, { promptTokens: 6, maxNewTokens: 10 }),
    );
    let added = false;
    for (let step = 0; !scheduler.idle; step++) {
      if (scheduler.counts.putBacks === 1 && !added) {
        // There is memory for it.
        scheduler.add(rowOf(2, { promptTokens: 1, maxNewTokens: 1 }));
        added = true;
      }
      const plan = scheduler.plan(step);
      scheduler.apply(await engine.step!(plan.chunks, plan.slots), step);
    }
    expect(scheduler.counts.putBacks).toBe(1);
    expect(scheduler.takeFinished().map(({ row }) => row)).toEqual([0, 2, 1]);
  });

  test.each([
    [20, 1, "the engine's memory does not hold its first 20 tokens, even alone"],
    [19, 2, "the engine's memory does not hold its first 20 tokens, even alone"],
    [10, 40, "the engine's memory does not hold its first 17 tokens, even alone"],
  ])(
    "that does not hold a prompt of %d and %d more, even alone, is its error",
    async (promptTokens, maxNewTokens, error) => {
      const engine = new FakeEngine({ slots: 2, blockTokens: 4, numBlocks: 4 });
      const scheduler = new Scheduler(engine.capacity, engine);
      add(scheduler, rowOf(0, { promptTokens: 2 }), rowOf(1, { promptTokens, maxNewTokens }), rowOf(2));
      await drive(scheduler, engine);
      const outputs = scheduler.takeFinished();
      expect(outputs.find(({ row }) => row === 1)).toMatchObject({ finish: "error", error, outputTokens: 0 });
      expect(outputs.filter(({ finish }) => finish === "length").map(({ row }) => row)).toEqual([0, 2]);
      expect(scheduler.counts.outputTokens).toBe(8);
    },
  );

  test("that just holds a row is enough", async () => {
    const engine = new FakeEngine({ slots: 2, blockTokens: 4, numBlocks: 4 });
    const scheduler = new Scheduler(engine.capacity, engine);
    add(
      scheduler,
      rowOf(0, { promptTokens: 16, maxNewTokens: 1 }),
      rowOf(1, { promptTokens: 10, maxNewTokens: 7 }),
    );
    await drive(scheduler, engine);
    expect(scheduler.takeFinished().map(({ finish }) => finish)).toEqual(["length", "length"]);
  });
});

describe("an engine", () => {
  test.each([
    ["for a slot that does not run", [{ slot: 1, token: 1 }], "slot 1 has a result, and took no part"],
    ["for no slot", [{ slot: 99, token: 1 }], "slot 99 has a result"],
    ["twice", [{ slot: 0 }, { slot: 0, token: 1 }], "has one already"],
    ["too early", [{ slot: 0, token: 1 }], "slot 0 has a result before its prompt is prefilled"],
  ])("may not give a result %s", (_, results, said) => {
    const { scheduler } = schedule();
    scheduler.add(rowOf(0, { promptTokens: 20 }));
    scheduler.plan(0);
    const error = failureOf(() => scheduler.apply(results, 0));
    expect([error.code, error.message]).toEqual(["BAD_ENGINE", expect.stringContaining(said)]);
  });

  const TOKEN = "for a token; it must be an integer from 0 to 2147483647";
  test.each([
    [{ token: -1 }, `-1 ${TOKEN}`],
    [{ token: 0.5 }, `0.5 ${TOKEN}`],
    [{ token: Number.NaN }, `NaN ${TOKEN}`],
    [{ token: 2 ** 31 }, `2147483648 ${TOKEN}`],
    [{ token: "7" }, `"7" ${TOKEN}`],
    [{ token: 7n }, `7 ${TOKEN}`],
    [{ token: null }, `null ${TOKEN}`],
    [{ token: 1, finish: "done" }, '"done" for its finish; it must be "stop" or "length"'],
    [{ finish: "stop", text: 5 }, "5 for its text; it must be a string"],
    [{ error: new Map() }, "a Map for an error; it must be an object with message and retry"],
  ])("may not give %p", (values, said) => {
    const { scheduler } = schedule();
    scheduler.add(rowOf(0));
    scheduler.plan(0);
    const error = failureOf(() => scheduler.apply([{ slot: 0, ...values } as never], 0));
    expect([error.code, error.message]).toEqual(["BAD_ENGINE", `the engine's slot 0 has ${said}`]);
  });

  test("may give the highest token there is", () => {
    const { scheduler } = schedule();
    scheduler.add(rowOf(0, { maxNewTokens: 1 }));
    scheduler.plan(0);
    scheduler.apply([{ slot: 0, token: 2 ** 31 - 1 }], 0);
    expect([...scheduler.takeFinished()[0]!.tokens]).toEqual([2 ** 31 - 1]);
  });

  test.each([
    [{ slots: 0 }, {}, "the engine's slots is 0"],
    [{ contextLength: 0 }, {}, "the engine's contextLength is 0"],
    [{ tokensPerStep: 2 }, {}, "the engine's tokensPerStep is 2; it must be an integer at least 3"],
    [{}, { slots: 4 }, "slots is 4; it must be an integer from 1 to 3"],
    [{}, { tokensPerStep: 9 }, "tokensPerStep is 9; it must be an integer from 3 to 8"],
    [{}, { slots: 1, tokensPerStep: 0 }, "tokensPerStep is 0"],
    [{}, { maxWaiting: 0 }, "maxWaiting is 0"],
    [{}, { maxRetries: -1 }, "maxRetries is -1"],
    [{}, { retryDelayMs: 1.5 }, "retryDelayMs is 1.5"],
    [{}, { mode: "often" as "static" }, "mode is often; it must be one of continuous, static"],
    [{}, { order: "shortest" as "fifo" }, "order is shortest"],
  ])("of %j is refused with %j", (capacity, options, said) => {
    const error = failureOf(() => schedule(capacity, options));
    expect([error.code, error.message]).toEqual(["BAD_OPTION", expect.stringContaining(said)]);
  });
});
