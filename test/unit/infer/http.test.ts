/** The engine over inference servers, against one that misbehaves. */
import { describe, expect, test } from "bun:test";
import { openHttpEngine } from "../../../src/index.ts";
import { serverSeed } from "../../../src/infer/http/body.ts";
import { retryAfterMs } from "../../../src/infer/http/wire.ts";
import { KEY, one, openOn, textRow } from "./http-jobs.ts";
import { codeOf, outputsOf, rowOf } from "./rows.ts";
import { completion, rawServer, silence, TestServer } from "./server.ts";

describe("requests", () => {
  test("each row is asked for once, and comes back as its own", async () => {
    await using server = new TestServer(async ({ body }) => {
      await Bun.sleep(Math.random() * 10);
      return completion(`answer to ${body.prompt}`);
    });
    const engine = await openOn(server);
    const rows = Array.from({ length: 50 }, (_, row) => textRow(row));
    const outputs = await outputsOf(rows, engine);
    expect(outputs.map(({ row }) => row).sort((a, b) => a - b)).toEqual(rows.map(({ row }) => row));
    for (const output of outputs) {
      expect(output).toMatchObject({
        text: `answer to prompt ${output.row}`,
        finish: "stop",
        promptTokens: 7,
        outputTokens: 2,
        attempts: 1,
      });
      expect(output.tokens).toHaveLength(0);
    }
    expect(server.asked).toHaveLength(50);
    expect(server.mostInFlight).toBeLessThanOrEqual(4);
    expect(server.mostInFlight).toBeGreaterThan(1);
  });

  test("hold what was asked for, and nothing that changes nothing", async () => {
    const { asked } = await one(() => completion("a"));
    expect(asked[0]!.path).toBe("/v1/completions");
    expect(asked[0]!.body).toEqual({
      model: "m",
      prompt: "prompt 0",
      max_tokens: 8,
      stream: false,
      temperature: 0,
    });
    expect(asked[0]!.headers.get("content-type")).toBe("application/json");
    expect(asked[0]!.headers.get("authorization")).toBeNull();
  });

  test("hold every option of sampling", async () => {
    const sampling = {
      temperature: 0.5,
      topK: 40,
      topP: 0.9,
      minP: 0.1,
      repetitionPenalty: 1.25,
      seed: 11,
    };
    const parts = { sampling, stopStrings: ["END", "\n"], stopIds: [2], logprobs: true };
    const { asked } = await one(() => completion("a"), parts);
    expect(asked[0]!.body).toEqual({
      model: "m",
      prompt: "prompt 0",
      max_tokens: 8,
      stream: false,
      temperature: 0.5,
      top_k: 40,
      top_p: 0.9,
      min_p: 0.1,
      repetition_penalty: 1.25,
      repeat_penalty: 1.25,
      seed: serverSeed(11, 0),
      stop: ["END", "\n"],
      stop_token_ids: [2],
      logprobs: 1,
    });
  });

  test("of rows without text hold token ids", async () => {
    const { asked } = await one(() => completion("a"), { text: undefined, prompt: Int32Array.of(5, 6, 7) });
    expect(asked[0]!.body.prompt).toEqual([5, 6, 7]);
  });

  test("of chats hold messages", async () => {
    const chat = () =>
      Response.json({
        choices: [
          {
            message: { role: "assistant", content: "hello" },
            finish_reason: "length",
            logprobs: {
              content: [
                { token: "he", logprob: -0.5 },
                { token: "llo", logprob: -0.25 },
              ],
            },
          },
        ],
      });
    const { asked, output } = await one(chat, { logprobs: true }, { mode: "chat", system: "Be kind." });
    expect(asked[0]!.path).toBe("/v1/chat/completions");
    expect(asked[0]!.body).toMatchObject({
      messages: [
        { role: "system", content: "Be kind." },
        { role: "user", content: "prompt 0" },
      ],
      logprobs: true,
    });
    expect(output).toMatchObject({ text: "hello", finish: "length", outputTokens: 2 });
    expect([...output.logprobs!]).toEqual([-0.5, -0.25]);
    const tokens = { text: undefined, prompt: Int32Array.of(5) };
    const refused = await one(chat, tokens, { mode: "chat" });
    expect(refused.output.error).toContain("chat takes text");
    expect(refused.asked).toHaveLength(0);
  });

  test("go where url leads, with its query, key and headers", async () => {
    const options = { apiKey: KEY, headers: { "X-Team": "blue" } };
    for (const [suffix, path] of [
      ["", "/v1/completions"],
      ["/", "/v1/completions"],
      ["/v1/", "/v1/completions"],
      ["/api/openai?version=2", "/api/openai/completions?version=2"],
    ] as const) {
      await using server = new TestServer(() => completion("a"));
      const engine = await openOn(server, { ...options, url: server.url + suffix });
      await outputsOf([textRow(0)], engine);
      expect(server.asked[0]!.path).toBe(path);
      expect(server.asked[0]!.headers.get("authorization")).toBe(`Bearer ${KEY}`);
      expect(server.asked[0]!.headers.get("x-team")).toBe("blue");
    }
  });

  test("have a seed of the row's own", () => {
    const seeds = new Set<number>();
    for (let seed = 0; seed < 20; seed++) {
      for (let row = 0; row < 200; row++) {
        const own = serverSeed(seed, row);
        expect(Number.isInteger(own) && own >= 0 && own < 2 ** 31).toBe(true);
        seeds.add(own);
      }
    }
    expect(seeds.size).toBeGreaterThan(3995);
    expect(serverSeed(3, 2 ** 53 - 1)).toBe(serverSeed(3, 2 ** 53 - 1));
  });
});

describe("answers", () => {
  test.each([
    ["stop", "stop"],
    ["length", "length"],
    ["eos_token", "stop"],
  ] as const)("that end with %s", async (reason, finish) => {
    const { output } = await one(() => completion("a", { finish_reason: reason }));
    expect(output.finish).toBe(finish);
  });

  test("are cut before a stop text that the server left in", async () => {
    const { output } = await one(() => completion("one END two", { finish_reason: "length" }), {
      stopStrings: ["END"],
    });
    expect(output).toMatchObject({ text: "one ", finish: "stop" });
  });

  test("have logarithms only where they were asked for", async () => {
    const answer = () =>
      completion("a", { logprobs: { token_logprobs: [-1, null] } }, { completion_tokens: null });
    const { output } = await one(answer, { logprobs: true });
    expect([...output.logprobs!]).toEqual([-1, Number.NaN]);
    expect(output.outputTokens).toBe(2);
    expect((await one(answer)).output.logprobs).toBeUndefined();
    expect((await one(() => completion("a"), { logprobs: true })).output.logprobs).toBeUndefined();
  });

  test.each([
    ["an empty object", {}, "choices"],
    ["no choices", { choices: [] }, "choices"],
    ["a choice of no kind", { choices: [{ finish_reason: "stop" }] }, "neither choices.0.text"],
    ["a text that is a number", { choices: [{ text: 1, finish_reason: "stop" }] }, "choices.0.text"],
    ["no end", { choices: [{ text: "a", finish_reason: null }] }, "no choices.0.finish_reason"],
    ["another end", { choices: [{ text: "a", finish_reason: "content_filter" }] }, "content_filter"],
    ["an error", { error: { message: "out of\nmemory" } }, "answered with an error: out of memory"],
    ["a list", [1], "choices"],
    ["nothing", null, "the answer is none"],
  ])("that hold %s are the row's error, at once", async (_, body, said) => {
    const { output, asked } = await one(() => Response.json(body));
    expect(output.finish).toBe("error");
    expect(output.error).toContain(said);
    expect(output.error).not.toContain("\n");
    expect(asked).toHaveLength(1);
  });

  test("that are no JSON are asked for again", async () => {
    const { output, asked } = await one((_, index) =>
      index === 0 ? new Response("<html>busy</html>") : completion("a"),
    );
    expect(output).toMatchObject({ finish: "stop", text: "a" });
    expect(asked).toHaveLength(2);
    const never = await one(() => new Response("<html>busy</html>"));
    expect(never.output.error).toBe("the answer is no JSON: <html>busy</html> (after 3 tries)");
  });

  test.each([
    ["cut off", 'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"choices": ['],
    ["no HTTP", "what?\r\n\r\n"],
    ["nothing", ""],
  ])("that are %s are asked for again", async (_, first) => {
    using server = rawServer(first);
    const engine = await openHttpEngine({ url: server.url, model: "m", retries: 1, backoffMs: 1 });
    expect(await outputsOf([textRow(0)], engine)).toMatchObject([{ finish: "stop", text: "a" }]);
  });

  test("that never end are asked for again", async () => {
    const hanging = () =>
      new Response(
        new ReadableStream({
          start: (controller) => controller.enqueue(new TextEncoder().encode('{"choices": [')),
          pull: () => new Promise<void>(() => {}),
        }),
      );
    const late = await one(hanging, {}, { timeoutMs: 60, retries: 1 });
    expect(late.output.error).toBe("no answer within 60 ms (after 2 tries)");
  });

  test("that are too long are not kept", async () => {
    const chunk = new Uint8Array(8 * 2 ** 20).fill(32);
    const endless = () =>
      new Response(new ReadableStream({ pull: (controller) => controller.enqueue(chunk) }));
    const { output } = await one(endless);
    expect(output.error).toBe(`the answer is longer than ${64 * 2 ** 20} bytes`);
  });
});

describe("opening", () => {
  const list = (...ids: string[]) => Response.json({ data: ids.map((id) => ({ id })) });

  test("takes the only model that there is", async () => {
    await using server = new TestServer(({ path }) =>
      path.endsWith("models") ? list("tiny") : completion("a"),
    );
    const engine = await openOn(server, { model: undefined, apiKey: KEY });
    expect(engine.model).toBe("tiny");
    await outputsOf([rowOf(0)], engine);
    expect(server.asked.map(({ path }) => path)).toEqual(["/v1/models", "/v1/completions"]);
    expect(server.asked[0]!.headers.get("authorization")).toBe(`Bearer ${KEY}`);
    expect(server.asked[1]!.body.model).toBe("tiny");
  });

  test("asks which where there are several", async () => {
    await using server = new TestServer(() => list("a", "b"));
    const error = await openOn(server, { model: undefined }).catch((thrown) => thrown);
    expect(codeOf(error)).toBe("BAD_OPTION");
    expect(error.message).toContain("give model, one of a, b");
  });

  test.each([
    ["no list", () => new Response("", { status: 404 })],
    ["an empty one", () => list()],
    ["no JSON", () => new Response("hello")],
    ["another kind of JSON", () => Response.json([null])],
  ])("goes without a name where the server has %s", async (_, answer) => {
    await using server = new TestServer(({ path }) => (path.endsWith("models") ? answer() : completion("a")));
    const engine = await openOn(server, { model: undefined });
    expect(engine.model).toBeUndefined();
    await outputsOf([textRow(0)], engine);
    expect("model" in server.asked.at(-1)!.body).toBe(false);
  });

  test("waits for a server that starts, and not for one that refuses", async () => {
    await using server = new TestServer((_, index) =>
      index < 2 ? new Response("loading", { status: 503 }) : list("late"),
    );
    expect((await openOn(server, { model: undefined })).model).toBe("late");
    await using refusing = new TestServer(() => new Response(`no ${KEY}`, { status: 401 }));
    const error = await openOn(refusing, { model: undefined, apiKey: KEY }).catch((thrown) => thrown);
    expect(codeOf(error)).toBe("SERVER_FAILED");
    expect(error.message).toContain("401: no …");
    expect(refusing.asked).toHaveLength(1);
    const signal = AbortSignal.timeout(30);
    await using silent = new TestServer(silence);
    const stopped = openHttpEngine({ url: silent.url }, signal).catch((thrown) => thrown);
    expect(codeOf(await stopped)).toBe("CANCELLED");
  });

  test.each([
    [{ url: "127.0.0.1:8000" }, "url is no http"],
    [{ url: "ftp://a/v1" }, "url is no http"],
    [{ url: `http://me:${KEY}@a/v1` }, "name or password"],
    [{ url: "http://a/v1/chat/completions" }, "give the part before it"],
    [{ slots: 0 }, "slots is 0"],
    [{ timeoutMs: 0 }, "timeoutMs is 0"],
    [{ retries: -1 }, "retries is -1"],
    [{ backoffMs: 0.5 }, "backoffMs is 0.5"],
    [{ mode: "talk" as "chat" }, "mode is talk"],
    [{ system: "Be kind." }, "system is for mode chat"],
    [{ model: "" }, "model is empty"],
    [{ apiKey: "" }, "apiKey is empty"],
    [{ apiKey: `${KEY}\nX-Other: 1` }, "what no header may"],
    [{ headers: { "a b": "c" } }, "what no header may"],
  ])("refuses %j", async (options, said) => {
    const error = await openHttpEngine({ url: "http://a", model: "m", ...options }).catch((thrown) => thrown);
    expect(codeOf(error)).toBe("BAD_OPTION");
    expect(error.message).toContain(said);
    expect(error.message).not.toContain(KEY);
  });

  test("understands when to come back", () => {
    const at = (headers: Record<string, string>) => retryAfterMs(new Headers(headers), Date.UTC(2026, 0, 1));
    expect(at({})).toBeUndefined();
    expect(at({ "retry-after": "3" })).toBe(3000);
    expect(at({ "retry-after": "0.5" })).toBe(500);
    expect(at({ "retry-after-ms": "20", "retry-after": "3" })).toBe(20);
    expect(at({ "retry-after": "Thu, 01 Jan 2026 00:00:09 GMT" })).toBe(9000);
    expect(at({ "retry-after": "Wed, 31 Dec 2025 00:00:00 GMT" })).toBe(0);
    expect(at({ "retry-after": "soon" })).toBeUndefined();
    expect(at({ "retry-after": "-1" })).toBeUndefined();
  });
});
