/** What becomes of rows in the scheduler: how they fail, end, are tried again and dropped; by a clock of the tests. */
import { describe, expect, test } from "bun:test";
import { type InferRequest, Scheduler, type SlotResult } from "../../../src/index.ts";
import { failureOf } from "../failure.ts";
import { FakeEngine } from "./fake-engine.ts";
import { rowOf } from "./rows.ts";
import { add, answer, drive, schedule, shapeOf } from "./schedules.ts";

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

  test("look for stop strings in what waited for the rest of a character", () => {
    const texts = [[69, 78], [68, 0xe2], [0x82]];
    const decode = (tokens: Int32Array) =>
      new TextDecoder().decode(Uint8Array.from([...tokens].flatMap((token) => texts[token] ?? [])));
    for (const [stopIds, maxNewTokens] of [
      [[2], 9],
      [[], 2],
    ] as const) {
      const { scheduler } = schedule({}, { decode });
      scheduler.add(rowOf(0, { maxNewTokens, stopIds, stopStrings: ["ND"] }));
      for (const token of [0, 1, 2].slice(0, stopIds.length === 0 ? 2 : 3)) {
        scheduler.plan(0);
        scheduler.apply([{ slot: 0, token }], 0);
      }
      expect(scheduler.takeFinished()).toMatchObject([{ finish: "stop", text: "E", outputTokens: 0 }]);
    }
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
