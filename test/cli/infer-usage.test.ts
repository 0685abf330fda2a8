/** What `infer` says of mistakes: in flags, with one message a bound, and by exit codes. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { asFlags } from "../../src/cli/flags.ts";
import { DATASETS, headrace, scratch, shellCommand, spawn } from "./process.ts";

setDefaultTimeout(120_000);

const folder = scratch();
const PROSE = join(DATASETS, "prose");
const MODEL = join(DATASETS, "tiny-llama");
let numbers = 0;
const fresh = () => join(folder, `out-${numbers++}`);
const base = (out: string) => ["infer", PROSE, "--model", MODEL, "--out", out, "--limit", "1"];

const MOST = "9007199254740991";
test.each([
  [["--temperature", "1e-30"], "--temperature is 1e-30; it must be 0, which is greedy, or a number from"],
  [["--top-p", "0"], "--top-p is 0; it must be a number above 0, and at most 1"],
  [["--top-p", "2"], "--top-p is 2; it must be a number above 0, and at most 1"],
  [["--repetition-penalty", "0"], "--repetition-penalty is 0; it must be a number from 0.000001 to 1000000"],
  [["--repetition-penalty", "1e9"], "--repetition-penalty is 1000000000; it must be a number from 0.000001"],
  [["--seed", "-1"], `--seed is -1; it must be a whole number from 0 to ${MOST}`],
  [["--seed", "9007199254740993"], `it must be a whole number from 0 to ${MOST}`],
  [["--limit", "-1"], `--limit is -1; it must be a whole number from 0 to ${MOST}`],
  [["--max-new-tokens", "0"], "--max-new-tokens is 0; it must be a whole number from 1 to 2147483647"],
  [["--context", "1"], "--context is 1; it must be a whole number from 2 to 512"],
  [["--context", "513"], "--context is 513; it must be a whole number from 2 to 512"],
  [["--kv-memory", "1000"], "--kv-memory is 1000; it must be at least"],
  [["--url", "http://localhost"], "--url means nothing to engine llama"],
  [["--chat"], "--chat means nothing to engine llama"],
  [["--device", "null"], "--device null"],
  [["--column", "nothing"], "UNKNOWN_COLUMN"],
] as const)("%p ends with 2, and leaves nothing", async (args, text) => {
  const out = fresh();
  const { code, err } = await headrace(...base(out), "--device", "host", ...args);
  expect([code, err]).toEqual([2, expect.stringContaining(text)]);
  expect([err.trimEnd().split("\n").length, existsSync(out)]).toEqual([1, false]);
});

test("an empty --out ends with 2", async () => {
  const { code, err } = await headrace(...base(""));
  expect([code, err]).toEqual([2, 'headrace: --out is ""; it must be the path of a folder [BAD_OPTION]\n']);
});

test("messages have flags, and other words stay", () => {
  const typed = (message: string) => asFlags(message, "infer");
  expect(typed("fast: host has no library of matrix products here; install it, or leave fast out")).toBe(
    "--fast: host has no library of matrix products here; install it, or leave --fast out",
  );
  expect(typed("apiMode is chat, which takes text, and column limit holds token ids")).toBe(
    "--chat takes text, and column limit holds token ids",
  );
  expect(typed("out: column is a there, stop is [] there and limit is 1 there")).toBe(
    "out: --column is a there, --stop is [] there and --limit is 1 there",
  );
  expect(typed("/data/out is full; the order is wrong")).toBe("/data/out is full; the order is wrong");
});

describe("--json that nobody can have", () => {
  test.skipIf(!existsSync("/dev/full"))("for want of room ends with 1", async () => {
    const command = shellCommand(...base(fresh()), "--device", "host", "--max-new-tokens", "2", "--json");
    const { code, err } = await spawn(["sh", "-c", `${command} >/dev/full`]).ended;
    expect([code, err]).toEqual([1, expect.stringMatching(/^headrace: stdout: .*\[IO_ERROR\]\n$/)]);
  });

  test("for want of a reader ends with 1", async () => {
    const command = shellCommand(...base(fresh()), "--device", "host", "--max-new-tokens", "2", "--json");
    const { err } = await spawn(["sh", "-c", `(${command}; echo $? >&2) | true`]).ended;
    expect(err).toMatch(/^headrace: stdout: .*\[IO_ERROR\]\n1\n$/);
  });
});
