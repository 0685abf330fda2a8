/** What the scheduler decides, step by step, against a clock of the tests. */
import { describe, expect, test } from "bun:test";
import {
  type Engine,
  type EngineCapacity,
  type InferRequest,
  Scheduler,
  type SchedulerOptions,
  type SlotResult,
  type StepPlan,
} from "../../../src/index.ts";
import { failureOf } from "../failure.ts";
import { FakeEngine } from "./fake-engine.ts";
import { rowOf } from "./rows.ts";

/** A scheduler over memory without end. */
function schedule(capacity: Partial<EngineCapacity> = {}, options: SchedulerOptions = {}) {
  const released: number[] = [];
  const all = { slots: 3, contextLength: 64, tokensPerStep: 8, ...capacity };
  const scheduler = new Scheduler(all, { release: (slot) => released.push(slot) }, options);
  return { scheduler, released };
}

/** What a plan does, in short: `[slot, position, tokens, last]` of each chunk, and the slots that decode. */
function shapeOf({ chunks, slots }: StepPlan) {
  return {
    chunks: chunks.map(({ slot, position, tokens, last }) => [slot, position, tokens.length, last]),
    slots,
  };
}

/** Token 9 for every slot that is due one. */
function answer({ chunks, slots }: StepPlan): SlotResult[] {
  const due = [...chunks.filter(({ last }) => last).map(({ slot }) => slot), ...slots];
  return due.map((slot) => ({ slot, token: 9 }));
}

/** Plans and applies steps until nothing is left; the rows that run in each. */
async function drive(scheduler: Scheduler, engine: Engine): Promise<void> {
  for (let step = 0; step < 1000; step++) {
    const plan = scheduler.plan(step);
    if (plan.chunks.length + plan.slots.length === 0) return;
    scheduler.apply(await engine.step!(plan.chunks, plan.slots), step);
  }
  throw new Error("there is no end");
}

function add(scheduler: Scheduler, ...rows: InferRequest[]): void {
  for (const row of rows) scheduler.add(row);
}

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
    expect(engine.attempts.get(1)).toBe(1);
  });

  test("lets none in behind one that was put back until a sequence ends", async () => {
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

describe("rows that cannot run", () => {
  const cases: [string, Partial<InferRequest>, string][] = [
    ["no prompt", { prompt: new Int32Array(0) }, "the prompt is empty"],
    ["text alone", { prompt: new Int32Array(0), text: "a" }, "the prompt is empty"],
    ["a full context", { prompt: new Int32Array(64) }, "has 64 tokens, and the context of 64 leaves no room"],
    ["no tokens", { maxNewTokens: 0 }, "maxNewTokens is 0"],
    ["half a token", { maxNewTokens: 1.5 }, "maxNewTokens is 1.5"],
    ["no time", { timeoutMs: 0 }, "timeoutMs is 0"],
    ["a stop string without text", { stopStrings: ["a", ""] }, "one of the stop strings is empty"],
    ["temperature", { sampling: { temperature: Number.NaN } }, "temperature is NaN"],
    ["topK", { sampling: { topK: -1 } }, "topK is -1"],
    ["topP", { sampling: { topP: 0 } }, "topP is 0"],
    ["minP", { sampling: { minP: 1.1 } }, "minP is 1.1"],
    ["penalty", { sampling: { repetitionPenalty: 0 } }, "repetitionPenalty is 0"],
    ["seed", { sampling: { seed: 2 ** 53 } }, "seed is 9007199254740992"],
  ];
  test.each(cases)("%s", (_, parts, said) => {
    const { scheduler } = schedule({}, { decode: () => "" });
    scheduler.add(rowOf(5, parts));
    const [output] = scheduler.takeFinished();
    expect(output).toMatchObject({ row: 5, finish: "error", outputTokens: 0, attempts: 0 });
    expect(output!.error).toContain(said);
    expect(scheduler.idle).toBe(true);
    expect(scheduler.plan(0).chunks).toHaveLength(0);
  });

  test("may run in another engine", () => {
    const text = schedule({ takesText: true }).scheduler;
    text.add(rowOf(0, { prompt: new Int32Array(0), text: "a", stopStrings: ["b"] }));
    expect(shapeOf(text.plan(0)).chunks).toEqual([[0, 0, 0, true]]);
    const embed = schedule({ promptsOnly: true, contextLength: 8 }).scheduler;
    add(
      embed,
      rowOf(0, { promptTokens: 8, maxNewTokens: 0 }),
      rowOf(1, { promptTokens: 9, maxNewTokens: 0 }),
    );
    expect(embed.takeFinished()).toMatchObject([
      { row: 1, error: "the prompt has 9 tokens, more than the context of 8" },
    ]);
    expect(shapeOf(embed.plan(0)).chunks).toEqual([[0, 0, 8, true]]);
    embed.apply([{ slot: 0, finish: "stop" }], 0);
    expect(embed.takeFinished()).toMatchObject([
      { row: 0, finish: "stop", promptTokens: 8, outputTokens: 0 },
    ]);
  });

  test("are the caller's mistake where nothing could be said in an output", () => {
    const { scheduler } = schedule();
    expect(failureOf(() => scheduler.add(rowOf(-1))).message).toContain("row is -1");
    const stops = failureOf(() => scheduler.add(rowOf(0, { stopStrings: ["a"] })));
    expect([stops.code, stops.message]).toEqual([
      "BAD_OPTION",
      "row 0 has stop strings, and there is no decode to look for them with",
    ]);
    scheduler.end();
    expect(failureOf(() => scheduler.add(rowOf(0))).message).toBe("row 0 was added after the end");
  });
});

describe("ends of rows", () => {
  test("come by stop ids, bounds and the context", async () => {
    const engine = new FakeEngine({ slots: 3, contextLength: 10 });
    const alone = new Scheduler(engine.capacity, engine, { slots: 1 });
    const request = rowOf(0, { promptTokens: 4, maxNewTokens: 50 });
    alone.add(request);
    await drive(alone, engine);
    const [whole] = alone.takeFinished();
    expect(whole).toMatchObject({ finish: "length", outputTokens: 6, promptTokens: 4 });
    const stopIds = [whole!.tokens[3]!];
    const first = whole!.tokens.indexOf(stopIds[0]!);
    alone.add({ ...request, stopIds });
    await drive(alone, engine);
    const [stopped] = alone.takeFinished();
    expect(stopped).toMatchObject({ finish: "stop", outputTokens: first });
    expect(stopped!.tokens).toEqual(whole!.tokens.slice(0, first));
  });

  test("have text, logarithms of their tokens alone, and a cut before stop strings", async () => {
    const engine = new FakeEngine({ vocab: 26 });
    const decode = (tokens: Int32Array) => String.fromCharCode(...tokens.map((token) => 97 + token));
    const scheduler = new Scheduler(engine.capacity, engine, { decode });
    scheduler.add(rowOf(0, { maxNewTokens: 20, logprobs: true }));
    await drive(scheduler, engine);
    const [whole] = scheduler.takeFinished();
    expect(whole!.text).toBe(decode(whole!.tokens));
    expect([...whole!.logprobs!]).toEqual([...whole!.tokens].map((token) => -token));
    const stop = whole!.text!.slice(7, 9);
    const at = whole!.text!.indexOf(stop);
    scheduler.add(rowOf(0, { maxNewTokens: 20, logprobs: true, stopStrings: [stop, "?"] }));
    await drive(scheduler, engine);
    const [cut] = scheduler.takeFinished();
    expect(cut).toMatchObject({ finish: "stop", text: whole!.text!.slice(0, at), outputTokens: at });
    expect([cut!.tokens.length, cut!.logprobs!.length]).toEqual([at, at]);
    expect(scheduler.counts.outputTokens).toBe(20 + at);
  });

  test("are theirs where an engine ends sequences itself", () => {
    const { scheduler } = schedule({ takesText: true });
    add(scheduler, rowOf(0), rowOf(1));
    scheduler.plan(0);
    const usage = { promptTokens: 11, outputTokens: 5 };
    scheduler.apply([{ slot: 0, finish: "length", text: "abc", usage }, { slot: 1 }], 0);
    expect(scheduler.takeFinished()).toMatchObject([
      { row: 0, finish: "length", text: "abc", promptTokens: 11, outputTokens: 5 },
    ]);
    expect(scheduler.counts).toMatchObject({ promptTokens: 11, outputTokens: 5 });
    expect(scheduler.plan(0).slots).toEqual([1]);
  });

  test("come in time where they are cancelled or late", () => {
    const { scheduler, released } = schedule({ slots: 2, tokensPerStep: 2 });
    const [running, waiting] = [new AbortController(), new AbortController()];
    add(
      scheduler,
      rowOf(0, { promptTokens: 9, signal: running.signal }),
      rowOf(1, { promptTokens: 9, timeoutMs: 100 }),
      rowOf(2, { signal: waiting.signal, timeoutMs: 5 }),
    );
    const plan = scheduler.plan(1000);
    expect(plan.numRunning).toBe(1);
    scheduler.apply(answer(plan), 1000);
    waiting.abort();
    running.abort();
    expect(shapeOf(scheduler.plan(1010)).chunks).toEqual([[0, 0, 2, false]]);
    expect(scheduler.takeFinished().map(({ row, error, attempts }) => [row, error, attempts])).toEqual([
      [0, "cancelled by its signal", 1],
      [2, "cancelled by its signal", 0],
    ]);
    expect(released).toEqual([0]);
    // Its time began with its admission.
    scheduler.plan(1109);
    expect(scheduler.takeFinished()).toEqual([]);
    scheduler.plan(1110);
    expect(scheduler.takeFinished()).toMatchObject([
      { row: 1, error: "timed out after 100 ms, with 0 tokens made" },
    ]);
    expect(scheduler.idle).toBe(true);
  });

  test("tell the time to the first token, from admission", () => {
    const { scheduler } = schedule({ slots: 1 });
    add(scheduler, rowOf(0, { promptTokens: 10, maxNewTokens: 2 }), rowOf(1, { maxNewTokens: 1 }));
    expect(scheduler.apply(answer(scheduler.plan(0)), 5).firstTokenMs).toEqual([]);
    expect(scheduler.apply(answer(scheduler.plan(5)), 12).firstTokenMs).toEqual([12]);
    expect(scheduler.apply(answer(scheduler.plan(12)), 15).firstTokenMs).toEqual([]);
    expect(scheduler.apply(answer(scheduler.plan(15)), 18).firstTokenMs).toEqual([3]);
  });
});

describe("tries", () => {
  const busy = { message: "busy", retry: true };
  const fail = (scheduler: Scheduler, nowMs: number, error: SlotResult["error"]) => {
    scheduler.plan(nowMs);
    scheduler.apply([{ slot: 0, error }], nowMs);
  };

  test("come again, later each time, and not for ever", () => {
    const { scheduler, released } = schedule({}, { maxRetries: 2, retryDelayMs: 100 });
    scheduler.add(rowOf(0));
    fail(scheduler, 0, busy);
    expect([scheduler.nextWakeMs, scheduler.numWaiting, scheduler.numRunning]).toEqual([100, 1, 0]);
    expect(scheduler.plan(99).chunks).toHaveLength(0);
    fail(scheduler, 100, busy);
    expect(scheduler.nextWakeMs).toBe(300);
    fail(scheduler, 300, busy);
    expect(scheduler.takeFinished()).toMatchObject([
      { row: 0, error: "busy (after 3 attempts)", attempts: 3 },
    ]);
    expect([scheduler.counts.retries, released]).toEqual([2, [0, 0, 0]]);
  });

  test("wait as long as the engine says, and others run meanwhile", () => {
    const { scheduler } = schedule({ slots: 1 });
    add(scheduler, rowOf(0), rowOf(1, { maxNewTokens: 1 }));
    fail(scheduler, 0, { ...busy, retryAfterMs: 1234 });
    expect(scheduler.nextWakeMs).toBe(1234);
    scheduler.apply(answer(scheduler.plan(0)), 0);
    expect(scheduler.takeFinished()).toMatchObject([{ row: 1, attempts: 1 }]);
    expect(scheduler.plan(1234).chunks).toHaveLength(1);
  });

  test("begin anew: nothing of the one before is left", async () => {
    const engine = new FakeEngine({
      failure: (_, tokens, attempt) =>
        attempt < 3 && tokens === 3 ? { ...busy, retryAfterMs: 0 } : undefined,
    });
    const scheduler = new Scheduler(engine.capacity, engine);
    scheduler.add(rowOf(7, { maxNewTokens: 6, logprobs: true }));
    await drive(scheduler, engine);
    const [output] = scheduler.takeFinished();
    expect(output).toMatchObject({ finish: "length", outputTokens: 6, attempts: 3 });
    expect([...output!.logprobs!]).toEqual([...output!.tokens].map((token) => -token));
    expect(scheduler.counts).toMatchObject({ outputTokens: 6, retries: 2 });
  });

  test("are not made of what cannot be helped, and end with the row's time", () => {
    const { scheduler } = schedule();
    add(scheduler, rowOf(0), rowOf(1, { timeoutMs: 50 }));
    scheduler.plan(0);
    scheduler.apply(
      [
        { slot: 0, error: { message: "never", retry: false } },
        { slot: 1, error: busy },
      ],
      0,
    );
    expect(scheduler.takeFinished()).toMatchObject([{ row: 0, error: "never", attempts: 1 }]);
    scheduler.plan(60);
    expect(scheduler.takeFinished()).toMatchObject([
      { row: 1, error: "timed out after 50 ms, with 0 tokens made", attempts: 1 },
    ]);
  });
});

describe("an end", () => {
  test("in good order finishes what runs, and drops what has not begun", async () => {
    const engine = new FakeEngine({ slots: 2, blockTokens: 4, numBlocks: 4 });
    const scheduler = new Scheduler(engine.capacity, engine);
    for (let row = 0; row < 6; row++) scheduler.add(rowOf(row, { promptTokens: 4, maxNewTokens: 8 }));
    for (let step = 0; scheduler.counts.putBacks === 0; step++) {
      const plan = scheduler.plan(step);
      scheduler.apply(await engine.step!(plan.chunks, plan.slots), step);
    }
    expect(scheduler.numRunning).toBe(1);
    scheduler.drain();
    expect([scheduler.numWaiting, scheduler.room]).toEqual([1, 0]);
    await drive(scheduler, engine);
    expect(scheduler.takeFinished().map(({ row }) => row)).toEqual([0, 1]);
    expect(scheduler.idle).toBe(true);
  });

  test("at once frees every slot", () => {
    const { scheduler, released } = schedule({ tokensPerStep: 64 });
    for (let row = 0; row < 6; row++) scheduler.add(rowOf(row));
    scheduler.plan(0);
    scheduler.abort();
    expect(released.sort()).toEqual([0, 1, 2]);
    expect([scheduler.idle, scheduler.takeFinished()]).toEqual([true, []]);
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

  test.each([[-1], [0.5], [Number.NaN]])("may not give %p for a token", (token) => {
    const { scheduler } = schedule();
    scheduler.add(rowOf(0));
    scheduler.plan(0);
    const error = failureOf(() => scheduler.apply([{ slot: 0, token }], 0));
    expect([error.code, error.message]).toEqual([
      "BAD_ENGINE",
      `the engine's slot 0 has ${token} for a token`,
    ]);
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
