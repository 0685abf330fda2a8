/** The command over a server that answers, refuses, hangs, and is not there. */
import { afterAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { readOutputs } from "../infer/read-outputs.ts";
import { proseRows } from "./expected.ts";
import { DATASETS, MAIN, ROOT, scratch, spawn, start, waitFor } from "./process.ts";

setDefaultTimeout(120_000);

const folder = scratch();
const PROSE = join(DATASETS, "prose");
const texts = proseRows().map(({ text }) => text);
let numbers = 0;
const fresh = () => join(folder, `out-${numbers++}`);

interface Asked {
  readonly model: string;
  readonly prompt?: string | number[];
  readonly messages?: readonly { readonly content: string }[];
  readonly max_tokens: number;
}

const servers: Bun.Server<undefined>[] = [];
afterAll(() => Promise.all(servers.map((server) => server.stop(true))));

/** A server that answers with the prompt backwards, where `before` has no other answer. */
function serve(
  before: (asked: Asked, headers: Headers) => Response | Promise<Response> | undefined = () => undefined,
) {
  let most = 0;
  let now = 0;
  const server = Bun.serve({
    port: 0,
    async fetch(request) {
      most = Math.max(most, ++now);
      try {
        const asked = (await request.json()) as Asked;
        const other = await before(asked, request.headers);
        if (other !== undefined) return other;
        await Bun.sleep(2);
        const prompt = asked.messages?.at(-1)?.content ?? asked.prompt ?? "";
        const text = [...prompt].reverse().slice(0, asked.max_tokens).join("");
        const said =
          asked.messages === undefined ? { text } : { message: { role: "assistant", content: text } };
        return Response.json({
          choices: [{ index: 0, finish_reason: "length", ...said }],
          usage: { prompt_tokens: prompt.length, completion_tokens: text.length },
        });
      } finally {
        now--;
      }
    },
  });
  servers.push(server as Bun.Server<undefined>);
  return { url: `http://127.0.0.1:${server.port}/v1`, most: () => most };
}

function args(url: string, out: string, ...more: string[]): string[] {
  const job = [
    "infer",
    PROSE,
    "--engine",
    "http",
    "--url",
    url,
    "--api-model",
    "m",
    "--device",
    "host",
    "--out",
    out,
  ];
  return [...job, "--column", "text", "--max-new-tokens", "5", ...more];
}

const answer = (row: number) => [...texts[row]!].reverse().slice(0, 5).join("");

/** What the attempt files of a job hold that is not done. */
function attemptText(out: string): string {
  const work = join(out, ".headrace");
  if (!existsSync(work)) return "";
  const attempts = readdirSync(work).filter((name) => name.endsWith(".attempt"));
  return attempts.map((name) => readFileSync(join(work, name), "utf8")).join("");
}

describe("infer --engine http", () => {
  test("asks a server, no more requests at a time than it should, with the key of the environment", async () => {
    const keys = new Set<string | null>();
    const { url, most } = serve((_, headers) => void keys.add(headers.get("authorization")));
    const out = fresh();
    const command = [process.execPath, MAIN, ...args(url, out, "--limit", "60", "--slots", "7", "--json")];
    const { code, out: printed, err } = await spawn(command, ROOT, { HEADRACE_API_KEY: "secret-key" }).ended;
    expect({ code, err }).toEqual({ code: 0, err: "" });
    expect(printed).not.toContain("secret-key");
    expect(JSON.parse(printed)).toMatchObject({ rows: 60, outputTokens: 300, failedRows: 0, engine: "http" });
    expect([...keys]).toEqual(["Bearer secret-key"]);
    expect(most()).toBeGreaterThan(3);
    expect(most()).toBeLessThanOrEqual(7);
    expect(readOutputs(out).map(({ row, text, finish }) => [row, text, finish])).toEqual(
      Array.from({ length: 60 }, (_, row) => [row, answer(row), "length"]),
    );
  });

  test("says which host answered, and nothing of steps", async () => {
    const { url } = serve();
    const job = ["--limit", "3"];
    const { code, out } = await spawn([process.execPath, MAIN, ...args(url, fresh(), ...job)], ROOT).ended;
    expect(code).toBe(0);
    expect(out).toMatch(new RegExp(`^engine +http on ${new URL(url).host}$`, "m"));
    expect(out).toMatch(/^answer after +\d/m);
    expect(out).not.toContain("a step takes");
  });

  test("asks again after 429 and 503, and fails the row that the server refuses", async () => {
    const seen = new Map<unknown, number>();
    const { url } = serve(({ prompt }) => {
      const times = seen.get(prompt) ?? 0;
      seen.set(prompt, times + 1);
      if (prompt === texts[2]) return Response.json({ error: { message: "too rude" } }, { status: 400 });
      if (times > 0) return undefined;
      if (prompt === texts[4])
        return new Response("slow down", { status: 429, headers: { "retry-after": "0" } });
      return prompt === texts[5] ? new Response("", { status: 503 }) : undefined;
    });
    const out = fresh();
    const { code, out: printed, err } = await start(args(url, out, "--limit", "8", "--json")).ended;
    expect([code, JSON.parse(printed)]).toEqual([0, expect.objectContaining({ rows: 8, failedRows: 1 })]);
    expect(err).toContain("1 of 8 rows failed");
    const rows = readOutputs(out);
    expect(rows[2]).toMatchObject({ finish: "error", error: expect.stringContaining("too rude") });
    expect(rows.filter(({ row }) => row !== 2).map(({ row, text }) => [row, text])).toEqual(
      [0, 1, 3, 4, 5, 6, 7].map((row) => [row, answer(row)]),
    );
  });

  test("fails rows whose answer does not come in time", async () => {
    const { url } = serve(({ prompt }) =>
      prompt === texts[1] ? Bun.sleep(5000).then(() => new Response("")) : undefined,
    );
    const out = fresh();
    const { code } = await start(args(url, out, "--limit", "3", "--timeout", "300", "--retries", "0")).ended;
    expect(code).toBe(0);
    expect(readOutputs(out).map(({ finish }) => finish)).toEqual(["length", "error", "length"]);
  });

  test("sends messages where it should, and refuses to send tokens as such", async () => {
    const { url } = serve();
    const out = fresh();
    expect((await start(args(url, out, "--limit", "3", "--chat")).ended).code).toBe(0);
    expect(readOutputs(out).map(({ text }) => text)).toEqual([0, 1, 2].map(answer));
    const { code, err } = await start(args(url, fresh(), "--chat", "--column", "tokens")).ended;
    expect([code, err]).toEqual([2, expect.stringContaining("chat")]);
  });

  test("ends with 1 where there is no server, and goes on when there is", async () => {
    const out = fresh();
    const first = await start(args("http://127.0.0.1:9", out, "--limit", "3", "--retries", "0")).ended;
    expect([first.code, first.err]).toEqual([1, expect.stringContaining("SERVER_FAILED")]);
    const { url } = serve();
    // The model has a name, and may move.
    const { code, out: printed } = await start(args(url, out, "--limit", "3", "--retries", "0", "--json"))
      .ended;
    expect([code, JSON.parse(printed).rows]).toEqual([0, 3]);
    expect(readOutputs(out).map(({ text }) => text)).toEqual([0, 1, 2].map(answer));
  });

  test("a second Ctrl-C does not wait for what runs, and the next run goes on", async () => {
    let answered = 0;
    const slow = serve(({ prompt }) => {
      if (texts.indexOf(prompt as string) >= 6) return Bun.sleep(60_000).then(() => new Response(""));
      answered++;
      return undefined;
    });
    const out = fresh();
    const { child, ended } = start(args(slow.url, out, "--limit", "12", "--slots", "4"));
    await waitFor("answers", () => answered === 6);
    // What is answered is not yet written, and only that is kept.
    const answers = [0, 1, 2, 3, 4, 5].map(answer);
    expect(new Set(answers).size).toBe(6);
    await waitFor("six rows in the attempt", () => {
      const written = attemptText(out);
      return answers.every((text) => written.includes(text));
    });
    const sent = performance.now();
    child.kill("SIGINT");
    await Bun.sleep(700);
    expect(child.exitCode).toBeNull();
    // One that comes too soon behind the first is taken for it, and a process that has to wait for its turn may see the
    // first one late: so it is sent until it is heard.
    const again = setInterval(() => child.kill("SIGINT"), 600);
    child.kill("SIGINT");
    const { code, err } = await ended.finally(() => clearInterval(again));
    expect([code, err]).toEqual([130, expect.stringContaining("once more ends at once")]);
    // The answers that it did not wait for would have taken a minute.
    expect(performance.now() - sent).toBeLessThan(30_000);
    const { url } = serve();
    const rest = await start(args(url, out, "--limit", "12", "--json")).ended;
    expect([rest.code, JSON.parse(rest.out)]).toEqual([
      0,
      expect.objectContaining({ resumedRows: 6, rows: 6 }),
    ]);
    expect(readOutputs(out).map(({ text }) => text)).toEqual(
      Array.from({ length: 12 }, (_, row) => answer(row)),
    );
  });
});
