/** What engines and callers hand over that is not what it should be. */
import { describe, expect, test } from "bun:test";
import {
  type Engine,
  generate,
  HeadraceError,
  type InferOptions,
  infer,
  openDevice,
} from "../../../src/index.ts";
import { failureOf } from "../failure.ts";
import { FakeEngine } from "./fake-engine.ts";
import { failureOfJob, outputsOf, rowOf, rows, sourceOf } from "./rows.ts";

const capacity = { slots: 2, contextLength: 20, tokensPerStep: 20 };

/** What a job of three rows ends with. */
async function endOf(engine: Engine): Promise<string> {
  const { error } = await failureOfJob(sourceOf(rows(3)), engine);
  expect(error).toBeInstanceOf(HeadraceError);
  const { code, message } = error as HeadraceError;
  return `${code}: ${message}`;
}

describe("an engine's results", () => {
  const release = () => {};
  test.each([
    [undefined, "gave undefined; it must give an array of results"],
    [new Map(), "gave a Map; it must give an array of results"],
    [[undefined], "gave undefined as result 0; it must be an object with slot"],
    [[{ slot: 0, token: 1 }, null], "gave null as result 1; it must be an object with slot"],
    [[5], "gave 5 as result 0; it must be an object with slot"],
  ])("may not be %p", async (results, said) => {
    const given = async () => results as never;
    const tokens = async (chunks: Parameters<Engine["prefill"]>[0]) =>
      chunks.map(({ slot }) => ({ slot, token: 1 }));
    expect(await endOf({ capacity, prefill: given, decode: given, release })).toBe(
      `BAD_ENGINE: the engine's prefill for slots 0, 1 ${said}`,
    );
    expect(await endOf({ capacity, prefill: tokens, decode: given, release })).toBe(
      `BAD_ENGINE: the engine's decode for slots 0, 1 ${said}`,
    );
    const engine: Engine = { capacity, prefill: given, decode: given, step: given, release };
    expect(await endOf(engine)).toBe(`BAD_ENGINE: the engine's step for slots 0, 1 ${said}`);
  });

  test.each([[7], ["0"], [undefined], [-1]])("may not be of slot %p, which was not asked", async (slot) => {
    const step = async () => [{ slot, token: 1 } as never];
    const engine: Engine = { capacity, prefill: step, decode: step, step, release };
    const name = typeof slot === "string" ? '"0"' : String(slot);
    const what = "has a result, and took no part in this step or has one already";
    expect(await endOf(engine)).toBe(`BAD_ENGINE: the engine's slot ${name} ${what}`);
  });
});

describe("an engine that gives nothing", () => {
  /** Gives a token from the `from`-th step on, at every `every`-th. */
  function lazy(from: number, every = 1, more: Partial<Engine["capacity"]> = {}) {
    let steps = 0;
    const engine: Engine = {
      capacity: { ...capacity, ...more },
      prefill: async () => [],
      decode: async () => [],
      step: async (chunks, slots) => {
        steps++;
        if (steps < from || steps % every !== 0) return [];
        return [...chunks.map(({ slot }) => slot), ...slots].map((slot) => ({ slot, token: 1 }));
      },
      release: () => {},
    };
    return { engine, steps: () => steps };
  }

  test("for any slot fails after 1,000 steps", async () => {
    const { engine, steps } = lazy(Number.POSITIVE_INFINITY);
    expect(await endOf(engine)).toBe(
      "BAD_ENGINE: the engine gave nothing in 1000 steps in a row, the last of which asked for a token in " +
        "slots 0, 1; one that waits for others says so by capacity.waits",
    );
    expect(steps()).toBe(1000);
  });

  test("for less long goes on, and so does one that waits", async () => {
    for (const { engine } of [
      lazy(1000),
      lazy(1, 700),
      lazy(1500, 1, { waits: true }),
      lazy(1500, 1, { takesText: true }),
    ]) {
      const outputs = await outputsOf(rows(2), engine);
      expect(outputs.map(({ tokens }) => [...tokens])).toEqual([
        [1, 1, 1, 1],
        [1, 1, 1, 1],
      ]);
    }
    expect(await endOf(lazy(1500, 1, { takesText: true, waits: false }).engine)).toContain("1000 steps");
  });

  test("while a long prompt is prefilled has nothing to give", async () => {
    const prompt = { promptTokens: 3000, maxNewTokens: 1 };
    const engine = new FakeEngine({ slots: 1, contextLength: 4000, tokensPerStep: 1 });
    expect((await outputsOf([rowOf(0, prompt)], engine))[0]!.finish).toBe("length");
  });
});

describe("requests", () => {
  test("may be an array, a set, a generator", async () => {
    function* generator() {
      yield* rows(3);
    }
    for (const source of [rows(3), new Set(rows(3)), generator()]) {
      const outputs = await Array.fromAsync(generate(source, new FakeEngine()));
      expect(outputs.map(({ row }) => row).sort()).toEqual([0, 1, 2]);
    }
  });

  test("of a generator that is left early are closed", async () => {
    let returned = 0;
    function* generator() {
      try {
        for (let row = 0; ; row++) yield rowOf(row);
      } finally {
        returned++;
      }
    }
    for await (const { row } of generate(generator(), new FakeEngine())) if (row >= 3) break;
    expect(returned).toBe(1);
  });

  test.each([
    [undefined, "undefined"],
    [null, "null"],
    [5, "5"],
    ["rows", '"rows"'],
    [{}, "an object"],
    [() => rows(1), "a function"],
  ])("may not be %p", (requests, name) => {
    const error = failureOf(() => generate(requests as never, new FakeEngine()));
    expect([error.code, error.message]).toEqual([
      "BAD_OPTION",
      `requests is ${name}; it must be an iterable of requests, such as an array or an async generator`,
    ]);
  });

  const PROMPT = "it must be an Int32Array of token ids";
  test.each([
    [null, "a request is null; it must be an object with row, prompt and maxNewTokens"],
    [undefined, "a request is undefined; it must be an object with row, prompt and maxNewTokens"],
    [{}, "a request's row is undefined; it must be an integer at least 0"],
    [{ row: 4, prompt: [1, 2], maxNewTokens: 1 }, `row 4: prompt is an array of 2; ${PROMPT}`],
    [{ row: 4, prompt: "hello", maxNewTokens: 1 }, `row 4: prompt is "hello"; ${PROMPT}`],
    [{ row: 4, prompt: new Uint32Array(2) }, `row 4: prompt is a Uint32Array; ${PROMPT}`],
    [{ row: 4, maxNewTokens: 1 }, `row 4: prompt is undefined; ${PROMPT}`],
  ])("may not hold %p", async (request, said) => {
    const { error, outputs } = await failureOfJob(
      sourceOf([rowOf(0), request as never, rowOf(2)]),
      new FakeEngine(),
    );
    const { code, message } = error as HeadraceError;
    expect([code, message, outputs.length]).toEqual(["BAD_OPTION", said, 1]);
  });

  test.each([
    [undefined, "the engine is undefined; it must be an Engine"],
    [{}, "the engine's prefill is undefined; it must be a function"],
    [{ prefill() {}, decode() {}, release: 1 }, "the engine's release is 1; it must be a function"],
    [{ prefill() {}, decode() {}, release() {} }, "the engine's capacity is undefined; it must be an object"],
  ])("do not go to %p", (engine, said) => {
    const error = failureOf(() => generate([], engine as never));
    expect([error.code, error.message]).toEqual(["BAD_OPTION", expect.stringContaining(said)]);
  });
});

describe("options of a job", () => {
  const device = openDevice("null");
  const whole = { source: "data", out: "out", device, model: "model" };
  const embed = { ...whole, engine: "embed" };
  const tokens = "engine embed makes no tokens, so";
  test.each([
    [undefined, "options is undefined"],
    [{}, "source is undefined; it must be a path, or a list of them"],
    [{ ...whole, source: [] }, "source is an array of 0"],
    [{ ...whole, source: ["a", 5] }, "source is an array of 2"],
    [{ source: "data", device }, "out is undefined; it must be the path of a folder"],
    [{ source: "data", out: "out" }, "device is undefined; it must be what openDevice gives"],
    [{ ...whole, device: "host" }, 'device is "host"; it must be what openDevice gives'],
    [{ ...whole, engine: {} }, "the engine is undefined; it must be an Engine"],
    [{ ...whole, engine: 5 }, "engine is 5; it must be a name or { engine, name }"],
    [{ ...whole, engine: { engine: {} } }, "the engine's prefill is undefined; it must be a function"],
    [{ ...whole, engine: { engine: new FakeEngine() } }, "the engine's name is undefined; it must be a text"],
    [{ ...whole, maxTokens: 5 }, "there is no option maxTokens"],
    [{ ...whole, topp: 1 }, 'there is no option topp; did you mean "topP"'],
    [{ ...embed, stop: ["."] }, `${tokens} stop means nothing to it`],
    [{ ...embed, stopIds: [5] }, `${tokens} stopIds means nothing to it`],
    [{ ...embed, temperature: 0.5 }, `${tokens} temperature means nothing to it`],
    [{ ...embed, seed: 1 }, `${tokens} seed means nothing to it`],
    [{ ...embed, logprobs: true }, `${tokens} there are no logprobs of them`],
  ])("may not be %#", async (options, said) => {
    const error = await infer(options as unknown as InferOptions).then(
      () => undefined,
      (thrown: unknown) => thrown,
    );
    expect(error).toBeInstanceOf(HeadraceError);
    const { code, message } = error as HeadraceError;
    expect([code, message]).toEqual(["BAD_OPTION", expect.stringContaining(said)]);
  });
});
