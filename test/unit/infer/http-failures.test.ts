/** Inference servers that refuse, break off, or are not there. */
import { describe, expect, test } from "bun:test";
import { openHttpEngine } from "../../../src/index.ts";
import { failure, KEY, one, openOn, textRow } from "./http-jobs.ts";
import { codeOf, failureOfJob, outputsOf, sourceOf } from "./rows.ts";
import { completion, silence, TestServer } from "./server.ts";

describe("a server that says no", () => {
  test.each([500, 502, 503, 504, 429, 408])("%d is asked again, and not for ever", async (status) => {
    const { output, asked } = await one((_, index) =>
      index < 2 ? new Response("busy", { status }) : completion("a"),
    );
    expect(output).toMatchObject({ finish: "stop", attempts: 1 });
    expect(asked).toHaveLength(3);
    const never = await one(() => new Response("busy", { status }));
    expect(never.output).toMatchObject({
      finish: "error",
      error: `the server answered ${status}: busy (after 3 tries)`,
      attempts: 3,
    });
    expect(never.asked).toHaveLength(3);
  });

  test("is left alone for longer each time", async () => {
    const { asked } = await one(() => new Response("", { status: 500 }), {}, { backoffMs: 40, retries: 3 });
    const gaps = asked.slice(1).map(({ atMs }, i) => atMs - asked[i]!.atMs);
    for (const [i, gap] of gaps.entries()) {
      expect(gap).toBeGreaterThanOrEqual(0.5 * 40 * 2 ** i - 2);
      expect(gap).toBeLessThan(40 * 2 ** i + 150);
    }
  });

  test("is left alone by all for as long as it wants", async () => {
    let limited = false;
    const again: number[] = [];
    await using server = new TestServer(async ({ atMs }) => {
      if (!limited) {
        limited = true;
        return new Response("slow down", { status: 429, headers: { "retry-after-ms": "200" } });
      }
      again.push(atMs);
      await Bun.sleep(5);
      return completion("a");
    });
    const engine = await openOn(server, { slots: 2 });
    const outputs = await outputsOf([textRow(0), textRow(1), textRow(2), textRow(3)], engine);
    expect(outputs.every(({ finish }) => finish === "stop")).toBe(true);
    const firstMs = server.asked[0]!.atMs;
    // One more was on its way when it said so.
    expect(again.filter((atMs) => atMs - firstMs < 195).length).toBeLessThanOrEqual(1);
    expect(again).toHaveLength(4);
  });

  test.each([400, 413, 422])("%d is the row's error, at once", async (status) => {
    const body = { error: { message: "prompt is too long" } };
    const { output, asked } = await one(() => Response.json(body, { status }));
    expect(output.error).toBe(`the server answered ${status}: prompt is too long`);
    expect(asked).toHaveLength(1);
  });

  test.each([
    [401, { detail: "who are you" }, "401: who are you"],
    [403, { message: "not you" }, "403: not you"],
    [404, { error: "no such model" }, "404: no such model"],
    [405, {}, "405: {}"],
  ])("%d to everyone ends the job", async (status, body, said) => {
    const { code, message, asked } = await failure(() => Response.json(body, { status }));
    expect(code).toBe("SERVER_FAILED");
    expect(message).toContain(said);
    expect(message).toContain("/v1: ");
    expect(asked).toHaveLength(1);
  });

  test("403 to one row of many is that row's error", async () => {
    await using server = new TestServer(({ body }) =>
      body.prompt === "prompt 3" ? new Response("no", { status: 403 }) : completion("a"),
    );
    const engine = await openOn(server, { slots: 1 });
    const outputs = await outputsOf(
      [0, 1, 2, 3, 4].map((row) => textRow(row)),
      engine,
    );
    expect(outputs.map(({ finish }) => finish)).toEqual(["stop", "stop", "stop", "error", "stop"]);
  });

  test("a redirect is not followed, and the key stays here", async () => {
    await using other = new TestServer(() => completion("stolen"));
    const { code, message } = await failure(
      () => new Response("", { status: 307, headers: { location: `${other.url}/?k=${KEY}` } }),
      { apiKey: KEY },
    );
    expect(code).toBe("SERVER_FAILED");
    expect(message).toContain(`leads to ${other.url}`);
    expect(message).not.toContain(KEY);
    expect(other.asked).toHaveLength(0);
  });

  test("what it says is short, one line, and without the key", async () => {
    const said = `${"x ".repeat(140)}\n\n${KEY} is wrong`;
    const { output } = await one(() => new Response(said, { status: 400 }), {}, { apiKey: KEY });
    expect(output.error!.length).toBeLessThan(310);
    expect(output.error).not.toContain("\n");
    expect(output.error).not.toContain("sk-");
    const { message } = await failure(() => new Response(`bad key ${KEY}`, { status: 401 }), { apiKey: KEY });
    expect(message).toContain("bad key …");
  });
});

describe("a server that is not there", () => {
  /** An address at which nobody listens. */
  async function deadUrl(): Promise<string> {
    const server = new TestServer(silence);
    const { url } = server;
    await server[Symbol.asyncDispose]();
    return url;
  }

  test("ends the job, behind all tries", async () => {
    const engine = await openHttpEngine({ url: await deadUrl(), model: "m", retries: 2, backoffMs: 1 });
    const { error, outputs } = await failureOfJob(sourceOf([textRow(0), textRow(1)]), engine);
    expect(codeOf(error)).toBe("SERVER_FAILED");
    expect((error as Error).message).toMatch(/^http:.*\/v1 cannot be reached: .+ \(after 3 tries\)$/);
    expect(outputs).toEqual([]);
  });

  test("keeps the outputs from before it went", async () => {
    const server = new TestServer(({ body }) => {
      if (body.prompt === "prompt 2") setTimeout(() => server[Symbol.asyncDispose](), 1);
      return body.prompt === "prompt 2" ? silence() : completion("a");
    });
    const engine = await openOn(server, { slots: 1 });
    const { error, outputs } = await failureOfJob(sourceOf([0, 1, 2, 3].map((row) => textRow(row))), engine);
    expect(codeOf(error)).toBe("SERVER_FAILED");
    expect(outputs.map(({ row }) => row)).toEqual([0, 1]);
  });

  test("is waited for while it starts", async () => {
    const url = await deadUrl();
    const engine = await openHttpEngine({ url, model: "m", retries: 20, backoffMs: 20 });
    const outputs = outputsOf([textRow(0)], engine);
    await Bun.sleep(60);
    const { port, hostname } = new URL(url);
    const server = Bun.serve({ port: Number(port), hostname, fetch: () => completion("a") });
    expect((await outputs)[0]!.finish).toBe("stop");
    await server.stop(true);
  });

  test("that never answers is the rows' error", async () => {
    const { output, asked } = await one(silence, {}, { timeoutMs: 40, retries: 1 });
    expect(output.error).toBe("no answer within 40 ms (after 2 tries)");
    expect(asked).toHaveLength(2);
  });
});

describe("ends", () => {
  test("a row's time limit and signal end its request", async () => {
    await using server = new TestServer(silence);
    const engine = await openOn(server);
    const stop = new AbortController();
    setTimeout(() => stop.abort(), 40);
    const rows = [textRow(0, { timeoutMs: 50 }), textRow(1, { signal: stop.signal })];
    const outputs = await outputsOf(rows, engine);
    expect(outputs.map(({ row, error }) => [row, error])).toEqual([
      [1, "cancelled by its signal"],
      [0, "timed out after 50 ms, with 0 tokens made"],
    ]);
    while (server.dropped < 2) await Bun.sleep(1);
  });

  test("close ends what is under way", async () => {
    await using server = new TestServer(silence);
    const engine = await openOn(server);
    const row = textRow(0);
    const chunk = { slot: 0, position: 0, tokens: row.prompt, last: true, generated: 0, request: row };
    expect(await engine.prefill([chunk])).toEqual([]);
    expect(await engine.decode([0])).toEqual([]);
    await engine.close();
    while (server.dropped < 1) await Bun.sleep(1);
    const error = await engine.prefill([chunk]).catch((thrown) => thrown);
    expect(codeOf(error)).toBe("CLOSED");
  });
});
