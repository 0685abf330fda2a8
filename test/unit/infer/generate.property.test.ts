/** Whatever the engine can hold and the rows are: each row has one output, and it is that of the row alone. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import fc from "fast-check";
import type { InferOutput, InferRequest } from "../../../src/index.ts";
import { FakeEngine, tokenOf } from "./fake-engine.ts";
import { outputsOf, rowOf, sourceOf } from "./rows.ts";

setDefaultTimeout(60_000);

const VOCAB = 12;

const rowParts = fc.record({
  promptTokens: fc.integer({ min: 0, max: 30 }),
  maxNewTokens: fc.integer({ min: 0, max: 14 }),
  stopIds: fc.array(fc.nat(VOCAB - 1), { maxLength: 2 }),
  /** The row fails at this many tokens, at each of the first so many tries, and may be tried again. */
  failsAt: fc.option(fc.nat(5), { nil: -1 }),
  failures: fc.nat(3),
  retry: fc.boolean(),
});

const setups = fc
  .record({
    slots: fc.integer({ min: 1, max: 6 }),
    moreTokens: fc.nat(20),
    contextLength: fc.integer({ min: 4, max: 40 }),
    blockTokens: fc.integer({ min: 1, max: 6 }),
    numBlocks: fc.option(fc.integer({ min: 1, max: 30 }), { nil: undefined }),
    together: fc.boolean(),
    mode: fc.constantFrom("continuous" as const, "static" as const),
    order: fc.constantFrom("fifo" as const, "longest-first" as const),
    maxWaiting: fc.option(fc.integer({ min: 1, max: 10 }), { nil: undefined }),
    slow: fc.boolean(),
    rows: fc.array(rowParts, { maxLength: 25 }),
  })
  .map((setup) => ({ ...setup, tokensPerStep: setup.slots + setup.moreTokens }));

type Setup = typeof setups extends fc.Arbitrary<infer T> ? T : never;
type RowParts = Setup["rows"][number];

const MAX_RETRIES = 2;

/** The younger row fails once it has made a token, begins anew as the youngest, and is put back before it makes one. */
const PUT_BACK_IN_A_RETRY: Setup = {
  slots: 2,
  moreTokens: 0,
  tokensPerStep: 2,
  contextLength: 8,
  blockTokens: 2,
  numBlocks: 5,
  together: false,
  mode: "continuous",
  order: "fifo",
  maxWaiting: undefined,
  slow: false,
  rows: [
    { promptTokens: 3, maxNewTokens: 2, stopIds: [], failsAt: 1, failures: 3, retry: true },
    { promptTokens: 4, maxNewTokens: 4, stopIds: [], failsAt: -1, failures: 0, retry: false },
  ],
};

/** What a row's output has to be, worked out without a scheduler; and how many steps its tries may take. */
function expected(row: number, parts: RowParts, setup: Setup) {
  const { promptTokens, maxNewTokens, stopIds, failsAt, failures, retry } = parts;
  const { contextLength, numBlocks, blockTokens } = setup;
  const error = { finish: "error", tokens: [] as number[], steps: 0 };
  if (promptTokens === 0 || promptTokens >= contextLength || maxNewTokens < 1) return error;
  const cells = numBlocks === undefined ? Number.POSITIVE_INFINITY : numBlocks * blockTokens;
  const bound = Math.min(contextLength, promptTokens + maxNewTokens);
  if (Math.min(promptTokens + 1, Math.max(bound - 1, promptTokens)) > cells) return error;
  const tokens: number[] = [];
  let steps = 0;
  let tries = 1;
  for (;;) {
    steps++;
    // The token that comes next is not stored yet.
    if (promptTokens + tokens.length > cells) return { ...error, steps: steps + promptTokens };
    if (tokens.length === failsAt && tries <= failures) {
      steps += promptTokens;
      if (!retry || tries > MAX_RETRIES) return { ...error, steps };
      tries++;
      tokens.length = 0;
      continue;
    }
    const token = tokenOf(row, promptTokens + tokens.length, VOCAB);
    if (stopIds.includes(token)) return { finish: "stop", tokens, steps: steps + promptTokens };
    tokens.push(token);
    if (promptTokens + tokens.length === bound)
      return { finish: "length", tokens, steps: steps + promptTokens };
  }
}

function requestsOf({ rows }: Setup): InferRequest[] {
  return rows.map(({ promptTokens, maxNewTokens, stopIds }, row) =>
    rowOf(row, { promptTokens, maxNewTokens, stopIds }),
  );
}

function engineOf(setup: Setup): FakeEngine {
  const { slots, tokensPerStep, contextLength, blockTokens, numBlocks, together, rows } = setup;
  return new FakeEngine({
    slots,
    tokensPerStep,
    contextLength,
    blockTokens,
    ...(numBlocks !== undefined && { numBlocks }),
    together,
    vocab: VOCAB,
    failure: (row, tokens, attempt) => {
      const { failsAt, failures, retry } = rows[row]!;
      if (tokens !== failsAt || attempt > failures) return undefined;
      return { message: "as it was told", retry, retryAfterMs: 0 };
    },
  });
}

function bare({ row, tokens, finish }: InferOutput) {
  return { row, tokens: [...tokens], finish };
}

describe("a job", () => {
  test("gives each row its own output once, within all limits, in a bounded number of steps", async () => {
    await fc.assert(
      fc.asyncProperty(setups, async (setup) => {
        const { mode, order, maxWaiting, slow } = setup;
        const engine = engineOf(setup);
        const source = sourceOf(requestsOf(setup), slow);
        const options = { mode, order, maxWaiting, maxRetries: MAX_RETRIES };
        const outputs = await outputsOf(source, engine, options);
        const all = setup.rows.map((parts, row) => ({ row, ...expected(row, parts, setup) }));
        expect(outputs.map(bare).sort((a, b) => a.row - b.row)).toEqual(
          all.map(({ row, tokens, finish }) => ({ row, tokens, finish: finish as InferOutput["finish"] })),
        );
        for (const { finish, error, tokens, outputTokens } of outputs) {
          expect(error === undefined).toBe(finish !== "error");
          expect(outputTokens).toBe(tokens.length);
        }
        expect(engine.mostRunning).toBeLessThanOrEqual(setup.slots);
        expect([engine.numHeld, engine.blocksInUse]).toEqual([0, 0]);
        // The oldest sequence gets further at every step. Prefill and decode apart are two calls.
        const most = all.reduce((sum, { steps }) => sum + steps, 0);
        expect(engine.steps).toBeLessThanOrEqual(most * (setup.together ? 1 : 2));
      }),
      { numRuns: 400, examples: [[PUT_BACK_IN_A_RETRY]] },
    );
  });

  test("gives a row among others what it gives the row alone", async () => {
    await fc.assert(
      fc.asyncProperty(setups, async (setup) => {
        const rows = requestsOf(setup);
        const among = await outputsOf(rows, engineOf(setup), { maxRetries: MAX_RETRIES });
        const alone: InferOutput[] = [];
        for (const row of rows) {
          alone.push(...(await outputsOf([row], engineOf(setup), { slots: 1, maxRetries: MAX_RETRIES })));
        }
        expect(among.sort((a, b) => a.row - b.row)).toEqual(alone);
      }),
      { numRuns: 60, examples: [[PUT_BACK_IN_A_RETRY]] },
    );
  });
});
